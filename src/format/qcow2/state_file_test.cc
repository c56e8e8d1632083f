// What a process that is killed leaves behind, and what the next one makes of it.

#include "format/qcow2/state_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/try.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "block/reopen.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::format::qcow2 {
namespace {

namespace files = std::filesystem;
using block::Permission;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kCluster = 4096;
constexpr uint64_t kSize = uint64_t{8} << 20;

// Threads, and all that a process has of an image.
class World {
 public:
  World(std::string image, std::string states) : image_(std::move(image)) {
    auto group = io::ReactorGroup::start({});
    PLATTER_ASSERT(group.has_value());
    reactors_ = std::move(*group);
    graph_ = std::make_unique<block::Graph>(
        block::Graph::Environment{.registry = registry_,
                                  .files = io::system_files(),
                                  .log = log_,
                                  .state_directory = std::move(states)});
  }
  void create(const std::string& options) {
    auto made = run(graph_->create({image_, "qcow2", *base::Options::from_key_values(options)}));
    ASSERT_TRUE(made) << made.error().message();
  }
  Result<void> open(const std::string& options = {}) {
    block::OpenRequest request;
    request.options = *base::Options::from_key_values(
        "driver=qcow2,file.driver=file,file.filename=" + image_ + options);
    request.flags.read_only = false;
    request.discard_unmap = true;
    request.policy = OpenPolicy::anything();
    // Of a process that was killed an instant ago the locks may be there still.
    for (int attempt = 0;; ++attempt) {
      auto opened = run(graph_->open(request, Permission::kConsistentRead | Permission::kWrite,
                                     block::kAllPermissions));
      if (opened) {
        backend_ = std::move(*opened);
        return {};
      }
      if (opened.error().code() != EAGAIN || attempt == 1000)
        return std::unexpected(std::move(opened).error());
      usleep(2000);
    }
  }
  Result<void> write(uint64_t cluster) {
    std::vector<uint8_t> bytes(kCluster, static_cast<uint8_t>(cluster * 7 + 1));
    return run(backend_->write(cluster * kCluster, io::BufferList(bytes), {}));
  }
  bool holds(uint64_t cluster) {
    std::vector<uint8_t> bytes(kCluster);
    const auto read = run(backend_->read(cluster * kCluster, io::BufferList(bytes)));
    return read && bytes == std::vector<uint8_t>(kCluster, static_cast<uint8_t>(cluster * 7 + 1));
  }
  Result<void> reopen(const std::string& options) {
    std::vector<block::Reopening> wishes;
    wishes.push_back({&backend_->node(), *base::Options::from_key_values(options)});
    return run(block::reopen_nodes(*graph_, std::move(wishes)));
  }
  block::Backend& backend() { return *backend_; }
  Result<void> close() {
    auto backend = std::move(backend_);
    return run(backend->close());
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }

 private:
  const std::string image_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  base::Log log_;
  std::unique_ptr<block::Graph> graph_;
  std::unique_ptr<block::Backend> backend_;
};

class StateFileTest : public testing::Test {
 protected:
  std::string image() const { return scratch_.path("image"); }
  std::string states() const { return scratch_.path("states"); }
  void create(const std::string& options = "size=8M,cluster_size=4k") {
    World(image(), "").create(options);
  }
  std::vector<std::string> state_files() const {
    std::vector<std::string> names;
    if (!files::exists(states())) return names;
    for (const auto& entry : files::directory_iterator(states())) names.push_back(entry.path());
    return names;
  }
  // A process of its own works, says how often it has been told that something is done, and is
  // killed once it has said so `enough` times.
  template <typename Work>
  void die_after(unsigned enough, Work work) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const pid_t child = fork();
    if (child == 0) {
      World world(image(), states());
      if (!world.open(options_)) _exit(1);
      for (;;) {
        if (!work(world)) _exit(2);
        if (::write(ends[1], "", 1) != 1) _exit(3);
      }
    }
    ::close(ends[1]);
    char byte;
    unsigned told = 0;
    while (told < enough && ::read(ends[0], &byte, 1) == 1) ++told;
    kill(child, SIGKILL);
    // What it was told meanwhile counts, too.
    while (::read(ends[0], &byte, 1) == 1) ++told;
    ::close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the process ended by itself: " << WEXITSTATUS(status);
    told_ = told;
  }
  void write_and_die(unsigned enough) {
    die_after(enough, [next = uint64_t{0}](World& world) mutable {
      return world.write(next++ * 5 % (kSize / kCluster)).has_value();
    });
  }
  uint64_t cluster_told(unsigned number) const { return uint64_t{number} * 5 % (kSize / kCluster); }
  void expect_all_told(World& world) const {
    for (unsigned i = 0; i < told_; ++i) {
      ASSERT_TRUE(world.holds(cluster_told(i))) << i << " of " << told_;
    }
  }
  // The next process finds everything, and leaves an image without errors.
  void expect_recovered() {
    World next(image(), states());
    auto opened = next.open();
    ASSERT_TRUE(opened) << opened.error().message();
    expect_all_told(next);
    ASSERT_TRUE(next.close());
    EXPECT_EQ(qemu_check(), 0);
  }
  int qemu_check() const {
    return std::system(("qemu-img check -q '" + image() + "' > /dev/null 2>&1").c_str());
  }

  support::ScratchDirectory scratch_;
  std::string options_;  // that the image is opened with
  unsigned told_ = 0;
};

TEST_F(StateFileTest, NothingThatWasAcknowledgedDiesWithTheProcess) {
  create();
  write_and_die(200);
  ASSERT_EQ(state_files().size(), 1u);
  expect_recovered();
  EXPECT_THAT(state_files(), IsEmpty()) << "closed in order, it leaves nothing";
}

TEST_F(StateFileTest, WithoutOneItIsLost) {
  create();
  write_and_die(200);
  World next(image(), "");
  ASSERT_TRUE(next.open());
  unsigned held = 0;
  for (unsigned i = 0; i < told_; ++i) held += next.holds(cluster_told(i));
  EXPECT_LT(held, told_) << "the test above shows nothing";
  ASSERT_TRUE(next.close());
}

TEST_F(StateFileTest, ManyDeathsInARow) {
  create("size=8M,cluster_size=512,refcount_bits=64");
  for (unsigned death = 0; death < 8; ++death) {
    write_and_die(20 + death * 37);
    expect_recovered();
    ASSERT_FALSE(HasFailure());
  }
}

TEST_F(StateFileTest, DiscardsAndFlushesInBetween) {
  create();
  die_after(150, [next = uint64_t{0}](World& world) mutable {
    const uint64_t cluster = next++;
    auto done = world.write(cluster);
    if (done && cluster % 3 == 0)
      done = world.run(world.backend().discard(cluster * kCluster, kCluster));
    if (done && cluster % 16 == 15) done = world.run(world.backend().flush());
    return done.has_value();
  });
  World next(image(), states());
  ASSERT_TRUE(next.open());
  for (unsigned i = 0; i < told_; ++i) EXPECT_EQ(next.holds(i), i % 3 != 0) << i;
  ASSERT_TRUE(next.close());
  EXPECT_EQ(qemu_check(), 0);
}

// Small caches: slices leave them, and others lie beside them.
TEST_F(StateFileTest, CachesThatAreTooSmall) {
  create("size=8M,cluster_size=512");
  options_ = ",l2-cache-size=1k,refcount-cache-size=2k";
  die_after(400, [next = uint64_t{0}](World& world) mutable {
    return world.write(next++ * 321 % (kSize / kCluster)).has_value();
  });
  World next(image(), states());
  ASSERT_TRUE(next.open(options_));
  for (unsigned i = 0; i < told_; ++i) ASSERT_TRUE(next.holds(uint64_t{i} * 321 % 2048)) << i;
  ASSERT_TRUE(next.close());
  EXPECT_EQ(qemu_check(), 0);
}

// Each size of the caches has a state file of its own.
TEST_F(StateFileTest, CachesThatChangeMeanwhile) {
  create();
  die_after(300, [next = uint64_t{0}](World& world) mutable {
    const uint64_t number = next++;
    if (number % 37 == 0) {
      const char* sizes = number % 2 == 0 ? "l2-cache-size=8k,l2-cache-entry-size=512"
                                          : "refcount-cache-size=64k,l2-cache-entry-size=4k";
      if (!world.reopen(sizes)) return false;
    }
    return world.write(number * 5 % (kSize / kCluster)).has_value();
  });
  ASSERT_EQ(state_files().size(), 1u);
  expect_recovered();
}

// The next open is refused, says why, and leaves image and state as they are.
class RefusedStateTest : public StateFileTest {
 protected:
  void SetUp() override {
    create();
    write_and_die(100);
    ASSERT_EQ(state_files().size(), 1u);
  }
  void expect_refused(const std::string& why) {
    const std::string before = bytes_of(image());
    World next(image(), states());
    auto opened = next.open();
    ASSERT_FALSE(opened);
    EXPECT_THAT(std::string(opened.error().message()), HasSubstr(why));
    EXPECT_EQ(state_files().size(), 1u);
    EXPECT_EQ(bytes_of(image()), before);
  }
  static std::string bytes_of(const std::string& name) {
    std::ifstream file(name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void change_state(uint64_t offset, const std::string& bytes) {
    std::fstream file(state_files()[0], std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    ASSERT_TRUE(file.good());
  }
};

TEST_F(RefusedStateTest, SomebodyElseHasWrittenToTheImage) {
  ASSERT_EQ(std::system(("qemu-io -c 'write 0 1M' '" + image() + "' > /dev/null").c_str()), 0);
  expect_refused("the image has been changed by somebody else since");
}

TEST_F(RefusedStateTest, ItIsDamaged) {
  change_state(100, "rubbish");
  expect_refused("it is damaged");
}

TEST_F(RefusedStateTest, ItIsCutShort) {
  files::resize_file(state_files()[0], 8192);
  expect_refused("it is damaged");
}

TEST_F(RefusedStateTest, ItIsForOthersToo) {
  ASSERT_EQ(chmod(state_files()[0].c_str(), 0644), 0);
  expect_refused("it is not for this user alone");
}

TEST_F(RefusedStateTest, ItIsNoFile) {
  const std::string name = state_files()[0];
  files::rename(name, scratch_.path("elsewhere"));
  files::create_symlink(scratch_.path("elsewhere"), name);
  expect_refused("Could not open state file");
}

TEST_F(RefusedStateTest, OthersMayWriteToItsDirectory) {
  ASSERT_EQ(chmod(states().c_str(), 0777), 0);
  expect_refused("is no directory that this user alone writes to");
}

// What is in it is this user's own, and may be anything all the same.
TEST_F(RefusedStateTest, RubbishInItsPiecesIsTakenUpOrRefused) {
  const std::string state = state_files()[0];
  const std::string kept_state = scratch_.path("kept-state"), kept = scratch_.path("kept");
  files::copy_file(image(), kept);
  ASSERT_EQ(std::system(("cp --sparse=always '" + state + "' '" + kept_state + "'").c_str()), 0);
  std::mt19937_64 random(1);
  unsigned refused = 0;
  for (unsigned round = 0; round < 40; ++round) {
    // In place: they are known by what files they are.
    ASSERT_EQ(std::system(("cat '" + kept + "' > '" + image() + "' && cp --sparse=always '" +
                           kept_state + "' '" + state + "'")
                              .c_str()),
              0);
    for (unsigned i = 0; i < 1 + round % 8; ++i) {
      std::string word(8, 0);
      for (char& c : word) c = static_cast<char>(random() >> (round % 2 == 0 ? 0 : 60));
      // The first slots are the ones in use: of refcount blocks, or of L2 tables.
      change_state((random() % 2 == 0 ? 0x1000 : 0x7000) + random() % 0x100 / 8 * 8, word);
    }
    World next(image(), states());
    const auto opened = next.open();
    refused += !opened;
    if (opened) (void)next.close();
    if (state_files().empty()) files::copy_file(kept_state, state);
  }
  EXPECT_GT(refused, 0u);
}

TEST_F(StateFileTest, WhatAnotherFileLeftIsNotMetByOneThatHasItsName) {
  create();
  write_and_die(100);
  files::remove(image());
  create();
  World next(image(), states());
  ASSERT_TRUE(next.open());
  EXPECT_FALSE(next.holds(0));
  ASSERT_TRUE(next.close());
  EXPECT_EQ(state_files().size(), 1u) << "what is left of the other one is not ours to remove";
}

TEST_F(StateFileTest, OnePieceAtATime) {
  files::create_directory(states());
  const ImageIdentity identity = {
      .file = "a file", .cluster_bits = 12, .refcount_order = 4, .l2_entry_bytes = 8};
  const std::string path = states() + "/state";
  const std::vector<uint8_t> content(512, 7);
  {
    auto file = StateFile::open(path, identity);
    ASSERT_TRUE(file) << file.error().message();
    EXPECT_EQ((*file)->left(), StateFile::Left::kNothing);
    EXPECT_FALSE(StateFile::open(path, identity)) << "it is in use";
    ASSERT_TRUE((*file)->begin({.refcount_slots = 4,
                                .refcount_slice_bytes = 512,
                                .l2_slots = 8,
                                .l2_slice_bytes = 512,
                                .unit_bytes = 512}));
    SliceState& slices = (*file)->l2_slices();
    for (uint64_t slot = 0; slot < 6; ++slot) {
      ASSERT_TRUE(slices.back(slot));
      slices.hold(slot, 100 + slot, content);
      slices.words(slot)[0] = slot;
    }
    slices.set_dirty(1);
    slices.set_dirty(2);
    slices.begin_write(2);
    slices.set_dirty(3);
    slices.begin_write(3);
    slices.end_write(3, true, 0);
    slices.set_dirty(4);
    slices.begin_write(4);
    slices.set_dirty(4);
    slices.end_write(4, true, 99);
    slices.forget(5);
    const auto entry = [](uint64_t index) { return index + 1; };
    ASSERT_TRUE((*file)->l1().moved(8192, 2, entry));
    (*file)->l1().mark(1, entry);
    (*file)->l1().mark(2, entry);  // of a longer table, which is not there yet
  }
  {
    auto file = StateFile::open(path, identity);
    ASSERT_TRUE(file);
    ASSERT_EQ((*file)->left(), StateFile::Left::kState);
    const LeftState& left = (*file)->left_state();
    ASSERT_EQ(left.l2_slices.size(), 3u);
    EXPECT_EQ(left.l2_slices[0].number, 101u);
    EXPECT_FALSE(left.l2_slices[0].was_written);
    EXPECT_EQ(left.l2_slices[0].checksum, piece_checksum(content));
    EXPECT_EQ(left.l2_slices[0].bytes[0], 1);
    EXPECT_TRUE(left.l2_slices[1].was_written);
    EXPECT_EQ(left.l2_slices[2].number, 104u);
    EXPECT_FALSE(left.l2_slices[2].was_written);
    EXPECT_EQ(left.l2_slices[2].checksum, 99u);
    EXPECT_EQ(left.l1.host_offset, 8192u);
    ASSERT_EQ(left.l1.units.size(), 1u);
    EXPECT_EQ(left.l1.units[0].number, 1u);
    EXPECT_EQ(left.l1.units[0].bytes[7], 65);
    ASSERT_TRUE((*file)->begin_write_back());
  }
  {
    auto file = StateFile::open(path, identity);
    ASSERT_TRUE(file);
    EXPECT_TRUE((*file)->left_state().l2_slices[0].was_written) << "it may have been, meanwhile";
    ASSERT_TRUE((*file)->end_write_back());
  }
  auto file = StateFile::open(path, identity);
  ASSERT_TRUE(file);
  EXPECT_EQ((*file)->left(), StateFile::Left::kState);
  EXPECT_TRUE((*file)->left_state().empty());
  ImageIdentity other = identity;
  other.file = "another file";
  file->reset();
  auto of_other = StateFile::open(path, other);
  ASSERT_TRUE(of_other);
  EXPECT_EQ((*of_other)->left(), StateFile::Left::kOfOtherImage);
}

}  // namespace
}  // namespace platter::format::qcow2
