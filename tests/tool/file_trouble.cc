// Makes trouble for the program that it is preloaded into, at a chosen one of its calls that read
// or change files: a signal, or an error in the call's place. What is to happen is said in the
// environment:
//
//   TROUBLE_CALLS   which calls count, by letter: r(ead) w(rite) s(ync) t(runcate) a(llocate or
//                   deallocate) u(nlink) c(opy from file to file)
//   TROUBLE_AT      the number of the call, from 1; 0: of none
//   TROUBLE_SIGNAL  sent to the process just before that call; or
//   TROUBLE_ERROR   that call fails with this number
//   TROUBLE_LASTS   set: so does every later call that counts
//   TROUBLE_COUNT   a file of 8 bytes: how many calls counted, kept as the program goes on
//
// The program's own reads and writes go through system calls of the engine `threads`.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <dlfcn.h>

namespace {

// A signal is handled on another thread: this long it has before the call goes on.
constexpr timespec kTimeForHandler = {.tv_sec = 0, .tv_nsec = 30'000'000};

long number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::strtol(text, nullptr, 10);
}

class Trouble {
 public:
  Trouble() {
    if (const char* path = std::getenv("TROUBLE_COUNT")) {
      const int file = open(path, O_RDWR | O_CLOEXEC);
      void* shared = mmap(nullptr, sizeof count_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
      if (shared == MAP_FAILED) std::abort();
      close(file);
      count_ = static_cast<std::atomic<long>*>(shared);
    }
  }

  // Whether the call fails; errno says how.
  bool meet(char call) {
    if (calls_ == nullptr || std::strchr(calls_, call) == nullptr) return false;
    const long now = count_->fetch_add(1) + 1;
    if (at_ == 0 || now < at_ || (now > at_ && !lasts_)) return false;
    if (error_ != 0) {
      errno = static_cast<int>(error_);
      return true;
    }
    if (signal_ != 0 && now == at_) {
      kill(getpid(), static_cast<int>(signal_));
      nanosleep(&kTimeForHandler, nullptr);
    }
    return false;
  }

 private:
  const char* const calls_ = std::getenv("TROUBLE_CALLS");
  const long at_ = number("TROUBLE_AT");
  const long signal_ = number("TROUBLE_SIGNAL");
  const long error_ = number("TROUBLE_ERROR");
  const bool lasts_ = std::getenv("TROUBLE_LASTS") != nullptr;
  std::atomic<long> own_count_ = 0;
  std::atomic<long>* count_ = &own_count_;
};

// Made when the library is loaded: what the program may do later is not known.
Trouble the_trouble;

// The function that would have been called.
template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// Both of a function's names where it has two: programs call it by the one or the other.
#define TROUBLED(letter, result, name, parameters, ...)                      \
  static auto* const real_##name = next<result parameters>(#name);           \
  extern "C" result name parameters {                                        \
    return the_trouble.meet(letter) ? result(-1) : real_##name(__VA_ARGS__); \
  }

TROUBLED('r', ssize_t, pread, (int fd, void* to, size_t size, off_t at), fd, to, size, at)
TROUBLED('r', ssize_t, pread64, (int fd, void* to, size_t size, off64_t at), fd, to, size, at)
TROUBLED('r', ssize_t, preadv, (int fd, const iovec* to, int count, off_t at), fd, to, count, at)
TROUBLED('r', ssize_t, preadv64, (int fd, const iovec* to, int count, off64_t at), fd, to, count,
         at)
TROUBLED('w', ssize_t, pwritev2, (int fd, const iovec* from, int count, off_t at, int flags), fd,
         from, count, at, flags)
TROUBLED('w', ssize_t, pwritev64v2, (int fd, const iovec* from, int count, off64_t at, int flags),
         fd, from, count, at, flags)
TROUBLED('s', int, fdatasync, (int fd), fd)
TROUBLED('t', int, ftruncate, (int fd, off_t size), fd, size)
TROUBLED('t', int, ftruncate64, (int fd, off64_t size), fd, size)
TROUBLED('a', int, fallocate, (int fd, int mode, off_t at, off_t size), fd, mode, at, size)
TROUBLED('a', int, fallocate64, (int fd, int mode, off64_t at, off64_t size), fd, mode, at, size)
TROUBLED('u', int, unlink, (const char* path), path)
TROUBLED('c', ssize_t, copy_file_range,
         (int from, off64_t* from_at, int to, off64_t* to_at, size_t size, unsigned flags), from,
         from_at, to, to_at, size, flags)
