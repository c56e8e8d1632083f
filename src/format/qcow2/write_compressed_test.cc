// Compressed writes: what they refuse, where they put things, and that a freed place is not filled
// under a discard.

#include <gtest/gtest.h>

#include <filesystem>

#include "base/bytes.h"
#include "base/try.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "format/qcow2/layout.h"
#include "io/reactor_group.h"
#include "io/sync.h"
#include "support/scratch_directory.h"

namespace platter::format::qcow2 {
namespace {

constexpr uint64_t kCluster = 65536;
constexpr uint64_t kSize = 64 * kCluster;

class CompressedWriteTest : public testing::Test {
 protected:
  CompressedWriteTest() {
    auto group = io::ReactorGroup::start({.reactors = 2, .random_seed = 5});
    EXPECT_TRUE(group.has_value());
    reactors_ = std::move(*group);
  }
  ~CompressedWriteTest() override {
    if (backend_) close();
  }

  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  void open(const std::string& options = "") {
    auto parsed = base::Options::from_key_values("size=" + std::to_string(kSize) + options);
    ASSERT_TRUE(parsed.has_value());
    auto made = run(graph_.create({.filename = path_, .format = "qcow2", .options = *parsed}));
    ASSERT_TRUE(made.has_value()) << made.error().message();
    block::OpenRequest request;
    request.filename = path_;
    request.format = "qcow2";
    request.flags.read_only = false;
    request.discard_unmap = true;
    auto opened = run(graph_.open(std::move(request),
                                  block::Permission::kConsistentRead | block::Permission::kWrite,
                                  block::kAllPermissions));
    ASSERT_TRUE(opened.has_value()) << opened.error().message();
    backend_ = std::move(*opened);
  }
  void close() {
    auto closed = run(backend_->close());
    EXPECT_TRUE(closed.has_value()) << closed.error().message();
    backend_.reset();
    EXPECT_EQ(std::system(("qemu-img check -q " + path_).c_str()), 0);
  }
  static std::vector<uint8_t> content(uint64_t length, uint8_t value) {
    std::vector<uint8_t> bytes(length);
    for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(value + i % 7);
    return bytes;
  }
  Result<void> write(uint64_t offset, std::vector<uint8_t> bytes, bool compressed = true) {
    return run(backend_->write(
        offset, io::BufferList(bytes),
        compressed ? block::WriteFlags(block::WriteFlag::kCompressed) : block::WriteFlags()));
  }
  io::Task<Result<void>> write_together(std::vector<std::vector<uint8_t>> clusters) {
    std::vector<io::Task<Result<void>>> writes;
    for (size_t i = 0; i < clusters.size(); ++i) {
      writes.push_back(backend_->write(i * kCluster, io::BufferList(clusters[i]),
                                       block::WriteFlag::kCompressed));
    }
    for (auto& result : co_await io::when_all(std::move(writes))) PLATTER_CO_TRY(std::move(result));
    co_return Result<void>{};
  }
  std::vector<uint8_t> read(uint64_t offset, uint64_t length) {
    std::vector<uint8_t> bytes(length);
    EXPECT_TRUE(run(backend_->read(offset, io::BufferList(bytes))).has_value());
    return bytes;
  }
  uint64_t file_clusters() { return (std::filesystem::file_size(path_) + kCluster - 1) / kCluster; }

  support::ScratchDirectory scratch_;
  const std::string path_ = scratch_.path("image.qcow2");
  base::Log log_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  std::unique_ptr<io::ReactorGroup> reactors_;
  block::Graph graph_{{.registry = registry_, .files = io::system_files(), .log = log_}};
  std::unique_ptr<block::Backend> backend_;
};

TEST_F(CompressedWriteTest, many_clusters_share_one) {
  open();
  const uint64_t before = file_clusters();
  ASSERT_TRUE(write(0, content(16 * kCluster, 1)).has_value());
  for (uint64_t i = 16; i < 32; ++i)
    ASSERT_TRUE(write(i * kCluster, content(kCluster, static_cast<uint8_t>(i))).has_value());
  EXPECT_EQ(read(0, 16 * kCluster), content(16 * kCluster, 1));
  const auto whole = content(kCluster, 20);
  const auto inside = read(20 * kCluster + 100, 1000);
  EXPECT_TRUE(std::equal(inside.begin(), inside.end(), whole.begin() + 100));
  close();
  EXPECT_LE(file_clusters(), before + 2);  // the L2 table, and one for all of it
  EXPECT_EQ(std::filesystem::file_size(path_) % kSectorBytes, 0u);
}

TEST_F(CompressedWriteTest, a_count_of_one_bit_shares_nothing) {
  open(",refcount_bits=1");
  ASSERT_TRUE(write(0, content(8 * kCluster, 1)).has_value());
  EXPECT_EQ(read(0, 8 * kCluster), content(8 * kCluster, 1));
}

TEST_F(CompressedWriteTest, refuses_what_is_allocated_and_changes_nothing) {
  open();
  ASSERT_TRUE(write(2 * kCluster, content(kCluster, 3)).has_value());
  ASSERT_TRUE(write(5 * kCluster, content(512, 4), false).has_value());
  for (uint64_t offset : {uint64_t{0}, 2 * kCluster, 4 * kCluster}) {
    auto refused = write(offset, content(3 * kCluster, 9));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code(), EIO);
  }
  EXPECT_EQ(read(0, kCluster), std::vector<uint8_t>(kCluster));
  EXPECT_EQ(read(2 * kCluster, kCluster), content(kCluster, 3));
  EXPECT_EQ(read(5 * kCluster, 512), content(512, 4));
}

TEST_F(CompressedWriteTest, refuses_parts_of_clusters) {
  open();
  for (auto [offset, length] : {std::pair<uint64_t, uint64_t>{512, kCluster},
                                {0, kCluster + 512},
                                {kSize - kCluster, kCluster - 512}}) {
    auto refused = write(offset, content(length, 9));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code(), EINVAL);
  }
}

TEST_F(CompressedWriteTest, a_cluster_may_be_written_over_and_compressed_again) {
  open();
  for (unsigned round = 0; round < 20; ++round) {
    const auto value = static_cast<uint8_t>(round);
    ASSERT_TRUE(write(0, content(4 * kCluster, value)).has_value());
    ASSERT_EQ(read(0, 4 * kCluster), content(4 * kCluster, value));
    if (round % 2 == 0) ASSERT_TRUE(write(kCluster, content(kCluster, 99), false).has_value());
    ASSERT_TRUE(run(backend_->discard(0, 4 * kCluster)).has_value());
    if (round % 3 == 0) ASSERT_TRUE(run(backend_->flush()).has_value());
    ASSERT_TRUE(write(8 * kCluster + round * kCluster, content(kCluster, value)).has_value());
  }
  for (unsigned round = 0; round < 20; ++round) {
    EXPECT_EQ(read((8 + round) * kCluster, kCluster),
              content(kCluster, static_cast<uint8_t>(round)));
  }
}

TEST_F(CompressedWriteTest, writes_that_run_together_are_laid_out_in_order) {
  open();
  std::vector<std::vector<uint8_t>> data;
  for (unsigned i = 0; i < 16; ++i) data.push_back(content(kCluster, static_cast<uint8_t>(i)));
  ASSERT_TRUE(run(write_together(data)).has_value());
  close();
  // Streams of the same length, in guest order: offsets in the L2 table rise.
  std::FILE* file = std::fopen(path_.c_str(), "rb");
  std::vector<uint8_t> bytes(std::filesystem::file_size(path_));
  ASSERT_EQ(std::fread(bytes.data(), 1, bytes.size(), file), bytes.size());
  std::fclose(file);
  const uint64_t l1 = base::load_big<uint64_t>(bytes, 40);
  const uint64_t l2 = base::load_big<uint64_t>(bytes, l1) & kOffsetMask;
  uint64_t last = 0;
  for (unsigned i = 0; i < 16; ++i) {
    const uint64_t entry = base::load_big<uint64_t>(bytes, l2 + i * 8);
    ASSERT_NE(entry & kCompressedFlag, 0u);
    const uint64_t offset = decode_compressed(entry, 16).host_offset;
    EXPECT_GT(offset, last);
    last = offset;
  }
}

TEST_F(CompressedWriteTest, formats_without_it_say_so) {
  block::OpenRequest request;
  request.filename = path_;
  request.format = "raw";
  std::FILE* file = std::fopen(path_.c_str(), "wb");
  std::fputs(std::string(8192, 'x').c_str(), file);
  std::fclose(file);
  request.flags.read_only = false;
  auto opened =
      run(graph_.open(std::move(request), block::Permission::kWrite, block::kAllPermissions));
  ASSERT_TRUE(opened.has_value());
  std::vector<uint8_t> bytes(4096);
  auto refused = run((*opened)->write(0, io::BufferList(bytes), block::WriteFlag::kCompressed));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ENOTSUP);
  EXPECT_TRUE(run((*opened)->close()).has_value());
}

}  // namespace
}  // namespace platter::format::qcow2
