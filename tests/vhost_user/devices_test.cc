// The devices of `platter daemon`: as QMP describes them, and where their queues run.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <thread>

#include "base/json.h"
#include "base/try.h"
#include "block/named_nodes.h"
#include "block/registry.h"
#include "io/event.h"
#include "io/gate.h"
#include "io/reactor_group.h"
#include "monitor/devices.h"
#include "support/scratch_directory.h"
#include "vhost_user/back_end.h"
#include "vhost_user/ring_tests.h"

namespace platter::front_end {
namespace {

using base::Json;

constexpr uint32_t kBytes = 4096;

// ---- In this process

constexpr size_t kBlocks = 4;

// What a NotingDriver notes, and is told.
struct Notes {
  std::array<std::atomic<pid_t>, kBlocks> threads;  // that have begun to read the block
  std::atomic<io::Event*> reads_end = nullptr;      // null: at once
};
Notes notes;

// Notes who reads its blocks.
class NotingDriver final : public block::Driver {
 public:
  uint64_t size() const override { return kBlocks * kBytes; }
  block::Limits limits() const override { return {}; }
  io::Task<Result<void>> read(uint64_t offset, io::BufferList) override {
    notes.threads[offset / kBytes] = gettid();
    if (io::Event* end = notes.reads_end) return end_with(*end);
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<void>> write(uint64_t, io::BufferList, block::WriteFlags) override {
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<void>> zero(uint64_t, uint64_t, block::WriteFlags) override {
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<void>> discard(uint64_t, uint64_t) override {
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<void>> flush() override { return io::Task<Result<void>>::ready(Result<void>()); }
  io::Task<Result<block::BlockStatus>> status(uint64_t, uint64_t length,
                                              block::StatusDetail) override {
    block::BlockStatus status;
    status.length = length;
    return io::Task<Result<block::BlockStatus>>::ready(status);
  }

 private:
  static io::Task<Result<void>> end_with(io::Event& end) {
    co_await end;
    co_return Result<void>();
  }
};

io::Task<Result<std::unique_ptr<block::Driver>>> open_noting(block::OpenContext&) {
  co_return std::make_unique<NotingDriver>();
}

const block::DriverType kNoting = {
    .name = "noting",
    .kind = block::DriverKind::kProtocol,
    .runtime_options = base::OptionSchema({}),
    .create_options = base::OptionSchema({}),
    .open = open_noting,
};

io::Task<pid_t> thread_id() { co_return gettid(); }

class DevicesTest : public testing::Test {
 protected:
  void SetUp() override {
    block::OpenRequest request;
    request.options = *base::Options::from_key_values("driver=noting,node-name=disk");
    request.flags.read_only = false;
    request.policy = OpenPolicy::anything();
    ASSERT_TRUE(run(block::add_node(graph_, std::move(request))));
  }
  void TearDown() override {
    EXPECT_TRUE(run(devices_.close_all()));
    EXPECT_TRUE(run(block::delete_node(graph_, *graph_.find("disk"))));
    for (auto& thread : notes.threads) thread = 0;
    notes.reads_end = nullptr;
  }
  template <typename T>
  T run(io::Task<T> task, unsigned reactor = 0) {
    return io::run_blocking(reactors_->at(reactor), std::move(task));
  }
  void add(const std::string& more) {
    const auto added = run(devices_.add(
        graph_, *Json::parse(fmt::format(R"({{"driver": "virtio-blk", "id": "d", "drive": "disk",
                                    "addr": {{"type": "unix", "path": "{}"}}, {}}})",
                                         scratch_.path("socket"), more))));
    ASSERT_TRUE(added) << added.error().description;
  }
  std::unique_ptr<BlockDevice> connect(uint32_t queues) {
    auto device = BlockDevice::connect(
        scratch_.path("socket"),
        {.queues = queues, .ring = {}, .ram_bytes = 16ULL << 20, .buffer_bytes = kBytes});
    if (device) return std::move(*device);
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }

  support::ScratchDirectory scratch_;
  std::unique_ptr<io::ReactorGroup> reactors_ = *io::ReactorGroup::start({.reactors = 3});
  const block::DriverRegistry registry_{{&kNoting}};
  base::Log log_;
  monitor::Objects objects_;
  block::Graph graph_{{registry_, io::system_files(), log_}};
  monitor::Devices devices_{
      {&reactors_->at(0), &reactors_->at(1), &reactors_->at(2)}, objects_, log_};
};

TEST_F(DevicesTest, AQueueRunsOnTheReactorOfItsIoThread) {
  ASSERT_TRUE(objects_.add("iothread,id=first"));
  ASSERT_TRUE(objects_.add("iothread,id=second"));
  add(R"("iothread-vq-mapping": [{"iothread": "second", "vqs": [0, 3]},
                                 {"iothread": "first", "vqs": [1, 2]}])");
  {
    const auto device = connect(4);
    ASSERT_TRUE(device);
    for (uint32_t i = 0; i < 4; ++i) {
      BlockQueue& queue = device->queue(i);
      ASSERT_TRUE(queue.add(kRead, i * kBytes / kSectorBytes, kBytes));
      queue.publish();
      while (!queue.collect()) ASSERT_TRUE(queue.wait(kLimit));
    }
  }
  const pid_t first = run(thread_id(), 2);
  const pid_t second = run(thread_id(), 1);
  EXPECT_EQ(notes.threads[0], second);
  EXPECT_EQ(notes.threads[1], first);
  EXPECT_EQ(notes.threads[2], first);
  EXPECT_EQ(notes.threads[3], second);
  EXPECT_TRUE(run(devices_.remove("d")));
}

struct Stopping {
  monitor::Devices& devices;
  io::Event& reads_end;
  bool came_after_the_reads = false;
  io::Gate gate = {};

  io::Task<void> stop() {
    EXPECT_TRUE(co_await devices.stop());
    came_after_the_reads = reads_end.is_set();
  }
  io::Task<void> begin() {
    gate.spawn(*io::Reactor::current(), stop());
    co_return;
  }
};

TEST_F(DevicesTest, AStopWaitsForWhatIsInFlight) {
  ASSERT_TRUE(objects_.add("iothread,id=t"));
  // On a reactor of its own, and on that of the commands.
  for (const std::string more : {R"("iothread": "t")", R"("num-queues": 1)"}) {
    io::Event reads_end;
    notes.reads_end = &reads_end;
    notes.threads[0] = 0;
    add(more);
    {
      const auto device = connect(1);
      ASSERT_TRUE(device);
      BlockQueue& queue = device->queue(0);
      ASSERT_TRUE(queue.add(kRead, 0, kBytes));
      queue.publish();
      while (notes.threads[0] == 0) std::this_thread::yield();
      Stopping stopping{devices_, reads_end};
      run(stopping.begin());
      // Time enough for one that does not wait.
      for (unsigned i = 0; i < 100; ++i) run(thread_id(), i % 3);
      EXPECT_FALSE(queue.collect());
      reads_end.set();
      run(stopping.gate.close());
      EXPECT_TRUE(stopping.came_after_the_reads);
      const auto done = queue.collect();
      ASSERT_TRUE(done) << "the driver does not see the answer yet";
      EXPECT_EQ(done->status, kOk);
    }
    EXPECT_TRUE(run(devices_.remove("d")));
    devices_.go_on();
    notes.reads_end = nullptr;
  }
}

// ---- The daemon

class QmpClient {
 public:
  void connect(const std::string& path) {
    socket_ = Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_NE(read().find("QMP"), nullptr);
    ask(R"({"execute": "qmp_capabilities"})");
  }
  // The next event of this name, whatever else comes first.
  Json wait_for(std::string_view event) {
    for (;;) {
      for (auto each = events_.begin(); each != events_.end(); ++each) {
        if (*each->find("event")->get_if<std::string>() != event) continue;
        Json found = std::move(*each);
        events_.erase(each);
        return found;
      }
      Json next = read();
      if (next.find("event") == nullptr) {
        ADD_FAILURE() << "no " << event << ", but " << next.dump();
        return Json::object();
      }
      events_.push_back(std::move(next));
    }
  }
  // What it returns, or the error.
  Json ask(std::string_view request) {
    EXPECT_EQ(::send(socket_.get(), request.data(), request.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(request.size()));
    for (;;) {
      Json next = read();
      if (const Json* value = next.find("return")) return *value;
      if (const Json* error = next.find("error")) return *error;
      if (next.find("event") == nullptr) return Json::object();
      events_.push_back(std::move(next));
    }
  }
  std::string text(std::string_view request, std::string_view member) {
    const Json reply = ask(request);
    const Json* found = reply.find(member);
    return found == nullptr ? reply.dump() : *found->get_if<std::string>();
  }

 private:
  Json read() {
    std::string line;
    char letter = 0;
    pollfd ready = {socket_.get(), POLLIN, 0};
    while (letter != '\n') {
      if (poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(kLimit).count())) != 1 ||
          ::read(socket_.get(), &letter, 1) != 1) {
        ADD_FAILURE() << "the daemon says nothing but '" << line << "'";
        return Json::object();
      }
      line += letter;
    }
    return *Json::parse(line);
  }

  Descriptor socket_;
  std::vector<Json> events_;
};

class DaemonDeviceTest : public testing::Test {
 protected:
  void start(const std::string& node, std::vector<std::string> more) {
    const std::string monitor = scratch_.path("qmp");
    std::vector<std::string> words = {
        "--state",    "none",
        "--blockdev", node + ",node-name=disk",
        "--chardev",  fmt::format("socket,path={},server=on,wait=off,id=m", monitor),
        "--monitor",  "m"};
    words.insert(words.end(), more.begin(), more.end());
    auto started =
        BackEnd::start("platter-daemon", {.image = {}, .socket = monitor, .arguments = words});
    ASSERT_TRUE(started) << started.error().message();
    daemon_.emplace(std::move(*started));
    client_.connect(monitor);
  }
  std::string device_option(const std::string& more) const {
    return fmt::format("virtio-blk,id=d0,drive=disk,addr.type=unix,addr.path={}{}",
                       scratch_.path("socket"), more);
  }
  std::unique_ptr<BlockDevice> connect() {
    auto device = BlockDevice::connect(
        scratch_.path("socket"), {.ring = {}, .ram_bytes = 16ULL << 20, .buffer_bytes = kBytes});
    if (device) return std::move(*device);
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }

  support::ScratchDirectory scratch_;
  std::optional<BackEnd> daemon_;
  QmpClient client_;
};

TEST_F(DaemonDeviceTest, TellsOfAnErrorAndGoesOn) {
  start(
      "driver=blkdebug,image.driver=memory,image.size=16M,inject-error.0.event=none,"
      "inject-error.0.iotype=write,inject-error.0.once=on,inject-error.0.errno=28",
      {"--device", device_option(",serial=blue")});
  const auto device = connect();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->serial().value_or(""), "blue");
  EXPECT_EQ(client_.text(R"({"execute": "query-status"})", "status"), "running");
  EXPECT_EQ(client_.ask(R"({"execute": "query-block"})").dump().find(R"("io-status": "ok")") !=
                std::string::npos,
            true);
  BlockQueue& queue = device->queue(0);
  ASSERT_TRUE(queue.add(kWrite, 0, kBytes));
  queue.publish();
  const Json failed = client_.wait_for("BLOCK_IO_ERROR");
  const Json& data = *failed.find("data");
  for (const auto& [key, value] : {std::pair{"qom-path", "/machine/peripheral/d0"},
                                   {"device", ""},
                                   {"node-name", "disk"},
                                   {"operation", "write"},
                                   {"action", "stop"},
                                   {"reason", "No space left on device"}})
    EXPECT_EQ(*data.find(key)->get_if<std::string>(), value) << key;
  EXPECT_TRUE(*data.find("nospace")->get_if<bool>());
  client_.wait_for("STOP");
  EXPECT_EQ(client_.text(R"({"execute": "query-status"})", "status"), "io-error");
  const Json described = client_.ask(R"({"execute": "query-block"})");
  const Json& disk = described.get_if<Json::Array>()->at(0);
  EXPECT_EQ(*disk.find("qdev")->get_if<std::string>(), "d0");
  EXPECT_EQ(*disk.find("io-status")->get_if<std::string>(), "nospace");
  EXPECT_EQ(*disk.find("inserted")->find("node-name")->get_if<std::string>(), "disk");
  EXPECT_FALSE(queue.collect());
  client_.ask(R"({"execute": "cont"})");
  client_.wait_for("RESUME");
  while (!queue.ring().any_used()) ASSERT_TRUE(queue.wait(kLimit));
  EXPECT_EQ(queue.collect()->status, kOk);
  EXPECT_EQ(client_.text(R"({"execute": "query-status"})", "status"), "running");
  const Json counted = client_.ask(R"({"execute": "query-blockstats"})");
  const Json& statistics = *counted.get_if<Json::Array>()->at(0).find("stats");
  EXPECT_EQ(statistics.find("failed_wr_operations")->dump(), "1");
  EXPECT_EQ(daemon_->stop(), 0);
}

TEST_F(DaemonDeviceTest, AStopFlushes) {
  start(
      "driver=blkdebug,image.driver=memory,image.size=16M,inject-error.0.event=none,"
      "inject-error.0.iotype=flush,inject-error.0.once=on,inject-error.0.errno=5",
      {"--device", device_option(""), "--blockdev",
       "driver=memory,size=16M,read-only=on,node-name=r", "--device",
       fmt::format("virtio-blk,id=d1,drive=r,addr.type=unix,addr.path={}", scratch_.path("r"))});
  const auto device = connect();
  ASSERT_TRUE(device);
  const std::string stop = R"({"execute": "stop"})";
  EXPECT_EQ(device->run(kWrite, 0, kBytes).value_or(0xff), kOk);
  EXPECT_EQ(client_.text(stop, "desc"), "Could not flush device 'd0': Input/output error");
  client_.wait_for("STOP");
  EXPECT_EQ(client_.text(R"({"execute": "query-status"})", "status"), "paused");
  EXPECT_EQ(client_.ask(stop).dump(), "{}") << "the error came once";
  EXPECT_EQ(daemon_->stop(), 0);
}

TEST_F(DaemonDeviceTest, ItsIoThreadsStay) {
  start("driver=memory,size=16M", {"--object", "iothread,id=a", "--object", "iothread,id=b",
                                   "--object", "iothread,id=c", "--device",
                                   device_option(",num-queues=2,iothread-vq-mapping.0.iothread=a,"
                                                 "iothread-vq-mapping.1.iothread=b")});
  const auto remove = [](std::string_view id) {
    return fmt::format(R"({{"execute": "object-del", "arguments": {{"id": "{}"}}}})", id);
  };
  EXPECT_EQ(client_.text(remove("a"), "desc"), "object 'a' is in use, can not be deleted");
  EXPECT_EQ(client_.text(remove("b"), "desc"), "object 'b' is in use, can not be deleted");
  EXPECT_EQ(client_.ask(remove("c")).dump(), "{}");
  client_.ask(R"({"execute": "device_del", "arguments": {"id": "d0"}})");
  EXPECT_EQ(client_.ask(remove("a")).dump(), "{}");
  EXPECT_EQ(client_.ask(remove("b")).dump(), "{}");
  EXPECT_EQ(daemon_->stop(), 0);
}

TEST_F(DaemonDeviceTest, ComesAndGoesAtTheWordOfQmp) {
  start("driver=memory,size=16M", {});
  const std::string add =
      fmt::format(R"({{"execute": "device_add", "arguments": {{"driver": "virtio-blk", "id": "d1",
                    "drive": "disk", "num-queues": 2, "werror": "report",
                    "addr": {{"type": "unix", "path": "{}"}}}}}})",
                  scratch_.path("socket"));
  EXPECT_EQ(client_.ask(add).dump(), "{}");
  EXPECT_EQ(client_.text(add, "desc"), "Duplicate device ID 'd1'");
  {
    const auto device = connect();
    ASSERT_TRUE(device);
    EXPECT_EQ(device->run(kWrite, 0, kBytes).value_or(0xff), kOk);
    // Without a policy that stops there is no status.
    const Json described = client_.ask(R"({"execute": "query-block"})");
    EXPECT_EQ(described.get_if<Json::Array>()->at(0).find("io-status"), nullptr);
    // Stopped by its user, it does nothing.
    client_.ask(R"({"execute": "stop"})");
    client_.wait_for("STOP");
    EXPECT_EQ(client_.text(R"({"execute": "query-status"})", "status"), "paused");
    ASSERT_TRUE(device->queue(0).add(kRead, 0, kBytes));
    device->queue(0).publish();
    // Neither has it after a turn of the monitor.
    client_.ask(R"({"execute": "query-status"})");
    EXPECT_FALSE(device->queue(0).collect());
    client_.ask(R"({"execute": "cont"})");
    client_.wait_for("RESUME");
    while (!device->queue(0).collect()) ASSERT_TRUE(device->queue(0).wait(kLimit));
  }
  EXPECT_EQ(client_.ask(R"({"execute": "device_del", "arguments": {"id": "d1"}})").dump(), "{}");
  const Json deleted = client_.wait_for("DEVICE_DELETED");
  EXPECT_EQ(*deleted.find("data")->find("path")->get_if<std::string>(), "/machine/peripheral/d1");
  EXPECT_EQ(client_.ask(R"({"execute": "query-block"})").dump(), "[]");
  EXPECT_EQ(client_.text(R"({"execute": "device_del", "arguments": {"id": "d1"}})", "class"),
            "DeviceNotFound");
  EXPECT_EQ(
      client_.ask(R"({"execute": "blockdev-del", "arguments": {"node-name": "disk"}})").dump(),
      "{}");
}

}  // namespace
}  // namespace platter::front_end
