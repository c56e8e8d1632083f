// Memory for coroutine frames: per-thread free lists by size class, so that a request in the steady
// state does not touch the heap. A frame may be freed on another thread than the one that
// allocated it; it then joins that thread's list. Lists are bounded (kMaxCached per class).
// Sanitizer builds pass through to the heap, so that misuse of a dead frame is seen.
#pragma once

#include <cstddef>

namespace platter::io {

void* allocate_frame(size_t size);
void free_frame(void* frame, size_t size) noexcept;

}  // namespace platter::io
