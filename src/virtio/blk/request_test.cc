#include "virtio/blk/request.h"

#include <gtest/gtest.h>

#include <random>

#include "block/test_disk.h"
#include "virtio/blk/test_request.h"

namespace platter::virtio::blk {
namespace {

using namespace test;

constexpr uint64_t kDiskBytes = 1 << 20;

class BlkRequestTest : public block::DiskTest {
 protected:
  void SetUp() override {
    open("driver=memory,size=1M");
    queue_ = *Queue::make(options_, guest_.memory());
  }
  void put_header(uint32_t type, uint64_t sector) {
    test::put_header(guest_, kHeader, type, sector);
    *guest_.at(kStatus) = kUntouched;
  }
  void put_range(uint64_t sector, uint32_t sectors, uint32_t flags) {
    const std::span<uint8_t> range(guest_.at(kPayload), 16);
    base::store_little<uint64_t>(range, 0, sector);
    base::store_little<uint32_t>(range, 8, sectors);
    base::store_little<uint32_t>(range, 12, flags);
  }
  // Sends the buffers through the queue and carries out what comes out of it.
  Result<Executor::Outcome> send(const std::vector<Buffer>& buffers) {
    driver_.add(buffers, true);
    Chain chain;
    EXPECT_TRUE(*queue_->pop(chain));
    auto request = parse(chain);
    auto outcome = request ? run(Executor(*backend_, properties_).run(*request))
                           : Result<Executor::Outcome>(std::unexpected(std::move(request).error()));
    if (outcome) {
      *request->status = static_cast<uint8_t>(outcome->status);
      queue_->push(chain, outcome->written + 1);
    } else {
      queue_->push(chain, 0);
    }
    (void)queue_->publish();
    EXPECT_TRUE(driver_.collect());
    return outcome;
  }
  Status status_of(uint32_t type, uint64_t sector, uint32_t bytes) {
    put_header(type, sector);
    std::vector<Buffer> buffers = {{kHeader, 16, false}};
    if (bytes != 0) buffers.push_back({kPayload, bytes, (type & 1) == 0});
    buffers.push_back({kStatus, 1, true});
    auto outcome = send(buffers);
    EXPECT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(*guest_.at(kStatus), static_cast<uint8_t>(outcome->status));
    return outcome->status;
  }

  Guest guest_;
  QueueOptions options_ = test::options_of(64, kVersion1 | kIndirectDescriptors);
  test::SplitDriver driver_{guest_, options_};
  std::unique_ptr<Queue> queue_;
  Properties properties_;
};

TEST_F(BlkRequestTest, WritesAndReads) {
  std::memset(guest_.at(kPayload), 0x3c, 4096);
  EXPECT_EQ(status_of(kOut, 8, 4096), Status::kOk);
  std::memset(guest_.at(kPayload), 0, 4096);
  EXPECT_EQ(status_of(kIn, 8, 4096), Status::kOk);
  for (int i = 0; i < 4096; ++i) ASSERT_EQ(guest_.at(kPayload)[i], 0x3c);
  EXPECT_EQ(status_of(kFlushType, 0, 0), Status::kOk);
}

// Header, data and status may be cut anywhere (virtio 1.2, 2.7.4).
TEST_F(BlkRequestTest, PiecesMayBeCutAnywhere) {
  std::memset(guest_.at(kPayload), 0x71, 512);
  put_header(kOut, 4);
  // The header, cut in two, its second half right before the first byte of the data.
  std::memcpy(guest_.at(kPayload - 9), guest_.at(kHeader + 7), 9);
  auto sent = send({{kHeader, 7, false}, {kPayload - 9, 9 + 512, false}, {kStatus, 1, true}});
  ASSERT_TRUE(sent) << sent.error().message();
  EXPECT_EQ(sent->status, Status::kOk);
  put_header(kIn, 4);
  // The status follows the data in one buffer.
  auto read = send({{kHeader, 16, false}, {kPayload + 8192, 512 + 1, true}});
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->written, 512U);
  EXPECT_EQ(guest_.at(kPayload + 8192)[511], 0x71);
  EXPECT_EQ(guest_.at(kPayload + 8192)[512], 0);
}

TEST_F(BlkRequestTest, WithoutHeaderOrStatusItMeansNothing) {
  put_header(kIn, 0);
  auto headless = send({{kHeader, 15, false}, {kStatus, 1, true}});
  ASSERT_FALSE(headless);
  EXPECT_EQ(headless.error().code(), EINVAL);
  EXPECT_FALSE(send({{kHeader, 16, false}}));
  EXPECT_FALSE(send({{kStatus, 1, true}}));
  EXPECT_EQ(*guest_.at(kStatus), kUntouched);
}

TEST_F(BlkRequestTest, RangesThatLeaveTheDiskFail) {
  constexpr uint64_t kSectors = kDiskBytes / 512;
  EXPECT_EQ(status_of(kIn, kSectors - 1, 512), Status::kOk);
  EXPECT_EQ(status_of(kIn, kSectors - 1, 1024), Status::kIoError);
  EXPECT_EQ(status_of(kIn, kSectors, 512), Status::kIoError);
  EXPECT_EQ(status_of(kIn, UINT64_MAX, 512), Status::kIoError);
  EXPECT_EQ(status_of(kIn, UINT64_MAX / 512, 512), Status::kIoError);
  EXPECT_EQ(status_of(kOut, UINT64_MAX / 512 + 1, 512), Status::kIoError)
      << "in bytes it is the start of the disk";
  EXPECT_EQ(status_of(kIn, 0, 513), Status::kIoError);
  properties_.logical_block_bytes = 4096;
  EXPECT_EQ(status_of(kIn, 1, 4096), Status::kIoError);
  EXPECT_EQ(status_of(kIn, 8, 512), Status::kIoError);
  EXPECT_EQ(status_of(kIn, 8, 4096), Status::kOk);
}

TEST_F(BlkRequestTest, ReadOnlyDisksStayAsTheyAre) {
  properties_.read_only = true;
  std::memset(guest_.at(kPayload), 0xff, 512);
  EXPECT_EQ(status_of(kOut, 0, 512), Status::kIoError);
  put_range(0, 1, 0);
  EXPECT_EQ(status_of(kDiscardType, 0, 16), Status::kIoError);
  EXPECT_EQ(status_of(kWriteZeroesType, 0, 16), Status::kIoError);
  EXPECT_EQ(status_of(kIn, 0, 512), Status::kOk);
  EXPECT_EQ(guest_.at(kPayload)[0], 0);
}

TEST_F(BlkRequestTest, TellsItsSerialNumber) {
  properties_.serial = "disk-17";
  std::memset(guest_.at(kPayload), 0xff, 32);
  EXPECT_EQ(status_of(kGetIdType, 0, 20), Status::kOk);
  EXPECT_STREQ(reinterpret_cast<char*>(guest_.at(kPayload)), "disk-17");
  properties_.serial = "0123456789abcdefghijKLM";
  std::memset(guest_.at(kPayload), 0xff, 32);
  EXPECT_EQ(status_of(kGetIdType, 0, 32), Status::kOk);
  EXPECT_EQ(std::memcmp(guest_.at(kPayload), "0123456789abcdefghij\xff", 21), 0);
  EXPECT_EQ(status_of(kGetIdType, 0, 3), Status::kOk);
}

TEST_F(BlkRequestTest, DiscardsAndZeroes) {
  std::memset(guest_.at(kPayload), 0x55, 4096);
  ASSERT_EQ(status_of(kOut, 0, 4096), Status::kOk);
  put_range(1, 2, 0);
  EXPECT_EQ(status_of(kWriteZeroesType, 0, 16), Status::kOk);
  put_range(4, 1, 1);
  EXPECT_EQ(status_of(kWriteZeroesType, 0, 16), Status::kOk) << "it may unmap";
  put_range(6, 1, 0);
  EXPECT_EQ(status_of(kDiscardType, 0, 16), Status::kOk);
  ASSERT_EQ(status_of(kIn, 0, 4096), Status::kOk);
  for (int i = 0; i < 6 * 512; ++i) {
    const int sector = i / 512;
    ASSERT_EQ(guest_.at(kPayload)[i], sector == 1 || sector == 2 || sector == 4 ? 0 : 0x55) << i;
  }
}

TEST_F(BlkRequestTest, RefusesRangesThatCannotBe) {
  const auto of_range = [&](uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags) {
    put_range(sector, sectors, flags);
    return status_of(type, 0, 16);
  };
  EXPECT_EQ(of_range(kDiscardType, 0, 1, 1), Status::kUnsupported) << "discard has no flags";
  EXPECT_EQ(of_range(kWriteZeroesType, 0, 1, 2), Status::kUnsupported);
  EXPECT_EQ(of_range(kDiscardType, 2047, 2, 0), Status::kIoError);
  EXPECT_EQ(of_range(kDiscardType, UINT64_MAX, 2, 0), Status::kIoError);
  EXPECT_EQ(of_range(kDiscardType, 0, UINT32_MAX, 0), Status::kIoError);
  properties_.max_write_zeroes_sectors = 8;
  EXPECT_EQ(of_range(kWriteZeroesType, 0, 9, 0), Status::kIoError);
  EXPECT_EQ(of_range(kWriteZeroesType, 0, 8, 0), Status::kOk);
  EXPECT_EQ(status_of(kDiscardType, 0, 32), Status::kUnsupported) << "one range at a time";
  EXPECT_EQ(status_of(kDiscardType - 1, 0, 16), Status::kUnsupported) << "not sent by the driver";
  properties_.discard = false;
  EXPECT_EQ(of_range(kDiscardType, 0, 1, 0), Status::kUnsupported);
  put_header(kWriteZeroesType, 0);
  EXPECT_FALSE(send({{kHeader, 16, false}, {kPayload, 15, false}, {kStatus, 1, true}}));
}

TEST_F(BlkRequestTest, KnowsNoOtherTypes) {
  EXPECT_EQ(status_of(kScsi, 0, 0), Status::kUnsupported);
  EXPECT_EQ(status_of(kSecureErase, 0, 0), Status::kUnsupported);
  EXPECT_EQ(status_of(0x7ffffffe, 0, 512), Status::kUnsupported);
}

TEST_F(BlkRequestTest, TheBarrierOfOldDriversIsIgnored) {
  EXPECT_EQ(status_of(UINT32_C(1) << 31, 0, 512), Status::kOk);
}

}  // namespace
}  // namespace platter::virtio::blk
