// Sandbox: a process gives up everything but memory, reading one descriptor and writing another.
//
// What stands between a hole in a parser and the machine:
//   - resource limits: no new descriptors, files or processes, little memory and processor time;
//   - no new privileges; not dumpable; killed when its parent dies;
//   - Landlock, where the kernel has it: no file may be opened, no socket bound or connected;
//   - seccomp: pread64 of `read_descriptor` and write to `write_descriptor`, memory, exit; anything
//     else kills the process.
#pragma once

#include <cstdint>

#include "platter/error.h"

namespace platter::inspect {

// Builds with a sanitizer need some more calls, and more memory than can be limited.
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

struct SandboxLimits {
  uint64_t max_memory_bytes = uint64_t{40} << 20;  // private memory
  uint64_t mapped_bytes = 0;  // what the process has mapped already; 0: unknown
  unsigned max_cpu_seconds = 1;
};

// Of the calling process, which has one thread. It cannot be undone. Every other descriptor is
// closed, so errors can only go to write_descriptor. Where the kernel refuses any part but Landlock
// this is an error, and nothing untrusted may be looked at.
Result<void> enter_sandbox(int read_descriptor, int write_descriptor, const SandboxLimits& limits);

}  // namespace platter::inspect
