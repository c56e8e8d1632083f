// Zoned disks seen through the graph: who shows zones, who hides them, and what a backend counts.

#include "block/zoned.h"

#include <gtest/gtest.h>

#include "block/dirty_bitmap.h"
#include "block/latency_histogram.h"
#include "block/test_disk.h"

namespace platter::block {
namespace {

constexpr uint64_t kZoneBytes = 64 << 10;
const std::string kZones = "driver=memory,size=1M,zoned=host-managed,zone-size=64k";
const std::string kAware = "driver=memory,size=1M,zoned=host-aware,zone-size=64k";

std::string below(const std::string& name, const std::string& options) {
  std::string prefixed;
  for (size_t at = 0; at < options.size();) {
    const size_t end = std::min(options.find(',', at), options.size());
    prefixed += "," + name + "." + options.substr(at, end - at);
    at = end + 1;
  }
  return prefixed;
}

class ZonedTest : public DiskTest {
 protected:
  Result<uint64_t> append(uint64_t zone, uint64_t bytes, uint8_t byte = 1) {
    std::vector<uint8_t> data(bytes, byte);
    return run(backend_->zone_append(zone * kZoneBytes, io::BufferList(data)));
  }
  template <typename T>
  static int code_of(const Result<T>& result) {
    return result ? 0 : result.error().code();
  }
};

TEST_F(ZonedTest, RawAndFiltersShowTheZonesBelow) {
  const std::string raw = "driver=raw" + below("file", kZones);
  for (const std::string& options : {kZones, raw, "driver=blkdebug" + below("image", raw),
                                     "driver=copy-on-read" + below("file", raw)}) {
    open(options);
    const auto zoned = backend_->zoned_characteristics();
    ASSERT_TRUE(zoned) << options;
    EXPECT_EQ(zoned->zone_size, kZoneBytes);
    EXPECT_EQ(append(3, 512).value_or(0), 3 * kZoneBytes);
    EXPECT_EQ(append(3, 512).value_or(0), 3 * kZoneBytes + 512);
    Zone zone;
    EXPECT_EQ(run(backend_->zone_report(3 * kZoneBytes + 5, {&zone, 1})).value_or(0), 1U);
    EXPECT_EQ(zone.write_pointer, 3 * kZoneBytes + 1024);
    EXPECT_TRUE(run(backend_->zone_manage(ZoneAction::kReset, 3 * kZoneBytes, kZoneBytes)));
    EXPECT_EQ(append(3, 512).value_or(0), 3 * kZoneBytes);
  }
}

TEST_F(ZonedTest, WindowsAndOtherDisksHaveNone) {
  for (const std::string& options : {"driver=raw,offset=64k" + below("file", kAware),
                                     "driver=raw,size=128k" + below("file", kAware),
                                     std::string("driver=raw,file.driver=memory,file.size=1M")}) {
    open(options);
    EXPECT_FALSE(backend_->zoned_characteristics()) << options;
    Zone zone;
    EXPECT_EQ(code_of(run(backend_->zone_report(0, {&zone, 1}))), ENOTSUP);
    EXPECT_EQ(code_of(run(backend_->zone_manage(ZoneAction::kReset, 0, kZoneBytes))), ENOTSUP);
    EXPECT_EQ(code_of(append(0, 512)), ENOTSUP);
  }
}

TEST_F(ZonedTest, WhoWritesAnywhereGetsNoHostManagedDisk) {
  const std::string named = kZones + ",node-name=d";
  const auto why = [](const std::string& user) {
    return "Node 'd' is a host-managed zoned disk: " + user + " cannot write to it";
  };
  const auto refusal = [&](const std::string& options) {
    const auto opened = try_open(options);
    return opened ? "" : std::string(opened.error().message());
  };
  EXPECT_EQ(refusal("driver=qcow2" + below("file", named)), why("block format 'qcow2'"));
  EXPECT_EQ(refusal("driver=raw,offset=64k" + below("file", named)), why("a window"));
  // Through what shows its zones, too.
  const std::string shown = "driver=raw,node-name=d" + below("file", kZones);
  EXPECT_EQ(refusal("driver=luks" + below("file", shown)), why("block format 'luks'"));
  EXPECT_EQ(graph_.nodes().size(), 0U);
}

TEST_F(ZonedTest, AWindowMayBeRead) {
  open("driver=raw,offset=64k,read-only=on" + below("file", kZones), Permission::kConsistentRead);
  std::vector<uint8_t> data(4096, 1);
  ASSERT_TRUE(run(backend_->read(0, io::BufferList(data))));
  EXPECT_EQ(data, std::vector<uint8_t>(4096));
}

TEST_F(ZonedTest, WhoMayNotWriteChangesNoZone) {
  open(kZones, Permission::kConsistentRead);
  EXPECT_EQ(code_of(append(0, 512)), EPERM);
  EXPECT_EQ(code_of(run(backend_->zone_manage(ZoneAction::kOpen, 0, kZoneBytes))), EPERM);
  Zone zone;
  EXPECT_TRUE(run(backend_->zone_report(0, {&zone, 1})));
  EXPECT_EQ(zone.state, ZoneState::kEmpty);
}

TEST_F(ZonedTest, AppendsAreCounted) {
  open(kZones);
  set_latency_histogram(backend_->node(), LatencyKind::kZoneAppend, LatencyBoundaries{UINT64_MAX});
  EXPECT_TRUE(append(0, 4096));
  EXPECT_TRUE(append(1, 512));
  EXPECT_FALSE(append(0, 2 << 20));
  const Accounting counted = backend_->statistics().zone_append;
  EXPECT_EQ(counted.operations, 2U);
  EXPECT_EQ(counted.bytes, 4608U);
  EXPECT_EQ(counted.failed, 1U);
  EXPECT_EQ(backend_->statistics().write.operations, 0U);
  EXPECT_EQ(latency_histogram(backend_->node(), LatencyKind::kZoneAppend)->bins(),
            (std::vector<uint64_t>{2, 0}));
}

TEST_F(ZonedTest, BitmapsRecordWhatAppendsAndResetsChange) {
  open(kZones);
  const auto bitmap = *DirtyBitmap::create("changes", 1 << 20, 4096);
  backend_->node().record_in(bitmap);
  ASSERT_TRUE(append(2, 4096));
  ASSERT_TRUE(append(2, 4096));
  EXPECT_EQ(bitmap->count(), 2U);
  ASSERT_TRUE(run(backend_->zone_manage(ZoneAction::kFinish, 4 * kZoneBytes, kZoneBytes)));
  EXPECT_EQ(bitmap->count(), 2U) << "its content is the same";
  ASSERT_TRUE(run(backend_->zone_manage(ZoneAction::kReset, 4 * kZoneBytes, kZoneBytes)));
  EXPECT_EQ(bitmap->count(), 2 + kZoneBytes / 4096);
  backend_->node().stop_recording_in(*bitmap);
}

// Elsewhere the node reads the rest of such a block and writes it whole: a zone takes it once.
TEST_F(ZonedTest, PartsOfBlocksAreNotWritten) {
  open(kZones + ",request-alignment=4096");
  std::vector<uint8_t> data(8192, 7);
  const auto write = [&](uint64_t offset, size_t bytes) {
    return code_of(run(backend_->write(offset, io::BufferList(data.data(), bytes))));
  };
  EXPECT_EQ(write(0, 512), kZoneUnaligned);
  EXPECT_EQ(write(0, 4096), 0);
  EXPECT_EQ(write(4096, 4096 + 512), kZoneUnaligned);
  EXPECT_EQ(write(4096, 8192), 0);
  EXPECT_EQ(code_of(append(0, 512)), kZoneUnaligned);
  // Memory of any alignment will do.
  const auto at = run(backend_->zone_append(0, io::BufferList(data.data() + 1, 4096)));
  EXPECT_EQ(at.value_or(0), 3 * 4096U);
  std::vector<uint8_t> back(4096);
  ASSERT_TRUE(run(backend_->read(3 * 4096, io::BufferList(back))));
  EXPECT_EQ(back, std::vector<uint8_t>(4096, 7));
}

TEST_F(ZonedTest, InjectedErrorsOfWritesMeetAppends) {
  open(
      "driver=blkdebug,inject-error.0.event=none,inject-error.0.iotype=write,"
      "inject-error.0.errno=28,inject-error.0.once=on" +
      below("image", kZones));
  EXPECT_EQ(code_of(append(0, 512)), ENOSPC);
  EXPECT_EQ(append(0, 512).value_or(1), 0U);
}

}  // namespace
}  // namespace platter::block
