#include "tool/pid_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/absolute_path.h"
#include "base/try.h"

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

struct flock whole_file() {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

Error taken(int file, const std::string& path) {
  struct flock lock = whole_file();
  if (fcntl(file, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
    return Error::from_errno(EAGAIN, "Could not lock '" + path + "'");
  return {EAGAIN,
          "Could not lock '" + path + "': process " + std::to_string(lock.l_pid) + " has it"};
}

// What was left behind, or made for us, holds a number or nothing.
Result<void> check_content(int file, const std::string& path) {
  std::array<char, 32> text;
  const ssize_t got = pread(file, text.data(), text.size(), 0);
  if (got < 0) return failed("read", path);
  const auto fits = [](char c) { return (c >= '0' && c <= '9') || c == '\n' || c == ' '; };
  if (static_cast<size_t>(got) == text.size() ||
      !std::all_of(text.begin(), text.begin() + got, fits))
    return fail(EEXIST, "'" + path + "' is there, and is no PID file");
  return {};
}

}  // namespace

Result<std::unique_ptr<PidFile>> PidFile::create(std::string path) {
  PLATTER_ASSIGN(path, base::absolute_path(path));
  io::Descriptor file;
  do {
    file.reset(open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    if (!file) return failed("create", path);
    struct flock lock = whole_file();
    if (fcntl(file.get(), F_SETLK, &lock) != 0) {
      if (errno != EAGAIN && errno != EACCES) return failed("lock", path);
      return std::unexpected(taken(file.get(), path));
    }
  } while (!has_name(file.get(), path));
  PLATTER_TRY(check_content(file.get(), path));
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
