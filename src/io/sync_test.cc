#include "io/sync.h"

#include <gtest/gtest.h>

#include <string>

#include "io/reactor_group.h"

namespace platter::io {
namespace {

using std::chrono::milliseconds;

class SyncTest : public testing::TestWithParam<EngineKind> {
 protected:
  static constexpr unsigned kReactors = 3;
  SyncTest() {
    auto started = ReactorGroup::start({.reactors = kReactors, .engine = GetParam()});
    EXPECT_TRUE(started.has_value());
    group_ = std::move(*started);
  }
  Reactor& at(unsigned index) { return group_->at(index % kReactors); }

  // Runs the tasks at once, spread over the reactors, and waits for all.
  void run_everywhere(std::vector<Task<void>> tasks) {
    Gate gate;
    for (size_t i = 0; i < tasks.size(); ++i)
      gate.spawn(at(static_cast<unsigned>(i)), std::move(tasks[i]));
    run_blocking(at(0), gate.close());
  }

  std::unique_ptr<ReactorGroup> group_;
};

struct Counter {
  AsyncMutex mutex;
  AsyncSharedMutex shared_mutex;
  uint64_t value = 0;  // guarded by one of them
  bool inside = false;
};

Task<void> count_up(Counter& counter, int times) {
  Reactor* home = Reactor::current();
  for (int i = 0; i < times; ++i) {
    auto lock = co_await counter.mutex.lock();
    EXPECT_EQ(Reactor::current(), home);
    EXPECT_FALSE(std::exchange(counter.inside, true));
    if (i % 3 == 0) co_await home->yield();
    ++counter.value;
    counter.inside = false;
  }
}

TEST_P(SyncTest, MutexAdmitsOneTaskOfAllReactors) {
  Counter counter;
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 12; ++i) tasks.push_back(count_up(counter, 500));
  run_everywhere(std::move(tasks));
  EXPECT_EQ(counter.value, 12u * 500);
  EXPECT_FALSE(counter.mutex.is_locked());
}

Task<void> take_turn(AsyncMutex& mutex, std::string& order, char mark) {
  auto lock = co_await mutex.lock();
  order += mark;
}

Task<void> queue_behind(AsyncMutex& mutex, std::string& order) {
  auto lock = co_await mutex.lock();
  Gate gate;
  for (char mark = 'a'; mark <= 'h'; ++mark)
    gate.spawn(*Reactor::current(), take_turn(mutex, order, mark));
  co_await Reactor::current()->yield();
  lock.unlock();
  EXPECT_FALSE(mutex.try_lock());  // handed over already
  co_await gate.close();
}

TEST_P(SyncTest, MutexServesFirstComeFirst) {
  AsyncMutex mutex;
  std::string order;
  run_blocking(at(1), queue_behind(mutex, order));
  EXPECT_EQ(order, "abcdefgh");
}

Task<void> nothing() { co_return; }

Task<void> queue_behind_another_reactor(AsyncMutex& mutex, Reactor& other, std::string& order) {
  auto lock = co_await mutex.lock();
  Gate gate;
  gate.spawn(other, take_turn(mutex, order, 'o'));
  co_await run_on(other, nothing());  // by then the other one waits
  for (unsigned i = 0; i < AsyncMutex::kMaxOvertaking + 8; ++i)
    gate.spawn(*Reactor::current(), take_turn(mutex, order, 'h'));
  co_await Reactor::current()->yield();
  lock.unlock();
  co_await gate.close();
}

TEST_P(SyncTest, MutexStaysOnItsReactorForAWhile) {
  AsyncMutex mutex;
  std::string order;
  run_blocking(at(1), queue_behind_another_reactor(mutex, at(0), order));
  EXPECT_EQ(order, std::string(AsyncMutex::kMaxOvertaking, 'h') + "o" + std::string(8, 'h'));
}

Task<void> take_turn_and_pass(AsyncMutex& mutex, std::string& order, char mark) {
  auto lock = co_await mutex.lock();
  order += mark;
  co_await lock.pass();
  EXPECT_FALSE(lock);
  order += static_cast<char>(mark - 'a' + 'A');
}

Task<void> pass_to_all(AsyncMutex& mutex, std::string& order) {
  auto lock = co_await mutex.lock();
  Gate gate;
  for (const char mark : {'a', 'b', 'c'})
    gate.spawn(*Reactor::current(), take_turn_and_pass(mutex, order, mark));
  co_await Reactor::current()->yield();
  co_await lock.pass();
  order += 'x';
  co_await gate.close();
}

TEST_P(SyncTest, MutexPassesAllItsWaitersBeforeWhoPassedItGoesOn) {
  AsyncMutex mutex;
  std::string order;
  run_blocking(at(0), pass_to_all(mutex, order));
  EXPECT_EQ(order, "abcCxAB");
  EXPECT_FALSE(mutex.is_locked());
}

Task<void> pass_in_turns(Counter& counter, int times) {
  for (int i = 0; i < times; ++i) {
    auto lock = co_await counter.mutex.lock();
    EXPECT_FALSE(std::exchange(counter.inside, true));
    if (i % 3 == 0) co_await Reactor::current()->yield();
    ++counter.value;
    counter.inside = false;
    co_await lock.pass();
  }
}

TEST_P(SyncTest, MutexPassedAroundAdmitsOneTaskOfAllReactors) {
  Counter counter;
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 12; ++i) tasks.push_back(pass_in_turns(counter, 500));
  run_everywhere(std::move(tasks));
  EXPECT_EQ(counter.value, 12u * 500);
  EXPECT_FALSE(counter.mutex.is_locked());
}

Task<void> write_shared(Counter& counter, int times) {
  for (int i = 0; i < times; ++i) {
    auto lock = co_await counter.shared_mutex.lock();
    EXPECT_FALSE(std::exchange(counter.inside, true));
    ++counter.value;
    if (i % 5 == 0) co_await Reactor::current()->yield();
    ++counter.value;
    counter.inside = false;
  }
}
Task<void> read_shared(Counter& counter, int times) {
  for (int i = 0; i < times; ++i) {
    auto lock = co_await counter.shared_mutex.lock_shared();
    EXPECT_FALSE(counter.inside);
    uint64_t seen = counter.value;
    EXPECT_EQ(seen % 2, 0u);
    if (i % 7 == 0) co_await Reactor::current()->yield();
    EXPECT_EQ(counter.value, seen);
  }
}

TEST_P(SyncTest, SharedMutexKeepsReadersFromWriters) {
  Counter counter;
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 4; ++i) tasks.push_back(write_shared(counter, 300));
  for (int i = 0; i < 9; ++i) tasks.push_back(read_shared(counter, 500));
  run_everywhere(std::move(tasks));
  EXPECT_EQ(counter.value, 2u * 4 * 300);
  EXPECT_TRUE(counter.shared_mutex.try_lock());
}

Task<void> hold_shared(AsyncSharedMutex& mutex, std::string& order, char mark) {
  auto lock = co_await mutex.lock_shared();
  order += mark;
  co_await Reactor::current()->yield();
}
Task<void> hold_exclusive(AsyncSharedMutex& mutex, std::string& order, char mark) {
  auto lock = co_await mutex.lock();
  order += mark;
}
Task<void> writer_between_readers(AsyncSharedMutex& mutex, std::string& order) {
  Gate gate;
  Reactor& here = *Reactor::current();
  auto first = co_await mutex.lock_shared();
  gate.spawn(here, hold_exclusive(mutex, order, 'W'));
  gate.spawn(here, hold_shared(mutex, order, 'r'));
  gate.spawn(here, hold_shared(mutex, order, 's'));
  co_await here.yield();
  EXPECT_FALSE(mutex.try_lock_shared());
  order += '.';
  first.unlock();
  co_await gate.close();
}

TEST_P(SyncTest, AWaitingWriterHoldsBackNewReaders) {
  AsyncSharedMutex mutex;
  std::string order;
  run_blocking(at(0), writer_between_readers(mutex, order));
  EXPECT_EQ(order, ".Wrs");
}

struct Slots {
  AsyncSemaphore semaphore{10};
  std::atomic<int> used{0};
  std::atomic<int> most{0};
};

Task<void> use_slots(Slots& slots, int count, int times) {
  for (int i = 0; i < times; ++i) {
    auto units = co_await slots.semaphore.acquire(static_cast<uint64_t>(count));
    int used = slots.used += count;
    int most = slots.most;
    while (used > most && !slots.most.compare_exchange_weak(most, used)) {
    }
    if (i % 4 == 0) co_await Reactor::current()->yield();
    slots.used -= count;
  }
}

TEST_P(SyncTest, SemaphoreNeverGivesMoreThanItHas) {
  Slots slots;
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 9; ++i) tasks.push_back(use_slots(slots, 1 + i % 7, 300));
  run_everywhere(std::move(tasks));
  EXPECT_LE(slots.most, 10);
  EXPECT_EQ(slots.semaphore.available(), 10u);
}

Task<void> wait_for(Event& event, std::atomic<int>& woken) {
  Reactor* home = Reactor::current();
  co_await event;
  EXPECT_EQ(Reactor::current(), home);
  ++woken;
}
Task<void> set_event(Event& event) {
  co_await Reactor::current()->sleep_for(milliseconds(1));
  event.set();
}

TEST_P(SyncTest, EventWakesAllOnTheirOwnReactors) {
  Event event;
  std::atomic<int> woken{0};
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 30; ++i) tasks.push_back(wait_for(event, woken));
  tasks.push_back(set_event(event));
  run_everywhere(std::move(tasks));
  EXPECT_EQ(woken, 30);
}

// The event lives in the frame that it wakes: set() must not touch it after.
Task<void> set_now(Event* event) {
  event->set();
  co_return;
}
Task<void> wait_in_own_frame(Reactor& other) {
  Gate gate;
  for (int i = 0; i < 300; ++i) {
    auto event = std::make_unique<Event>();
    gate.spawn(other, set_now(event.get()));
    co_await event->wait();
    event.reset();
  }
  co_await gate.close();
}

TEST_P(SyncTest, AnEventMayDieAsSoonAsItHasWokenItsWaiter) {
  run_blocking(at(0), wait_in_own_frame(at(1)));
}

Task<void> ping(Event& mine, Event& theirs, int rounds, std::atomic<int>& turn, int parity) {
  for (int i = 0; i < rounds; ++i) {
    co_await mine;
    mine.reset();
    EXPECT_EQ(turn++ % 2, parity);
    theirs.set();
  }
}

TEST_P(SyncTest, WakeUpsBetweenReactorsAreNeverLost) {
  Event a, b;
  std::atomic<int> turn{0};
  a.set();
  std::vector<Task<void>> tasks;
  tasks.push_back(ping(a, b, 5000, turn, 0));
  tasks.push_back(ping(b, a, 5000, turn, 1));
  run_everywhere(std::move(tasks));
  EXPECT_EQ(turn, 10'000);
}

Task<void> leave_later(Gate::Pass pass, std::atomic<int>& left) {
  co_await Reactor::current()->sleep_for(milliseconds(2));
  ++left;
  pass.leave();
}
Task<void> close_gate(Gate& gate, std::atomic<int>& left, int inside) {
  co_await gate.close();
  EXPECT_EQ(left, inside);
  EXPECT_FALSE(gate.try_enter());
  co_await gate.close();  // closed is closed
}

TEST_P(SyncTest, GateClosesWhenTheLastHasLeft) {
  Gate gate;
  std::atomic<int> left{0};
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 20; ++i) tasks.push_back(leave_later(gate.try_enter(), left));
  tasks.push_back(close_gate(gate, left, 20));
  tasks.push_back(close_gate(gate, left, 20));
  run_everywhere(std::move(tasks));
}

SelfOwned note_twice(std::vector<int>& order, Event& ended) {
  order.push_back(1);
  co_await Reactor::current()->yield();
  order.push_back(3);
  ended.set();
}
Task<void> start_and_go_on(std::vector<int>& order) {
  Event ended;
  note_twice(order, ended).start_here();
  order.push_back(2);
  co_await ended.wait();
}

TEST_P(SyncTest, WhatIsStartedHereRunsUntilItWaits) {
  std::vector<int> order;
  run_blocking(at(0), start_and_go_on(order));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

Task<int> value_after(int value, int yields) {
  for (int i = 0; i < yields; ++i) co_await Reactor::current()->yield();
  co_return value;
}
Task<int> await_many() {
  auto [a, b, c] = co_await when_all(value_after(1, 5), Task<int>::ready(20), value_after(300, 0));
  std::vector<Task<int>> tasks;
  for (int i = 0; i < 100; ++i) tasks.push_back(value_after(i, i % 4));
  std::vector<int> values = co_await when_all(std::move(tasks));
  int in_order = 0;
  for (int i = 0; i < 100; ++i) in_order += values[static_cast<size_t>(i)] == i;
  co_await when_all(std::vector<Task<void>>());
  co_return a + b + c + in_order;
}

TEST_P(SyncTest, WhenAllGivesEveryValueInItsPlace) {
  EXPECT_EQ(run_blocking(at(0), await_many()), 421);
}

Task<void> cancel_other(CancelSource& source) {
  co_await Reactor::current()->sleep_for(milliseconds(1));
  source.cancel();
}
Task<void> sleep_cancelled(CancelSource& source, std::atomic<int>& cancelled) {
  bool elapsed = co_await sleep_for(std::chrono::hours(1), source.token());
  EXPECT_FALSE(elapsed);
  EXPECT_EQ(source.token().check().error().code(), ECANCELED);
  ++cancelled;
}

TEST_P(SyncTest, CancellationEndsSleepsOnAllReactors) {
  CancelSource source;
  std::atomic<int> cancelled{0};
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 6; ++i) tasks.push_back(sleep_cancelled(source, cancelled));
  tasks.push_back(cancel_other(source));
  run_everywhere(std::move(tasks));
  EXPECT_EQ(cancelled, 6);
  EXPECT_FALSE(CancelToken().is_cancelled());
}

// The timer and the cancellation race; the sleep ends once, whoever wins.
Task<void> sleep_briefly(CancelSource& source, Nanoseconds duration) {
  co_await sleep_for(duration, source.token());
}

TEST_P(SyncTest, ASleepAndItsCancellationMayRace) {
  for (int i = 0; i < 100; ++i) {
    CancelSource source;
    std::vector<Task<void>> tasks;
    tasks.push_back(sleep_briefly(source, milliseconds(1)));
    tasks.push_back(sleep_briefly(source, milliseconds(1) + std::chrono::microseconds(i)));
    tasks.push_back(cancel_other(source));
    run_everywhere(std::move(tasks));
  }
}

Task<Result<int>> work_until_cancelled(CancelToken token) {
  while (token.check()) co_await Reactor::current()->yield();
  co_return std::unexpected(Error::from_errno(ECANCELED));
}
Task<Result<int>> work_quickly() {
  co_await Reactor::current()->yield();
  co_return 5;
}
Task<Result<int>> time_out_one(bool quick) {
  CancelSource source;
  if (quick) co_return co_await with_timeout(std::chrono::hours(1), work_quickly(), source);
  co_return co_await with_timeout(milliseconds(2), work_until_cancelled(source.token()), source);
}

TEST_P(SyncTest, ATimeoutCancelsTheTaskAndSaysSo) {
  EXPECT_EQ(*run_blocking(at(0), time_out_one(true)), 5);
  auto late = run_blocking(at(0), time_out_one(false));
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().code(), ETIMEDOUT);
}

INSTANTIATE_TEST_SUITE_P(Engines, SyncTest,
                         testing::Values(EngineKind::kUring, EngineKind::kThreads),
                         [](const auto& instance) {
                           return instance.param == EngineKind::kUring ? "uring" : "threads";
                         });

}  // namespace
}  // namespace platter::io
