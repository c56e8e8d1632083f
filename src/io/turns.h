// Turns: tasks that prepare in any order and go on in the order in which they came.
//
//   Turns::Turn turn(turns);      // takes its place in the line
//   co_await prepare();
//   co_await turn.begin();        // resumes when everybody before it has ended
//   ...
//   turn.end();                   // or its destructor
//
// A turn may end before it began: those behind it do not wait for it. Turns live in the frames of
// their tasks, and may be on different reactors.
#pragma once

#include <mutex>

#include "base/assert.h"
#include "io/event.h"

namespace platter::io {

class Turns {
 public:
  class Turn {
   public:
    explicit Turn(Turns& turns) : turns_(&turns) {
      std::lock_guard lock(turns.mutex_);
      previous_ = turns.last_;
      (previous_ != nullptr ? previous_->next_ : turns.first_) = this;
      turns.last_ = this;
      if (previous_ == nullptr) begins_.set();
    }
    ~Turn() { end(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    // co_await turn.begin().
    auto begin() { return begins_.wait(); }

    void end() {
      if (turns_ == nullptr) return;
      std::lock_guard lock(turns_->mutex_);
      (previous_ != nullptr ? previous_->next_ : turns_->first_) = next_;
      (next_ != nullptr ? next_->previous_ : turns_->last_) = previous_;
      // Under the mutex: the next one cannot end, and go, before this has let go of it.
      if (previous_ == nullptr && next_ != nullptr) next_->begins_.set();
      turns_ = nullptr;
    }

   private:
    Turns* turns_;
    Turn* previous_ = nullptr;
    Turn* next_ = nullptr;
    Event begins_;
  };

  Turns() = default;
  ~Turns() { PLATTER_ASSERT(first_ == nullptr); }
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

 private:
  std::mutex mutex_;
  Turn* first_ = nullptr;
  Turn* last_ = nullptr;
};

}  // namespace platter::io
