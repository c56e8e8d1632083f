// A file that says which process runs, locked while it does.
#pragma once

#include <memory>
#include <string>

#include "io/descriptor.h"
#include "platter/error.h"

namespace platter::tool {

class PidFile {
 public:
  // EAGAIN: another process holds it. EEXIST: the file has other content, and keeps it.
  static Result<std::unique_ptr<PidFile>> create(std::string path);
  ~PidFile();  // removes it
  PidFile(const PidFile&) = delete;
  PidFile& operator=(const PidFile&) = delete;

 private:
  PidFile(std::string path, io::Descriptor file) : path_(std::move(path)), file_(std::move(file)) {}
  const std::string path_;
  io::Descriptor file_;
};

}  // namespace platter::tool
