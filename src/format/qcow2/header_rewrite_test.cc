// Whatever a power cut leaves of a header that is being changed is the present one or the next.

#include "format/qcow2/header_rewrite.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>

#include "base/bytes.h"
#include "support/scratch_directory.h"

namespace platter::format::qcow2 {
namespace {

using Cluster = std::vector<uint8_t>;

Header sample(uint32_t cluster_bits) {
  Header header;
  header.cluster_bits = cluster_bits;
  header.size = uint64_t{1} << cluster_bits;
  header.l1_entries = 1;
  header.l1_table_offset = uint64_t{3} << cluster_bits;
  header.refcount_table_offset = uint64_t{1} << cluster_bits;
  header.refcount_table_clusters = 1;
  return header;
}

std::string name_of(std::mt19937_64& random, std::initializer_list<size_t> lengths) {
  const size_t length = lengths.begin()[random() % lengths.size()];
  return std::string(length, static_cast<char>('a' + random() % 26));
}

std::vector<uint8_t> bytes_of(std::mt19937_64& random, std::initializer_list<size_t> lengths) {
  const std::string text = name_of(random, lengths);
  return {text.begin(), text.end()};
}

// Anything that rebase, amend and bitmaps make of a header, and what other programs put into it.
Header draw(std::mt19937_64& random, uint32_t cluster_bits) {
  Header header = sample(cluster_bits);
  header.version = random() % 4 == 0 ? 2 : 3;
  header.backing_file = name_of(random, {0, 1, 90, 300, 390, 450, 700, 1000, 1023});
  if (random() % 2) header.backing_format = random() % 2 ? "raw" : "qcow2";
  if (random() % 4 == 0) header.data_file = name_of(random, {5, 200, 800});
  if (random() % 4 == 0) {
    header.crypt_method = CryptMethod::kLuks;
    header.crypto_header = CryptoHeaderPointer{uint64_t{9} << cluster_bits, 512};
  }
  if (random() % 4 == 0) header.unknown_extensions = {{0x12345678, bytes_of(random, {0, 3, 500})}};
  if (header.version == 2) return header;
  if (random() % 3 == 0) header.unknown_fields = bytes_of(random, {8, 16, 80});
  if (random() % 2) {
    header.autoclear = kBitmapsValid;
    header.bitmaps = BitmapsExtension{static_cast<uint32_t>(1 + random() % 9), random() % 4096,
                                      (1 + random() % 99) << cluster_bits};
  }
  return header;
}

void write_sector(const HeaderWrite& write, uint64_t sector, Cluster& cluster) {
  const uint64_t begin = std::max(write.offset, sector * kSectorBytes);
  const uint64_t end = std::min(write.offset + write.bytes.size(), (sector + 1) * kSectorBytes);
  for (uint64_t at = begin; at < end; ++at) cluster[at] = write.bytes[at - write.offset];
}

// Calls `look` with everything that may be found if the power fails during `write`: any of its
// sectors written, or none, or all.
template <typename Look>
void tear(const HeaderWrite& write, const Cluster& before, Look look) {
  const uint64_t first = write.offset / kSectorBytes;
  const uint64_t count = (write.offset + write.bytes.size() - 1) / kSectorBytes - first + 1;
  for (uint64_t subset = 0; subset < uint64_t{1} << count; ++subset) {
    Cluster cluster = before;
    for (uint64_t i = 0; i < count; ++i) {
      if (subset >> i & 1) write_sector(write, first + i, cluster);
    }
    look(cluster);
  }
}

// Takes `cluster` from the one header to the next.
void change(Cluster& cluster, const Header& present, const Header& next,
            const HeaderRewrite& rewrite) {
  for (size_t i = 0; i < rewrite.writes.size(); ++i) {
    const HeaderWrite& write = rewrite.writes[i];
    ASSERT_LE(write.offset + write.bytes.size(), cluster.size());
    tear(write, cluster, [&](const Cluster& torn) {
      const auto found = parse_header(torn, {});
      ASSERT_TRUE(found) << found.error().message() << " in write " << i;
      EXPECT_TRUE((i <= rewrite.decisive && *found == present) ||
                  (i >= rewrite.decisive && *found == next))
          << "write " << i << " of " << rewrite.writes.size();
    });
    std::ranges::copy(write.bytes, cluster.begin() + static_cast<ptrdiff_t>(write.offset));
  }
  EXPECT_EQ(*parse_header(cluster, {}), next);
}

class HeaderRewriteTest : public testing::TestWithParam<uint32_t> {};

TEST_P(HeaderRewriteTest, ACutLeavesTheOneOrTheOther) {
  constexpr unsigned kWalks = 40, kChanges = 12;
  const uint64_t cluster_size = uint64_t{1} << GetParam();
  const uint64_t half = std::min<uint64_t>(cluster_size, 8192) / 2;
  std::mt19937_64 random(GetParam());
  unsigned changes = 0, steps = 0;
  for (unsigned walk = 0; walk < kWalks && !HasFailure(); ++walk) {
    Header present = sample(GetParam());
    Cluster cluster(cluster_size);
    std::ranges::copy(*serialise_header(present), cluster.begin());
    bool small = true;  // each of them
    for (unsigned i = 0; i < kChanges && !HasFailure(); ++i) {
      const Header next = draw(random, GetParam());
      const auto whole = serialise_header(next);
      const auto rewrite = plan_header_rewrite(cluster, next);
      ASSERT_EQ(whole.has_value(), rewrite.has_value());
      if (!whole) continue;
      if (whole->size() <= kSectorBytes && cluster_size == kSectorBytes)
        EXPECT_EQ(rewrite->writes.size(), 1u);
      small = small && whole->size() <= half;
      EXPECT_TRUE(rewrite->atomic || !small) << "walk " << walk << ", change " << i;
      if (!rewrite->atomic) break;
      change(cluster, present, next, *rewrite);
      present = next;
      ++changes;
      steps += rewrite->writes.size() > 1;
    }
  }
  EXPECT_GT(changes, kWalks) << "hardly anything was drawn";
  EXPECT_TRUE(steps > kWalks || cluster_size <= 1024);
}

INSTANTIATE_TEST_SUITE_P(Clusters, HeaderRewriteTest, testing::Values(9, 10, 11, 12, 13, 14, 16),
                         testing::PrintToStringParamName());

TEST(HeaderRewrite, WhatChangesWithinOneSectorIsOneWrite) {
  Header header = sample(16);
  header.backing_format = "qcow2";
  header.backing_file = std::string(600, 'b');
  header.autoclear = kBitmapsValid;
  header.bitmaps = BitmapsExtension{1, 64, 0x50000};
  Cluster cluster(header.cluster_size());
  std::ranges::copy(*serialise_header(header), cluster.begin());
  Header next = header;
  next.bitmaps->directory_offset = 0x70000;
  const auto rewrite = plan_header_rewrite(cluster, next);
  ASSERT_TRUE(rewrite);
  EXPECT_EQ(rewrite->writes.size(), 1u);
  change(cluster, header, next, *rewrite);
}

TEST(HeaderRewrite, WhatIsLeftOfTheOldNameIsCleared) {
  Header header = sample(16);
  header.backing_file = std::string(1000, 'X');
  Cluster cluster(header.cluster_size());
  std::ranges::copy(*serialise_header(header), cluster.begin());
  for (const std::string& name : {std::string(900, 'Y'), std::string("Z"), std::string()}) {
    Header next = header;
    next.backing_file = name;
    const auto rewrite = plan_header_rewrite(cluster, next);
    ASSERT_TRUE(rewrite);
    change(cluster, header, next, *rewrite);
    EXPECT_EQ(std::ranges::count(cluster, header.backing_file[0]), 0);
    header = next;
  }
}

// What QEMU makes of each state on the way.
class ThroughQemu : public testing::Test {
 protected:
  std::string output_of(const std::string& command) {
    std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "re"), pclose);
    std::string text;
    char piece[4096];
    for (size_t got; (got = fread(piece, 1, sizeof piece, pipe.get())) != 0;)
      text.append(piece, got);
    return text;
  }
  void put(const Cluster& cluster) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.write(reinterpret_cast<const char*>(cluster.data()), std::ssize(cluster));
    ASSERT_TRUE(file.flush());
  }
  // Sound, and with one of these backing files.
  void expect(const std::vector<std::string>& names, const std::string& when) {
    const std::string info = output_of(fmt::format("qemu-img info {} 2>&1", path_));
    EXPECT_TRUE(std::ranges::any_of(
        names,
        [&](const std::string& name) {
          return info.find(fmt::format("backing file: {} ", name)) != std::string::npos ||
                 info.find(fmt::format("backing file: {}\n", name)) != std::string::npos;
        }))
        << when << ": " << info;
    // Names as long as these are no file's.
    const std::string check = fmt::format(
        "qemu-img check -q 'json:{{\"driver\": \"qcow2\", \"backing\": null, \"file\": "
        "{{\"driver\": \"file\", \"filename\": \"{}\"}}}}' > /dev/null 2>&1",
        path_);
    EXPECT_EQ(std::system(check.c_str()), 0) << when;
  }

  support::ScratchDirectory scratch_;
  std::string path_ = scratch_.path("image");
};

TEST_F(ThroughQemu, EveryStateIsTheOneOrTheOther) {
  for (const char* options : {"cluster_size=65536", "cluster_size=2048", "compat=0.10"}) {
    const std::string create =
        fmt::format("qemu-img create -q -u -f qcow2 -o {},backing_fmt=raw -b {} {} 4M", options,
                    std::string(600, 'a'), path_);
    ASSERT_EQ(std::system(create.c_str()), 0);
    std::ifstream file(path_, std::ios::binary);
    Cluster cluster(65536);
    file.read(reinterpret_cast<char*>(cluster.data()), std::ssize(cluster));
    const uint64_t cluster_size = *declared_cluster_size(cluster);
    cluster.resize(cluster_size);
    Header present = *parse_header(cluster, {});
    for (const size_t length : {700, 500, 710}) {
      Header next = present;
      next.backing_file = std::string(length, static_cast<char>('b' + length % 20));
      next.backing_format = length == 500 ? "qcow2" : "raw";
      const auto rewrite = plan_header_rewrite(cluster, next);
      ASSERT_TRUE(rewrite && rewrite->atomic) << options << " " << length;
      for (size_t i = 0; i < rewrite->writes.size(); ++i) {
        const HeaderWrite& write = rewrite->writes[i];
        const uint64_t last = (write.offset + write.bytes.size() - 1) / kSectorBytes;
        const std::string when = fmt::format("{}, {} bytes, write {}", options, length, i);
        Cluster torn = cluster;
        write_sector(write, last, torn);  // this one alone
        put(torn);
        expect({present.backing_file, next.backing_file}, when + " torn");
        std::ranges::copy(write.bytes, cluster.begin() + static_cast<ptrdiff_t>(write.offset));
        put(cluster);
        expect({i < rewrite->decisive ? present.backing_file : next.backing_file}, when);
      }
      present = next;
    }
  }
}

}  // namespace
}  // namespace platter::format::qcow2
