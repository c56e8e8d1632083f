#include "block/reopen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "block/named_nodes.h"
#include "block/registry.h"
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
  EXPECT_NE(reopen({{&second, options(b + ",l2-cache-size=65536")},
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
                                   "file.filename=@two,l2-cache-size=65536")}}),
            "");
  EXPECT_EQ(first_byte(over), 1);
  EXPECT_TRUE(run(delete_node(graph_, over)));
}

}  // namespace
}  // namespace platter::block
