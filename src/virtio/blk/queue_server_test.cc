#include "virtio/blk/queue_server.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <thread>

#include "block/test_disk.h"
#include "virtio/blk/test_request.h"

namespace platter::virtio::blk {
namespace {

using test::Buffer;
using test::Guest;
using test::kUntouched;

constexpr uint32_t kQueueSize = 64;
constexpr uint32_t kBlock = 4096;
constexpr uint64_t kPlainRing = 0;

// Counts what the queue has to say. The driver never sleeps.
class Events final : public QueueEvents {
 public:
  void interrupt() override {
    if (interrupts == 0 && at_first) at_first();
    ++interrupts;
  }
  bool can_be_notified() const override { return true; }
  void broken(const Error& error) override { why = error.message(); }

  std::atomic<unsigned> interrupts = 0;
  std::string why;
  std::function<void()> at_first;
};

class QueueServerTest : public block::DiskTest, public testing::WithParamInterface<uint64_t> {
 protected:
  void SetUp() override { open("driver=memory,size=1M"); }
  void TearDown() override {
    if (server_) run(stop());
  }

  void serve(Properties properties = {}) {
    device_ = *Device::make(*backend_, properties);
    if (slow_) device_->watch_slow_requests(std::move(slow_));
    ASSERT_TRUE(device_->set_features(options_.features));
    run(start());
  }
  io::Task<void> start() {
    server_ = std::make_unique<QueueServer>(reactors_->at(0), *device_,
                                            *Queue::make(options_, guest_.memory()), events_);
    server_->start();
    co_return;
  }
  io::Task<QueueState> stop(QueueServer::Kept kept = QueueServer::Kept::kFail) {
    const QueueState state = co_await server_->stop(kept);
    left_ = server_->has_left();
    server_.reset();
    co_return state;
  }
  io::Task<void> log_to(std::shared_ptr<DirtyLog> log) {
    server_->set_log(std::move(log), Guest::kDeviceArea);
    co_return;
  }
  io::Task<void> kick() {
    server_->kick();
    co_return;
  }

  // A disk that fails requests, each of so many of that kind once.
  void open_failing(std::string_view kind, unsigned times, int code) {
    std::string options = "driver=blkdebug,image.driver=memory,image.size=1M";
    for (unsigned i = 0; i < times; ++i) {
      const std::string rule = fmt::format(",inject-error.{}.", i);
      options += rule + "event=none" + rule + "once=on" + rule + "iotype=" + std::string(kind) +
                 rule + "errno=" + std::to_string(code);
    }
    open(options);
  }
  static Properties on_error(OnError read, OnError write) {
    Properties properties;
    properties.read_error = read;
    properties.write_error = write;
    properties.request_merging = false;
    return properties;
  }
  io::Task<bool> is_stopped() { co_return device_->errors().is_stopped(); }
  // Notifies, if the device wants it, and waits until an error has stopped it.
  void wait_for_stop() {
    if (driver_->must_notify()) run(kick());
    while (!run(is_stopped())) {
    }
    EXPECT_TRUE(device_->errors().is_stopped_by_error());
  }
  io::Task<void> go_on() {
    device_->errors().go_on();
    server_->go_on();
    co_return;
  }

  // Where the request in `slot` has its parts.
  static uint64_t header(unsigned slot) { return Guest::kData + slot * uint64_t{32}; }
  static uint64_t status(unsigned slot) { return header(slot) + 16; }
  static uint64_t payload(unsigned slot) {
    return Guest::kData + 0x10000 + slot * uint64_t{kBlock};
  }
  void add(unsigned slot, uint32_t type, uint64_t sector, bool indirect = false) {
    test::put_header(guest_, header(slot), type, sector);
    *guest_.at(status(slot)) = kUntouched;
    driver_->add(
        {{header(slot), 16, false}, {payload(slot), kBlock, type == 0}, {status(slot), 1, true}},
        indirect);
  }
  // Notifies, if the device wants it, and waits until so many have come back.
  void wait_for(unsigned count) {
    if (driver_->must_notify()) run(kick());
    for (unsigned seen = 0; seen < count;) {
      // A look on the reactor's thread, which is in between its turns then.
      const auto used = run(collect());
      seen += used.has_value();
      if (used) used_.push_back(*used);
    }
  }
  io::Task<std::optional<test::Used>> collect() { co_return driver_->collect(); }

  Guest guest_;
  QueueOptions options_ =
      test::options_of(kQueueSize, GetParam() | kVersion1 | kIndirectDescriptors);
  std::unique_ptr<test::Driver> driver_ = test::make_driver(guest_, options_);
  std::unique_ptr<Device> device_;
  Events events_;
  std::unique_ptr<SlowRequests> slow_;  // for serve()
  std::unique_ptr<QueueServer> server_;
  std::vector<test::Used> used_;
  bool left_ = false;
};

TEST_P(QueueServerTest, WritesAndReadsBack) {
  serve();
  std::memset(guest_.at(payload(0)), 0x5a, kBlock);
  add(0, 1, 8);
  wait_for(1);
  EXPECT_EQ(*guest_.at(status(0)), 0);
  add(1, 0, 8, true);
  wait_for(1);
  EXPECT_EQ(*guest_.at(status(1)), 0);
  EXPECT_EQ(std::memcmp(guest_.at(payload(0)), guest_.at(payload(1)), kBlock), 0);
  EXPECT_EQ(used_.at(1).written, kBlock + 1);
}

TEST_P(QueueServerTest, TellsOfRequestsThatAreSlow) {
  std::vector<std::string> lines;
  const base::Log log(
      [&lines](base::LogLevel, std::string_view line) { lines.emplace_back(line); });
  open("driver=null-co,size=1M,latency-ns=1000000");
  slow_ = std::make_unique<SlowRequests>(log, "disk", std::chrono::milliseconds(1));
  serve();
  add(0, 1, 8);
  wait_for(1);
  run(stop());
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_TRUE(lines[0].starts_with("disk: slow request: write of 4096 bytes at 4096 took "))
      << lines[0];
  EXPECT_TRUE(lines[0].ends_with(", 0.0 ms in files")) << lines[0];
}

// What is available before the service begins is one batch.
TEST_P(QueueServerTest, NeighboursOfABatchAreOneRequest) {
  constexpr unsigned kCount = 8;
  const unsigned order[kCount] = {3, 0, 7, 1, 2, 6, 5, 4};
  for (unsigned slot = 0; slot < kCount; ++slot) {
    std::memset(guest_.at(payload(slot)), static_cast<int>(slot + 1), kBlock);
    add(slot, 1, order[slot] * kBlock / kSectorBytes, true);
  }
  serve();
  wait_for(kCount);
  EXPECT_EQ(backend_->statistics().write.operations, 1U);
  EXPECT_EQ(backend_->statistics().write.bytes, kCount * kBlock);
  for (unsigned slot = 0; slot < kCount; ++slot) {
    EXPECT_EQ(*guest_.at(status(slot)), 0);
    add(slot, 0, slot * kBlock / kSectorBytes, true);
  }
  wait_for(kCount);
  for (unsigned slot = 0; slot < kCount; ++slot)
    EXPECT_EQ(*guest_.at(payload(order[slot])), slot + 1) << slot;
}

// It wakes up while the others end. One who cannot say that it sleeps would be told of each.
TEST_P(QueueServerTest, ADriverThatSleepsIsToldOfTheFirstThatEnds) {
  constexpr unsigned kCount = 6;
  for (unsigned slot = 0; slot < kCount; ++slot) add(slot, 0, slot * 2 * kBlock / kSectorBytes);
  driver_->ask_for_interrupt(true);
  unsigned first = 0;
  events_.at_first = [&] {
    driver_->ask_for_interrupt(false);
    while (driver_->collect()) ++first;
  };
  serve();
  while (events_.interrupts.load() == 0) run(kick());
  const bool can_say = (GetParam() & kEventIndex) != 0;
  EXPECT_EQ(first, can_say ? 1 : kCount);
  wait_for(kCount - first);
}

TEST_P(QueueServerTest, MergingCanBeSwitchedOff) {
  for (unsigned slot = 0; slot < 4; ++slot) add(slot, 1, slot * kBlock / kSectorBytes, true);
  Properties properties;
  properties.request_merging = false;
  serve(properties);
  wait_for(4);
  EXPECT_EQ(backend_->statistics().write.operations, 4U);
}

// One that leaves the disk fails alone; its neighbours are carried out.
TEST_P(QueueServerTest, ARequestPastTheEndFailsAlone) {
  const uint64_t last = (1 << 20) / kSectorBytes - kBlock / kSectorBytes;
  add(0, 1, last, true);
  add(1, 1, last + kBlock / kSectorBytes, true);
  serve();
  wait_for(2);
  EXPECT_EQ(*guest_.at(status(0)), 0);
  EXPECT_EQ(*guest_.at(status(1)), 1);
}

TEST_P(QueueServerTest, WhatItWritesIsLoggedWhereThatIsWanted) {
  serve();
  std::vector<uint8_t> bits((Guest::kEnd / DirtyLog::kPageBytes + 7) / 8);
  const auto is_marked = [&](uint64_t address) {
    const uint64_t page = address / DirtyLog::kPageBytes;
    return (bits[page / 8] >> page % 8 & 1) != 0;
  };
  add(0, 0, 8);
  wait_for(1);
  EXPECT_FALSE(is_marked(payload(0)));
  run(log_to(std::make_shared<DirtyLog>(bits, nullptr)));
  add(1, 1, 8);
  add(2, 0, 8, true);
  wait_for(2);
  EXPECT_TRUE(is_marked(payload(2)));
  EXPECT_TRUE(is_marked(status(2)));
  EXPECT_TRUE(is_marked(Guest::kDeviceArea));
  EXPECT_FALSE(is_marked(payload(1)));
  EXPECT_FALSE(is_marked(payload(4)));
}

TEST_P(QueueServerTest, StopsWhereItCanGoOn) {
  serve();
  for (unsigned slot = 0; slot < 3; ++slot) add(slot, 1, slot * 8);
  wait_for(3);
  options_.state = run(stop());
  run(start());
  add(5, 0, 8);
  if (driver_->must_notify()) run(kick());
  wait_for(1);
  EXPECT_EQ(*guest_.at(status(5)), 0);
}

TEST_P(QueueServerTest, ARequestWithoutRoomForAStatusBreaksTheDevice) {
  serve();
  driver_->add({{header(0), 16, false}}, false);
  if (driver_->must_notify()) run(kick());
  run(stop());
  EXPECT_TRUE(device_->is_broken());
  EXPECT_NE(events_.why.find("status"), std::string::npos) << events_.why;
  EXPECT_FALSE(driver_->collect());
}

// ---- A disk that fails

TEST_P(QueueServerTest, AnErrorIsReportedWhereThatIsWanted) {
  open_failing("write", 1, EIO);
  serve();
  add(0, 1, 8);
  wait_for(1);
  EXPECT_EQ(*guest_.at(status(0)), 1);
  EXPECT_EQ(device_->errors().status(), ErrorPolicy::IoStatus::kOk);
}

TEST_P(QueueServerTest, AnErrorIsIgnoredWhereThatIsWanted) {
  open_failing("read", 1, EIO);
  serve(on_error(OnError::kIgnore, OnError::kReport));
  add(0, 0, 8);
  wait_for(1);
  EXPECT_EQ(*guest_.at(status(0)), 0);
  EXPECT_EQ(used_.at(0).written, kBlock + 1);
}

TEST_P(QueueServerTest, WithoutSpaceItStopsAndGoesOnWithNothingLost) {
  open_failing("write", 2, ENOSPC);
  std::vector<RequestFailure> failures;
  device_ = *Device::make(*backend_, on_error(OnError::kAuto, OnError::kAuto));
  device_->errors().set_observer([&](const RequestFailure& one) { failures.push_back(one); });
  ASSERT_TRUE(device_->set_features(options_.features));
  // Both to the same place: what was sent last stays.
  std::memset(guest_.at(payload(0)), 1, kBlock);
  std::memset(guest_.at(payload(1)), 2, kBlock);
  add(0, 1, 8);
  add(1, 1, 8);
  run(start());
  wait_for_stop();
  EXPECT_EQ(device_->errors().status(), ErrorPolicy::IoStatus::kNoSpace);
  add(2, 0, 8);
  run(kick());
  EXPECT_FALSE(run(collect()));
  EXPECT_EQ(backend_->statistics().read.operations, 0U);
  EXPECT_EQ(*guest_.at(status(0)), kUntouched);
  // The disk fails once more.
  for (unsigned seen = 0; seen < 3; seen += run(collect()).has_value()) {
    if (run(is_stopped())) run(go_on());
  }
  for (const unsigned slot : {0U, 1U, 2U}) EXPECT_EQ(*guest_.at(status(slot)), 0) << slot;
  EXPECT_EQ(*guest_.at(payload(2)), 2);
  EXPECT_EQ(device_->errors().status(), ErrorPolicy::IoStatus::kOk);
  run(stop());
  ASSERT_EQ(failures.size(), 2U);
  EXPECT_TRUE(failures[0].stops);
  EXPECT_FALSE(failures[0].read);
  EXPECT_EQ(failures[0].error, ENOSPC);
  EXPECT_EQ(failures[0].action, ErrorAction::kStop);
}

TEST_P(QueueServerTest, WhatIsMergedIsKeptOneByOne) {
  open_failing("write", 1, EIO);
  for (unsigned slot = 0; slot < 4; ++slot) add(slot, 1, slot * kBlock / kSectorBytes, true);
  Properties properties = on_error(OnError::kStop, OnError::kStop);
  properties.request_merging = true;
  serve(properties);
  wait_for_stop();
  EXPECT_EQ(device_->errors().status(), ErrorPolicy::IoStatus::kFailed);
  run(go_on());
  wait_for(4);
  for (unsigned slot = 0; slot < 4; ++slot) EXPECT_EQ(*guest_.at(status(slot)), 0) << slot;
}

TEST_P(QueueServerTest, AFlushThatFailsFollowsTheRuleOfWrites) {
  open_failing("flush", 1, EIO);
  serve(on_error(OnError::kReport, OnError::kStop));
  add(0, 1, 8);
  wait_for(1);
  add(1, 4, 0);
  wait_for_stop();
  run(go_on());
  wait_for(1);
  EXPECT_EQ(*guest_.at(status(1)), 0);
}

TEST_P(QueueServerTest, AQueueThatEndsWhileTheDeviceIsStoppedFailsWhatItKeeps) {
  open_failing("write", 1, EIO);
  serve(on_error(OnError::kStop, OnError::kStop));
  add(0, 1, 8);
  wait_for_stop();
  run(stop());
  EXPECT_FALSE(left_);
  ASSERT_TRUE(driver_->collect());
  EXPECT_EQ(*guest_.at(status(0)), 1);
  EXPECT_TRUE(device_->errors().is_stopped());
}

TEST_P(QueueServerTest, AResetDropsWhatIsKept) {
  open_failing("write", 1, EIO);
  serve(on_error(OnError::kStop, OnError::kStop));
  add(0, 1, 8);
  wait_for_stop();
  run(stop(QueueServer::Kept::kLeave));
  EXPECT_TRUE(left_);
  device_->reset();
  EXPECT_FALSE(driver_->collect());
  EXPECT_EQ(*guest_.at(status(0)), kUntouched);
  EXPECT_FALSE(device_->errors().is_stopped());
  EXPECT_EQ(device_->errors().status(), ErrorPolicy::IoStatus::kFailed);
}

TEST_P(QueueServerTest, ItsUserStopsIt) {
  serve();
  device_->errors().stop_by_user();
  add(0, 1, 8);
  run(kick());
  EXPECT_FALSE(run(collect()));
  EXPECT_EQ(backend_->statistics().write.operations, 0U);
  device_->errors().forget_stop();
  EXPECT_TRUE(device_->errors().is_stopped());
  run(go_on());
  wait_for(1);
  EXPECT_EQ(*guest_.at(status(0)), 0);
}

TEST_P(QueueServerTest, ManyRequestsThroughASmallRingAllComeBack) {
  serve();
  unsigned left = 5000;
  unsigned out = 0;
  for (unsigned slot = 0; left != 0 || out != 0;) {
    while (left != 0 && out < kQueueSize / 4) {
      const uint32_t type = left % 3 == 0 ? 0 : 1;
      add(slot % kQueueSize, type, (left * 37 % 256) * 8, left % 2 == 0);
      ++slot;
      --left;
      ++out;
    }
    wait_for(1);
    --out;
  }
  EXPECT_GT(events_.interrupts.load(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Rings, QueueServerTest,
                         testing::Values(kPlainRing, kEventIndex, kPackedRing,
                                         kPackedRing | kEventIndex, kInOrder | kEventIndex),
                         [](const auto& parameter) {
                           std::string name =
                               (parameter.param & kPackedRing) != 0 ? "Packed" : "Split";
                           if ((parameter.param & kInOrder) != 0) name += "InOrder";
                           return name + ((parameter.param & kEventIndex) != 0 ? "EventIndex" : "");
                         });

}  // namespace
}  // namespace platter::virtio::blk
