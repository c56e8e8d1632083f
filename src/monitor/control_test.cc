#include "monitor/control.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/try.h"
#include "block/named_nodes.h"
#include "block/registry.h"
#include "block/write_threshold.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::monitor {
namespace {

using base::Json;

// An export that does nothing but hold its node.
class HeldNode final : public BlockExport {
 public:
  HeldNode(std::unique_ptr<block::Backend> backend, const bool& busy)
      : backend_(std::move(backend)), busy_(busy) {}
  const block::Node& node() const override { return backend_->node(); }
  bool in_use() const override { return busy_; }
  io::Task<Result<void>> close() override { return backend_->close(); }

 private:
  std::unique_ptr<block::Backend> backend_;
  const bool& busy_;
};

class HoldingTypes final : public ExportTypes {
 public:
  bool knows(std::string_view type) const override { return type == "nbd"; }
  io::Task<Result<std::unique_ptr<BlockExport>>> start(BlockExportOptions options) override {
    block::Permissions needed = block::Permission::kConsistentRead;
    if (options.writable) needed |= block::Permission::kWrite;
    PLATTER_CO_ASSIGN(auto backend, co_await options.node->graph().attach(*options.node, needed,
                                                                          block::kAllPermissions));
    last = backend.get();
    co_return std::make_unique<HeldNode>(std::move(backend), busy);
  }
  bool busy = false;
  block::Backend* last = nullptr;
};

class ControlTest : public ::testing::Test {
 protected:
  ~ControlTest() override {
    EXPECT_TRUE(io::run_blocking(reactors_->at(0), control_.close()));
    EXPECT_TRUE(graph_.nodes().empty());
  }

  // The replies to these requests, in a session of their own.
  std::string talk(std::string_view requests, bool negotiate = true) {
    Session session(control_, false);
    control_.add_listener(session, [] {});
    session.take_output();
    if (negotiate) {
      session.receive(R"({"execute": "qmp_capabilities"})");
      run(session);
      session.take_output();
    }
    session.receive(requests);
    run(session);
    control_.remove_listener(session);
    std::string text = session.take_output();
    std::erase(text, '\r');
    return text;
  }
  std::string command(std::string_view name, std::string_view arguments = "{}") {
    return talk("{\"execute\": \"" + std::string(name) +
                "\", \"arguments\": " + std::string(arguments) + "}");
  }
  void run(Session& session) { io::run_blocking(reactors_->at(0), run_all(session)); }
  static io::Task<void> run_all(Session& session) {
    while (session.has_request()) co_await session.run_next();
  }
  char first_byte(block::Backend& backend, uint64_t offset) {
    io::AlignedBuffer data(512);
    EXPECT_TRUE(io::run_blocking(reactors_->at(0), backend.read(offset, data.view())));
    return static_cast<char>(data.span()[0]);
  }
  Result<void> write(block::Backend& backend, uint64_t offset, uint64_t bytes, char fill = 'x') {
    io::AlignedBuffer data(bytes);
    std::ranges::fill(data.span(), static_cast<uint8_t>(fill));
    return io::run_blocking(reactors_->at(0), backend.write(offset, data.view()));
  }

  std::unique_ptr<io::ReactorGroup> reactors_ = *io::ReactorGroup::start({});
  base::Log log_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  Objects objects_;
  block::Graph graph_{
      {.registry = registry_, .files = io::system_files(), .log = log_, .secrets = &objects_}};
  HoldingTypes exports_;
  Control control_{{.graph = graph_,
                    .objects = objects_,
                    .policy = OpenPolicy::own_directory(),
                    .exports = &exports_,
                    .microseconds = [] { return uint64_t{1'500'000}; }}};
};

constexpr std::string_view kDone = "{\"return\": {}}\n";

std::string error(std::string_view text, std::string_view of = "GenericError") {
  return "{\"error\": {\"class\": \"" + std::string(of) + "\", \"desc\": \"" + std::string(text) +
         "\"}}\n";
}

TEST_F(ControlTest, RefusesEverythingBeforeNegotiation) {
  EXPECT_EQ(
      talk(R"({"execute": "query-jobs"} {"execute": "nope"} {"execute": "qmp_capabilities"}
                    {"execute": "query-jobs", "id": 7} {"execute": "qmp_capabilities"})",
           false),
      error("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound") +
          error("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound") +
          "{\"return\": {}}\n{\"return\": [], \"id\": 7}\n" +
          error("Capabilities negotiation is already complete, command ignored",
                "CommandNotFound"));
}

TEST_F(ControlTest, AnswersOutOfBandBeforeWhatWaits) {
  EXPECT_EQ(talk(R"({"execute": "query-jobs", "id": 1} {"exec-oob": "query-jobs"})"),
            "{\"return\": [], \"id\": 1}\n" + error("QMP input member 'exec-oob' is unexpected"));
  EXPECT_EQ(talk(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})", false),
            kDone);
  Session session(control_, false);
  session.receive(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})");
  run(session);
  session.take_output();
  session.receive(R"({"execute": "query-jobs"} {"exec-oob": "query-jobs", "id": 2})");
  EXPECT_EQ(session.take_output(),
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"The command query-jobs does not "
            "support OOB\"}, \"id\": 2}\r\n");
  run(session);
  EXPECT_EQ(session.take_output(), "{\"return\": []}\r\n");
}

TEST_F(ControlTest, StopsReadingFromWhoAsksTooMuch) {
  Session session(control_, false);
  for (size_t i = 0; i < Session::kMaxWaiting; ++i) {
    EXPECT_TRUE(session.wants_input());
    session.receive("{\"execute\": \"query-jobs\"}");
  }
  EXPECT_FALSE(session.wants_input());
}

TEST_F(ControlTest, KeepsNodesByName) {
  EXPECT_EQ(command("blockdev-add", R"({"driver": "memory", "node-name": "m", "size": 65536})"),
            kDone);
  EXPECT_EQ(command("blockdev-add", R"({"driver": "raw", "node-name": "r", "file": "m"})"), kDone);
  EXPECT_EQ(command("blockdev-del", R"({"node-name": "m"})"), error("Block device m is in use"));
  EXPECT_EQ(command("block_resize", R"({"node-name": "r", "size": 131072})"), kDone);
  EXPECT_EQ(graph_.find("m")->size(), 131072u);
  EXPECT_EQ(command("blockdev-del", R"({"node-name": "r"})"), kDone);
  EXPECT_NE(graph_.find("m"), nullptr);
  EXPECT_EQ(command("blockdev-del", R"({"node-name": "m"})"), kDone);
  EXPECT_EQ(graph_.find("m"), nullptr);
}

TEST_F(ControlTest, TellsListenersThatAnExportHasGone) {
  EXPECT_EQ(command("blockdev-add", R"({"driver": "memory", "node-name": "m", "size": 65536})"),
            kDone);
  constexpr std::string_view kExport = R"({"type": "nbd", "id": "e", "node-name": "m"})";
  EXPECT_EQ(command("block-export-add", R"({"type": "fuse", "id": "f", "node-name": "m",
                                           "mountpoint": "x"})"),
            error("No driver found for the requested export type"));
  EXPECT_EQ(command("block-export-add", kExport), kDone);
  EXPECT_EQ(command("block-export-add", kExport), error("Block export id 'e' is already in use"));
  EXPECT_EQ(command("query-block-exports"),
            "{\"return\": [{\"node-name\": \"m\", \"shutting-down\": false, \"type\": \"nbd\", "
            "\"id\": \"e\"}]}\n");
  EXPECT_EQ(command("blockdev-del", R"({"node-name": "m"})"), error("Node m is in use"));
  exports_.busy = true;
  EXPECT_EQ(command("block-export-del", R"({"id": "e"})"), error("export 'e' still in use"));
  EXPECT_EQ(command("block-export-del", R"({"id": "e", "mode": "hard"})"),
            "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 500000}, \"event\": "
            "\"BLOCK_EXPORT_DELETED\", \"data\": {\"id\": \"e\"}}\n{\"return\": {}}\n");
  EXPECT_EQ(command("block-export-del", R"({"id": "e"})"), error("Export 'e' is not found"));
}

TEST_F(ControlTest, RecordsWritesInBitmaps) {
  command("blockdev-add", R"({"driver": "memory", "node-name": "m", "size": 1048576})");
  command("block-export-add", R"({"type": "nbd", "id": "e", "node-name": "m", "writable": true})");
  EXPECT_EQ(command("block-dirty-bitmap-add", R"({"node": "m", "name": "a", "granularity": 4096})"),
            kDone);
  EXPECT_EQ(command("block-dirty-bitmap-add",
                    R"({"node": "m", "name": "b", "granularity": 65536, "disabled": true})"),
            kDone);
  ASSERT_TRUE(write(*exports_.last, 10000, 10));
  auto count = [&](std::string name) {
    return (*io::run_blocking(reactors_->at(0), control_.bitmaps().bits(*graph_.find("m"), name)))
        ->count();
  };
  EXPECT_EQ(count("a"), 1u);
  EXPECT_EQ(count("b"), 0u);
  // What a transaction did before it failed is taken back.
  EXPECT_EQ(command("transaction", R"({"actions": [
      {"type": "block-dirty-bitmap-merge", "data": {"node": "m", "target": "b", "bitmaps": ["a"]}},
      {"type": "block-dirty-bitmap-clear", "data": {"node": "m", "name": "a"}},
      {"type": "block-dirty-bitmap-disable", "data": {"node": "m", "name": "a"}},
      {"type": "block-dirty-bitmap-add", "data": {"node": "m", "name": "c"}},
      {"type": "block-dirty-bitmap-remove", "data": {"node": "m", "name": "b"}},
      {"type": "abort", "data": {}}]})"),
            error("Transaction aborted using Abort action"));
  EXPECT_EQ(count("a"), 1u);
  EXPECT_EQ(count("b"), 0u);
  EXPECT_FALSE(control_.bitmaps().find(*graph_.find("m"), "c"));
  ASSERT_TRUE(write(*exports_.last, 500000, 10));
  EXPECT_EQ(count("a"), 2u);
  EXPECT_EQ(
      command("block-dirty-bitmap-merge", R"({"node": "m", "target": "b", "bitmaps": ["a"]})"),
      kDone);
  EXPECT_EQ(count("b"), 2u);
}

TEST_F(ControlTest, TellsOnceThatAWriteHasPassedAThreshold) {
  command("blockdev-add", R"({"driver": "memory", "node-name": "m", "size": 1048576})");
  command("block-export-add", R"({"type": "nbd", "id": "e", "node-name": "m", "writable": true})");
  EXPECT_EQ(command("block-set-write-threshold", R"({"node-name": "m", "write-threshold": 65536})"),
            kDone);
  Session session(control_, false);
  session.receive(R"({"execute": "qmp_capabilities"})");
  run(session);
  session.take_output();
  io::Event told;
  control_.add_listener(session, [&told] { told.set(); });
  ASSERT_TRUE(write(*exports_.last, 61440, 4096));
  ASSERT_TRUE(write(*exports_.last, 65536, 100));
  ASSERT_TRUE(write(*exports_.last, 131072, 100));
  auto wait = [](io::Event& event) -> io::Task<void> { co_await event; };
  io::run_blocking(reactors_->at(0), wait(told));
  control_.remove_listener(session);
  EXPECT_EQ(session.take_output(),
            "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 500000}, \"event\": "
            "\"BLOCK_WRITE_THRESHOLD\", \"data\": {\"node-name\": \"m\", \"amount-exceeded\": "
            "100, \"write-threshold\": 65536}}\r\n");
  EXPECT_EQ(block::write_threshold(*graph_.find("m")), 0u);
}

TEST_F(ControlTest, MeasuresLatenciesWhereItIsAskedTo) {
  command("blockdev-add", R"({"driver": "memory", "node-name": "m", "size": 1048576})");
  command("block-export-add", R"({"type": "nbd", "id": "e", "node-name": "m", "writable": true})");
  auto set = [&](std::string_view arguments) {
    return command("block-latency-histogram-set", arguments);
  };
  EXPECT_EQ(set(R"({"id": "x"})"), error("Device 'x' not found", "DeviceNotFound"));
  for (const auto* wrong : {"[]", "[0]", "[5, 5]", "[9, 3]", "[-1]"}) {
    EXPECT_EQ(
        set(R"({"id": "e", "boundaries": [1], "boundaries-write": )" + std::string(wrong) + "}"),
        error("Device 'e' set write boundaries fail"));
  }
  EXPECT_EQ(set(R"({"id": "e", "boundaries": ["x"]})"),
            error("Parameter 'boundaries[0]' expects uint64"));
  // Every request takes less than 2^62 nanoseconds.
  EXPECT_EQ(set(R"({"id": "e", "boundaries": [4611686018427387904],
                    "boundaries-write": [4611686018427387904, 4611686018427387905]})"),
            kDone);
  ASSERT_TRUE(write(*exports_.last, 0, 512));
  ASSERT_TRUE(write(*exports_.last, 0, 512));
  first_byte(*exports_.last, 0);
  const std::string counted = command("query-blockstats", R"({"query-nodes": true})");
  EXPECT_NE(counted.find("\"wr_operations\": 2"), counted.npos) << counted;
  EXPECT_NE(counted.find("\"rd_latency_histogram\": {\"boundaries\": [4611686018427387904], "
                         "\"bins\": [1, 0]}"),
            counted.npos)
      << counted;
  EXPECT_NE(counted.find("4611686018427387905], \"bins\": [2, 0, 0]}"), counted.npos) << counted;
  EXPECT_EQ(set(R"({"id": "m"})"), kDone);
  EXPECT_EQ(command("query-blockstats", R"({"query-nodes": true})").find("histogram"),
            std::string::npos);
}

TEST_F(ControlTest, CountsWhatIsAppendedToZones) {
  EXPECT_EQ(command("blockdev-add", R"({"driver": "memory", "node-name": "m", "size": 1048576,
                    "zoned": "host-managed", "zone-size": 65536, "max-open-zones": 2})"),
            kDone);
  command("block-export-add", R"({"type": "nbd", "id": "e", "node-name": "m", "writable": true})");
  EXPECT_EQ(command("block-latency-histogram-set",
                    R"({"id": "e", "boundaries-zap": [4611686018427387904]})"),
            kDone);
  std::vector<uint8_t> data(4096);
  ASSERT_TRUE(
      io::run_blocking(reactors_->at(0), exports_.last->zone_append(65536, io::BufferList(data))));
  const std::string counted = command("query-blockstats", R"({"query-nodes": true})");
  EXPECT_NE(counted.find("\"zone_append_bytes\": 4096"), counted.npos) << counted;
  EXPECT_NE(counted.find("\"zone_append_operations\": 1"), counted.npos) << counted;
  EXPECT_NE(counted.find("\"zone_append_latency_histogram\": {\"boundaries\": "
                         "[4611686018427387904], \"bins\": [1, 0]}"),
            counted.npos)
      << counted;
}

TEST_F(ControlTest, GivesAnExportTheOverlayOnItsNode) {
  const support::ScratchDirectory scratch;
  const std::string path = scratch.path("overlay.qcow2");
  command("blockdev-add", R"({"driver": "memory", "node-name": "m", "size": 1048576})");
  command("block-export-add", R"({"type": "nbd", "id": "e", "node-name": "m", "writable": true})");
  ASSERT_TRUE(write(*exports_.last, 0, 4096, 'a'));
  EXPECT_EQ(
      command("blockdev-snapshot-sync",
              R"({"node-name": "m", "snapshot-node-name": "o", "snapshot-file": ")" + path + "\"}"),
      kDone);
  EXPECT_EQ(exports_.last->node().name(), "o");
  ASSERT_TRUE(write(*exports_.last, 65536, 4096, 'b'));
  EXPECT_EQ(first_byte(*exports_.last, 0), 'a');
  EXPECT_EQ(first_byte(*exports_.last, 65536), 'b');
  const auto below = *io::run_blocking(
      reactors_->at(0),
      graph_.attach(*graph_.find("m"), block::Permission::kConsistentRead, block::kAllPermissions));
  EXPECT_EQ(first_byte(*below, 0), 'a');
  EXPECT_EQ(first_byte(*below, 65536), 0);
  EXPECT_TRUE(io::run_blocking(reactors_->at(0), below->close()));
  EXPECT_EQ(command("blockdev-del", R"({"node-name": "m"})"),
            error("Node 'm' is busy: node is used as backing hd of 'o'"));
}

TEST_F(ControlTest, ShowsObjectsButNotSecrets) {
  EXPECT_EQ(command("object-add", R"({"qom-type": "secret", "id": "s", "data": "hush"})"), kDone);
  EXPECT_EQ(command("object-add", R"({"qom-type": "iothread", "id": "t", "poll-max-ns": 5})"),
            kDone);
  EXPECT_EQ(command("qom-get", R"({"path": "/objects/t", "property": "poll-max-ns"})"),
            "{\"return\": 5}\n");
  EXPECT_EQ(command("qom-get", R"({"path": "/objects/s", "property": "data"})"),
            error("Property 'secret.data' not found"));
  EXPECT_EQ(command("qom-list", R"({"path": "/nope"})"),
            error("Device '/nope' not found", "DeviceNotFound"));
  EXPECT_EQ(command("object-del", R"({"id": "s"})"), kDone);
  EXPECT_FALSE(objects_.secret("s"));
}

TEST_F(ControlTest, AnIoThreadStaysAsLongAsAnExportUsesIt) {
  objects_.add("iothread,id=t").value();
  objects_.add("iothread,id=u").value();
  command("blockdev-add", R"({"driver": "memory", "node-name": "m", "size": 65536})");
  for (const std::string_view id : {"e", "f"}) {
    const std::string options = R"({"type": "nbd", "node-name": "m", "iothread": "t", "id": ")";
    ASSERT_EQ(command("block-export-add", options + std::string(id) + "\"}"), kDone);
  }
  EXPECT_EQ(command("object-del", R"({"id": "t"})"),
            error("object 't' is in use, can not be deleted"));
  EXPECT_EQ(command("object-del", R"({"id": "u"})"), kDone);
  command("block-export-del", R"({"id": "e"})");
  EXPECT_EQ(command("object-del", R"({"id": "t"})"),
            error("object 't' is in use, can not be deleted"));
  command("block-export-del", R"({"id": "f"})");
  EXPECT_EQ(command("object-del", R"({"id": "t"})"), kDone);
}

}  // namespace
}  // namespace platter::monitor
