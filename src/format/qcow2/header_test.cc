#include "format/qcow2/header.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "base/bytes.h"

namespace platter::format::qcow2 {
namespace {

Header sample() {
  Header header;
  header.size = 1 << 20;
  header.l1_entries = 1;
  header.l1_table_offset = 0x30000;
  header.refcount_table_offset = 0x10000;
  header.refcount_table_clusters = 1;
  return header;
}

// The first cluster of an image, with whatever a test spoils.
struct FirstCluster {
  explicit FirstCluster(const Header& header = sample()) : bytes(header.cluster_size()) {
    const auto head = serialise_header(header);
    EXPECT_TRUE(head.has_value());
    std::ranges::copy(*head, bytes.begin());
  }
  template <typename T>
  FirstCluster& set(size_t offset, T value) {
    base::store_big(std::span<uint8_t>(bytes), offset, value);
    return *this;
  }
  FirstCluster& text(size_t offset, std::string_view value) {
    std::ranges::copy(value, bytes.begin() + static_cast<ptrdiff_t>(offset));
    return *this;
  }
  // Where the feature name table was, a record of `type` and `length`.
  FirstCluster& extension(uint32_t type, uint32_t length) {
    return set(112, type).set(116, length);
  }
  std::string error(ParseOptions options = {}) const {
    const auto header = parse_header(bytes, options);
    return header ? "" : header.error().message();
  }
  std::vector<uint8_t> bytes;
};

TEST(Header, ComesBackAsItWent) {
  Header header = sample();
  header.backing_file = "base.raw";
  header.backing_format = "raw";
  header.compatible = kLazyRefcounts;
  header.incompatible = kCompressionTypeBit;
  header.compression_type = CompressionType::kZstd;
  header.autoclear = kBitmapsValid | uint64_t{1} << 40;
  header.bitmaps = BitmapsExtension{2, 64, 0x50000};
  header.unknown_extensions = {{0x12345678, {1, 2, 3}}, {0x9abcdef0, {}}};
  header.unknown_fields = {9, 8, 7, 6, 5, 4, 3, 2};
  header.refcount_order = 6;
  const auto back = parse_header(FirstCluster(header).bytes, {});
  ASSERT_TRUE(back.has_value()) << back.error().message();
  EXPECT_EQ(*back, header);
}

TEST(Header, Version2HasNoFeatureFields) {
  Header header = sample();
  header.version = 2;
  header.backing_file = "b";
  const auto head = serialise_header(header);
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->size(), kHeaderBytesV2 + 8 + 1);
  const auto back = parse_header(FirstCluster(header).bytes, {});
  ASSERT_TRUE(back.has_value()) << back.error().message();
  EXPECT_EQ(*back, header);
}

TEST(Header, EveryFieldIsChecked) {
  using F = FirstCluster;
  EXPECT_EQ(F().set<uint32_t>(0, 0).error(), "Image is not in qcow2 format");
  EXPECT_EQ(F().set<uint32_t>(4, 1).error(), "Unsupported qcow2 version 1");
  EXPECT_EQ(F().set<uint32_t>(20, 8).error(), "Unsupported cluster size: 2^8");
  EXPECT_EQ(F().set<uint32_t>(20, 22).error(), "Unsupported cluster size: 2^22");
  EXPECT_EQ(F().set<uint32_t>(100, 100).error(), "qcow2 header too short");
  EXPECT_EQ(F().set<uint32_t>(100, 65537).error(), "qcow2 header exceeds cluster size");
  EXPECT_EQ(F().set<uint64_t>(8, 1ull << 33).error(), "Invalid backing file offset");
  EXPECT_EQ(F().set<uint64_t>(8, 65530).set<uint32_t>(16, 100).error(),
            "Backing file name too long");
  EXPECT_EQ(F().set<uint64_t>(8, 600).set<uint32_t>(16, 1024).error(),
            "Backing file name too long");
  EXPECT_EQ(F().set<uint8_t>(104, 1).error(),
            "qcow2: Compression type incompatible feature bit must be set");
  EXPECT_EQ(F().set<uint64_t>(72, 8).error(),
            "qcow2: Compression type incompatible feature bit must not be set");
  EXPECT_EQ(F().set<uint8_t>(104, 2).error(), "qcow2: unknown compression type: 2");
  EXPECT_EQ(F().set<uint32_t>(96, 7).error(),
            "Reference count entry width too large; may not exceed 64 bits");
  EXPECT_EQ(F().set<uint32_t>(32, 3).error(), "Unsupported encryption method 3");
  EXPECT_EQ(F().set<uint32_t>(56, 129).error(), "Reference count table too large");
  EXPECT_EQ(F().set<uint64_t>(48, 65537).error(), "Reference count table offset invalid");
  EXPECT_EQ(F().set<uint32_t>(56, 0).error(), "Image does not contain a reference count table");
  EXPECT_EQ(F().set<uint32_t>(56, 0).error({.tolerate_damage = true}), "");
  EXPECT_EQ(F().set<uint32_t>(36, 4194305).error(), "Active L1 table too large");
  EXPECT_EQ(F().set<uint32_t>(36, 0).error(), "L1 table is too small");
  EXPECT_EQ(F().set<uint64_t>(40, 512).error(), "Active L1 table offset invalid");
  EXPECT_EQ(F().set<uint64_t>(40, 1ull << 63).error(), "Active L1 table offset invalid");
  EXPECT_EQ(F().set<uint64_t>(24, 1ull << 62).error(), "Image is too big");
  EXPECT_EQ(F().set<uint64_t>(24, UINT64_MAX).error(), "Image is too big");
  EXPECT_EQ(F().set<uint32_t>(60, 65537).error(), "Snapshot table too large");
  EXPECT_EQ(F().set<uint64_t>(64, 512).error(), "Snapshot table offset invalid");
  EXPECT_EQ(F().set<uint64_t>(64, 512).error({.tolerate_damage = true}), "");
  EXPECT_EQ(F().set<uint64_t>(72, 16).set<uint32_t>(20, 12).error(),
            "Unsupported subcluster size: 128");
}

TEST(Header, TablesMustFitTheBudget) {
  FirstCluster image;
  image.set<uint32_t>(36, 1 << 20);
  EXPECT_EQ(image.error({.max_metadata_bytes = 1 << 20}),
            "The image's tables need 8454144 bytes of memory, more than the 1048576 allowed");
  EXPECT_EQ(image.error({.max_metadata_bytes = 9 << 20}), "");
}

TEST(Header, UnknownIncompatibleFeaturesAreNamed) {
  FirstCluster image;
  image.set<uint64_t>(72, 32 | 64 | 128).extension(0x6803f857, 96).set<uint64_t>(216, 0);
  image.set<uint64_t>(168, 0).set<uint16_t>(120, 5).text(
      122, std::string("quux feature").append(34, '\0'));
  EXPECT_EQ(image.error(),
            "Unsupported qcow2 feature(s): quux feature, Unknown incompatible feature: c0");
}

TEST(Header, ExtensionsAreChecked) {
  using F = FirstCluster;
  EXPECT_EQ(F().extension(0x12345678, 0xffffffff).error(), "Header extension too large");
  EXPECT_EQ(F().extension(0xe2792aca, 16).error(),
            "ERROR: ext_backing_format: len=16 too large (>=16)");
  EXPECT_EQ(F().extension(0x0537be77, 16).error(),
            "CRYPTO header extension only expected with LUKS encryption method");
  EXPECT_EQ(F().set<uint32_t>(32, 2).extension(0x0537be77, 8).error(),
            "CRYPTO header extension size 8, but expected size 16");
  FirstCluster bitmaps;
  bitmaps.set<uint64_t>(88, 1)
      .extension(0x23852875, 24)
      .set<uint32_t>(120, 1)
      .set<uint32_t>(124, 0);
  bitmaps.set<uint64_t>(128, 100).set<uint64_t>(136, 7);
  EXPECT_EQ(bitmaps.error(), "bitmaps_ext: invalid bitmap directory offset");
  bitmaps.set<uint64_t>(88, 0);  // out of step with the data: not looked at
  EXPECT_EQ(bitmaps.error(), "");
}

TEST(Header, TooMuchForOneClusterIsRefused) {
  Header header = sample();
  header.cluster_bits = 9;
  header.backing_file = std::string(500, 'x');
  const auto head = serialise_header(header);
  ASSERT_FALSE(head.has_value());
  EXPECT_EQ(head.error().code(), ENOSPC);
}

TEST(Header, UnsupportedFeaturesAreNamedForIoOnly) {
  Header header = sample();
  header.autoclear = kRawExternalData;
  EXPECT_EQ(check_supported(header).error().message(), "data-file-raw requires a data file");
  header.incompatible = kExternalDataFile;
  EXPECT_TRUE(check_supported(header));
  EXPECT_TRUE(parse_header(FirstCluster(header).bytes, {}).has_value());
}

TEST(Layout, WhatASubclusterIs) {
  const Geometry geometry = {.extended_l2 = true};
  const auto kind = [&](uint64_t entry, uint64_t bitmap, unsigned index) {
    return decode_subcluster({entry, bitmap}, index, geometry).kind;
  };
  EXPECT_EQ(geometry.l2_entries(), 4096u);
  EXPECT_EQ(geometry.subcluster_size(), 2048u);
  EXPECT_EQ(kind(0, 0, 0), ClusterKind::kUnallocated);
  EXPECT_EQ(kind(0x50000, 0, 0), ClusterKind::kReserved);
  EXPECT_EQ(kind(0x50000, 2, 1), ClusterKind::kNormal);
  EXPECT_EQ(kind(0x50000, 2, 2), ClusterKind::kReserved);
  EXPECT_EQ(kind(0x50000, uint64_t{1} << 63, 31), ClusterKind::kZeroAllocated);
  EXPECT_EQ(kind(0, uint64_t{1} << 63, 31), ClusterKind::kZero);
  EXPECT_EQ(kind(kZeroFlag, 0, 31), ClusterKind::kUnallocated) << "it has no zero flag";
  EXPECT_EQ(kind(0, 2, 31), ClusterKind::kInvalid) << "allocated, and nowhere";
  EXPECT_EQ(kind(0x50000, uint64_t{1} << 32 | 1, 31), ClusterKind::kInvalid) << "both at once";
  EXPECT_EQ(kind(0x50200, 1, 0), ClusterKind::kInvalid);
  EXPECT_EQ(kind(kCompressedFlag, 5, 0), ClusterKind::kCompressed);
  EXPECT_FALSE(bitmap_is_valid({kCompressedFlag, 5}, geometry));
  const Geometry elsewhere = {.extended_l2 = true, .external_data = true};
  EXPECT_EQ(decode_subcluster({kCopiedFlag, 1}, 0, elsewhere).kind, ClusterKind::kNormal);
  EXPECT_EQ(subcluster_mask(0, 32), kAllSubclusters);
  EXPECT_EQ(subcluster_mask(3, 5), 0x18u);
}

TEST(Layout, RefcountsOfEveryWidth) {
  for (unsigned order = 0; order <= kMaxRefcountOrder; ++order) {
    uint8_t block[64] = {};
    const uint64_t entries = sizeof block * 8 >> order;
    const uint64_t max = Geometry{.refcount_order = order}.max_refcount();
    for (uint64_t i = 0; i < entries; ++i) store_refcount(block, i, order, (i * 7 + 1) & max);
    for (uint64_t i = 0; i < entries; ++i) {
      EXPECT_EQ(load_refcount(block, i, order), (i * 7 + 1) & max) << order << " " << i;
    }
  }
  uint8_t byte = 0;
  store_refcount(&byte, 0, 0, 1);
  EXPECT_EQ(byte, 1);  // the first count is the least significant bit
}

TEST(Layout, CompressedEntriesComeBack) {
  for (unsigned bits = kMinClusterBits; bits <= kMaxClusterBits; ++bits) {
    const uint64_t offset = (uint64_t{1} << 40) + 777;
    const uint64_t length = (uint64_t{1} << bits) - 5;
    const CompressedSpan span = decode_compressed(encode_compressed(offset, length, bits), bits);
    EXPECT_EQ(span.host_offset, offset);
    EXPECT_GE(span.length, length);
    EXPECT_LT(span.length, length + kSectorBytes);
    EXPECT_EQ((span.host_offset + span.length) % kSectorBytes, 0u);
  }
}

TEST(Layout, StandardEntries) {
  const Geometry geometry;
  EXPECT_EQ(decode_l2_entry(0, geometry).kind, ClusterKind::kUnallocated);
  EXPECT_EQ(decode_l2_entry(1, geometry).kind, ClusterKind::kZero);
  EXPECT_EQ(decode_l2_entry(0x50001, geometry).kind, ClusterKind::kZeroAllocated);
  EXPECT_EQ(decode_l2_entry(kCopiedFlag | 0x50000, geometry).kind, ClusterKind::kNormal);
  EXPECT_TRUE(decode_l2_entry(kCopiedFlag | 0x50000, geometry).copied);
  EXPECT_EQ(decode_l2_entry(0x50200, geometry).kind, ClusterKind::kInvalid);
  EXPECT_EQ(decode_l2_entry(1, {.version = 2}).kind, ClusterKind::kInvalid);
  EXPECT_EQ(decode_l2_entry(kCompressedFlag, geometry).kind, ClusterKind::kCompressed);
}

}  // namespace
}  // namespace platter::format::qcow2
