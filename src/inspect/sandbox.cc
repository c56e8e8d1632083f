#include "inspect/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <vector>

#include "base/try.h"

namespace platter::inspect {
namespace {

std::unexpected<Error> refused(std::string_view what) {
  return std::unexpected(
      Error::from_errno(errno, "Could not set up the sandbox: " + std::string(what)));
}

// ---- Descriptors and limits

// All but the two. close_range() is there since Linux 5.9.
Result<void> close_others(int a, int b) {
  const auto low = static_cast<unsigned>(std::min(a, b));
  const auto high = static_cast<unsigned>(std::max(a, b));
  const auto close_from = [](unsigned first, unsigned last) {
    return first > last || syscall(SYS_close_range, first, last, 0u) == 0;
  };
  const bool closed = (low == 0 || close_from(0, low - 1)) &&
                      (high == 0 || close_from(low + 1, high - 1)) && close_from(high + 1, ~0u);
  if (!closed) return refused("close_range");
  return {};
}

Result<void> limit(int resource, rlim_t most, std::string_view name) {
  rlimit current = {};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &current) != 0) return refused(name);
  const rlimit wanted = {std::min(most, current.rlim_max), std::min(most, current.rlim_max)};
  if (setrlimit(static_cast<__rlimit_resource>(resource), &wanted) != 0) return refused(name);
  return {};
}

Result<void> set_limits(const SandboxLimits& limits) {
  PLATTER_TRY(limit(RLIMIT_CPU, limits.max_cpu_seconds, "RLIMIT_CPU"));
  PLATTER_TRY(limit(RLIMIT_FSIZE, 0, "RLIMIT_FSIZE"));
  PLATTER_TRY(limit(RLIMIT_CORE, 0, "RLIMIT_CORE"));
  PLATTER_TRY(limit(RLIMIT_NPROC, 0, "RLIMIT_NPROC"));
  // A sanitizer maps terabytes of shadow, and makes pipes to find out what memory may be read.
  if (kSanitized) return {};
  if (limits.mapped_bytes != 0) {
    PLATTER_TRY(limit(RLIMIT_AS, limits.mapped_bytes + limits.max_memory_bytes, "RLIMIT_AS"));
  }
  PLATTER_TRY(limit(RLIMIT_DATA, limits.max_memory_bytes, "RLIMIT_DATA"));
  return limit(RLIMIT_NOFILE, 0, "RLIMIT_NOFILE");
}

// ---- Landlock. The kernel's interface, declared here: the headers of older systems lack it.

struct LandlockRuleset {
  uint64_t handled_access_fs;
  uint64_t handled_access_net;
};
constexpr long kLandlockCreateRuleset = 444;
constexpr long kLandlockRestrictSelf = 446;
constexpr uint32_t kLandlockVersion = 1;
constexpr uint64_t kAllFileAccess[] = {0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff};  // by ABI, from 1
constexpr uint64_t kAllNetAccess = 0x3;
constexpr long kFirstNetAbi = 4;

Result<void> restrict_files() {
  const long abi = syscall(kLandlockCreateRuleset, nullptr, size_t{0}, kLandlockVersion);
  if (abi <= 0) return {};  // not in this kernel; seccomp forbids the same
  const size_t newest = std::size(kAllFileAccess);
  LandlockRuleset ruleset = {kAllFileAccess[std::min(static_cast<size_t>(abi), newest) - 1],
                             abi >= kFirstNetAbi ? kAllNetAccess : 0};
  // Older kernels know the first member alone.
  const size_t size = abi >= kFirstNetAbi ? sizeof ruleset : sizeof ruleset.handled_access_fs;
  const long descriptor = syscall(kLandlockCreateRuleset, &ruleset, size, 0u);
  if (descriptor < 0) return refused("Landlock");
  const bool restricted = syscall(kLandlockRestrictSelf, static_cast<int>(descriptor), 0u) == 0;
  const int failure = errno;
  close(static_cast<int>(descriptor));
  errno = failure;
  if (!restricted) return refused("Landlock");
  return {};
}

// ---- seccomp

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#elif defined(__riscv) && __riscv_xlen == 64
constexpr uint32_t kArchitecture = AUDIT_ARCH_RISCV64;
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_PPC64LE;
#elif defined(__s390x__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_S390X;
#else
#error "inspect/sandbox.cc: name this architecture"
#endif

// Without arguments to look at: memory, ending, and what abort() needs to end in (tgkill, of this
// process alone, is added below).
constexpr uint32_t kAllowed[] = {
    SYS_brk,   SYS_munmap,         SYS_mremap,        SYS_madvise, SYS_exit_group,
    SYS_exit,  SYS_rt_sigprocmask, SYS_rt_sigreturn,  SYS_getpid,  SYS_gettid,
    SYS_futex, SYS_getrandom,      SYS_clock_gettime,
};
// What a sanitizer's runtime calls besides, and only its builds may.
constexpr uint32_t kAllowedToSanitizers[] = {
    SYS_sigaltstack,
    SYS_sched_yield,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_pipe2,
    SYS_close,
    SYS_write,
    SYS_rt_sigaction,
    SYS_prctl,
    SYS_sched_getaffinity,
    SYS_process_vm_readv,
};

constexpr uint32_t argument_offset(unsigned index) {
  constexpr bool kLittle = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
  return static_cast<uint32_t>(offsetof(seccomp_data, args)) + index * 8 + (kLittle ? 0 : 4);
}

class Filter {
 public:
  Filter(int read_descriptor, int write_descriptor) {
    load(offsetof(seccomp_data, arch));
    kill_unless_equal(kArchitecture);
    load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
    // Numbers of the x32 interface are the same calls again.
    constexpr uint32_t kX32Bit = 0x40000000;
    add(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 1);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
#endif
    for (const uint32_t number : kAllowed) allow(number);
    if (kSanitized) {
      for (const uint32_t number : kAllowedToSanitizers) allow(number);
    }
    allow_if_argument(SYS_pread64, 0, static_cast<uint32_t>(read_descriptor));
    allow_if_argument(SYS_write, 0, static_cast<uint32_t>(write_descriptor));
    allow_if_argument(SYS_tgkill, 0, static_cast<uint32_t>(getpid()));
    allow_unless_bits(SYS_mmap, 2, kExecutable);
    allow_unless_bits(SYS_mprotect, 2, kExecutable);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  }

  Result<void> install() {
    const sock_fprog program = {static_cast<unsigned short>(code_.size()), code_.data()};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return refused("seccomp");
    return {};
  }

 private:
  static constexpr uint32_t kExecutable = 4;  // PROT_EXEC

  void add(unsigned code, uint32_t value, uint8_t if_true = 0, uint8_t if_false = 0) {
    code_.push_back({static_cast<uint16_t>(code), if_true, if_false, value});
  }
  void load(size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
  void kill_unless_equal(uint32_t value) {
    add(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  }
  void allow(uint32_t number) {
    add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  // The low half of the argument decides: descriptors and protection bits are ints.
  void allow_if_argument(uint32_t number, unsigned index, uint32_t value) {
    add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
    load(argument_offset(index));
    add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  }
  void allow_unless_bits(uint32_t number, unsigned index, uint32_t bits) {
    add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
    load(argument_offset(index));
    add(BPF_JMP | BPF_JSET | BPF_K, bits, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  }

  std::vector<sock_filter> code_;
};

}  // namespace

Result<void> enter_sandbox(int read_descriptor, int write_descriptor, const SandboxLimits& limits) {
  PLATTER_TRY(close_others(read_descriptor, write_descriptor));
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return refused("no_new_privs");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return refused("PR_SET_DUMPABLE");
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return refused("PR_SET_PDEATHSIG");
  Filter filter(read_descriptor, write_descriptor);
  PLATTER_TRY(restrict_files());
  PLATTER_TRY(set_limits(limits));
  return filter.install();
}

}  // namespace platter::inspect
