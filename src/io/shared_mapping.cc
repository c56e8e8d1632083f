#include "io/shared_mapping.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <mutex>

#include "base/math.h"

namespace platter::io {

// Read by the signal's handler, at any instant: `end` is written last when a place is taken and
// first when it is given back.
struct SharedMapping::Place {
  std::atomic<bool> taken{false};
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};  // 0: nothing here
  std::atomic<bool> lost{false};
};

SharedMapping::Place* SharedMapping::places() {
  static Place all[kMaxMappings];
  return all;
}

// What the signal did before.
struct SignalGuard {
  static inline struct sigaction before;

  static void handle(int signal, siginfo_t* information, void* context) {
    const int saved = errno;
    const auto address = reinterpret_cast<uintptr_t>(information->si_addr);
    SharedMapping::Place* const places = SharedMapping::places();
    for (size_t i = 0; i < SharedMapping::kMaxMappings; ++i) {
      SharedMapping::Place& place = places[i];
      const uintptr_t end = place.end.load(std::memory_order_acquire);
      const uintptr_t begin = place.begin.load(std::memory_order_acquire);
      if (address < begin || address >= end) continue;
      place.lost.store(true, std::memory_order_relaxed);
      void* got = mmap(reinterpret_cast<void*>(begin), end - begin, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
      errno = saved;
      if (got != MAP_FAILED) return;
    }
    pass_on(signal, information, context);
    errno = saved;
  }

  static void pass_on(int signal, siginfo_t* information, void* context) {
    if ((before.sa_flags & SA_SIGINFO) != 0) {
      before.sa_sigaction(signal, information, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
      before.sa_handler(signal);
    } else {
      // The instruction runs again, into the signal's own effect.
      sigaction(signal, &before, nullptr);
    }
  }

  static void install() {
    struct sigaction action{};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
  }
};

SharedMapping::Place* SharedMapping::take_place() {
  static std::once_flag installed;
  std::call_once(installed, SignalGuard::install);
  Place* const all = places();
  for (size_t i = 0; i < kMaxMappings; ++i) {
    bool free = false;
    if (all[i].taken.compare_exchange_strong(free, true)) return &all[i];
  }
  return nullptr;
}

Result<std::shared_ptr<SharedMapping>> SharedMapping::map(int descriptor, uint64_t offset,
                                                          uint64_t bytes) {
  // Of huge pages, where the file is made of them: a mapping ends with one.
  struct stat status;
  if (fstat(descriptor, &status) != 0) return std::unexpected(Error::from_errno(errno));
  const auto page = static_cast<uint64_t>(std::max<long>(sysconf(_SC_PAGESIZE), status.st_blksize));
  const auto end = base::checked_add(offset, bytes);
  if (bytes == 0 || !end || *end > uint64_t{INT64_MAX} - page || !base::is_power_of_two(page)) {
    return std::unexpected(
        Error(EINVAL, fmt::format("{:#x} bytes at {:#x} cannot be mapped", bytes, offset)));
  }
  Place* place = take_place();
  if (place == nullptr)
    return std::unexpected(Error(ENOSPC, "Too many pieces of memory are shared"));
  const uint64_t from = offset / page * page;
  const uint64_t mapped = (*end - from + page - 1) / page * page;
  void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor,
                    static_cast<off_t>(from));
  if (base == MAP_FAILED) {
    Error error = Error::from_errno(errno, "Could not map shared memory");
    place->taken.store(false, std::memory_order_release);
    return std::unexpected(std::move(error));
  }
  place->lost.store(false, std::memory_order_relaxed);
  place->begin.store(reinterpret_cast<uintptr_t>(base), std::memory_order_release);
  place->end.store(reinterpret_cast<uintptr_t>(base) + mapped, std::memory_order_release);
  return std::shared_ptr<SharedMapping>(
      new SharedMapping(*place, base, mapped, offset - from, bytes));
}

SharedMapping::~SharedMapping() {
  place_.end.store(0, std::memory_order_release);
  munmap(base_, mapped_);
  place_.taken.store(false, std::memory_order_release);
}

bool SharedMapping::was_lost() const { return place_.lost.load(std::memory_order_relaxed); }

}  // namespace platter::io
