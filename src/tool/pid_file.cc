#include "tool/pid_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/try.h"

namespace platter::tool {
namespace {

std::unexpected<Error> failed(const char* verb, const std::string& path) {
  return std::unexpected(
      Error::from_errno(errno, std::string("Could not ") + verb + " '" + path + "'"));
}

// Whether `file` still is what has the name: whoever held it before may have removed it meanwhile.
bool has_name(int file, const std::string& path) {
  struct stat open, named;
  return fstat(file, &open) == 0 && stat(path.c_str(), &named) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

}  // namespace

Result<std::unique_ptr<PidFile>> PidFile::create(std::string path) {
  if (path.empty() || path.front() != '/') {
    // A daemon leaves the directory that it was started in.
    std::unique_ptr<char, decltype(&free)> here(getcwd(nullptr, 0), &free);
    if (here == nullptr) return failed("find", path);
    path = std::string(here.get()) + "/" + path;
  }
  io::Descriptor file;
  do {
    file.reset(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    if (!file) return failed("create", path);
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(file.get(), F_SETLK, &lock) != 0) return failed("lock", path);
  } while (!has_name(file.get(), path));
  const std::string text = std::to_string(getpid()) + "\n";
  if (ftruncate(file.get(), 0) != 0 ||
      write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    auto error = failed("write", path);
    unlink(path.c_str());
    return error;
  }
  return std::unique_ptr<PidFile>(new PidFile(std::move(path), std::move(file)));
}

PidFile::~PidFile() { unlink(path_.c_str()); }

}  // namespace platter::tool
