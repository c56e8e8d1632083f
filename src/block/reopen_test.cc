#include "block/reopen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "block/named_nodes.h"
#include "block/registry.h"
#include "io/gate.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::block {
namespace {

using testing::HasSubstr;

constexpr Permissions kWriting = Permission::kConsistentRead | Permission::kWrite;

class ReopenTest : public testing::Test {
 protected:
  ~ReopenTest() override {
    for (bool again = true; again;) {
      again = false;
      for (Node* node : graph_.nodes()) {
        if (!is_kept(*node) || !uses(*node).empty()) continue;
        EXPECT_TRUE(run(delete_node(graph_, *node)));
        again = true;
        break;
      }
    }
    EXPECT_TRUE(graph_.nodes().empty());
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  void create(const std::string& name) {
    ASSERT_TRUE(run(
        graph_.create({scratch_.path(name), "qcow2", *base::Options::from_key_values("size=1M")})));
  }
  // "driver=qcow2,..."; "@x" stands for the path of x.
  base::Options options(std::string text) {
    for (size_t at; (at = text.find('@')) != text.npos;) text.replace(at, 1, scratch_.path(""));
    return *base::Options::from_key_values(text);
  }
  Node& add(const std::string& text) {
    OpenRequest request;
    request.options = options(text);
    request.flags.read_only = false;
    request.policy = OpenPolicy::anything();
    auto added = run(add_node(graph_, std::move(request)));
    EXPECT_TRUE(added) << added.error().message();
    return **added;
  }
  std::string reopen(std::vector<Reopening> wishes) {
    auto reopened = run(reopen_nodes(graph_, std::move(wishes)));
    return reopened ? "" : reopened.error().message();
  }
  std::unique_ptr<Backend> attach(Node& node, Permissions needed) {
    auto backend = run(graph_.attach(node, needed, kAllPermissions));
    EXPECT_TRUE(backend) << backend.error().message();
    return std::move(*backend);
  }
  void fill(Backend& backend, uint8_t byte) {
    io::AlignedBuffer data(65536);
    std::ranges::fill(data.span(), byte);
    EXPECT_TRUE(run(backend.write(0, data.view())));
  }
  int first_byte(Node& node) {
    auto backend = attach(node, Permission::kConsistentRead);
    io::AlignedBuffer data(4096);
    EXPECT_TRUE(run(backend->read(0, data.view())));
    EXPECT_TRUE(run(backend->close()));
    return data.span()[0];
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_ = *io::ReactorGroup::start({});
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_F(ReopenTest, ReadOnlyAndBack) {
  create("a");
  const std::string text = "driver=qcow2,node-name=a,file.driver=file,file.filename=@a";
  Node& node = add(text);
  auto backend = attach(node, kWriting);
  fill(*backend, 7);
  EXPECT_THAT(reopen({{&node, options(text + ",read-only=on")}}),
              HasSubstr("cannot support read-write users"));
  fill(*backend, 8);
  EXPECT_TRUE(run(backend->close()));
  EXPECT_EQ(reopen({{&node, options(text + ",read-only=on")}}), "");
  EXPECT_TRUE(node.primary()->node().read_only());
  EXPECT_EQ(run(graph_.attach(node, kWriting, kAllPermissions)).error().message(),
            "Block node is read-only");
  EXPECT_EQ(first_byte(node), 8);
  EXPECT_EQ(reopen({{&node, options(text)}}), "");
  backend = attach(node, kWriting);
  fill(*backend, 9);
  EXPECT_TRUE(run(backend->close()));
  EXPECT_EQ(first_byte(node), 9);
}

TEST_F(ReopenTest, ChangesOfSeveralNodesAreMadeTogetherOrNotAtAll) {
  create("a");
  create("b");
  const std::string a = "driver=qcow2,node-name=a,file.driver=file,file.filename=@a";
  const std::string b = "driver=qcow2,node-name=b,file.driver=file,file.filename=@b";
  Node& first = add(a);
  Node& second = add(b);
  auto backend = attach(second, kWriting);
  EXPECT_NE(reopen({{&first, options(a + ",detect-zeroes=on,read-only=on")},
                    {&second, options(b + ",read-only=on")}}),
            "");
  EXPECT_FALSE(first.read_only());
  EXPECT_EQ(settings(first).detect_zeroes, DetectZeroes::kOff);
  // Refused by the driver itself, which comes last.
  EXPECT_NE(reopen({{&second, options(b + ",l2-cache-entry-size=100")},
                    {&first, options(a + ",detect-zeroes=on")}}),
            "");
  EXPECT_EQ(settings(first).detect_zeroes, DetectZeroes::kOff);
  fill(*backend, 5);
  EXPECT_TRUE(run(backend->close()));
}

TEST_F(ReopenTest, TheFileIsOpenedAnewWithoutThePageCache) {
  create("a");
  const std::string text = "driver=qcow2,node-name=a,file.driver=file,file.filename=@a";
  Node& node = add(text);
  auto backend = attach(node, kWriting);
  fill(*backend, 3);
  EXPECT_EQ(reopen({{&node, options(text + ",cache.direct=on")}}), "");
  EXPECT_TRUE(settings(node.primary()->node()).cache_direct);
  EXPECT_EQ(first_byte(node), 3);
  fill(*backend, 4);
  EXPECT_EQ(reopen({{&node, options(text)}}), "");
  EXPECT_EQ(first_byte(node), 4);
  EXPECT_TRUE(run(backend->close()));
}

TEST_F(ReopenTest, AnotherBackingFileShowsThrough) {
  for (const char* name : {"one", "two", "over"}) create(name);
  Node& one = add("driver=qcow2,node-name=one,file.driver=file,file.filename=@one");
  Node& two = add("driver=qcow2,node-name=two,file.driver=file,file.filename=@two");
  for (auto [node, byte] : {std::pair(&one, 1), std::pair(&two, 2)}) {
    auto backend = attach(*node, kWriting);
    fill(*backend, static_cast<uint8_t>(byte));
    EXPECT_TRUE(run(backend->close()));
  }
  const std::string text = "driver=qcow2,node-name=over,file.driver=file,file.filename=@over";
  Node& over = add(text + ",backing=one");
  EXPECT_EQ(first_byte(over), 1);
  EXPECT_THAT(reopen({{&over, options(text)}}), HasSubstr("backing is missing"));
  EXPECT_EQ(reopen({{&over, options(text + ",backing=two")}}), "");
  EXPECT_EQ(first_byte(over), 2);
  EXPECT_THAT(reopen({{&two, options("driver=qcow2,node-name=two,file.driver=file,"
                                     "file.filename=@two,backing=over")}}),
              HasSubstr("would create a cycle"));
  base::Options none = options(text);
  none.set("backing", nullptr);
  EXPECT_EQ(reopen({{&over, none}}), "");
  EXPECT_EQ(first_byte(over), 0);
  EXPECT_EQ(reopen({{&over, options(text + ",backing=one")}}), "");
  EXPECT_EQ(first_byte(over), 1);
  // The one that goes back to its place: it was detached on the way, and the other one refused.
  none.set("discard", std::string("unmap"));
  EXPECT_NE(reopen({{&over, none},
                    {&two, options("driver=qcow2,node-name=two,file.driver=file,"
                                   "file.filename=@two,l2-cache-entry-size=100")}}),
            "");
  EXPECT_EQ(first_byte(over), 1);
  EXPECT_TRUE(run(delete_node(graph_, over)));
}

constexpr uint64_t kBlockBytes = 4096;

// Writes blocks of its part of the disk and reads them back, until it is told to stop.
struct Guest {
  Backend& backend;
  uint64_t first_block, blocks;
  std::atomic<bool>& stop;
  unsigned rounds = 0;
  std::vector<uint8_t> last = std::vector<uint8_t>(blocks);

  io::Task<void> run() {
    io::AlignedBuffer written(kBlockBytes), read(kBlockBytes);
    while (!stop || rounds < blocks) {
      const uint64_t block = rounds * 7 % blocks;
      const auto byte = static_cast<uint8_t>(rounds++ % 255 + 1);
      std::ranges::fill(written.span(), byte);
      const uint64_t offset = (first_block + block) * kBlockBytes;
      EXPECT_TRUE(co_await backend.write(offset, written.view()));
      last[block] = byte;
      EXPECT_TRUE(co_await backend.read(offset, read.view()));
      EXPECT_TRUE(std::ranges::equal(written.span(), read.span())) << offset;
    }
  }
  io::Task<void> check(Backend& other) {
    io::AlignedBuffer read(kBlockBytes);
    for (uint64_t block = 0; block < blocks; ++block) {
      EXPECT_TRUE(co_await other.read((first_block + block) * kBlockBytes, read.view()));
      EXPECT_EQ(std::ranges::count(read.span(), last[block]), int64_t{kBlockBytes}) << block;
    }
  }
};

// Of every option that may change, while guests write and read on other threads.
TEST(ReopenUnderLoadTest, NothingIsLostWhileOptionsChange) {
  constexpr unsigned kGuests = 3;
  support::ScratchDirectory scratch;
  auto reactors = *io::ReactorGroup::start({.reactors = kGuests + 1});
  DriverRegistry registry = DriverRegistry::builtin();
  base::Log log;
  Graph graph({registry, io::system_files(), log});
  auto run = [&](auto task) { return io::run_blocking(reactors->at(0), std::move(task)); };
  const auto create = *base::Options::from_key_values("size=16M,cluster_size=4k");
  ASSERT_TRUE(run(graph.create({scratch.path("a"), "qcow2", create})));
  const std::string text =
      "driver=qcow2,node-name=a,file.driver=file,file.filename=" + scratch.path("a");
  OpenRequest request;
  request.options = *base::Options::from_key_values(text);
  request.flags.read_only = false;
  request.policy = OpenPolicy::anything();
  Node& node = **run(add_node(graph, request));
  auto backend = *run(graph.attach(node, kWriting, kAllPermissions));

  std::atomic<bool> stop = false;
  std::vector<std::unique_ptr<Guest>> guests;
  io::Gate working;
  for (unsigned i = 0; i < kGuests; ++i) {
    guests.push_back(std::make_unique<Guest>(Guest{*backend, i * 1024, 512, stop}));
    working.spawn(reactors->at(i + 1), guests.back()->run());
  }
  const char* changes[] = {",l2-cache-size=1k,l2-cache-entry-size=512",
                           ",cache-size=64k,lazy-refcounts=on",
                           ",refcount-cache-size=16k,cache-clean-interval=1",
                           ",cache-clean-interval=0,overlap-check=all",
                           ",discard=unmap,pass-discard-other=on,pass-discard-snapshot=off",
                           ",cache-size=1M,l2-cache-size=2M",  // refused
                           ",detect-zeroes=on,l2-cache-entry-size=4k",
                           ""};
  for (unsigned round = 0; round < 40; ++round) {
    std::vector<Reopening> wishes;
    const char* change = changes[round % std::size(changes)];
    wishes.push_back({&node, *base::Options::from_key_values(text + change)});
    const auto reopened = run(reopen_nodes(graph, std::move(wishes)));
    EXPECT_EQ(reopened.has_value(), round % std::size(changes) != 5) << change;
  }
  stop = true;
  run(working.close());
  for (auto& guest : guests) run(guest->check(*backend));
  EXPECT_TRUE(run(backend->close()));
  EXPECT_TRUE(run(delete_node(graph, node)));

  request.flags.check = true;
  Node& again = **run(add_node(graph, std::move(request)));
  FirstLine found;
  const auto checked = run(again.driver().checkable()->check(found));
  ASSERT_TRUE(checked);
  EXPECT_EQ(checked->corruptions + checked->leaks + checked->check_errors, 0u) << found.line();
  EXPECT_TRUE(run(delete_node(graph, again)));
}

TEST_F(ReopenTest, AnotherWindowOfAFile) {
  Node& file = add("driver=memory,node-name=m,size=64k");
  const std::string text = "driver=raw,node-name=r,file=m";
  Node& node = add(text);
  auto backend = attach(node, kWriting);
  fill(*backend, 1);
  EXPECT_EQ(reopen({{&node, options(text + ",offset=512,size=4k")}}), "");
  EXPECT_EQ(backend->size(), 4096u);
  io::AlignedBuffer data(4096);
  std::ranges::fill(data.span(), 2);
  EXPECT_TRUE(run(backend->write(0, data.view())));
  EXPECT_FALSE(run(backend->write(4096, data.view())));
  EXPECT_EQ(reopen({{&node, options(text + ",offset=60k,size=8k")}}),
            "The sum of offset (61440) and size (8192) has to be smaller or equal to the  actual "
            "size of the containing file (65536)");
  EXPECT_EQ(reopen({{&node, options(text + ",offset=65537")}}),
            "Offset (65537) cannot be greater than size of the containing file (65536)");
  EXPECT_EQ(reopen({{&node, options(text + ",size=100")}}),
            "Specified size is not multiple of 512");
  EXPECT_EQ(backend->size(), 4096u);
  // Another one fails: this one goes back.
  EXPECT_NE(reopen({{&node, options(text)}, {&file, options("driver=memory,node-name=m,size=1k")}}),
            "");
  EXPECT_EQ(backend->size(), 4096u);
  EXPECT_EQ(reopen({{&node, options(text)}}), "");
  EXPECT_EQ(backend->size(), 65536u);
  io::AlignedBuffer seen(8192);
  EXPECT_TRUE(run(backend->read(0, seen.view())));
  EXPECT_EQ(std::ranges::count(seen.span(), 2), 4096);
  EXPECT_EQ(seen.span()[511], 1);
  EXPECT_EQ(seen.span()[512], 2);
  EXPECT_TRUE(run(backend->close()));
}

TEST_F(ReopenTest, NoWindowThatIsWrittenToIsCutOutOfZones) {
  add("driver=memory,node-name=zones,size=1M,zoned=host-managed,zone-size=64k");
  const std::string text = "driver=raw,node-name=r,file=zones";
  Node& node = add(text);
  const std::string why = "Node 'zones' is a host-managed zoned disk: a window cannot write to it";
  EXPECT_EQ(reopen({{&node, options(text + ",offset=64k")}}), why);
  EXPECT_TRUE(node.zoned_characteristics());
  EXPECT_EQ(reopen({{&node, options(text + ",offset=64k,read-only=on")}}), "");
  EXPECT_EQ(reopen({{&node, options(text + ",offset=64k")}}), why);
  EXPECT_EQ(reopen({{&node, options(text)}}), "");
  EXPECT_TRUE(node.zoned_characteristics());
}

TEST_F(ReopenTest, NoFormatIsGivenZonesToWriteTo) {
  create("a");
  add("driver=memory,node-name=zones,size=1M,zoned=host-managed,zone-size=64k");
  add("driver=file,node-name=f,filename=@a");
  Node& node = add("driver=qcow2,node-name=a,file=f");
  EXPECT_EQ(reopen({{&node, options("driver=qcow2,node-name=a,file=zones")}}),
            "Node 'zones' is a host-managed zoned disk: block format 'qcow2' cannot write to it");
  EXPECT_EQ(node.primary()->node().name(), "f");
}

}  // namespace
}  // namespace platter::block
