// A disk fails, and the device stops until it is told to go on: the guest loses nothing, whatever
// its front-end does meanwhile.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <map>
#include <optional>

#include "support/scratch_directory.h"
#include "vhost_user/back_end.h"
#include "vhost_user/ring_tests.h"

namespace platter::front_end {
namespace {

constexpr uint32_t kBytes = 64 << 10;
constexpr uint64_t kRequestSectors = kBytes / kSectorBytes;
constexpr uint32_t kRingSize = 64;
constexpr unsigned kRequests = 16;

// The first two writes fail.
const std::string kFailingNode =
    "driver=blkdebug,image.driver=memory,image.size=16M,"
    "inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.once=on,"
    "inject-error.1.event=none,inject-error.1.iotype=write,inject-error.1.once=on";

class StopTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    errors_ = Descriptor(ends[0]);
    their_errors_ = Descriptor(ends[1]);
  }
  void start(BackEndOptions options) {
    options.socket = scratch_.path("socket");
    options.errors = their_errors_.get();
    auto started = BackEnd::start("platter", options);
    ASSERT_TRUE(started) << started.error().message();
    back_end_.emplace(std::move(*started));
  }
  void start_failing(const std::string& policy) {
    start({.image = {}, .node = kFailingNode, .socket = {}, .arguments = {"--werror", policy}});
  }
  std::unique_ptr<BlockDevice> connect(bool tracks = true) {
    DeviceOptions options = {.ring = {.size = kRingSize, .packed = GetParam()},
                             .ram_bytes = 16ULL << 20,
                             .buffer_bytes = kBytes};
    if (tracks) options.protocol_features |= protocol_feature::kInflight;
    auto device = BlockDevice::connect(scratch_.path("socket"), options);
    if (device) return std::move(*device);
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }
  // Writes, each to its own place, of another byte each.
  static void write_all(BlockQueue& queue, std::map<uint32_t, unsigned>& out) {
    for (unsigned i = 0; i < kRequests; ++i) {
      const uint32_t slot = queue.next_slot();
      std::ranges::fill(queue.buffer(slot), static_cast<uint8_t>(i + 1));
      ASSERT_TRUE(queue.add(kWrite, i * kRequestSectors, kBytes));
      out[slot] = i;
    }
    queue.publish();
  }
  static void expect_written(BlockDevice& device) {
    std::vector<uint8_t> data(kBytes);
    for (unsigned i = 0; i < kRequests; ++i) {
      const auto status = device.read(i * kRequestSectors, data);
      ASSERT_TRUE(status) << status.error().message();
      EXPECT_EQ(*status, kOk);
      EXPECT_TRUE(std::ranges::all_of(data, [&](uint8_t byte) { return byte == i + 1; })) << i;
    }
  }
  // The line that tells of a stop.
  std::string wait_for_stop() {
    std::string line;
    char letter = 0;
    pollfd ready = {errors_.get(), POLLIN, 0};
    while (letter != '\n') {
      if (poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(kLimit).count())) != 1 ||
          read(errors_.get(), &letter, 1) != 1) {
        ADD_FAILURE() << "it does not say that it stops, but: " << line;
        return line;
      }
      line += letter;
    }
    EXPECT_NE(line.find("the disk is stopped"), std::string::npos) << line;
    return line;
  }
  // A device that writes which fail have stopped.
  std::unique_ptr<BlockDevice> connect_and_stop(std::map<uint32_t, unsigned>& out) {
    start_failing("stop");
    auto device = connect();
    if (device == nullptr) return nullptr;
    write_all(device->queue(0), out);
    wait_for_stop();
    return device;
  }
  // Each of them comes back, and none twice; wherever the disk stops meanwhile it goes on.
  void expect_all_going_on(BlockQueue& queue, std::map<uint32_t, unsigned> out) {
    pollfd again = {errors_.get(), POLLIN, 0};
    while (!out.empty()) {
      if (const auto done = queue.collect()) {
        EXPECT_EQ(done->status, kOk);
        ASSERT_EQ(out.erase(done->slot), 1U);
      } else if (poll(&again, 1, 0) == 1) {
        wait_for_stop();
        back_end_->signal(SIGUSR2);
      }
    }
  }

  support::ScratchDirectory scratch_;
  Descriptor errors_;
  Descriptor their_errors_;
  std::optional<BackEnd> back_end_;
};

// ---- No space left

class TemporaryFileSystem {
 public:
  TemporaryFileSystem(std::string path, unsigned bytes) : path_(std::move(path)) {
    ::mkdir(path_.c_str(), 0700);
    const std::string size = fmt::format("size={}", bytes);
    if (::mount("tmpfs", path_.c_str(), "tmpfs", 0, size.c_str()) != 0) code_ = errno;
  }
  ~TemporaryFileSystem() {
    if (code_ == 0) ::umount2(path_.c_str(), MNT_DETACH);
  }
  // Why it is not mounted, or 0.
  int code() const { return code_; }
  std::string path(const std::string& name) const { return path_ + "/" + name; }
  // Leaves so many bytes.
  void fill(uint64_t left) const {
    struct statvfs space;
    ASSERT_EQ(::statvfs(path_.c_str(), &space), 0);
    const Descriptor filler(::open(path("filler").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    const uint64_t all = space.f_bavail * space.f_frsize;
    ASSERT_EQ(::posix_fallocate(filler.get(), 0, static_cast<off_t>(all - left)), 0);
  }

 private:
  const std::string path_;
  int code_ = 0;
};

TEST_P(StopTest, ADiskThatIsFullGoesOnWhenThereIsSpace) {
  const TemporaryFileSystem files(scratch_.path("files"), 8 << 20);
  if (files.code() == EPERM) GTEST_SKIP() << "only a process that may mount can fill a disk";
  ASSERT_EQ(files.code(), 0);
  const std::string image = files.path("disk.qcow2");
  ASSERT_EQ(
      std::system(fmt::format("{} create -q -f qcow2 {} 16M", PLATTER_PROGRAM, image).c_str()), 0);
  files.fill(512 << 10);
  start({.image = image, .socket = {}, .arguments = {"--werror", "enospc", "--state", "none"}});
  const auto device = connect();
  ASSERT_TRUE(device);
  std::map<uint32_t, unsigned> out;
  write_all(device->queue(0), out);
  const std::string line = wait_for_stop();
  EXPECT_NE(line.find("a write has failed: No space left on device"), std::string::npos) << line;
  EXPECT_NE(line.find("kill -USR2 "), std::string::npos) << line;
  // It is as full as before.
  back_end_->signal(SIGUSR2);
  wait_for_stop();
  ASSERT_EQ(::unlink(files.path("filler").c_str()), 0);
  back_end_->signal(SIGUSR2);
  expect_all(device->queue(0), out, kOk);
  expect_written(*device);
  EXPECT_EQ(device->run(kFlush, 0, 0).value_or(0xff), kOk);
  EXPECT_EQ(back_end_->stop(), 0);
  EXPECT_EQ(std::system(fmt::format("{} check -q {}", PLATTER_PROGRAM, image).c_str()), 0);
}

// ---- What a front-end does while the device is stopped

TEST_P(StopTest, GoesOnAfterEachStop) {
  std::map<uint32_t, unsigned> out;
  const auto device = connect_and_stop(out);
  ASSERT_TRUE(device);
  back_end_->signal(SIGUSR2);
  // One that is told twice goes on all the same.
  back_end_->signal(SIGUSR2);
  // The second error may have come with the first.
  expect_all_going_on(device->queue(0), out);
  expect_written(*device);
}

TEST_P(StopTest, ErrorsAreReportedUnlessItIsSaid) {
  start({.image = {}, .node = kFailingNode, .socket = {}});
  const auto device = connect();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->run(kWrite, 0, kBytes).value_or(0xff), kIoError);
  EXPECT_EQ(device->run(kWrite, 0, kBytes).value_or(0xff), kIoError);
  EXPECT_EQ(device->run(kWrite, 0, kBytes).value_or(0xff), kOk);
}

TEST_P(StopTest, ErrorsAreIgnoredWhereThatIsSaid) {
  start_failing("ignore");
  const auto device = connect();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->run(kWrite, 0, kBytes).value_or(0xff), kOk);
}

TEST_P(StopTest, AQueueThatIsTakenAwayFailsWhatWaits) {
  start_failing("stop");
  const auto device = connect(false);
  ASSERT_TRUE(device);
  BlockQueue& queue = device->queue(0);
  ASSERT_TRUE(queue.add(kWrite, 0, kBytes));
  queue.publish();
  wait_for_stop();
  ASSERT_TRUE(device->stop());
  const auto done = queue.collect();
  ASSERT_TRUE(done);
  EXPECT_EQ(done->status, kIoError);
  EXPECT_FALSE(queue.collect());
}

TEST_P(StopTest, AQueueThatTracksItsRequestsDoesThemWhenItIsBack) {
  std::map<uint32_t, unsigned> out;
  const auto device = connect_and_stop(out);
  ASSERT_TRUE(device);
  ASSERT_TRUE(device->stop());
  ASSERT_TRUE(device->start());
  back_end_->signal(SIGUSR2);
  expect_all_going_on(device->queue(0), out);
  expect_written(*device);
}

TEST_P(StopTest, AMigrationGetsTheError) {
  start_failing("stop");
  const auto device = connect();
  ASSERT_TRUE(device);
  const Descriptor log(memfd_create("log", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(log.get(), static_cast<off_t>(device->log_bytes())), 0);
  ASSERT_TRUE(device->start_log(log.get()));
  ASSERT_TRUE(device->queue(0).add(kWrite, 0, kBytes));
  device->queue(0).publish();
  wait_for_stop();
  ASSERT_TRUE(device->stop());
  const auto done = device->queue(0).collect();
  ASSERT_TRUE(done);
  EXPECT_EQ(done->status, kIoError);
}

// As QEMU does it: one way or the other round, by its version.
TEST_P(StopTest, AMachineThatIsPausedGetsTheError) {
  for (const bool status_first : {false, true}) {
    start_failing("stop");
    const auto device = connect();
    ASSERT_TRUE(device);
    ASSERT_TRUE(device->front_end().set_status(15));
    BlockQueue& queue = device->queue(0);
    ASSERT_TRUE(queue.add(kWrite, 0, kBytes));
    queue.publish();
    wait_for_stop();
    if (status_first) ASSERT_TRUE(device->front_end().set_status(0));
    ASSERT_TRUE(device->stop());
    const auto done = queue.collect();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, kIoError);
    back_end_.reset();
  }
}

TEST_P(StopTest, TheNextBackEndDoesWhatWaits) {
  std::map<uint32_t, unsigned> out;
  const auto device = connect_and_stop(out);
  ASSERT_TRUE(device);
  back_end_->kill();
  start({.image = {}, .node = "driver=memory,size=16M", .socket = {}});
  const auto again = device->reconnect(scratch_.path("socket"));
  ASSERT_TRUE(again) << again.error().message();
  expect_all(device->queue(0), out, kOk);
}

TEST_P(StopTest, TheNextFrontEndFindsADeviceAtWork) {
  start_failing("stop");
  auto device = connect();
  ASSERT_TRUE(device);
  ASSERT_TRUE(device->queue(0).add(kWrite, 0, kBytes));
  device->queue(0).publish();
  wait_for_stop();
  device.reset();
  device = connect();
  ASSERT_TRUE(device);
  EXPECT_EQ(device->run(kRead, 0, kBytes).value_or(0xff), kOk);
  EXPECT_EQ(back_end_->stop(), 0);
}

INSTANTIATE_TEST_SUITE_P(Rings, StopTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

}  // namespace
}  // namespace platter::front_end
