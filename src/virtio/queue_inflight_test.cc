// A device that is killed, at any instruction, and the one that goes on after it: every request is
// answered exactly once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <random>
#include <tuple>

#include "virtio/queue.h"
#include "virtio/test_driver.h"

namespace platter::virtio {
namespace {

using test::Buffer;
using test::Driver;
using test::Guest;
using test::make_driver;
using testing::HasSubstr;

// Where the region lies: in the guest's memory, so that one copy has all.
constexpr uint64_t kRegion = Guest::kBase + 0x1c000;
constexpr uint64_t kBufferBytes = 16;
constexpr uint32_t kSerials = 20'000;

struct Case {
  bool packed;
  bool in_order;
  uint32_t size;
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return std::string(info.param.packed ? "Packed" : "Split") +
         (info.param.in_order ? "InOrder" : "") + std::to_string(info.param.size);
}

QueueOptions options_for(const Case& which, Guest& guest) {
  auto options = test::options_of(which.size, kVersion1 | kIndirectDescriptors |
                                                  (which.packed ? kPackedRing : 0) |
                                                  (which.in_order ? kInOrder : 0));
  const auto entries = static_cast<uint16_t>(which.size + 3);
  options.inflight = {.bytes = {guest.at(kRegion), inflight_bytes(which.packed, entries)},
                      .entries = entries};
  return options;
}

// The device's side, as QueueServer uses a queue, but in any order.
class DeviceSide {
 public:
  DeviceSide(const Case& which, Guest& guest) {
    auto made = Queue::make(options_for(which, guest), guest.memory());
    if (made) queue_ = std::move(*made);
    if (!made) error_ = made.error().message();
  }
  const std::string& error() const { return error_; }
  size_t out() const { return out_.size(); }
  // Null: there is none.
  Chain* pop() {
    auto chain = std::make_unique<Chain>();
    auto popped = queue_->pop(*chain);
    if (!popped) error_ = popped.error().message();
    if (!popped || !*popped) return nullptr;
    out_.push_back(std::move(chain));
    return out_.back().get();
  }
  void push(size_t which) {
    queue_->push(*out_[which], 0);
    out_.erase(out_.begin() + static_cast<ptrdiff_t>(which));
  }
  void show() { queue_->show(); }

 private:
  std::unique_ptr<Queue> queue_;
  std::deque<std::unique_ptr<Chain>> out_;
  std::string error_;
};

// The driver's side, and what it has out.
class DriverSide {
 public:
  struct Request {
    uint16_t id;
    uint64_t address;  // of its first buffer, and its name
  };

  DriverSide(const Case& which, Guest& guest)
      : which_(which), driver_(make_driver(guest, options_for(which, guest))) {}

  std::unique_ptr<DriverSide> clone(Guest& guest) const {
    std::unique_ptr<DriverSide> copy(new DriverSide(which_, out_));
    copy->driver_ = driver_->clone(guest);
    return copy;
  }

  void add(std::mt19937& random) {
    const auto buffers = 1 + static_cast<uint32_t>(random() % std::min(which_.size, 3U));
    const bool indirect = random() % 2 == 0;
    if (driver_->free() < (indirect ? 1 : buffers)) return;
    const uint64_t address = Guest::kData + serial_++ % kSerials * kBufferBytes;
    std::vector<Buffer> all(buffers, Buffer{Guest::kMiddle, kBufferBytes, true});
    all.front() = {address, kBufferBytes, false};
    out_.push_back({driver_->add(all, indirect), address});
  }
  // False: what came back was not out.
  bool collect(size_t most = SIZE_MAX) {
    for (; most > 0; --most) {
      const auto used = driver_->collect();
      if (!used) return true;
      const auto found = std::ranges::find(out_, used->id, &Request::id);
      if (found == out_.end() || (which_.in_order && found != out_.begin())) return false;
      out_.erase(found);
    }
    return true;
  }
  const std::deque<Request>& out() const { return out_; }

 private:
  DriverSide(const Case& which, std::deque<Request> out) : which_(which), out_(std::move(out)) {}

  const Case which_;
  std::unique_ptr<Driver> driver_;
  std::deque<Request> out_;
  uint64_t serial_ = 0;
};

// Somebody goes on with this memory: he must find what the driver waits for, all of it, in its
// order, and nothing else.
void go_on(const Case& which, Guest& guest, DriverSide& driver, std::mt19937& random) {
  ASSERT_TRUE(driver.collect());
  DeviceSide device(which, guest);
  ASSERT_EQ(device.error(), "");
  std::vector<uint8_t*> found;
  std::vector<uint8_t*> expected;
  while (const Chain* chain = device.pop())
    found.push_back(static_cast<uint8_t*>(chain->readable().front().iov_base));
  for (const auto& request : driver.out()) expected.push_back(guest.at(request.address));
  ASSERT_EQ(device.error(), "");
  ASSERT_EQ(found, expected);
  while (device.out() != 0) {
    device.push(random() % device.out());
    if (random() % 2 == 0) {
      device.show();
      ASSERT_TRUE(driver.collect());
    }
  }
  device.show();
  ASSERT_TRUE(driver.collect());
  ASSERT_TRUE(driver.out().empty());
}

// ---- Between any two steps

class QueueInflightTest : public testing::TestWithParam<Case> {};

TEST_P(QueueInflightTest, AnswersEachRequestOnceWhoeverEndsInBetween) {
  const Case& which = GetParam();
  std::mt19937 random(which.size);
  Guest guest;
  DriverSide driver(which, guest);
  auto device = std::make_unique<DeviceSide>(which, guest);
  for (int step = 0; step < 20'000; ++step) {
    switch (random() % 16) {
      case 0:
        device = std::make_unique<DeviceSide>(which, guest);
        ASSERT_EQ(device->error(), "") << step;
        break;
      case 1:
      case 2: device->show(); break;
      case 3:
      case 4: ASSERT_TRUE(driver.collect(1 + random() % 4)) << step; break;
      case 5:
      case 6:
      case 7:
      case 8:
        if (device->out() != 0) device->push(random() % device->out());
        break;
      case 9:
      case 10:
      case 11: driver.add(random); break;
      default: (void)device->pop(); ASSERT_EQ(device->error(), "") << step;
    }
  }
  device.reset();
  go_on(which, guest, driver, random);
}

// What is not in use goes on from the state; what is, whatever the state says.
TEST_P(QueueInflightTest, TheRegionSaysWhereToGoOn) {
  const Case& which = GetParam();
  std::mt19937 random(1);
  Guest guest;
  DriverSide driver(which, guest);
  {
    DeviceSide device(which, guest);
    driver.add(random);
    ASSERT_TRUE(device.pop());
    device.push(0);
    device.show();
  }
  ASSERT_TRUE(driver.collect());
  driver.add(random);
  auto options = options_for(which, guest);
  options.state = {.available = 0x1234, .used = 0x7777};
  auto queue = Queue::make(options, guest.memory());
  ASSERT_TRUE(queue) << queue.error().message();
  Chain chain;
  ASSERT_TRUE((*queue)->pop(chain).value());
  EXPECT_EQ(chain.readable().front().iov_base, guest.at(driver.out().front().address));
  (*queue)->push(chain, 0);
  forget_inflight(options.inflight.bytes.data());
  EXPECT_FALSE(Queue::make(options, guest.memory()));
}

TEST_P(QueueInflightTest, WhatIsToBeResubmittedIsCounted) {
  const Case& which = GetParam();
  std::mt19937 random(1);
  Guest guest;
  DriverSide driver(which, guest);
  {
    DeviceSide device(which, guest);
    driver.add(random);
    ASSERT_TRUE(device.pop());
  }
  auto queue = *Queue::make(options_for(which, guest), guest.memory());
  EXPECT_EQ(queue->to_resubmit(), 1U);
  EXPECT_TRUE(queue->enable_notifications()) << "one who sleeps now sleeps too long";
  Chain chain;
  ASSERT_TRUE(queue->pop(chain).value());
  EXPECT_EQ(queue->to_resubmit(), 0U);
  EXPECT_FALSE(queue->enable_notifications());
  EXPECT_EQ(queue->in_flight(), 1U);
  queue->push(chain, 0);
}

TEST_P(QueueInflightTest, RefusesARegionThatIsTooSmall) {
  const Case& which = GetParam();
  Guest guest;
  auto options = options_for(which, guest);
  options.inflight.entries = static_cast<uint16_t>(which.size - 1);
  auto queue = Queue::make(options, guest.memory());
  ASSERT_FALSE(queue);
  EXPECT_THAT(queue.error().message(), HasSubstr("has a region for"));
}

// More in flight than the driver has ever made available.
TEST(SplitQueueInflight, RefusesWhatTheRingDenies) {
  Guest guest;
  const Case which = {.packed = false, .in_order = false, .size = 4};
  const auto options = options_for(which, guest);
  {
    DeviceSide device(which, guest);
  }
  SplitInflight region(options.inflight, which.size);
  ASSERT_TRUE(region.recover(0));
  region.taken(2);
  auto queue = Queue::make(options, guest.memory());
  ASSERT_FALSE(queue);
  EXPECT_THAT(queue.error().message(), HasSubstr("1 requests are in flight of a virtqueue whose"));
}

TEST_P(QueueInflightTest, AnyRegionIsTakenOrRefused) {
  const Case& which = GetParam();
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    Guest guest;
    DriverSide driver(which, guest);
    {
      DeviceSide device(which, guest);
      for (int i = 0; i < 3; ++i) driver.add(random);
      while (device.pop() != nullptr) {
      }
    }
    const auto bytes = options_for(which, guest).inflight.bytes;
    for (unsigned flips = 1 + random() % 8; flips > 0; --flips)
      bytes[12 + random() % (bytes.size() - 12)] = static_cast<uint8_t>(random() % 6);
    DeviceSide device(which, guest);
    if (!device.error().empty()) continue;
    while (device.pop() != nullptr) {
    }
    while (device.out() != 0) device.push(0);
    device.show();
  }
}

INSTANTIATE_TEST_SUITE_P(Rings, QueueInflightTest,
                         testing::Values(Case{false, false, 4}, Case{false, true, 4},
                                         Case{true, false, 4}, Case{true, true, 4},
                                         Case{true, false, 7}, Case{false, false, 64},
                                         Case{false, true, 64}, Case{true, false, 64},
                                         Case{true, true, 64}),
                         name_of);

// ---- Between any two instructions

enum class Command : uint32_t { kPop, kPush, kShow };

struct Control {
  uint32_t turn;  // changes with every command
  Command command;
  uint32_t which;
  uint32_t out;
  uint32_t failed;
};

// A device in a process of its own, which stops itself after each command and runs instruction by
// instruction in between.
class SteppedDevice {
 public:
  SteppedDevice(const Case& which, Guest& guest, Control* control) {
    process_ = fork();
    if (process_ == 0) live(which, guest, control);
    int status = 0;
    traced_ = process_ > 0 && waitpid(process_, &status, 0) == process_ && WIFSTOPPED(status);
  }
  ~SteppedDevice() {
    if (process_ <= 0) return;
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }

  bool traced() const { return traced_; }
  // All of a command, at full speed.
  void finish() const {
    ptrace(PTRACE_CONT, process_, nullptr, nullptr);
    waitpid(process_, nullptr, 0);
  }
  // One instruction. False: the command is done, or the process is.
  bool step() const {
    int status = 0;
    if (ptrace(PTRACE_SINGLESTEP, process_, nullptr, nullptr) != 0) return false;
    return waitpid(process_, &status, 0) == process_ && WIFSTOPPED(status) &&
           WSTOPSIG(status) == SIGTRAP;
  }

 private:
  [[noreturn]] static void live(const Case& which, Guest& guest, Control* control) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(1);
    raise(SIGSTOP);
    uint32_t turn = control->turn;
    DeviceSide device(which, guest);
    for (;;) {
      control->failed = !device.error().empty();
      control->out = static_cast<uint32_t>(device.out());
      while (__atomic_load_n(&control->turn, __ATOMIC_ACQUIRE) == turn) raise(SIGSTOP);
      turn = control->turn;
      switch (control->command) {
        case Command::kPop: (void)device.pop(); break;
        case Command::kPush: device.push(control->which); break;
        case Command::kShow: device.show(); break;
      }
    }
  }

  pid_t process_;
  bool traced_ = false;
};

class KilledDeviceTest : public testing::TestWithParam<Case> {
 protected:
  static constexpr size_t kSharedBytes = Guest::kRegionBytes + 4096;

  void SetUp() override {
    void* got =
        mmap(nullptr, kSharedBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(got, MAP_FAILED);
    shared_ = static_cast<uint8_t*>(got);
  }
  void TearDown() override { munmap(shared_, kSharedBytes); }

  struct Place {
    uint64_t address;
    size_t bytes;
  };
  std::vector<Place> watched() const {
    const uint32_t size = GetParam().size;
    return {{Guest::kDescriptors, size * kDescriptorBytes},
            {Guest::kDriverArea, 8 + size * 2},
            {Guest::kDeviceArea, 8 + size * 8},
            {kRegion, inflight_bytes(GetParam().packed, static_cast<uint16_t>(size + 3))}};
  }

  uint8_t* shared_ = nullptr;
};

TEST_P(KilledDeviceTest, AnswersEachRequestOnceWhereverItWasKilled) {
  const Case& which = GetParam();
  std::mt19937 random(which.size + which.packed);
  Guest guest(shared_);
  Guest later;
  auto* control = reinterpret_cast<Control*>(shared_ + Guest::kRegionBytes);
  DriverSide driver(which, guest);
  auto device = std::make_unique<SteppedDevice>(which, guest, control);
  if (!device->traced()) GTEST_SKIP() << "a process cannot be run step by step here";
  std::vector<std::vector<uint8_t>> seen;
  for (const Place& place : watched()) seen.emplace_back(place.bytes);
  unsigned states = 0;

  // Until the command is done, or so many changes of the memory were seen.
  const auto run = [&](unsigned limit) {
    const auto look = [&] {
      bool changed = false;
      const auto places = watched();
      for (size_t i = 0; i < places.size(); ++i) {
        const uint8_t* now = guest.at(places[i].address);
        if (std::memcmp(seen[i].data(), now, places[i].bytes) == 0) continue;
        std::memcpy(seen[i].data(), now, places[i].bytes);
        changed = true;
      }
      return changed;
    };
    (void)look();
    while (limit != 0 && device->step()) {
      if (!look()) continue;
      --limit;
      ++states;
      for (const Place& place : watched())
        std::memcpy(later.at(place.address), guest.at(place.address), place.bytes);
      std::memcpy(later.at(Guest::kTables), guest.at(Guest::kTables), which.size * 1024);
      auto driver_then = driver.clone(later);
      go_on(which, later, *driver_then, random);
      if (testing::Test::HasFatalFailure()) return;
    }
  };
  const auto tell = [&](Command command, uint32_t argument, unsigned limit) {
    control->command = command;
    control->which = argument;
    __atomic_store_n(&control->turn, control->turn + 1, __ATOMIC_RELEASE);
    run(limit);
  };

  device->finish();
  for (int round = 1; round <= 45; ++round) {
    for (unsigned adds = random() % 3; adds > 0; --adds) driver.add(random);
    const bool kills = round == 15 || round == 30;
    const unsigned limit = kills ? 1 + random() % 12 : UINT32_MAX;
    const unsigned choice = random() % 8;
    if (choice < 3) {
      tell(Command::kPop, 0, limit);
    } else if (choice < 6 && control->out != 0) {
      tell(Command::kPush, static_cast<uint32_t>(random() % control->out), limit);
    } else {
      tell(Command::kShow, 0, limit);
    }
    ASSERT_FALSE(HasFatalFailure()) << "round " << round << ", state " << states;
    if (kills) {
      device.reset();
      // It is killed while it recovers, too.
      device = std::make_unique<SteppedDevice>(which, guest, control);
      run(1 + random() % 8);
      device.reset();
      device = std::make_unique<SteppedDevice>(which, guest, control);
      run(UINT32_MAX);
      ASSERT_FALSE(HasFatalFailure()) << "round " << round << ", state " << states;
    }
    ASSERT_EQ(control->failed, 0U) << round;
    ASSERT_TRUE(driver.collect(random() % 3));
  }
  EXPECT_GT(states, 30U);
}

INSTANTIATE_TEST_SUITE_P(Rings, KilledDeviceTest,
                         testing::Values(Case{false, false, 4}, Case{false, true, 4},
                                         Case{true, false, 4}, Case{true, true, 4}),
                         name_of);

}  // namespace
}  // namespace platter::virtio
