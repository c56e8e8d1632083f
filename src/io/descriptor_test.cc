#include "io/descriptor.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <thread>

#include "io/reactor_group.h"
#include "io/sync.h"

namespace platter::io {
namespace {

class DescriptorTest : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    auto group = ReactorGroup::start({.reactors = 1, .engine = GetParam()});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
    std::array<int, 2> ends;
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    near_.reset(ends[0]);
    far_.reset(ends[1]);
  }
  template <typename T>
  T run(Task<T> task) {
    return run_blocking(reactors_->at(0), std::move(task));
  }

  std::unique_ptr<ReactorGroup> reactors_;
  Descriptor near_;
  Descriptor far_;
};

Task<Result<void>> wait_readable(DescriptorWait& wait) { co_return co_await wait.readable(); }
Task<Result<void>> wait_writable(DescriptorWait& wait) { co_return co_await wait.writable(); }

TEST_P(DescriptorTest, IsReadyOnceTheOtherSideHasWritten) {
  DescriptorWait wait(near_.get());
  std::thread writer([&] { EXPECT_EQ(write(far_.get(), "x", 1), 1); });
  EXPECT_TRUE(run(wait_readable(wait)));
  writer.join();
  char byte = 0;
  EXPECT_EQ(read(near_.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
}

TEST_P(DescriptorTest, IsReadyWhenTheOtherSideHasGone) {
  DescriptorWait wait(near_.get());
  far_.reset();
  EXPECT_TRUE(run(wait_readable(wait)));
  char byte = 0;
  EXPECT_EQ(read(near_.get(), &byte, 1), 0);
}

Task<bool> read_while_writable(DescriptorWait& reading, DescriptorWait& writing, int far) {
  auto write_then = [](DescriptorWait& wait, int other) -> Task<bool> {
    const bool writable = (co_await wait.writable()).has_value();
    co_return writable&& write(other, "x", 1) == 1;
  };
  auto [readable, wrote] = co_await when_all(wait_readable(reading), write_then(writing, far));
  co_return readable&& wrote;
}

TEST_P(DescriptorTest, IsWaitedForInBothDirectionsAtOnce) {
  DescriptorWait reading(near_.get());
  DescriptorWait writing(near_.get());
  EXPECT_TRUE(run(read_while_writable(reading, writing, far_.get())));
}

Task<int> cancel_while_waiting(DescriptorWait& wait) {
  auto cancel = [](DescriptorWait& other) -> Task<bool> {
    co_await Reactor::current()->yield();
    other.cancel();
    co_return true;
  };
  auto [ended, done] = co_await when_all(wait_readable(wait), cancel(wait));
  (void)done;
  co_return ended ? 0 : ended.error().code();
}

TEST_P(DescriptorTest, ACancelledWaitEndsAndStaysSo) {
  DescriptorWait wait(near_.get());
  EXPECT_EQ(run(cancel_while_waiting(wait)), ECANCELED);
  EXPECT_EQ(write(far_.get(), "x", 1), 1);
  auto again = run(wait_readable(wait));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), ECANCELED);
}

TEST_P(DescriptorTest, AClosedDescriptorIsAnError) {
  DescriptorWait wait(1 << 20);
  auto ended = run(wait_writable(wait));
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code(), EBADF);
}

// A counter in memory that another thread moves, and an event that tells of it.
class CounterPoller final : public Poller {
 public:
  explicit CounterPoller(Reactor& reactor) : reactor_(reactor), event_(eventfd(0, EFD_NONBLOCK)) {}

  void add() {
    count_.fetch_add(1, std::memory_order_seq_cst);
    if (wants_to_be_told_.load(std::memory_order_seq_cst)) eventfd_write(event_.get(), 1);
  }
  Task<void> run_until(uint64_t goal) {
    goal_ = goal;
    DescriptorWait told(event_.get());
    reactor_.add_poller(*this);
    polled_ = true;
    while (seen_ < goal) {
      (void)co_await told.readable();
      eventfd_t value;
      (void)eventfd_read(event_.get(), &value);
      wants_to_be_told_ = false;
      look();
      if (!std::exchange(polled_, true)) reactor_.add_poller(*this);
    }
    if (polled_) reactor_.remove_poller(*this);
  }

  bool look() override {
    const uint64_t now = count_.load(std::memory_order_acquire);
    const bool found = now != seen_;
    seen_ = now;
    if (found && seen_ == goal_) eventfd_write(event_.get(), 1);
    return found;
  }
  void settle() override { ++settled_; }
  bool rest() override {
    wants_to_be_told_.store(true, std::memory_order_seq_cst);
    if (count_.load(std::memory_order_seq_cst) != seen_) return false;
    polled_ = false;
    return true;
  }
  uint64_t settled() const { return settled_; }

 private:
  Reactor& reactor_;
  Descriptor event_;
  std::atomic<uint64_t> count_{0};
  std::atomic<bool> wants_to_be_told_{false};
  uint64_t seen_ = 0;
  uint64_t goal_ = 0;
  uint64_t settled_ = 0;
  bool polled_ = false;
};

Task<void> set_polling(Nanoseconds longest) {
  Reactor::current()->set_polling(longest);
  co_return;
}

TEST_P(DescriptorTest, APollerMissesNothingWhetherItLooksOrSleeps) {
  constexpr uint64_t kMany = 2000;
  for (const auto longest : {Nanoseconds(0), Nanoseconds(50'000)}) {
    run(set_polling(longest));
    CounterPoller poller(reactors_->at(0));
    std::thread adder([&] {
      for (uint64_t i = 0; i < kMany; ++i) {
        poller.add();
        if (i % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(i % 128));
      }
    });
    run(poller.run_until(kMany));
    adder.join();
    EXPECT_GT(poller.settled(), 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, DescriptorTest,
                         testing::Values(EngineKind::kUring, EngineKind::kThreads),
                         [](const auto& parameter) {
                           return parameter.param == EngineKind::kUring ? "Uring" : "Threads";
                         });

}  // namespace
}  // namespace platter::io
