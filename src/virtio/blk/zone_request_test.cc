#include <gtest/gtest.h>

#include "base/bytes.h"
#include "block/test_disk.h"
#include "virtio/blk/request.h"
#include "virtio/blk/test_request.h"

namespace platter::virtio::blk {
namespace {

using namespace test;

constexpr uint64_t kZoneSectors = 32;  // 16 KiB
constexpr uint32_t kDescriptorBytes = 64;

constexpr auto kInvalid = Status::kZoneInvalidCommand;
constexpr auto kUnaligned = Status::kZoneUnalignedPointer;

// Eight zones of 16 KiB, of which 12 can be written; the first is conventional, the last has 8 KiB.
class ZoneRequestTest : public block::DiskTest {
 protected:
  void SetUp() override {
    open_zoned(
        "zoned=host-managed,size=120k,zone-size=16k,zone-capacity=12k,conventional-zones=1,"
        "max-open-zones=2,max-active-zones=3,max-append-bytes=4k");
    queue_ = *Queue::make(options_, guest_.memory());
  }
  void open_zoned(const std::string& options) {
    open("driver=memory," + options);
    properties_.zoned = backend_->zoned_characteristics();
    executor_ = std::make_unique<Executor>(*backend_, properties_);
    executor_->use_zones(true);
  }

  // Through the queue. `written`: bytes that the driver may read, the status left out.
  Status send(uint32_t type, uint64_t sector, std::vector<Buffer> data) {
    put_header(guest_, kHeader, type, sector);
    *guest_.at(kStatus) = kUntouched;
    data.insert(data.begin(), {kHeader, 16, false});
    data.push_back({kStatus, 1, true});
    driver_.add(data, true);
    Chain chain;
    EXPECT_TRUE(*queue_->pop(chain));
    const auto request = parse(chain);
    EXPECT_TRUE(request) << request.error().message();
    const auto outcome = run(executor_->run(*request));
    EXPECT_TRUE(outcome) << outcome.error().message();
    written_ = outcome->written;
    queue_->push(chain, 0);
    (void)queue_->publish();
    EXPECT_TRUE(driver_.collect());
    return outcome->status;
  }
  Status write(uint64_t sector, uint32_t bytes) {
    return send(kOut, sector, {{kPayload, bytes, false}});
  }
  Status read(uint64_t sector, uint32_t bytes) {
    return send(kIn, sector, {{kPayload, bytes, true}});
  }
  Status manage(uint32_t type, uint64_t zone) { return send(type, zone * kZoneSectors, {}); }
  static constexpr uint64_t kAppendSector = kPayload + 0x10000;
  Status append(uint64_t sector, uint32_t bytes, uint32_t room = 8) {
    std::vector<Buffer> buffers;
    if (bytes != 0) buffers.push_back({kPayload, bytes, false});
    if (room != 0) buffers.push_back({kAppendSector, room, true});
    return send(kAppend, sector, buffers);
  }
  uint64_t append_sector() { return base::load_little<uint64_t>({guest_.at(kAppendSector), 8}, 0); }
  Status report(uint64_t sector, uint32_t room) {
    std::memset(guest_.at(kPayload), 0xee, room + 1);
    return send(kReport, sector, {{kPayload, room, true}});
  }
  std::span<const uint8_t> descriptor(unsigned index) {
    return {guest_.at(kPayload + (1 + index) * kDescriptorBytes), kDescriptorBytes};
  }
  uint64_t reported() { return base::load_little<uint64_t>({guest_.at(kPayload), 8}, 0); }
  uint8_t state(uint64_t zone) {
    EXPECT_EQ(report(zone * kZoneSectors, 2 * kDescriptorBytes), Status::kOk);
    return descriptor(0)[25];
  }

  Guest guest_;
  QueueOptions options_ = test::options_of(64, kVersion1 | kIndirectDescriptors);
  test::SplitDriver driver_{guest_, options_};
  std::unique_ptr<Queue> queue_;
  Properties properties_;
  uint32_t written_ = 0;
  std::unique_ptr<Executor> executor_;
};

TEST_F(ZoneRequestTest, ReportsToTheByte) {
  ASSERT_EQ(write(3 * kZoneSectors, 1024), Status::kOk);
  ASSERT_EQ(report(0, 9 * kDescriptorBytes), Status::kOk);
  EXPECT_EQ(written_, 9 * kDescriptorBytes);
  EXPECT_EQ(reported(), 8U);
  for (size_t i = 8; i < kDescriptorBytes; ++i) EXPECT_EQ(guest_.at(kPayload)[i], 0) << i;
  for (unsigned zone = 0; zone < 8; ++zone) {
    const auto bytes = descriptor(zone);
    const uint64_t capacity = zone == 0 ? 32 : zone == 7 ? 16 : 24;
    EXPECT_EQ(base::load_little<uint64_t>(bytes, 0), capacity) << zone;
    EXPECT_EQ(base::load_little<uint64_t>(bytes, 8), zone * kZoneSectors);
    const uint64_t pointer = zone * kZoneSectors + (zone == 3 ? 2 : 0);
    if (zone != 0) EXPECT_EQ(base::load_little<uint64_t>(bytes, 16), pointer) << zone;
    EXPECT_EQ(bytes[24], zone == 0 ? 1 : 2);
    EXPECT_EQ(bytes[25], zone == 0 ? 0 : zone == 3 ? 2 : 1);
    for (size_t i = 26; i < kDescriptorBytes; ++i) EXPECT_EQ(bytes[i], 0);
  }
}

TEST_F(ZoneRequestTest, AReportIsAsLongAsThereIsRoom) {
  EXPECT_EQ(report(0, 63), kInvalid);
  EXPECT_EQ(written_, 0U);
  EXPECT_EQ(report(0, 64), Status::kOk);
  EXPECT_EQ(reported(), 0U);
  EXPECT_EQ(report(0, 127), Status::kOk);
  EXPECT_EQ(reported(), 0U);
  EXPECT_EQ(written_, 64U);
  EXPECT_EQ(report(kZoneSectors * 2 + 5, 4 * kDescriptorBytes - 1), Status::kOk);
  EXPECT_EQ(reported(), 2U);
  EXPECT_EQ(base::load_little<uint64_t>(descriptor(0), 8), kZoneSectors * 2);
  EXPECT_EQ(guest_.at(kPayload)[3 * kDescriptorBytes], 0xee);
  EXPECT_EQ(report(239, 8 * kDescriptorBytes), Status::kOk) << "the last sector";
  EXPECT_EQ(reported(), 1U);
  EXPECT_EQ(report(240, 8 * kDescriptorBytes), kInvalid);
  EXPECT_EQ(report(UINT64_MAX, 8 * kDescriptorBytes), kInvalid);
  EXPECT_EQ(report(UINT64_MAX / 512 + 1, 8 * kDescriptorBytes), kInvalid);
}

TEST_F(ZoneRequestTest, AReportOfManyZonesIsWhole) {
  open_zoned("zoned=host-managed,size=400k,zone-size=4k");
  ASSERT_EQ(report(8, 200 * kDescriptorBytes), Status::kOk);
  EXPECT_EQ(reported(), 99U);
  EXPECT_EQ(written_, 100 * kDescriptorBytes);
  for (unsigned i = 0; i < 99; ++i)
    EXPECT_EQ(base::load_little<uint64_t>(descriptor(i), 8), 8 * (i + 1));
}

TEST_F(ZoneRequestTest, AppendsAndTellsWhere) {
  std::memset(guest_.at(kPayload), 0x61, 512);
  EXPECT_EQ(append(kZoneSectors, 512), Status::kOk);
  EXPECT_EQ(append_sector(), kZoneSectors);
  EXPECT_EQ(written_, 8U);
  std::memset(guest_.at(kPayload), 0x62, 512);
  EXPECT_EQ(append(kZoneSectors, 512), Status::kOk);
  EXPECT_EQ(append_sector(), kZoneSectors + 1);
  ASSERT_EQ(read(kZoneSectors, 1024), Status::kOk);
  EXPECT_EQ(guest_.at(kPayload)[0], 0x61);
  EXPECT_EQ(guest_.at(kPayload)[512], 0x62);
  EXPECT_EQ(backend_->statistics().zone_append.operations, 2U);
  EXPECT_EQ(backend_->statistics().zone_append.bytes, 1024U);
}

TEST_F(ZoneRequestTest, RefusesAppendsThatCannotBe) {
  EXPECT_EQ(append(kZoneSectors, 512, 7), kInvalid);
  EXPECT_EQ(append(kZoneSectors, 512, 9), kInvalid);
  EXPECT_EQ(append(kZoneSectors, 512, 0), kInvalid);
  EXPECT_EQ(append(kZoneSectors, 0), kInvalid);
  EXPECT_EQ(append(kZoneSectors, 511), kInvalid);
  EXPECT_EQ(append(kZoneSectors, 4608), kInvalid) << "larger than max_append_sectors";
  EXPECT_EQ(append(kZoneSectors + 1, 512), kInvalid) << "not where a zone begins";
  EXPECT_EQ(append(0, 512), kInvalid) << "a conventional zone";
  EXPECT_EQ(append(240, 512), kInvalid);
  EXPECT_EQ(append(UINT64_MAX, 512), kInvalid);
  EXPECT_EQ(append(UINT64_MAX / 512 + 1 + kZoneSectors, 512), kInvalid);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(append(kZoneSectors, 4096), Status::kOk);
  EXPECT_EQ(append(kZoneSectors, 512), kInvalid) << "the zone is full";
  EXPECT_EQ(state(1), 14);
  properties_.read_only = true;
  EXPECT_EQ(append(2 * kZoneSectors, 512), Status::kIoError);
  open_zoned("zoned=host-managed,size=64k,zone-size=16k,max-append-bytes=0");
  properties_.read_only = false;
  EXPECT_EQ(append(kZoneSectors, 512), Status::kUnsupported);
}

TEST_F(ZoneRequestTest, WritesFollowThePointer) {
  EXPECT_EQ(write(kZoneSectors + 1, 512), kUnaligned);
  EXPECT_EQ(write(kZoneSectors, 1024), Status::kOk);
  EXPECT_EQ(write(kZoneSectors, 512), kUnaligned);
  EXPECT_EQ(write(kZoneSectors + 2, 11 * 1024 + 512), kInvalid) << "more than it holds";
  EXPECT_EQ(write(kZoneSectors + 2, 16 * 1024), kInvalid) << "into the next zone";
  EXPECT_EQ(state(1), 2);
  EXPECT_EQ(write(kZoneSectors + 2, 11 * 1024), Status::kOk);
  EXPECT_EQ(state(1), 14);
  EXPECT_EQ(write(kZoneSectors + 24, 512), kInvalid);
  EXPECT_EQ(write(20, 512), Status::kOk) << "a conventional zone";
  EXPECT_EQ(write(kZoneSectors - 1, 1024), kInvalid);
  EXPECT_EQ(write(240, 512), Status::kIoError) << "no zone";
}

TEST_F(ZoneRequestTest, ReadsStayInTheirZone) {
  EXPECT_EQ(read(kZoneSectors, 16384), Status::kOk) << "what was not written, too";
  EXPECT_EQ(guest_.at(kPayload)[0], 0);
  EXPECT_EQ(read(kZoneSectors + 31, 1024), kInvalid);
  EXPECT_EQ(read(kZoneSectors - 1, 1024), kInvalid);
  open_zoned("zoned=host-managed,size=64k,zone-size=16k,conventional-zones=2");
  EXPECT_EQ(read(kZoneSectors - 1, 1024), Status::kOk) << "between conventional zones";
  open_zoned("zoned=host-aware,size=64k,zone-size=16k");
  EXPECT_EQ(read(kZoneSectors - 1, 1024), Status::kOk);
  EXPECT_EQ(write(kZoneSectors - 1, 1024), Status::kOk);
  EXPECT_EQ(write(5, 512), Status::kOk) << "anywhere";
}

TEST_F(ZoneRequestTest, ZonesAreOpenedAndClosed) {
  EXPECT_EQ(manage(kOpen, 1), Status::kOk);
  EXPECT_EQ(state(1), 3);
  EXPECT_EQ(manage(kClose, 1), Status::kOk);
  EXPECT_EQ(state(1), 1);
  EXPECT_EQ(manage(kClose, 1), kInvalid) << "it is empty";
  EXPECT_EQ(manage(kOpen, 1), Status::kOk);
  EXPECT_EQ(manage(kOpen, 2), Status::kOk);
  EXPECT_EQ(manage(kOpen, 3), Status::kZoneOpenResource);
  EXPECT_EQ(write(3 * kZoneSectors, 512), Status::kZoneOpenResource);
  EXPECT_EQ(append(3 * kZoneSectors, 512), Status::kZoneOpenResource);
  EXPECT_EQ(write(kZoneSectors, 512), Status::kOk);
  EXPECT_EQ(state(1), 3);
  EXPECT_EQ(manage(kClose, 1), Status::kOk);
  EXPECT_EQ(state(1), 4);
  EXPECT_EQ(manage(kOpen, 3), Status::kOk);
  EXPECT_EQ(manage(kOpen, 4), Status::kZoneActiveResource);
  EXPECT_EQ(write(4 * kZoneSectors, 512), Status::kZoneActiveResource);
  EXPECT_EQ(manage(kFinish, 2), Status::kOk);
  EXPECT_EQ(state(2), 14);
  EXPECT_EQ(manage(kFinish, 2), Status::kOk);
  EXPECT_EQ(manage(kOpen, 2), kInvalid);
  EXPECT_EQ(manage(kClose, 2), kInvalid);
  EXPECT_EQ(manage(kReset, 2), Status::kOk);
  EXPECT_EQ(state(2), 1);
  EXPECT_EQ(manage(kReset, 2), Status::kOk);
}

TEST_F(ZoneRequestTest, ZonesAreNamedByTheirFirstSector) {
  for (const uint32_t type : {kOpen, kClose, kFinish, kReset}) {
    EXPECT_EQ(send(type, kZoneSectors + 1, {}), kInvalid);
    EXPECT_EQ(send(type, 0, {}), kInvalid) << "a conventional zone";
    EXPECT_EQ(send(type, 240, {}), kInvalid);
    EXPECT_EQ(send(type, UINT64_MAX, {}), kInvalid);
    EXPECT_EQ(send(type, UINT64_MAX / 512 + 1 + kZoneSectors, {}), kInvalid);
    EXPECT_EQ(send(type + 1, kZoneSectors, {}), Status::kUnsupported) << "not sent";
  }
  EXPECT_EQ(send(kOpen, 7 * kZoneSectors, {}), Status::kOk) << "the last one is smaller";
  EXPECT_EQ(send(kFinish, 7 * kZoneSectors, {}), Status::kOk);
}

TEST_F(ZoneRequestTest, AllZonesAreReset) {
  ASSERT_EQ(write(5, 512), Status::kOk);
  ASSERT_EQ(write(kZoneSectors, 512), Status::kOk);
  ASSERT_EQ(manage(kFinish, 3), Status::kOk);
  EXPECT_EQ(send(kResetAll, 17, {}), Status::kOk);
  EXPECT_EQ(state(0), 0);
  for (const uint64_t zone : {1, 3}) EXPECT_EQ(state(zone), 1);
  ASSERT_EQ(read(kZoneSectors, 512), Status::kOk);
  for (int i = 0; i < 512; ++i) ASSERT_EQ(guest_.at(kPayload)[i], 0);
}

TEST_F(ZoneRequestTest, ReadOnlyZonesStayAsTheyAre) {
  properties_.read_only = true;
  for (const uint32_t type : {kOpen, kClose, kFinish, kReset, kResetAll})
    EXPECT_EQ(send(type, kZoneSectors, {}), Status::kIoError);
  EXPECT_EQ(state(1), 1);
}

TEST_F(ZoneRequestTest, WithoutNegotiationThereAreNone) {
  executor_->use_zones(false);
  for (const uint32_t type : {kAppend, kReport, kOpen, kClose, kFinish, kReset, kResetAll})
    EXPECT_EQ(send(type, kZoneSectors, {{kPayload, 512, type != kAppend}}), Status::kUnsupported);
  EXPECT_EQ(write(kZoneSectors + 1, 512), Status::kIoError);
  executor_->use_zones(true);
  EXPECT_EQ(send(kSecureErase, 0, {}), Status::kUnsupported);
}

TEST_F(ZoneRequestTest, WritesAreNotMergedNorReadsAcrossZones) {
  std::vector<uint8_t> data(1024);
  Request next{};
  next.out = false;
  next.sector = 2 * kZoneSectors - 2;
  next.to_driver = io::BufferList(data);
  EXPECT_TRUE(executor_->may_merge(kZoneSectors, next));
  next.sector = 2 * kZoneSectors - 1;
  EXPECT_FALSE(executor_->may_merge(kZoneSectors, next)) << "it ends in another zone";
  next.sector = 2 * kZoneSectors;
  EXPECT_FALSE(executor_->may_merge(kZoneSectors, next));
  next.out = true;
  next.sector = kZoneSectors + 2;
  EXPECT_FALSE(executor_->may_merge(kZoneSectors, next));
  properties_.zoned.reset();
  EXPECT_TRUE(executor_->may_merge(kZoneSectors, next));
}

}  // namespace
}  // namespace platter::virtio::blk
