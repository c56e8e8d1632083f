// The front-end of tests and benchmarks, with real back-ends: what a driver wants of a disk, and
// that one who breaks the rules harms nobody but himself.
#include "vhost_user/front_end.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <random>
#include <vector>

#include "support/scratch_directory.h"
#include "vhost_user/back_end.h"
#include "vhost_user/block_device.h"

namespace platter::front_end {
namespace {

constexpr uint64_t kDiskSectors = 64 * 1024;  // 32 MiB
constexpr uint32_t kLongest = 64;             // sectors of a request

struct Case {
  std::string back_end;
  RingOptions ring;
  bool polling = false;
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const Case& each = info.param;
  std::string name = each.back_end;
  std::ranges::replace(name, '-', '_');
  return fmt::format("{}_{}{}{}{}", name, each.ring.packed ? "packed" : "split",
                     each.ring.event_index ? "_events" : "", each.ring.indirect ? "_indirect" : "",
                     each.polling ? "_polling" : "");
}

std::vector<Case> cases_of(const std::string& back_end) {
  std::vector<Case> cases;
  for (unsigned bits = 0; bits < 16; ++bits) {
    const Case each = {.back_end = back_end,
                       .ring = {.size = 64,
                                .packed = (bits & 8) != 0,
                                .event_index = (bits & 4) != 0,
                                .indirect = (bits & 2) != 0},
                       .polling = (bits & 1) != 0};
    // The peer's export has split rings only.
    if (!each.ring.packed || back_end == "platter") cases.push_back(each);
  }
  return cases;
}

std::vector<Case> all_cases() {
  std::vector<Case> cases = cases_of("platter");
  std::ranges::copy(cases_of("qemu-storage-daemon"), std::back_inserter(cases));
  return cases;
}

class FrontEndTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string image = scratch_.path("disk.qcow2");
    const std::string make =
        fmt::format("qemu-img create -q -f qcow2 {} {}", image, kDiskSectors * kSectorBytes);
    ASSERT_EQ(std::system(make.c_str()), 0);
    start_back_end();
  }
  void start_back_end() {
    auto started = BackEnd::start(GetParam().back_end,
                                  {.image = scratch_.path("disk.qcow2"), .socket = socket()});
    ASSERT_TRUE(started) << started.error().message();
    back_end_.emplace(std::move(*started));
  }
  void TearDown() override {
    if (back_end_) EXPECT_EQ(back_end_->stop(), 0);
    const std::string check = fmt::format("qemu-img check -q {}", scratch_.path("disk.qcow2"));
    EXPECT_EQ(std::system(check.c_str()), 0);
  }

  std::string socket() const { return scratch_.path("socket"); }
  DeviceOptions options() const { return {.ring = GetParam().ring, .polling = GetParam().polling}; }
  std::unique_ptr<BlockDevice> connect() { return connect(options()); }
  std::unique_ptr<BlockDevice> connect(const DeviceOptions& wanted) {
    auto device = BlockDevice::connect(socket(), wanted);
    if (!device) {
      ADD_FAILURE() << device.error().message();
      return nullptr;
    }
    return std::move(*device);
  }

  support::ScratchDirectory scratch_;
  std::optional<BackEnd> back_end_;
};

std::vector<uint8_t> pattern(uint32_t sectors, uint8_t seed) {
  std::vector<uint8_t> data(sectors * kSectorBytes);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(seed + i / 3);
  return data;
}

TEST_P(FrontEndTest, FindsTheDisk) {
  const auto device = connect();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->sectors(), kDiskSectors);
  EXPECT_NE(device->features() & kFeatureFlush, 0U);
  const Result<std::string> serial = device->serial();
  ASSERT_TRUE(serial) << serial.error().message();
  EXPECT_FALSE(serial->empty());
}

TEST_P(FrontEndTest, ReadsWhatWasWritten) {
  const auto device = connect();
  ASSERT_TRUE(device);
  std::mt19937 random(3);
  std::vector<uint8_t> model(kDiskSectors * kSectorBytes);
  for (int i = 0; i < 200; ++i) {
    const uint32_t sectors = 1 + random() % kLongest;
    const uint64_t first = random() % (kDiskSectors - kLongest);
    const std::span<uint8_t> there =
        std::span(model).subspan(first * kSectorBytes, sectors * kSectorBytes);
    if (i % 3 == 0) {
      std::vector<uint8_t> data(there.size());
      EXPECT_EQ(device->read(first, data).value_or(kIoError), kOk);
      EXPECT_TRUE(std::ranges::equal(data, there)) << first;
    } else if (i % 7 == 1) {
      EXPECT_EQ(device->clear(kWriteZeroes, first, sectors).value_or(kIoError), kOk);
      std::ranges::fill(there, uint8_t{0});
    } else {
      std::ranges::copy(pattern(sectors, static_cast<uint8_t>(i)), there.begin());
      EXPECT_EQ(device->write(first, there).value_or(kIoError), kOk);
    }
  }
  EXPECT_EQ(device->run(kFlush, 0, 0).value_or(kIoError), kOk);
  EXPECT_EQ(device->clear(kDiscard, 0, 1024).value_or(kIoError), kOk);
}

// Published at once, many rounds around the ring.
TEST_P(FrontEndTest, TakesBatches) {
  const auto device = connect();
  ASSERT_TRUE(device);
  // As many as the ring has room for, where each takes three entries.
  constexpr uint32_t kBatch = 21;
  constexpr uint64_t kRounds = 40;
  BlockQueue& queue = device->queue(0);
  uint64_t ended = 0;
  for (uint64_t round = 0; round < kRounds; ++round) {
    std::map<uint32_t, uint64_t> expected;
    const uint32_t type = round % 2 == 0 ? kWrite : kRead;
    for (uint64_t sector = 0; queue.in_flight() < kBatch; sector += 8) {
      const uint32_t slot = queue.next_slot();
      const auto fill = static_cast<uint8_t>(round / 2 + sector);
      std::ranges::fill(queue.buffer(slot).first(4096), type == kWrite ? fill : uint8_t{0xff});
      ASSERT_TRUE(queue.add(type, sector, 4096));
      expected[slot] = sector;
    }
    queue.publish();
    while (queue.in_flight() != 0) {
      while (const auto done = queue.collect()) {
        EXPECT_EQ(done->status, kOk);
        ASSERT_TRUE(expected.contains(done->slot));
        const auto fill = static_cast<uint8_t>(round / 2 + expected[done->slot]);
        if (round % 2 == 1) EXPECT_EQ(queue.buffer(done->slot)[4095], fill);
        expected.erase(done->slot);
        ++ended;
      }
      if (queue.in_flight() != 0 && !GetParam().polling)
        ASSERT_TRUE(queue.wait(std::chrono::seconds(20)));
    }
  }
  EXPECT_EQ(ended, kRounds * kBatch);
}

TEST_P(FrontEndTest, GoesOnWhereItWasStopped) {
  const auto device = connect();
  ASSERT_TRUE(device);
  const std::vector<uint8_t> data = pattern(8, 9);
  for (uint64_t i = 0; i < 100; ++i) ASSERT_EQ(device->write(i * 8, data).value_or(kIoError), kOk);
  ASSERT_TRUE(device->stop());
  const auto restarted = device->start();
  ASSERT_TRUE(restarted) << restarted.error().message();
  std::vector<uint8_t> found(data.size());
  EXPECT_EQ(device->read(99 * 8, found).value_or(kIoError), kOk);
  EXPECT_EQ(found, data);
}

// Back-ends with VHOST_USER_SET_STATUS: qemu-storage-daemon has none.
class StatusTest : public FrontEndTest {};

// QEMU before 8.0 asks in this order when it migrates a machine.
TEST_P(StatusTest, TellsWhereItStoppedAfterAReset) {
  const auto device = connect();
  ASSERT_TRUE(device);
  const std::vector<uint8_t> data = pattern(8, 9);
  for (uint64_t i = 0; i < 100; ++i) ASSERT_EQ(device->write(i * 8, data).value_or(kIoError), kOk);
  ASSERT_TRUE(device->front_end().set_status(0));
  const auto base = device->front_end().get_vring_base(0);
  ASSERT_TRUE(base) << base.error().message();
  EXPECT_EQ(*base, device->queue(0).ring().base());
  ASSERT_TRUE(device->front_end().set_features(device->features()));
  const auto restarted = device->start();
  ASSERT_TRUE(restarted) << restarted.error().message();
  std::vector<uint8_t> found(data.size());
  EXPECT_EQ(device->read(99 * 8, found).value_or(kIoError), kOk);
  EXPECT_EQ(found, data);
}

// What was flushed is there after a kill.
TEST_P(FrontEndTest, GoesOnWithABackEndThatWasStartedAnew) {
  const auto device = connect();
  ASSERT_TRUE(device);
  for (uint64_t i = 0; i < 50; ++i)
    ASSERT_EQ(device->write(i * 640, pattern(8, static_cast<uint8_t>(i))).value_or(kIoError), kOk);
  ASSERT_EQ(device->run(kFlush, 0, 0).value_or(kIoError), kOk);
  back_end_.reset();
  start_back_end();
  ASSERT_FALSE(HasFatalFailure());
  const auto again = device->reconnect(socket());
  ASSERT_TRUE(again) << again.error().message();
  for (uint64_t i = 0; i < 50; ++i) {
    std::vector<uint8_t> found(8 * kSectorBytes);
    EXPECT_EQ(device->read(i * 640, found).value_or(kIoError), kOk);
    EXPECT_EQ(found, pattern(8, static_cast<uint8_t>(i)));
  }
}

// Requests lie across the borders between them.
TEST_P(FrontEndTest, MemoryComesInSlots) {
  DeviceOptions wanted = options();
  wanted.protocol_features |= protocol_feature::kConfigureMemSlots;
  wanted.memory_slots = 16;
  wanted.ram_bytes = 4 << 20;
  wanted.buffer_bytes = 12 * 4096;
  const auto device = connect(wanted);
  ASSERT_TRUE(device);
  ASSERT_NE(device->protocol_features() & protocol_feature::kConfigureMemSlots, 0U);
  for (uint64_t i = 0; i < 64; ++i) {
    const std::vector<uint8_t> data = pattern(96, static_cast<uint8_t>(i));
    std::vector<uint8_t> found(data.size());
    EXPECT_EQ(device->write(i * 96, data).value_or(kIoError), kOk);
    EXPECT_EQ(device->read(i * 96, found).value_or(kIoError), kOk);
    EXPECT_EQ(found, data);
  }
}

bool is_marked(const GuestRam& log, uint64_t guest_address) {
  const uint64_t page = guest_address / kLogPage;
  return (*log.at(page / 8) >> page % 8 & 1) != 0;
}

// While a machine migrates: every page that the device writes, and none that it only reads.
TEST_P(FrontEndTest, LogsWhatItWrites) {
  constexpr uint32_t kRequestBytes = 3 * kLogPage;
  DeviceOptions wanted = options();
  wanted.protocol_features |= protocol_feature::kLogMemory;
  wanted.buffer_bytes = kRequestBytes;
  const auto device = connect(wanted);
  ASSERT_TRUE(device);
  ASSERT_NE(device->protocol_features() & protocol_feature::kLogMemory, 0U);
  const auto log = GuestRam::make(0, device->log_bytes());
  ASSERT_TRUE(log);
  const auto started = device->start_log(log->file());
  ASSERT_TRUE(started) << started.error().message();
  BlockQueue& queue = device->queue(0);
  std::map<uint32_t, uint32_t> types;
  for (uint32_t i = 0; i < 16; ++i) {
    const uint32_t type = i % 3 == 0 ? kWrite : kRead;
    types[queue.next_slot()] = type;
    ASSERT_TRUE(queue.add(type, uint64_t{i} * 64, kRequestBytes));
  }
  queue.publish();
  while (queue.in_flight() != 0) {
    while (const auto done = queue.collect()) EXPECT_EQ(done->status, kOk);
    if (queue.in_flight() != 0 && !GetParam().polling)
      ASSERT_TRUE(queue.wait(std::chrono::seconds(20)));
  }
  ASSERT_TRUE(device->stop());
  for (const auto& [slot, type] : types) {
    EXPECT_TRUE(is_marked(*log, queue.status_address(slot)));
    for (uint64_t at = 0; at < kRequestBytes; at += kLogPage)
      EXPECT_EQ(is_marked(*log, queue.buffer_address(slot) + at), type == kRead) << slot;
  }
  DriverRing& ring = queue.ring();
  EXPECT_TRUE(is_marked(*log, ring.options().packed ? ring.descriptor_area() : ring.device_area()));
  EXPECT_FALSE(is_marked(*log, ring.driver_area()));
}

// What is out of range, or unknown, is the request's trouble alone.
TEST_P(FrontEndTest, RefusesWhatIsWrong) {
  const auto device = connect();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->write(kDiskSectors - 1, pattern(8, 1)).value_or(kOk), kIoError);
  EXPECT_EQ(device->run(77, 0, 512).value_or(kOk), kUnsupported);
  EXPECT_EQ(device->write(0, pattern(8, 1)).value_or(kIoError), kOk);
}

TEST_P(FrontEndTest, SurvivesWhoLeaves) {
  for (int i = 0; i < 5; ++i) {
    const auto device = connect();
    ASSERT_TRUE(device);
    for (uint64_t sector = 0; sector < 128; sector += 8) device->queue(0).add(kWrite, sector, 4096);
    device->queue(0).publish();
  }
  const auto device = connect();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->write(0, pattern(8, 1)).value_or(kIoError), kOk);
}

INSTANTIATE_TEST_SUITE_P(All, FrontEndTest, testing::ValuesIn(all_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(All, StatusTest, testing::ValuesIn(cases_of("platter")), name_of);

}  // namespace
}  // namespace platter::front_end
