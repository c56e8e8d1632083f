#include "io/reactor.h"

#include <algorithm>

namespace platter::io {

constinit thread_local Reactor* Reactor::current_ = nullptr;

namespace detail {

constinit thread_local int transfers_left = kMaxTransfers;

std::coroutine_handle<> defer_transfer(std::coroutine_handle<> next) noexcept {
  transfers_left = kMaxTransfers;
  Reactor* reactor = Reactor::current();
  if (reactor == nullptr) return next;
  reactor->resume_later(next);
  return std::noop_coroutine();
}

}  // namespace detail

namespace {

constexpr size_t kFirstReadySlots = 256;
constexpr Nanoseconds kShortestLook = std::chrono::microseconds(4);

struct TimerDeadline {
  static bool before(const Timer& a, const Timer& b) {
    return a.deadline != b.deadline ? a.deadline < b.deadline : a.sequence < b.sequence;
  }
};

}  // namespace

ReadyQueue::ReadyQueue()
    : ring_(std::make_unique<std::coroutine_handle<>[]>(kFirstReadySlots)),
      mask_(kFirstReadySlots - 1) {}

void ReadyQueue::grow() {
  size_t count = size();
  auto larger = std::make_unique<std::coroutine_handle<>[]>((mask_ + 1) * 2);
  for (size_t i = 0; i < count; ++i) larger[i] = ring_[(head_ + i) & mask_];
  ring_ = std::move(larger);
  mask_ = mask_ * 2 + 1;
  head_ = 0;
  tail_ = count;
}

Reactor::Reactor(unsigned index, std::unique_ptr<Engine> engine, Services services)
    : index_(index),
      engine_(std::move(engine)),
      services_(std::move(services)),
      random_(services_.random_seed ^ (uint64_t{index} << 32)) {
  PLATTER_ASSERT(index < kMaxReactors);
}

Reactor::~Reactor() {
  PLATTER_ASSERT(ready_.empty() && timers_.empty() && pollers_.empty());
  PLATTER_ASSERT(posted_.load(std::memory_order_relaxed) == nullptr);
}

void Reactor::post(Waiter& waiter) noexcept {
  if (current_ == this) {
    resume_later(waiter.handle);
    return;
  }
  Waiter* first = posted_.load(std::memory_order_relaxed);
  do {
    waiter.next = first;
  } while (!posted_.compare_exchange_weak(first, &waiter, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
  // From here on the waiter may be gone. Whoever found the list empty is the one to wake: the
  // loop sets sleeping_ before it looks at the list a last time, both in one total order.
  if (first == nullptr && sleeping_.load(std::memory_order_seq_cst) &&
      sleeping_.exchange(false, std::memory_order_seq_cst)) {
    engine_->wake();
  }
}

size_t Reactor::collect_ready() {
  if (posted_.load(std::memory_order_relaxed) != nullptr) {
    Waiter* newest = posted_.exchange(nullptr, std::memory_order_acquire);
    Waiter* oldest = nullptr;
    while (newest != nullptr) {
      Waiter* next = newest->next;
      newest->next = oldest;
      oldest = newest;
      newest = next;
    }
    while (oldest != nullptr) {
      Waiter* next = oldest->next;
      ready_.push(oldest->handle);
      oldest = next;
    }
  }
  return ready_.size();
}

void Reactor::resume(std::coroutine_handle<> handle) {
  detail::transfers_left = kMaxTransfers;
  recent_ = {};
  handle.resume();
}

void Reactor::resume_at(size_t position) { resume(ready_.pop_at(position)); }

void Reactor::run_ready() {
  for (unsigned left = kMaxBatch; left != 0 && !ready_.empty(); --left) resume(ready_.pop());
}

// ---- Time and chance

Nanoseconds Reactor::now() {
  recent_ = services_.now ? services_.now() : std::chrono::steady_clock::now().time_since_epoch();
  return recent_;
}

void Reactor::place_timer(size_t position, Timer* timer) {
  timers_[position] = timer;
  timer->position = position;
}

// Moves the timer at `position` up or down to where the heap wants it.
void Reactor::sift_timer(size_t position) {
  Timer* timer = timers_[position];
  while (position != 0) {
    size_t parent = (position - 1) / 2;
    if (!TimerDeadline::before(*timer, *timers_[parent])) break;
    place_timer(position, timers_[parent]);
    position = parent;
  }
  for (;;) {
    size_t child = position * 2 + 1;
    if (child >= timers_.size()) break;
    if (child + 1 < timers_.size() && TimerDeadline::before(*timers_[child + 1], *timers_[child]))
      ++child;
    if (!TimerDeadline::before(*timers_[child], *timer)) break;
    place_timer(position, timers_[child]);
    position = child;
  }
  place_timer(position, timer);
}

void Reactor::add_timer(Timer& timer) {
  timer.sequence = ++timer_sequence_;
  timers_.push_back(&timer);
  timer.position = timers_.size() - 1;
  sift_timer(timer.position);
}

bool Reactor::remove_timer(Timer& timer) {
  size_t position = timer.position;
  if (position >= timers_.size() || timers_[position] != &timer) return false;
  Timer* last = timers_.back();
  timers_.pop_back();
  if (last != &timer) {
    place_timer(position, last);
    sift_timer(position);
  }
  return true;
}

void Reactor::expire_timers() {
  if (timers_.empty()) return;
  Nanoseconds time = now();
  while (!timers_.empty() && timers_[0]->deadline <= time) {
    Timer* timer = timers_[0];
    remove_timer(*timer);
    ready_.push(timer->handle);
  }
}

Task<void> Reactor::sleep_until(Nanoseconds deadline) {
  Timer timer{.deadline = deadline, .handle = {}};
  co_await detail::TimerAwaiter{*this, timer};
}

Task<void> Reactor::sleep_for(Nanoseconds duration) {
  Nanoseconds start = now();
  return sleep_until(duration > kNever - start ? kNever : start + duration);
}

// ---- Looking instead of sleeping

void Reactor::remove_poller(Poller& poller) { std::erase(pollers_, &poller); }

void Reactor::set_polling(Nanoseconds longest) {
  longest_look_ = longest;
  look_ = std::min(look_, longest);
}

bool Reactor::look_at_pollers() {
  bool found = false;
  for (Poller* poller : pollers_) found |= poller->look();
  return found;
}

void Reactor::settle_pollers() {
  for (Poller* poller : pollers_) poller->settle();
}

// True: there is something to do.
bool Reactor::look_for_a_while() {
  if (look_ == Nanoseconds::zero() || pollers_.empty()) return false;
  // One who is busy finds something before the clock is asked.
  if (look_at_pollers()) return true;
  const Nanoseconds end = std::min(now() + look_, next_deadline());
  do {
    engine_->turn(false, {});
    if (collect_ready() != 0 || stopping_.load(std::memory_order_relaxed)) return true;
    if (look_at_pollers()) return true;
  } while (now() < end);
  return false;
}

// True: all of them rest.
bool Reactor::rest_pollers() {
  std::erase_if(pollers_, [](Poller* poller) { return poller->rest(); });
  return pollers_.empty();
}

// What comes shortly after falling asleep would have been seen by looking a little longer; what
// comes long after was not worth the look.
void Reactor::learn_from_sleep(Nanoseconds slept) {
  if (slept >= longest_look_) {
    look_ = {};
  } else if (slept > look_) {
    look_ = std::min(std::max(look_ * 2, kShortestLook), longest_look_);
  }
}

// ---- The loop

void Reactor::wait_for_work(bool may_block) {
  if (!may_block) {
    engine_->turn(false, {});
    return;
  }
  if (!pollers_.empty()) {
    if (look_for_a_while()) return;
    if (!rest_pollers()) {
      engine_->turn(false, {});
      return;
    }
  }
  const bool learns = longest_look_ != Nanoseconds::zero();
  const Nanoseconds start = learns ? now() : Nanoseconds();
  sleeping_.store(true, std::memory_order_seq_cst);
  bool blocks = posted_.load(std::memory_order_seq_cst) == nullptr &&
                !stopping_.load(std::memory_order_seq_cst);
  engine_->turn(blocks, next_deadline());
  sleeping_.store(false, std::memory_order_relaxed);
  if (learns && blocks) learn_from_sleep(now() - start);
}

void Reactor::run() {
  PLATTER_ASSERT(current_ == nullptr);
  Running running(this);
  engine_->attach();
  for (;;) {
    recent_ = {};
    collect_ready();
    expire_timers();
    look_at_pollers();
    run_ready();
    settle_pollers();
    bool idle = ready_.empty();
    if (idle && stopping_.load(std::memory_order_relaxed) && collect_ready() == 0) break;
    wait_for_work(idle);
  }
  stopping_.store(false, std::memory_order_relaxed);
  engine_->detach();
}

void Reactor::stop() {
  stopping_.store(true, std::memory_order_seq_cst);
  if (sleeping_.exchange(false, std::memory_order_seq_cst)) engine_->wake();
}

}  // namespace platter::io
