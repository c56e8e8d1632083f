// Asks the processor for a line of memory that will be used soon. Any address will do: one that is
// not mapped is not fetched, and nothing else happens.
#pragma once

namespace platter::base {

inline void prefetch_to_read(const void* at) { __builtin_prefetch(at); }

// Takes the line from the processor that has it, so that the store need not wait for that.
inline void prefetch_to_write(const void* at) {
#ifdef __x86_64__
  // The compiler gives a plain prefetch to processors that need not know this one; to those it does
  // nothing.
  __asm__ volatile("prefetchw %0" : : "m"(*static_cast<const char*>(at)));
#else
  __builtin_prefetch(at, 1);
#endif
}

}  // namespace platter::base
