// Backing chains: how they are opened, what an image may name, and how their status is told.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "block/filename.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::block {
namespace {

using testing::HasSubstr;

class ChainTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 1});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  std::string path(const std::string& name) const { return scratch_.path(name); }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  void create(const std::string& name, const std::string& size, const std::string& backing = {},
              const std::string& backing_format = "qcow2") {
    base::Options options;
    options.set("size", size);
    if (!backing.empty()) {
      options.set("backing_file", backing);
      options.set("backing_fmt", backing_format);
    }
    auto created = run(graph_.create({path(name), "qcow2", std::move(options)}));
    ASSERT_TRUE(created) << created.error().message();
  }
  Result<std::unique_ptr<Backend>> open(const std::string& name, bool writable = false,
                                        OpenPolicy policy = OpenPolicy::own_directory(),
                                        const std::string& options = {}) {
    OpenRequest request;
    request.filename = path(name);
    request.format = "qcow2";
    if (!options.empty()) request.options = *base::Options::from_key_values(options);
    request.flags.read_only = !writable;
    request.policy = std::move(policy);
    Permissions needed = Permission::kConsistentRead;
    if (writable) needed |= Permission::kWrite;
    return run(graph_.open(std::move(request), needed, kAllPermissions));
  }
  std::string error(Result<std::unique_ptr<Backend>> opened) {
    if (!opened) return opened.error().message();
    EXPECT_TRUE(run((*opened)->close()));
    return "opened";
  }
  void fill(const std::string& name, uint64_t offset, size_t length, uint8_t byte) {
    auto backend = open(name, true);
    ASSERT_TRUE(backend) << backend.error().message();
    std::vector<uint8_t> data(length, byte);
    EXPECT_TRUE(run((*backend)->write(offset, io::BufferList(data))));
    EXPECT_TRUE(run((*backend)->close()));
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_F(ChainTest, ReadsThroughAShorterBackingFile) {
  create("base", "128k");
  fill("base", 0, 65536, 1);
  create("middle", "192k", "base");
  create("top", "256k", "middle");
  fill("top", 131072 + 512, 512, 3);
  auto top = open("top");
  ASSERT_TRUE(top) << top.error().message();
  std::vector<uint8_t> back(262144);
  EXPECT_TRUE(run((*top)->read(0, io::BufferList(back))));
  EXPECT_EQ(back[65535], 1);
  EXPECT_EQ(back[65536], 0);
  EXPECT_EQ(back[131072 + 512], 3);
  EXPECT_EQ(back[262143], 0);
  // Found two layers down; then nowhere; then here; then past the end of what lies below.
  struct Expected {
    uint64_t offset;
    unsigned depth;
    bool data, zero, allocated;
  };
  for (const Expected& expected : {Expected{0, 2, true, false, true},
                                   {65536, 2, false, true, false},
                                   {131072, 0, true, false, true},
                                   {196608, 0, false, true, false}}) {
    unsigned depth = 99;
    auto status = run((*top)->status_above(nullptr, expected.offset, 262144 - expected.offset,
                                           StatusDetail::kPrecise, &depth));
    ASSERT_TRUE(status) << status.error().message();
    EXPECT_EQ(status->length, 65536u) << expected.offset;
    EXPECT_EQ(depth, expected.depth) << expected.offset;
    EXPECT_EQ(status->data, expected.data) << expected.offset;
    EXPECT_EQ(status->zero, expected.zero) << expected.offset;
    EXPECT_EQ(status->allocated, expected.allocated) << expected.offset;
    EXPECT_EQ(status->eof, expected.offset == 196608) << expected.offset;
  }
  EXPECT_TRUE(run((*top)->close()));
  EXPECT_TRUE(graph_.nodes().empty());
}

TEST_F(ChainTest, RefusesALoop) {
  create("a", "1M");
  create("b", "1M", "a");
  std::filesystem::remove(path("a"));
  create("a", "1M", "b");
  const std::string prefix = "Could not open '" + path("a") + "': Could not open backing file: ";
  EXPECT_EQ(error(open("a")), prefix + "Could not open backing file: Backing file '" + path("a") +
                                  "' of '" + path("b") + "' refers back to '" + path("a") + "'");
  std::filesystem::remove(path("b"));
  create("b", "1M", "b");
  EXPECT_THAT(error(open("b")), HasSubstr("Backing file '" + path("b") + "' of '" + path("b") +
                                          "' refers back to '" + path("b") + "'"));
  EXPECT_TRUE(graph_.nodes().empty());
}

TEST_F(ChainTest, RefusesAChainThatIsTooLong) {
  create("0", "1M");
  for (int i = 1; i <= 5; ++i) create(std::to_string(i), "1M", std::to_string(i - 1));
  OpenPolicy policy = OpenPolicy::own_directory();
  policy.max_chain_depth = 6;
  EXPECT_EQ(error(open("5", false, policy)), "opened");
  policy.max_chain_depth = 5;
  EXPECT_THAT(error(open("5", false, policy)),
              HasSubstr("The backing chain is longer than 5 images"));
}

TEST_F(ChainTest, SaysWhichBackingFileIsMissing) {
  create("base", "1M");
  create("top", "1M", "base");
  std::filesystem::remove(path("base"));
  EXPECT_EQ(error(open("top")), "Could not open '" + path("top") +
                                    "': Could not open backing file: Could not open '" +
                                    path("base") + "': No such file or directory");
  auto alone = open("top", false, OpenPolicy::deny(), "backing=");
  ASSERT_TRUE(alone) << alone.error().message();
  EXPECT_TRUE(run((*alone)->close()));
}

// Reported as what it is: not found, when it is opened.
TEST_F(ChainTest, ANeighbourThatIsMissingIsWithinReach) {
  const OpenPolicy policy = OpenPolicy::own_directory();
  EXPECT_TRUE(check_reach(policy, "no_such_image", "no_such_neighbour", "").has_value());
  EXPECT_FALSE(check_reach(policy, "no_such_image", "../no_such_file", "").has_value());
}

TEST_F(ChainTest, AnImageNamesOnlyWhatThePolicyAllows) {
  std::filesystem::create_directory(path("inner"));
  create("outside", "1M");
  create("inner/base", "1M");
  create("inner/top", "1M", "base");
  create("inner/escapes", "1M", "../outside");
  std::filesystem::create_symlink("../outside", path("inner/link"));
  create("inner/linked", "1M", "link");
  create("inner/url", "1M", "nbd://localhost/x", "raw");
  create("inner/json", "1M", "json:{\"driver\":\"null-co\"}", "raw");

  EXPECT_THAT(error(open("inner/top", false, OpenPolicy::deny())),
              HasSubstr("the open policy follows no names in images"));
  EXPECT_EQ(error(open("inner/top")), "opened");
  EXPECT_THAT(error(open("inner/escapes")), HasSubstr("outside the directories"));
  EXPECT_THAT(error(open("inner/linked")), HasSubstr("outside the directories"));
  EXPECT_THAT(error(open("inner/url")), HasSubstr("only allows names of files"));
  EXPECT_THAT(error(open("inner/json")), HasSubstr("only allows names of files"));
  EXPECT_EQ(error(open("inner/escapes", false, OpenPolicy::anything())), "opened");
  OpenPolicy listed = OpenPolicy::deny();
  listed.allowed_directories.push_back(scratch_.directory());
  EXPECT_EQ(error(open("inner/escapes", false, listed)), "opened");
  EXPECT_EQ(error(open("inner/linked", false, listed)), "opened");
}

TEST_F(ChainTest, ABackingFileIsNotWrittenWhileItHasAnOverlay) {
  create("base", "1M");
  create("top", "1M", "base");
  auto top = open("top", true);
  ASSERT_TRUE(top) << top.error().message();
  EXPECT_EQ(error(open("base", true)),
            "Could not open '" + path("base") + "': Failed to get \"write\" lock");
  EXPECT_EQ(error(open("base")), "opened");
  EXPECT_TRUE(run((*top)->close()));
}

}  // namespace
}  // namespace platter::block
