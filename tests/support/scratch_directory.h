// ScratchDirectory: a directory of a test's own, removed with all in it when the object goes.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/assert.h"

namespace platter::support {

class ScratchDirectory {
 public:
  explicit ScratchDirectory(
      const std::filesystem::path& parent = std::filesystem::temp_directory_path())
      : directory_(parent / "platter-test-XXXXXX") {
    PLATTER_ASSERT(mkdtemp(directory_.data()) != nullptr);
  }
  ~ScratchDirectory() {
    if (keep_) {
      std::fprintf(stderr, "files kept in %s\n", directory_.c_str());
      return;
    }
    std::error_code ignored;  // a scratch directory that cannot be removed fails no test
    std::filesystem::remove_all(directory_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::string& directory() const { return directory_; }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  // Leaves everything in place for a person to look at.
  void keep() { keep_ = true; }

 private:
  std::string directory_;
  bool keep_ = false;
};

}  // namespace platter::support
