// Compacting what needs more than copying: data that is encrypted by where it lies, and bitmaps
// that are in use meanwhile; and where there is no space for the copies.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "block/backend.h"
#include "block/dirty_bitmap.h"
#include "block/graph.h"
#include "block/registry.h"
#include "block/secret_source.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::format::qcow2 {
namespace {

using block::Permission;

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kClusters = 512;
constexpr std::string_view kLuks = ",encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1";
constexpr std::string_view kKey = ",encrypt.key-secret=s";

class OneSecret final : public block::SecretSource {
 public:
  Result<base::SecretBytes> secret(std::string_view) const override {
    return base::SecretBytes::copy_of("open sesame");
  }
};

class CompactTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 1});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  void TearDown() override {
    if (backend_) EXPECT_TRUE(run(backend_->close()));
  }

  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  void create(std::string_view options = "") {
    const auto text = "size=2M,cluster_size=4k" + std::string(options);
    auto created = run(graph_.create({image(), "qcow2", *base::Options::from_key_values(text)}));
    ASSERT_TRUE(created) << created.error().message();
  }
  void open(std::string_view options = "",
            std::string_view file = "file.driver=file,file.filename=") {
    block::OpenRequest request;
    request.options =
        *base::Options::from_key_values(fmt::format("driver=qcow2,{}{}{}", file, image(), options));
    request.flags.read_only = false;
    request.discard_unmap = true;
    request.policy = OpenPolicy::anything();
    auto opened = run(graph_.open(
        std::move(request), Permission::kConsistentRead | Permission::kWrite | Permission::kResize,
        block::kAllPermissions));
    ASSERT_TRUE(opened) << opened.error().message();
    backend_ = std::move(*opened);
  }
  void close() {
    auto closed = run(std::exchange(backend_, nullptr)->close());
    EXPECT_TRUE(closed) << closed.error().message();
  }

  block::Driver& driver() { return backend_->node().driver(); }
  std::string image() const { return scratch_.path("image"); }
  void write(uint64_t first, uint64_t clusters, uint8_t value) {
    std::vector<uint8_t> bytes(clusters * kCluster);
    for (uint64_t i = 0; i < clusters; ++i) {
      std::memset(bytes.data() + i * kCluster, value, kCluster);
      bytes[i * kCluster] = static_cast<uint8_t>(first + i);
    }
    auto written = run(backend_->write(first * kCluster, io::BufferList(bytes)));
    ASSERT_TRUE(written) << written.error().message();
  }
  void discard(uint64_t first, uint64_t clusters) {
    ASSERT_TRUE(run(backend_->discard(first * kCluster, clusters * kCluster)));
  }
  std::vector<uint8_t> content() {
    std::vector<uint8_t> bytes(kClusters * kCluster);
    EXPECT_TRUE(run(backend_->read(0, io::BufferList(bytes))));
    return bytes;
  }
  void expect_sound() {
    block::FirstLine found;
    auto checked = run(driver().checkable()->check(found));
    EXPECT_TRUE(checked) << checked.error().message();
    EXPECT_EQ(found.line(), "");
  }
  // The file's size in clusters afterwards; the image is sound.
  uint64_t compact() {
    auto done = run(driver().compactable()->compact({}, [](uint64_t, uint64_t) {}));
    EXPECT_TRUE(done) << done.error().message();
    expect_sound();
    return std::filesystem::file_size(image()) / kCluster;
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  base::Log log_;
  OneSecret secret_;
  block::Graph graph_{{registry_, io::system_files(), log_, &secret_}};
  std::unique_ptr<block::Backend> backend_;
};

TEST_F(CompactTest, EncryptedDataThatMovesIsEncryptedForItsNewPlace) {
  create(kLuks);
  open(kKey);
  write(0, kClusters, 7);
  for (uint64_t i = 0; i < kClusters; i += 4) discard(i, 3);
  const auto before = content();
  const uint64_t size = std::filesystem::file_size(image()) / kCluster;
  EXPECT_LE(compact(), size - kClusters / 2);
  EXPECT_EQ(content(), before);
  close();
  open(kKey);
  EXPECT_EQ(content(), before);
  write(0, kClusters, 9);  // and the image goes on
  expect_sound();
}

TEST_F(CompactTest, AnEncryptedClusterThatASnapshotSharesMovesForBoth) {
  create(kLuks);
  open(kKey);
  write(0, kClusters, 7);
  discard(0, kClusters / 2);
  const auto before = content();
  ASSERT_TRUE(run(driver().snapshot_store()->create_snapshot({.id = "", .name = "one"})));
  write(kClusters - 64, 32, 8);  // the rest of it is still shared
  const auto after = content();
  auto done = run(driver().compactable()->compact({}, [](uint64_t, uint64_t) {}));
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_GT(done->moved_bytes, kClusters / 4 * kCluster);
  EXPECT_LT(done->moved_bytes, kClusters * kCluster);
  EXPECT_EQ(content(), after);
  ASSERT_TRUE(run(driver().snapshot_store()->apply_snapshot("1")));
  EXPECT_EQ(content(), before);
}

TEST_F(CompactTest, WhereThereIsNoSpaceForCopiesNothingIsLeaked) {
  create();
  open();
  write(0, kClusters, 7);
  discard(0, kClusters / 2);
  const auto before = content();
  close();
  constexpr uint64_t kInTheHole = kClusters / 4;
  open("", fmt::format("file.driver=blkdebug,file.inject-error.0.event=none,"
                       "file.inject-error.0.iotype=write,file.inject-error.0.errno=28,"
                       "file.inject-error.0.sector={},file.image.driver=file,"
                       "file.image.filename=",
                       kInTheHole * kCluster / 512));
  const auto done = run(driver().compactable()->compact({}, [](uint64_t, uint64_t) {}));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), ENOSPC) << done.error().message();
  expect_sound();
  EXPECT_EQ(content(), before);
  close();
  open();
  EXPECT_LE(compact(), kClusters / 2 + 16);
  EXPECT_EQ(content(), before);
}

TEST_F(CompactTest, BitmapsMoveWhileTheyRecord) {
  create();
  open();
  write(0, kClusters, 7);
  ASSERT_TRUE(driver().bitmap_store()->add_bitmap("old", 512, true));
  ASSERT_TRUE(driver().bitmap_store()->add_bitmap("off", 512, false));
  close();
  // Closing has stored these behind the data.
  open();
  write(kClusters - 1, 1, 8);
  close();
  open();
  discard(0, kClusters - 8);
  EXPECT_LE(compact(), 40U);
  write(kClusters - 2, 1, 9);
  EXPECT_LE(compact(), 40U);  // once more, with everything where it belongs
  close();

  open();
  auto& store = *driver().bitmap_store();
  ASSERT_EQ(store.bitmaps().size(), 2U);
  for (const block::BitmapInfo& bitmap : store.bitmaps()) {
    EXPECT_FALSE(bitmap.inconsistent) << bitmap.name;
    EXPECT_EQ(bitmap.enabled, bitmap.name == "old");
  }
  auto bits = run(store.bitmap_bits("old"));
  ASSERT_TRUE(bits) << bits.error().message();
  // What was discarded has changed, too.
  EXPECT_TRUE((*bits)->is_dirty(0));
  EXPECT_TRUE((*bits)->is_dirty((kClusters - 9) * kCluster));
  EXPECT_FALSE((*bits)->is_dirty((kClusters - 8) * kCluster));
  EXPECT_FALSE((*bits)->is_dirty((kClusters - 3) * kCluster));
  EXPECT_TRUE((*bits)->is_dirty((kClusters - 2) * kCluster));
  EXPECT_TRUE((*bits)->is_dirty((kClusters - 1) * kCluster));
  auto off = run(store.bitmap_bits("off"));
  ASSERT_TRUE(off) << off.error().message();
  EXPECT_EQ((*off)->count(), 0U);
  expect_sound();
}

}  // namespace
}  // namespace platter::format::qcow2
