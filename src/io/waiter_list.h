// A first-in first-out list of waiters; guarded by whatever guards its owner.
#pragma once

#include "io/reactor.h"

namespace platter::io {

class WaiterList {
 public:
  bool empty() const { return first_ == nullptr; }
  Waiter* front() const { return first_; }

  void push_back(Waiter& waiter) {
    waiter.next = nullptr;
    waiter.previous = last_;
    (last_ != nullptr ? last_->next : first_) = &waiter;
    last_ = &waiter;
  }
  // All of `others`, in their order, before all that are here.
  void put_before(WaiterList others) {
    if (others.empty()) return;
    others.last_->next = first_;
    (first_ != nullptr ? first_->previous : last_) = others.last_;
    first_ = others.first_;
  }
  void remove(Waiter& waiter) {
    (waiter.previous != nullptr ? waiter.previous->next : first_) = waiter.next;
    (waiter.next != nullptr ? waiter.next->previous : last_) = waiter.previous;
    waiter.next = waiter.previous = nullptr;
  }
  Waiter* pop_front() {
    Waiter* waiter = first_;
    if (waiter != nullptr) remove(*waiter);
    return waiter;
  }
  // Posts all; the list is empty after. Its owner may be gone when this returns: call it on a
  // local list that was moved out of the owner.
  void wake_all() {
    while (Waiter* waiter = pop_front()) wake(*waiter);
  }

 private:
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
};

}  // namespace platter::io
