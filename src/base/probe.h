// Probes: places where a tracer (bpftrace, perf, SystemTap) may look into the running program;
// docs/probes.md has each with its arguments. Where nobody looks one is a no-op instruction, and
// its arguments, integers and pointers, are in registers or memory as they happen to be.
#pragma once

#if __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define PLATTER_PROBE(name, ...) STAP_PROBEV(platter, name, __VA_ARGS__)
#else
namespace platter::base {
template <typename... Arguments>
constexpr void ignore_probe(const Arguments&...) {}
}  // namespace platter::base
#define PLATTER_PROBE(name, ...) ::platter::base::ignore_probe(__VA_ARGS__)
#endif
