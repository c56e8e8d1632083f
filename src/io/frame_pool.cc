#include "io/frame_pool.h"

#include <cstdint>
#include <new>

namespace platter::io {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kPooled = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kPooled = false;
#else
constexpr bool kPooled = true;
#endif
#else
constexpr bool kPooled = true;
#endif

constexpr size_t kClassBytes = 64;
constexpr size_t kClasses = 64;
constexpr uint32_t kMaxCached = 1024;                // frames a class
constexpr size_t kMaxCachedBytes = size_t{1} << 20;  // and bytes a class

struct FreeFrame {
  FreeFrame* next;
};
struct FreeList {
  FreeFrame* head = nullptr;
  uint32_t count = 0;
};
struct Pool {
  FreeList lists[kClasses];
  bool closed = false;  // the thread is ending: frames go straight to the heap
};
constinit thread_local Pool pool;

// Gives the thread's frames back when it ends. Apart from Pool so that the fast path needs no
// initialisation check.
struct PoolCleaner {
  ~PoolCleaner() {
    pool.closed = true;
    for (FreeList& list : pool.lists) {
      while (FreeFrame* frame = list.head) {
        list.head = frame->next;
        ::operator delete(frame);
      }
      list.count = 0;
    }
  }
  void touch() {}
};
thread_local PoolCleaner cleaner;

constexpr size_t class_of(size_t size) { return (size - 1) / kClassBytes; }
constexpr size_t class_bytes(size_t index) { return (index + 1) * kClassBytes; }

}  // namespace

void* allocate_frame(size_t size) {
  if constexpr (!kPooled) return ::operator new(size);
  size_t index = class_of(size);
  if (index >= kClasses) [[unlikely]]
    return ::operator new(size);
  FreeList& list = pool.lists[index];
  if (FreeFrame* frame = list.head) [[likely]] {
    list.head = frame->next;
    --list.count;
    return frame;
  }
  return ::operator new(class_bytes(index));
}

void free_frame(void* frame, size_t size) noexcept {
  size_t index = class_of(size);
  if (!kPooled || index >= kClasses) {
    ::operator delete(frame);
    return;
  }
  FreeList& list = pool.lists[index];
  if (list.count == 0) {
    if (pool.closed) {
      ::operator delete(frame);
      return;
    }
    cleaner.touch();
  }
  if (list.count >= kMaxCached || list.count * class_bytes(index) >= kMaxCachedBytes) {
    ::operator delete(frame);
    return;
  }
  list.head = new (frame) FreeFrame{list.head};
  ++list.count;
}

}  // namespace platter::io
