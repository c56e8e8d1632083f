#include "format/qcow2/info.h"

#include <gtest/gtest.h>

namespace platter::format::qcow2 {
namespace {

TEST(Info, Version3InQemusOrder) {
  Header header;
  header.compatible = kLazyRefcounts;
  header.compression_type = CompressionType::kZstd;
  header.incompatible = kCompressionTypeBit | kCorrupt | kDirty;
  const block::DriverInfo info = describe(header, {});
  EXPECT_EQ(
      info.specific.dump(),
      R"({"type": "qcow2", "data": {"compat": "1.1", "compression-type": "zstd", )"
      R"("lazy-refcounts": true, "refcount-bits": 16, "corrupt": true, "extended-l2": false}})");
  EXPECT_EQ(info.cluster_size, 65536u);
  EXPECT_TRUE(info.dirty);
  EXPECT_FALSE(info.encrypted);
}

TEST(Info, Version2SaysLess) {
  Header header;
  header.version = 2;
  EXPECT_EQ(describe(header, {}).specific.dump(),
            R"({"type": "qcow2", "data": {"compat": "0.10", "compression-type": "zlib", )"
            R"("refcount-bits": 16}})");
}

TEST(Info, WhatIsNotSupportedIsStillDescribed) {
  Header header;
  header.crypt_method = CryptMethod::kLuks;
  header.incompatible = kExternalDataFile | kExtendedL2;
  header.data_file = "d.raw";
  header.autoclear = kRawExternalData;
  const block::DriverInfo info = describe(header, {});
  EXPECT_TRUE(info.encrypted);
  EXPECT_EQ(info.specific.find("data")->dump(),
            R"({"compat": "1.1", "compression-type": "zlib", "lazy-refcounts": false, )"
            R"("refcount-bits": 16, "data-file": "d.raw", "encrypt": {"format": "luks"}, )"
            R"("data-file-raw": true, "corrupt": false, "extended-l2": true})");
}

TEST(Info, BitmapsAndSnapshots) {
  const Bitmap bitmaps[] = {
      {.flags = kBitmapAuto | kBitmapInUse, .granularity_bits = 16, .name = "b0"}};
  Snapshot snapshot;
  snapshot.id = "1";
  snapshot.name = "before";
  snapshot.date_seconds = 1700000000;
  const block::DriverInfo info = describe(Header{}, bitmaps, std::span(&snapshot, 1));
  EXPECT_EQ(info.specific.find("data")->find("bitmaps")->dump(),
            R"([{"flags": ["in-use", "auto"], "name": "b0", "granularity": 65536}])");
  ASSERT_EQ(info.snapshots.size(), 1u);
  EXPECT_EQ(info.snapshots[0].name, "before");
  EXPECT_FALSE(info.snapshots[0].icount.has_value());
}

}  // namespace
}  // namespace platter::format::qcow2
