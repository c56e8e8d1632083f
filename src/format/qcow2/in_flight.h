// InFlightAllocations: guest clusters whose new host clusters are being filled and are not linked
// yet. Whoever wants to change the mapping of one of them waits for that allocation, and for no
// other.
//
// Under the image's allocation mutex, all of it.
#pragma once

#include <cstdint>

#include "base/assert.h"
#include "io/event.h"

namespace platter::format::qcow2 {

class InFlightAllocations {
 public:
  // In the frame of the task that waits.
  struct Waiting {
    io::Event ended;
    Waiting* next = nullptr;
  };

  // In the frame of the task that allocates: guest clusters [first, end).
  struct Allocation {
    uint64_t first = 0;
    uint64_t end = 0;
    Allocation* next = nullptr;
    Waiting* waiting = nullptr;
  };

  InFlightAllocations() = default;
  ~InFlightAllocations() { PLATTER_ASSERT(head_ == nullptr); }
  InFlightAllocations(const InFlightAllocations&) = delete;
  InFlightAllocations& operator=(const InFlightAllocations&) = delete;

  void add(Allocation& allocation) {
    allocation.next = head_;
    head_ = &allocation;
  }

  // Wakes those who wait; they look again once they have the mutex.
  void remove(Allocation& allocation) {
    Allocation** link = &head_;
    while (*link != &allocation) link = &(*link)->next;
    *link = allocation.next;
    for (Waiting* waiting = allocation.waiting; waiting != nullptr;) {
      Waiting* next = waiting->next;
      waiting->ended.set();
      waiting = next;
    }
    allocation.waiting = nullptr;
  }

  // One with the lowest first cluster among those that overlap [first, end), or null.
  Allocation* find(uint64_t first, uint64_t end) const {
    Allocation* found = nullptr;
    for (Allocation* at = head_; at != nullptr; at = at->next) {
      if (at->first < end && first < at->end && (found == nullptr || at->first < found->first))
        found = at;
    }
    return found;
  }

  // The caller lets go of the mutex and then awaits waiting.ended.
  static void wait_for(Allocation& allocation, Waiting& waiting) {
    waiting.next = allocation.waiting;
    allocation.waiting = &waiting;
  }

 private:
  Allocation* head_ = nullptr;
};

}  // namespace platter::format::qcow2
