// What a randomised run needs from outside: a scratch directory of its own, and other programs to
// ask.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "platter/error.h"

namespace platter::workload {

// A directory that is removed, with all in it, when the object goes.
class ScratchDirectory {
 public:
  // In memory where /dev/shm is writable, in the system's place for temporary files elsewhere.
  ScratchDirectory();
  ~ScratchDirectory();
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

struct ProgramResult {
  int exit_code;       // 128 + N where signal N ended it
  std::string output;  // stdout and stderr
};

// Runs arguments[0], found by PATH, and waits for it.
ProgramResult run_program(const std::vector<std::string>& arguments);
bool have_program(const std::string& name);

Result<void> write_file(const std::string& path, std::span<const uint8_t> bytes);

}  // namespace platter::workload
