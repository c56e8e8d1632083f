// The live driver against a plain model: random concurrent requests, qemu-img's check after each
// run.

#include "format/qcow2/driver.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/try.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::format::qcow2 {
namespace {

using block::Backend;

struct Shape {
  const char* create;     // -o
  const char* open = "";  // runtime options
  uint64_t backing_bytes = 0;
  unsigned reactors = 1;
};

constexpr uint64_t kImageBytes = uint64_t{6} << 20;
constexpr uint64_t kStripe = uint64_t{96}
                             << 10;  // requests of one round keep to stripes of their own

std::vector<uint8_t> pattern(std::mt19937_64& random, size_t length) {
  std::vector<uint8_t> bytes(length);
  uint8_t block[512];
  for (uint8_t& byte : block) byte = static_cast<uint8_t>(random() | 1);
  for (size_t i = 0; i < length; i += sizeof block) {
    block[0] = static_cast<uint8_t>(i >> 9);
    std::memcpy(bytes.data() + i, block, std::min(sizeof block, length - i));
  }
  return bytes;
}

class Workload {
 public:
  Workload(Backend& backend, std::vector<uint8_t>& model, uint64_t seed)
      : backend_(backend), model_(model), random_(seed) {}

  // Rounds of concurrent requests, each in a stripe of its own that begins anywhere (also inside a
  // cluster).
  io::Task<Result<void>> run(unsigned rounds, io::ReactorGroup& reactors) {
    for (unsigned round = 0; round < rounds; ++round) {
      std::vector<io::Task<Result<void>>> requests;
      const uint64_t shift = (random_() % 200) * 512;
      for (uint64_t at = shift; at + kStripe <= model_.size(); at += kStripe) {
        if (random_() % 3 != 0) continue;
        requests.push_back(
            io::run_on(reactors.at(random_() % reactors.size()), one(at, random_())));
      }
      for (auto& result : co_await io::when_all(std::move(requests)))
        PLATTER_CO_TRY(std::move(result));
      if (random_() % 4 == 0) PLATTER_CO_TRY(co_await backend_.flush());
    }
    co_return co_await verify();
  }

  io::Task<Result<void>> verify() {
    std::vector<uint8_t> whole(model_.size());
    PLATTER_CO_TRY(co_await backend_.read(0, io::BufferList(whole)));
    if (std::memcmp(whole.data(), model_.data(), whole.size()) == 0) co_return Result<void>{};
    const auto differs = std::mismatch(whole.begin(), whole.end(), model_.begin());
    co_return fail(EIO, fmt::format("byte {:#x} differs", differs.first - whole.begin()));
  }

 private:
  io::Task<Result<void>> one(uint64_t stripe, uint64_t seed) {
    std::mt19937_64 random(seed);
    uint64_t offset = stripe + random() % (kStripe - 1);
    uint64_t length = 1 + random() % (stripe + kStripe - offset);
    switch (random() % 6) {
      case 0: {
        const bool unmap = random() % 2;
        PLATTER_CO_TRY(co_await backend_.zero(
            offset, length,
            unmap ? block::WriteFlags(block::WriteFlag::kMayUnmap) : block::WriteFlags()));
        std::memset(model_.data() + offset, 0, length);
        co_return Result<void>{};
      }
      case 1: {  // what is discarded is then written, so that the model knows it
        PLATTER_CO_TRY(co_await backend_.discard(offset, length));
        [[fallthrough]];
      }
      case 2:
      case 3: {
        const auto data = pattern(random, length);
        PLATTER_CO_TRY(co_await backend_.write(
            offset, io::BufferList(const_cast<uint8_t*>(data.data()), length)));
        std::memcpy(model_.data() + offset, data.data(), length);
        co_return Result<void>{};
      }
      case 4: {
        length = std::min<uint64_t>(length, 4096);
        const auto data = pattern(random, length);
        PLATTER_CO_TRY(co_await backend_.write(
            offset, io::BufferList(const_cast<uint8_t*>(data.data()), length)));
        std::memcpy(model_.data() + offset, data.data(), length);
        co_return Result<void>{};
      }
      default: {
        std::vector<uint8_t> back(length);
        PLATTER_CO_TRY(co_await backend_.read(offset, io::BufferList(back)));
        if (std::memcmp(back.data(), model_.data() + offset, length) != 0) {
          co_return fail(EIO, fmt::format("read at {:#x}+{:#x} differs", offset, length));
        }
        co_return Result<void>{};
      }
    }
  }

  Backend& backend_;
  std::vector<uint8_t>& model_;
  std::mt19937_64 random_;
};

class Qcow2Test : public testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = GetParam().reactors});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  std::string path(const std::string& name) const { return scratch_.path(name); }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  Result<std::unique_ptr<Backend>> open(const std::string& name, const std::string& format,
                                        bool writable) {
    block::OpenRequest request;
    request.filename = path(name);
    request.format = format;
    request.flags.read_only = !writable;
    request.policy = OpenPolicy::anything();
    if (format == "qcow2") request.options = *base::Options::from_key_values(GetParam().open);
    block::Permissions needed = block::Permission::kConsistentRead;
    if (writable) needed |= block::Permission::kWrite | block::Permission::kResize;
    return run(graph_.open(std::move(request), needed, block::kAllPermissions));
  }
  int qemu_check(const std::string& name) {
    const std::string command =
        fmt::format("qemu-img check -q -f qcow2 {} 2>&1 | head -20", path(name));
    const std::string status =
        fmt::format("qemu-img check -q -f qcow2 {} >/dev/null 2>&1", path(name));
    const int code = WEXITSTATUS(std::system(status.c_str()));
    if (code != 0) EXPECT_EQ(std::system(command.c_str()), 0);
    return code;
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  base::Log log_{
      [](base::LogLevel, std::string_view line) { fmt::print(stderr, "log: {}\n", line); }};
  block::Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_P(Qcow2Test, HoldsWhatAModelHolds) {
  std::mt19937_64 random(7);
  std::vector<uint8_t> model(kImageBytes);
  std::string create = fmt::format("size={},{}", kImageBytes, GetParam().create);
  if (GetParam().backing_bytes != 0) {
    ASSERT_TRUE(run(graph_.create(
        {path("base"), "raw",
         *base::Options::from_key_values(fmt::format("size={}", GetParam().backing_bytes))})));
    auto base = open("base", "raw", true);
    ASSERT_TRUE(base) << base.error().message();
    auto data = pattern(random, GetParam().backing_bytes);
    ASSERT_TRUE(run((*base)->write(0, io::BufferList(data))));
    ASSERT_TRUE(run((*base)->close()));
    std::copy_n(data.begin(), std::min(data.size(), model.size()), model.begin());
    create += fmt::format(",backing_file={},backing_fmt=raw", path("base"));
  }
  auto created = run(graph_.create({path("a"), "qcow2", *base::Options::from_key_values(create)}));
  ASSERT_TRUE(created) << created.error().message();
  for (uint64_t turn = 0; turn < 3; ++turn) {
    auto backend = open("a", "qcow2", true);
    ASSERT_TRUE(backend) << backend.error().message();
    Workload workload(**backend, model, turn);
    auto end = run(workload.run(12, *reactors_));
    EXPECT_TRUE(end) << end.error().message();
    auto closed = run((*backend)->close());
    EXPECT_TRUE(closed) << closed.error().message();
    EXPECT_EQ(qemu_check("a"), 0) << "turn " << turn;
    if (HasFailure()) return;
  }
  // Larger, then smaller: what comes into sight is zeroes.
  auto backend = open("a", "qcow2", true);
  ASSERT_TRUE(backend) << backend.error().message();
  const uint64_t larger = 3 * kImageBytes + 512, smaller = kImageBytes / 3 + 1024;
  for (uint64_t size : {larger, smaller, smaller + 512, smaller + 2048, larger}) {
    auto resized = run((*backend)->resize(size, block::Preallocation::kOff, true));
    ASSERT_TRUE(resized) << resized.error().message();
    model.resize(size);
    Workload workload(**backend, model, size);
    auto same = run(workload.verify());
    ASSERT_TRUE(same) << same.error().message();
    auto end = run(workload.run(3, *reactors_));
    ASSERT_TRUE(end) << end.error().message();
  }
  auto closed = run((*backend)->close());
  EXPECT_TRUE(closed) << closed.error().message();
  EXPECT_EQ(qemu_check("a"), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Qcow2Test,
    testing::Values(
        Shape{"cluster_size=64k"}, Shape{"cluster_size=512", "l2-cache-size=2k"},
        Shape{"cluster_size=512,refcount_bits=64"}, Shape{"cluster_size=4k,refcount_bits=1"},
        Shape{"cluster_size=2M,refcount_bits=2"}, Shape{"cluster_size=64k,compat=0.10"},
        Shape{"cluster_size=64k,lazy_refcounts=on"},
        Shape{"cluster_size=1k,preallocation=metadata"},
        Shape{"cluster_size=64k", "", kImageBytes / 2 + 512},
        Shape{"cluster_size=4k", "", kImageBytes * 2},
        Shape{"cluster_size=64k,compat=0.10", "", kImageBytes * 2},
        Shape{"cluster_size=64k", "pass-discard-request=on,pass-discard-other=on", kImageBytes, 2},
        Shape{"cluster_size=512", "l2-cache-size=1k", 0, 4}, Shape{"cluster_size=32k", "", 0, 4},
        Shape{"cluster_size=16k,extended_l2=on", "l2-cache-size=1k,l2-cache-entry-size=512",
              kImageBytes / 2 + 512, 4},
        Shape{"cluster_size=128k,extended_l2=on,preallocation=metadata", "", kImageBytes * 2, 4},
        Shape{"cluster_size=2M,extended_l2=on,refcount_bits=1", "", 0, 2}),
    [](const auto& info) { return fmt::format("{}", info.index); });

// Images that QEMU's tools made, with what we do not make ourselves.
class ForeignImageTest : public Qcow2Test {
 protected:
  // 4 MiB of pattern in `raw`, and as much of model.
  void make_raw() {
    std::mt19937_64 random(11);
    model_.clear();
    while (model_.size() < 4 << 20) {
      auto part = pattern(random, 64 << 10);
      model_.insert(model_.end(), part.begin(), part.end());
    }
    std::FILE* file = std::fopen(path("raw").c_str(), "wb");
    ASSERT_EQ(std::fwrite(model_.data(), 1, model_.size(), file), model_.size());
    std::fclose(file);
  }
  void shell(const std::string& command) {
    ASSERT_EQ(std::system(fmt::format("cd {} && {}", scratch_.directory(), command).c_str()), 0)
        << command;
  }
  void work(unsigned rounds, uint64_t seed) {
    auto backend = open("a", "qcow2", true);
    ASSERT_TRUE(backend) << backend.error().message();
    Workload workload(**backend, model_, seed);
    auto before = run(workload.verify());
    EXPECT_TRUE(before) << before.error().message();
    auto end = run(workload.run(rounds, *reactors_));
    EXPECT_TRUE(end) << end.error().message();
    EXPECT_TRUE(run((*backend)->close()));
    EXPECT_EQ(qemu_check("a"), 0);
  }
  std::vector<uint8_t> model_;
};

TEST_P(ForeignImageTest, CompressedClustersAreReadAndReplaced) {
  for (const char* options : {"compression_type=zlib", "compression_type=zstd", "extended_l2=on"}) {
    make_raw();
    shell(fmt::format("qemu-img convert -c -O qcow2 -o cluster_size=64k,{} raw a", options));
    work(5, 1);
  }
}

// 4 KiB of guest data make a file grow by 4 KiB, whatever the cluster: no subcluster is copied that
// is not written to.
TEST_P(ForeignImageTest, SubclustersAreWrittenWithoutTheirNeighbours) {
  make_raw();
  shell("qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k -b raw -F raw a");
  auto backend = open("a", "qcow2", true);
  ASSERT_TRUE(backend) << backend.error().message();
  const auto occupied = [&] { return *run((*backend)->node().driver().allocated_size()); };
  std::mt19937_64 random(5);
  auto bytes = pattern(random, 4096);
  for (uint64_t cluster = 0; cluster < 32; ++cluster) {
    const uint64_t offset = (cluster << 17) + cluster * 4096;
    if (cluster == 1) ASSERT_TRUE(run((*backend)->flush()));
    ASSERT_TRUE(run((*backend)->write(offset, io::BufferList(bytes))));
    std::ranges::copy(bytes, model_.begin() + static_cast<ptrdiff_t>(offset));
  }
  EXPECT_LT(occupied(), 1u << 20);
  EXPECT_TRUE(run((*backend)->close()));
  work(3, 6);
}

// Zeroes of the backing file that no hole marks are not written into clusters of the overlay; what
// is beside them is.
TEST_P(ForeignImageTest, ZeroesOfTheBackingFileAreNotCopied) {
  make_raw();
  constexpr uint64_t kCluster = 64 << 10;
  const auto hold_zero = [&](uint64_t from, uint64_t end) {
    std::fill(model_.begin() + static_cast<ptrdiff_t>(from),
              model_.begin() + static_cast<ptrdiff_t>(end), 0);
  };
  hold_zero(0, 32 * kCluster);  // whole clusters; then heads, then tails
  for (uint64_t at = 32 * kCluster; at < 40 * kCluster; at += kCluster) hold_zero(at, at + 8192);
  for (uint64_t at = 41 * kCluster; at < 48 * kCluster; at += kCluster) hold_zero(at - 8192, at);
  std::FILE* file = std::fopen(path("raw").c_str(), "wb");
  ASSERT_EQ(std::fwrite(model_.data(), 1, model_.size(), file), model_.size());
  std::fclose(file);
  shell("qemu-img create -q -f qcow2 -b raw -F raw a");

  auto backend = open("a", "qcow2", true);
  ASSERT_TRUE(backend) << backend.error().message();
  const auto occupied = [&] { return *run((*backend)->node().driver().allocated_size()); };
  std::mt19937_64 random(7);
  auto bytes = pattern(random, 4096);
  const auto write = [&](uint64_t offset) {
    ASSERT_TRUE(run((*backend)->write(offset, io::BufferList(bytes))));
    std::ranges::copy(bytes, model_.begin() + static_cast<ptrdiff_t>(offset));
  };
  for (uint64_t cluster = 0; cluster < 32; ++cluster)
    write(cluster * kCluster + cluster % 15 * 4096);
  ASSERT_TRUE(run((*backend)->flush()));
  EXPECT_LT(occupied(), 1u << 20);
  for (uint64_t cluster = 32; cluster < 40; ++cluster) write(cluster * kCluster + 8192);
  for (uint64_t cluster = 40; cluster < 48; ++cluster) write((cluster + 1) * kCluster - 12288);
  ASSERT_TRUE(run((*backend)->flush()));
  EXPECT_GT(occupied(), 16 * (kCluster - 8192));
  EXPECT_TRUE(run((*backend)->close()));
  work(3, 8);
}

TEST_P(ForeignImageTest, SnapshotsKeepTheirContent) {
  make_raw();
  shell("qemu-img convert -O qcow2 -o cluster_size=4k raw a && qemu-img snapshot -c one a");
  work(5, 2);
  shell("qemu-img snapshot -c two a");
  work(5, 3);
  shell("qemu-img convert -l snapshot.name=one -O raw a one && cmp one raw");
}

TEST_P(ForeignImageTest, SnapshotsOfSubclustersKeepTheirContent) {
  make_raw();
  shell("qemu-img convert -O qcow2 -o extended_l2=on raw a && qemu-img snapshot -c one a");
  work(5, 2);
  shell("qemu-img snapshot -c two a");
  work(5, 3);
  shell("qemu-img convert -l snapshot.name=one -O raw a one && cmp one raw");
}

TEST_P(ForeignImageTest, DataFilesAreReadAndWritten) {
  for (const char* options : {"", ",extended_l2=on", ",data_file_raw=on"}) {
    make_raw();
    shell(fmt::format("qemu-img convert -O qcow2 -o data_file=$PWD/d{} raw a", options));
    work(5, 7);
  }
  // Of the last one: what is in the file is what the guest sees, to the byte.
  shell("qemu-img convert -O raw a b && cmp b d");
}

// With discard-no-unref a discarded cluster gives its space back and keeps its place.
TEST_P(ForeignImageTest, DiscardedClustersKeepTheirPlaceWhereThatIsAsked) {
  make_raw();
  shell("qemu-img convert -O qcow2 raw a");
  const auto open_so = [&](const char* image) {
    block::OpenRequest request;
    request.filename = path(image);
    request.format = "qcow2";
    request.flags.read_only = false;
    request.discard_unmap = true;
    request.policy = OpenPolicy::anything();
    request.options.set("discard-no-unref", std::string("on"));
    return run(graph_.open(std::move(request),
                           block::Permission::kConsistentRead | block::Permission::kWrite,
                           block::kAllPermissions));
  };
  auto backend = open_so("a");
  ASSERT_TRUE(backend) << backend.error().message();
  const auto status = [&] {
    return *run((*backend)->node().status(1 << 20, 1 << 20, block::StatusDetail::kFast));
  };
  const auto occupied = [&] { return *run((*backend)->node().driver().allocated_size()); };
  const uint64_t place = status().host_offset;
  const uint64_t before = occupied();
  ASSERT_TRUE(run((*backend)->discard(1 << 20, 1 << 20)));
  EXPECT_TRUE(status().zero && status().has_host_offset);
  EXPECT_EQ(status().host_offset, place);
  EXPECT_LE(occupied(), before - (1 << 20) + (64 << 10));
  std::fill_n(model_.begin() + (1 << 20), 1 << 20, 0);
  std::mt19937_64 random(3);
  auto bytes = pattern(random, 64 << 10);
  ASSERT_TRUE(run((*backend)->write((1 << 20) + (64 << 10), io::BufferList(bytes))));
  std::ranges::copy(bytes, model_.begin() + (1 << 20) + (64 << 10));
  EXPECT_EQ(run((*backend)->node().status((1 << 20) + (64 << 10), 1, block::StatusDetail::kFast))
                ->host_offset,
            place + (64 << 10));
  EXPECT_TRUE(run((*backend)->close()));
  work(3, 8);

  shell("qemu-img create -q -f qcow2 -o compat=0.10 old 1M");
  EXPECT_FALSE(open_so("old"));
}

// An image names a file, and no more than the policy allows.
TEST_P(ForeignImageTest, DataFilesAreFollowedAsThePolicyAllows) {
  shell("mkdir in && qemu-img create -q -f qcow2 -o data_file=$PWD/d in/a 1M");
  const auto refusal = [&](OpenPolicy policy, const char* image) {
    block::OpenRequest request;
    request.filename = path(image);
    request.format = "qcow2";
    request.policy = std::move(policy);
    auto backend = run(graph_.open(std::move(request), block::Permission::kConsistentRead, {}));
    if (!backend) return std::string(backend.error().message());
    EXPECT_TRUE(run((*backend)->close()));
    return std::string();
  };
  EXPECT_THAT(refusal(OpenPolicy::deny(), "in/a"), testing::HasSubstr("follows no names"));
  EXPECT_THAT(refusal(OpenPolicy::own_directory(), "in/a"), testing::HasSubstr("lies outside"));
  EXPECT_EQ(refusal(OpenPolicy::anything(), "in/a"), "");
  for (const char* name : {"json:{}", "nbd://localhost/x", "file:d"}) {
    shell(fmt::format("cp in/a b && qemu-img amend -o 'data_file={}' b", name));
    EXPECT_THAT(refusal(OpenPolicy::anything(), "b"), testing::HasSubstr("No such file"));
  }
}

// A tool that took the power away left the dirty bit and counts that are wrong.
TEST_P(ForeignImageTest, StaleCountsOfADirtyImageAreCountedAnew) {
  make_raw();
  shell("qemu-img convert -O qcow2 -o cluster_size=4k,lazy_refcounts=on raw a");
  // The byte of the dirty bit, then counts of clusters in the first refcount block.
  shell("printf '\\001' | dd of=a bs=1 seek=79 conv=notrunc status=none");
  shell("dd if=/dev/zero of=a bs=1 seek=$((2 * 4096 + 100)) count=300 conv=notrunc status=none");
  work(3, 4);
}

// The same, and the refcount table has lost what it named.
TEST_P(ForeignImageTest, ADirtyImageWithoutRefcountBlocksGetsNewOnes) {
  make_raw();
  shell("qemu-img convert -O qcow2 -o cluster_size=4k,lazy_refcounts=on raw a");
  shell("printf '\\001' | dd of=a bs=1 seek=79 conv=notrunc status=none");
  shell("dd if=/dev/zero of=a bs=4096 seek=1 count=1 conv=notrunc status=none");
  work(3, 4);
}

// What no repair puts right keeps it from being written to, not from being read.
TEST_P(ForeignImageTest, ADirtyImageThatIsDamagedIsReadOnly) {
  make_raw();
  shell("qemu-img convert -O qcow2 -o cluster_size=4k,lazy_refcounts=on raw a");
  shell("printf '\\001' | dd of=a bs=1 seek=79 conv=notrunc status=none");
  // The second entry of the first L2 table: a cluster that begins amid two.
  shell(
      "printf '\\200\\0\\0\\0\\0\\0\\142\\0' | dd of=a bs=1 seek=$((4 * 4096 + 8)) conv=notrunc "
      "status=none");
  auto refused = open("a", "qcow2", true);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), testing::HasSubstr("Could not repair dirty image: ERROR"));
  auto reader = open("a", "qcow2", false);
  ASSERT_TRUE(reader) << reader.error().message();
  EXPECT_TRUE(run((*reader)->close()));
}

TEST_P(ForeignImageTest, StatusTellsRunsThatCrossTables) {
  shell("qemu-img create -q -f qcow2 -o preallocation=metadata,cluster_size=512 a 1M");
  auto backend = open("a", "qcow2", false);
  ASSERT_TRUE(backend) << backend.error().message();
  uint64_t runs = 0;
  for (uint64_t at = 0; at < 1 << 20; ++runs) {
    auto status = run((*backend)->node().status(at, (1 << 20) - at, block::StatusDetail::kFast));
    ASSERT_TRUE(status) << status.error().message();
    ASSERT_GT(status->length, 0u);
    EXPECT_TRUE(status->data && status->allocated && status->has_host_offset);
    at += status->length;
    EXPECT_EQ(status->eof, at == 1 << 20);
  }
  // Tables of 64 entries lie between the data here and there, not at every table's end.
  EXPECT_LT(runs, 64u);
  EXPECT_TRUE(run((*backend)->close()));
}

TEST_P(ForeignImageTest, GrowsWithEveryPreallocation) {
  for (auto preallocation : {block::Preallocation::kMetadata, block::Preallocation::kFalloc,
                             block::Preallocation::kFull}) {
    make_raw();
    shell("qemu-img convert -O qcow2 -o cluster_size=4k raw a");
    auto backend = open("a", "qcow2", true);
    ASSERT_TRUE(backend) << backend.error().message();
    const uint64_t size = (40 << 20) + 512;
    auto resized = run((*backend)->resize(size, preallocation, true));
    ASSERT_TRUE(resized) << resized.error().message();
    model_.resize(size);
    auto status = run((*backend)->node().status(8 << 20, 4096, block::StatusDetail::kFast));
    ASSERT_TRUE(status && status->data);
    EXPECT_TRUE(run((*backend)->close()));
    EXPECT_EQ(qemu_check("a"), 0);
    if (preallocation != block::Preallocation::kMetadata) {
      shell("test $(stat -c %b a) -gt 70000");  // blocks of 512 bytes
    }
    work(2, 5);
  }
}

INSTANTIATE_TEST_SUITE_P(Options, ForeignImageTest, testing::Values(Shape{"", "", 0, 2}));

}  // namespace
}  // namespace platter::format::qcow2
