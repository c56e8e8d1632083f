#include "block/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "block/accounting.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::block {
namespace {

using testing::HasSubstr;

// A graph over the real file system, reactors to run on and a scratch directory.
class GraphTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 2});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  std::string path(const std::string& name) const { return scratch_.path(name); }
  void write_file(const std::string& name, const std::string& content) {
    std::ofstream(path(name)) << content;
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }

  static OpenRequest request(std::string filename, std::string format, bool writable) {
    OpenRequest request;
    request.filename = std::move(filename);
    request.format = std::move(format);
    request.flags.read_only = !writable;
    request.policy = OpenPolicy::anything();
    return request;
  }
  Result<std::unique_ptr<Backend>> open(OpenRequest request, Permissions shared = kAllPermissions) {
    Permissions needed = Permission::kConsistentRead;
    if (!request.flags.read_only) needed |= Permission::kWrite | Permission::kResize;
    return run(graph_.open(std::move(request), needed, shared));
  }
  Result<std::unique_ptr<Backend>> open_options(const std::string& text, bool writable) {
    OpenRequest request = GraphTest::request("", "", writable);
    request.options = *base::Options::from_key_values(text);
    return open(std::move(request));
  }
  std::string open_error(OpenRequest request) {
    auto opened = open(std::move(request));
    if (opened) {
      EXPECT_TRUE(run((*opened)->close()));
      return "opened";
    }
    return opened.error().message();
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

TEST_F(GraphTest, ReadsWhatItWroteThroughRawAndFile) {
  ASSERT_TRUE(run(graph_.create({path("a"), "raw", *base::Options::from_key_values("size=1M")})));
  auto backend = open(request(path("a"), "raw", true));
  ASSERT_TRUE(backend) << backend.error().message();
  EXPECT_EQ((*backend)->size(), 1u << 20);
  std::vector<uint8_t> data(5000, 0x5a), back(5000);
  EXPECT_TRUE(run((*backend)->write(12345, io::BufferList(data))));
  EXPECT_TRUE(run((*backend)->read(12345, io::BufferList(back))));
  EXPECT_EQ(data, back);
  EXPECT_TRUE(run((*backend)->zero(12345, 100)));
  EXPECT_TRUE(run((*backend)->flush()));
  EXPECT_TRUE(run((*backend)->read(12345, io::BufferList(back))));
  EXPECT_EQ(back[99], 0);
  EXPECT_EQ(back[100], 0x5a);
  EXPECT_FALSE(run((*backend)->read((1 << 20) - 10, io::BufferList(data))));
  const BackendStatistics statistics = (*backend)->statistics();
  EXPECT_EQ(statistics.read.operations, 2u);
  EXPECT_EQ(statistics.read.failed, 1u);
  EXPECT_EQ(statistics.write.bytes, 5000u);
  EXPECT_GT(statistics.last_ended.count(), 0);
  Node& node = (*backend)->node();
  EXPECT_EQ(highest_written(node), 17345u);
  EXPECT_EQ(highest_written(node.primary()->node()), 17345u);
  EXPECT_TRUE(run((*backend)->zero(65536, 4096)));
  EXPECT_TRUE(run((*backend)->write(4096, io::BufferList(data))));
  EXPECT_EQ(highest_written(node), 69632u);
  EXPECT_TRUE(run((*backend)->close()));
  EXPECT_TRUE(graph_.nodes().empty());
}

TEST_F(GraphTest, SaysWhyAnImageCannotBeOpened) {
  write_file("a", std::string(65536, 'x'));
  const std::string a = path("a");
  auto json = [](const std::string& text) { return request("json:" + text, "", false); };
  EXPECT_EQ(open_error(request(path("none"), "", false)), "Could not open '" + path("none") +
                                                              "': Could not open '" + path("none") +
                                                              "': No such file or directory");
  EXPECT_EQ(open_error(request(scratch_.directory(), "", false)),
            "Could not open '" + scratch_.directory() + "': 'file' driver requires '" +
                scratch_.directory() + "' to be a regular file");
  EXPECT_EQ(open_error(request(a, "nosuch", false)),
            "Could not open '" + a + "': Unknown driver 'nosuch'");
  EXPECT_EQ(open_error(request("nbdx:foo", "", false)),
            "Could not open 'nbdx:foo': Unknown protocol 'nbdx'");
  EXPECT_THAT(open_error(request("./nbdx:foo", "", false)),
              HasSubstr("Could not open './nbdx:foo': No such file or directory"));
  EXPECT_THAT(open_error(json("{bad")), HasSubstr("': Could not parse the JSON options: "));
  EXPECT_THAT(open_error(json("[1]")), HasSubstr("': Invalid JSON object given"));
  EXPECT_EQ(open_error(json("{}")), "Could not open 'json:{}': Must specify either driver or file");
  EXPECT_THAT(open_error(json(R"({"driver":"raw"})")),
              HasSubstr("A block device must be specified for \"file\""));
  EXPECT_THAT(open_error(json(R"({"driver":"raw","file":"xx"})")),
              HasSubstr("Cannot find device='xx' nor node-name='xx'"));
  EXPECT_THAT(open_error(json(R"({"driver":"file"})")),
              HasSubstr("The 'file' block driver requires a file name"));
  EXPECT_THAT(open_error(json(R"({"driver":"null-co","node-name":"9a"})")),
              HasSubstr("Invalid node-name: '9a'"));
  EXPECT_THAT(open_error(json(R"({"driver":"raw","file":{"driver":"file","filename":")" + a +
                              R"(","foo":1}})")),
              HasSubstr("Block protocol 'file' doesn't support the option 'foo'"));
  EXPECT_THAT(open_error(json(R"({"driver":"raw","foo":1,"file":{"driver":"file","filename":")" +
                              a + R"("}})")),
              HasSubstr("Block format 'raw' does not support the option 'foo'"));
  EXPECT_THAT(
      open_error(json(R"({"driver":"raw","size":"1T","file":{"driver":"file","filename":")" + a +
                      R"("}})")),
      HasSubstr("has to be smaller or equal to the  actual size of the containing file (65536)"));
  EXPECT_THAT(open_error(json(R"({"driver":"file","aio":"native","filename":")" + a + R"("})")),
              HasSubstr("aio=native was specified, but it requires cache.direct=on"));
  EXPECT_TRUE(graph_.nodes().empty());
}

TEST_F(GraphTest, TakesOptionsInEverySpelling) {
  write_file("a", std::string(65536, 'x'));
  auto expect_size = [this](OpenRequest wanted, uint64_t size, const std::string& name) {
    auto opened = open(std::move(wanted));
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_EQ((*opened)->size(), size);
    EXPECT_EQ((*opened)->node().filename(), name);
    EXPECT_TRUE(run((*opened)->close()));
  };
  expect_size(request("file:" + path("a"), "", false), 65536, path("a"));
  expect_size(
      request("json:{\"file.filename\": \"" + path("a") + "\", \"driver\": \"raw\"}", "", false),
      65536, path("a"));
  OpenRequest dotted = request("", "", false);
  dotted.options = *base::Options::from_key_values(
      "driver=raw,offset=512,size=1024,file.driver=file,file.filename=" + path("a"));
  expect_size(std::move(dotted), 1024,
              "json:{\"driver\": \"raw\", \"offset\": \"512\", \"size\": \"1024\", \"file\": "
              "{\"driver\": \"file\", \"filename\": \"" +
                  path("a") + "\"}}");
  expect_size(request("null-co://", "raw", false), uint64_t{1} << 30, "null-co://");
}

TEST_F(GraphTest, ReferencesAnOpenNodeByName) {
  auto first = open_options("driver=memory,size=1M,node-name=disk", true);
  ASSERT_TRUE(first);
  auto twin = open_options("driver=null-co,node-name=disk", false);
  ASSERT_FALSE(twin);
  EXPECT_THAT(twin.error().message(), HasSubstr("Duplicate nodes with node-name='disk'"));
  auto over = open_options("driver=raw,file=disk", true);
  ASSERT_TRUE(over) << over.error().message();
  std::vector<uint8_t> data(512, 7), back(512);
  EXPECT_TRUE(run((*over)->write(0, io::BufferList(data))));
  EXPECT_TRUE(run((*first)->read(0, io::BufferList(back))));
  EXPECT_EQ(data, back);
  EXPECT_TRUE(run((*first)->close()));
  EXPECT_NE(graph_.find("disk"), nullptr);
  EXPECT_TRUE(run((*over)->close()));
  EXPECT_TRUE(graph_.nodes().empty());
}

TEST_F(GraphTest, PermissionConflictsNameBothUsers) {
  auto first = open_options("driver=memory,size=1M,node-name=disk", true);
  ASSERT_TRUE(first);
  Node& disk = (*first)->node();
  auto refused = run(graph_.attach(disk, Permission::kConsistentRead,
                                   Permission::kConsistentRead | Permission::kWriteUnchanged));
  ASSERT_FALSE(refused);
  EXPECT_EQ(
      refused.error().message(),
      "Permission conflict on node 'disk': permissions 'write, resize' are both required by an "
      "unnamed block device (uses node 'disk' as 'root' child) and unshared by an unnamed block "
      "device (uses node 'disk' as 'root' child).");
  EXPECT_EQ(refused.error().code(), EPERM);
  // The refused one has left no trace.
  auto second = run(graph_.attach(disk, Permission::kConsistentRead, kAllPermissions));
  ASSERT_TRUE(second);
  std::vector<uint8_t> data(512);
  auto write = run((*second)->write(0, io::BufferList(data)));
  ASSERT_FALSE(write);
  EXPECT_EQ(write.error().code(), EPERM);
  EXPECT_TRUE(run((*second)->close()));
  EXPECT_TRUE(run((*first)->close()));

  auto reader = open_options("driver=null-co,node-name=reader", false);
  ASSERT_TRUE(reader);
  auto writer = run(graph_.attach((*reader)->node(), Permission::kWrite, kAllPermissions));
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().message(), "Block node is read-only");
  EXPECT_TRUE(run((*reader)->close()));
}

TEST_F(GraphTest, AProbedRawImageKeepsItsFirstSector) {
  write_file("a", std::string(65536, 'x'));
  auto backend = open(request(path("a"), "", true));
  ASSERT_TRUE(backend) << backend.error().message();
  std::vector<uint8_t> data(512, 1);
  EXPECT_TRUE(run((*backend)->write(0, io::BufferList(data))));
  const DriverType* other = registry_.find("qcow2");
  if (other != nullptr) {
    const uint8_t magic[] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};
    std::copy(std::begin(magic), std::end(magic), data.begin());
    auto refused = run((*backend)->write(0, io::BufferList(data)));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), EPERM);
    EXPECT_TRUE(run((*backend)->write(512, io::BufferList(data))));
  }
  EXPECT_TRUE(run((*backend)->close()));
}

TEST_F(GraphTest, RefusesOptionsBeforeItTouchesTheTarget) {
  write_file("a", "precious");
  auto create = [this](const std::string& name, const std::string& format,
                       const std::string& options) {
    return run(graph_.create({path(name), format, *base::Options::from_key_values(options)}));
  };
  auto bad = create("a", "raw", "size=1M,foo=1");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message(), "Invalid parameter 'foo'");
  EXPECT_EQ(std::filesystem::file_size(path("a")), 8u);
  auto nowhere = create("no/a", "raw", "size=1M");
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().message(),
            "Could not create '" + path("no/a") + "': No such file or directory");
  auto unknown = create("a", "nosuch", "size=1M");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().message(), "Unknown file format 'nosuch'");
  ASSERT_TRUE(create("b", "raw", "size=1000,preallocation=full"));
  EXPECT_EQ(std::filesystem::file_size(path("b")), 1024u);
  // What failed half-way is gone.
  EXPECT_FALSE(create("c", "raw", "size=7E,preallocation=falloc"));
  EXPECT_FALSE(std::filesystem::exists(path("c")));
}

TEST_F(GraphTest, ReplacesAChildInADrainedSection) {
  auto one = open_options("driver=memory,size=1M,node-name=one", true);
  auto two = open_options("driver=memory,size=1M,node-name=two", true);
  auto over = open_options("driver=raw,file=one,node-name=over", true);
  ASSERT_TRUE(one && two && over);
  std::vector<uint8_t> data(512, 2), back(512);
  EXPECT_TRUE(run((*two)->write(0, io::BufferList(data))));
  Node& node = (*over)->node();
  run(graph_.drained_begin(node));
  auto circle = run(graph_.replace_child(*node.child("file"), node));
  ASSERT_FALSE(circle);
  EXPECT_EQ(circle.error().message(), "Making 'over' a file child of 'over' would create a cycle");
  EXPECT_TRUE(run(graph_.replace_child(*node.child("file"), (*two)->node())));
  graph_.drained_end(node);
  EXPECT_TRUE(run((*over)->read(0, io::BufferList(back))));
  EXPECT_EQ(data, back);
  for (auto* backend : {&one, &two, &over}) EXPECT_TRUE(run((**backend)->close()));
}

}  // namespace
}  // namespace platter::block
