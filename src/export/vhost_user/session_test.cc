#include "export/vhost_user/session.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <csignal>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "block/graph.h"
#include "block/registry.h"
#include "export/vhost_user/export.h"
#include "io/reactor_group.h"
#include "virtio/features.h"
#include "virtio/inflight.h"

namespace platter::vhost_user {
namespace {

using block::Permission;

constexpr uint32_t kPlain = 1;
constexpr uint32_t kWantsReply = 9;
constexpr uint32_t kReplyFlags = 5;
constexpr uint64_t kMemoryBytes = 1 << 20;
constexpr uint64_t kUserBase = 0x7f0000000000;

struct Reply {
  uint32_t request;
  uint32_t flags;
  std::vector<uint8_t> payload;
  uint64_t number() const {
    uint64_t value = UINT64_MAX;
    if (payload.size() == sizeof value) std::memcpy(&value, payload.data(), sizeof value);
    return value;
  }
};

// The front-end's end of a session.
class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    reactors_ = *io::ReactorGroup::start({.reactors = 2});
    block::OpenRequest request;
    request.options = *base::Options::from_key_values("driver=memory,size=1M");
    request.flags.read_only = false;
    request.policy = OpenPolicy::anything();
    backend_ =
        *run(graph_.open(std::move(request), Permission::kConsistentRead | Permission::kWrite,
                         block::kAllPermissions));
    virtio::blk::Properties properties = default_properties();
    properties.queues = 2;
    device_ = *virtio::blk::Device::make(*backend_, properties);
    for (unsigned i = 0; i < reactors_->size(); ++i) all_.push_back(&reactors_->at(i));
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    socket_.reset(ends[0]);
    session_ = std::make_unique<Session>(io::Descriptor(ends[1]), *device_, all_, log_);
    run(begin());
  }
  void TearDown() override {
    hang_up();
    EXPECT_TRUE(run(backend_->close()));
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  io::Task<void> begin() {
    gate_.spawn(*io::Reactor::current(), session_->run());
    co_return;
  }
  io::Task<void> tell_change() {
    session_->config_changed();
    co_return;
  }
  void hang_up() {
    if (!session_) return;
    socket_.reset();
    run(gate_.close());
    session_.reset();
  }

  void send_bytes(std::span<const uint8_t> bytes, std::span<const int> descriptors = {}) {
    iovec piece = {.iov_base = const_cast<uint8_t*>(bytes.data()), .iov_len = bytes.size()};
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(32 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* ancillary = CMSG_FIRSTHDR(&message);
      ancillary->cmsg_level = SOL_SOCKET;
      ancillary->cmsg_type = SCM_RIGHTS;
      ancillary->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(ancillary), descriptors.data(), descriptors.size_bytes());
    }
    EXPECT_EQ(sendmsg(socket_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  void send_message(uint32_t request, uint32_t flags, std::span<const uint8_t> payload,
                    std::span<const int> descriptors = {}) {
    const uint32_t header[] = {request, flags, static_cast<uint32_t>(payload.size())};
    std::vector<uint8_t> bytes(sizeof header);
    std::memcpy(bytes.data(), header, sizeof header);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    send_bytes(bytes, descriptors);
  }
  template <typename... Fields>
  static std::vector<uint8_t> fields(Fields... values) {
    std::vector<uint8_t> payload;
    const auto append = [&](auto value) {
      const auto* raw = reinterpret_cast<const uint8_t*>(&value);
      payload.insert(payload.end(), raw, raw + sizeof value);
    };
    (append(values), ...);
    return payload;
  }
  // Nothing: the session has ended.
  std::optional<Reply> receive() {
    uint32_t header[3];
    if (recv(socket_.get(), header, sizeof header, MSG_WAITALL) != sizeof header)
      return std::nullopt;
    Reply reply = {header[0], header[1], std::vector<uint8_t>(header[2])};
    if (header[2] != 0) {
      EXPECT_EQ(recv(socket_.get(), reply.payload.data(), header[2], MSG_WAITALL),
                static_cast<ssize_t>(header[2]));
    }
    return reply;
  }
  uint64_t ask(Request request) {
    send_message(static_cast<uint32_t>(request), kPlain, {});
    const auto reply = receive();
    EXPECT_TRUE(reply);
    return reply ? reply->number() : 0;
  }
  // 0: done; 1: refused.
  uint64_t demand(Request request, std::span<const uint8_t> payload,
                  std::span<const int> descriptors = {}) {
    send_message(static_cast<uint32_t>(request), kWantsReply, payload, descriptors);
    const auto reply = receive();
    EXPECT_TRUE(reply);
    if (!reply) return UINT64_MAX;
    EXPECT_EQ(reply->request, static_cast<uint32_t>(request));
    EXPECT_EQ(reply->flags, kReplyFlags);
    return reply->number();
  }
  void negotiate_acknowledgements() {
    send_message(static_cast<uint32_t>(Request::kSetProtocolFeatures), kPlain,
                 fields(uint64_t{kReplyAck}));
  }
  io::Descriptor shared_memory() {
    io::Descriptor memory(memfd_create("guest", MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(memory.get(), kMemoryBytes), 0);
    return memory;
  }
  static std::vector<uint8_t> region(uint64_t guest, uint64_t bytes, uint64_t user) {
    return fields(uint64_t{0}, guest, bytes, user, uint64_t{0});
  }
  // What run() says when a session is dropped.
  bool was_told(std::string_view words) const {
    const std::lock_guard lock(told_mutex_);
    for (const std::string& line : told_) {
      if (line.find(words) != std::string::npos) return true;
    }
    return false;
  }

  std::unique_ptr<io::ReactorGroup> reactors_;
  std::vector<io::Reactor*> all_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  mutable std::mutex told_mutex_;
  std::vector<std::string> told_;
  base::Log log_{[this](base::LogLevel, std::string_view line) {
    const std::lock_guard lock(told_mutex_);
    told_.emplace_back(line);
  }};
  block::Graph graph_{{registry_, io::system_files(), log_}};
  std::unique_ptr<block::Backend> backend_;
  std::unique_ptr<virtio::blk::Device> device_;
  std::unique_ptr<Session> session_;
  io::Gate gate_;
  io::Descriptor socket_;
};

TEST_F(SessionTest, TellsWhatItIs) {
  EXPECT_EQ(ask(Request::kGetFeatures), device_->offered_features() | kProtocolFeatures | kLogAll);
  EXPECT_EQ(ask(Request::kGetQueueCount), 2U);
  EXPECT_EQ(ask(Request::kGetMaxMemorySlots), virtio::GuestMemory::kMaxRegions);
  EXPECT_NE(ask(Request::kGetProtocolFeatures) & kConfig, 0U);
  send_message(24, kPlain, fields(uint32_t{0}, uint32_t{8}, uint32_t{0}, uint64_t{0}));
  const auto config = receive();
  ASSERT_TRUE(config);
  EXPECT_EQ(config->payload, fields(uint32_t{0}, uint32_t{8}, uint32_t{0}, uint64_t{2048}));
}

TEST_F(SessionTest, AnAccessPastAnyConfigurationIsAnsweredWithNothing) {
  send_message(24, kPlain, fields(uint32_t{0}, uint32_t{4000}, uint32_t{0}));
  const auto config = receive();
  ASSERT_TRUE(config);
  EXPECT_TRUE(config->payload.empty());
}

TEST_F(SessionTest, WhatCannotBeDoneIsRefusedAndTheSessionGoesOn) {
  negotiate_acknowledgements();
  EXPECT_EQ(demand(static_cast<Request>(99), {}), 1U);
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{7}, uint32_t{16})), 1U);
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{0}, uint32_t{5000})), 1U);
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint16_t{0})), 1U);
  EXPECT_EQ(demand(Request::kSetFeatures, fields(virtio::kAccessPlatform)), 1U);
  EXPECT_EQ(demand(Request::kSetProtocolFeatures, fields(uint64_t{1} << 60)), 1U);
  EXPECT_EQ(demand(Request::kSetVringKick, fields(uint64_t{0})), 1U);
  EXPECT_EQ(demand(Request::kSetStatus, fields(uint64_t{1000})), 1U);
  EXPECT_EQ(demand(Request::kSetConfig, fields(uint32_t{0}, uint32_t{1}, uint32_t{0}, uint8_t{1})),
            1U);
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{0}, uint32_t{16})), 0U);
}

TEST_F(SessionTest, WithoutAcknowledgementsARefusalEndsIt) {
  send_message(99, kPlain, {});
  EXPECT_FALSE(receive());
  EXPECT_TRUE(was_told("message 99: is not known"));
}

TEST_F(SessionTest, EndsWhereNoMessageIs) {
  send_message(1, 2, {});
  EXPECT_FALSE(receive());
  EXPECT_TRUE(was_told("version 2"));
}

TEST_F(SessionTest, EndsAtAPayloadThatNoMessageHas) {
  send_bytes(fields(uint32_t{5}, kPlain, uint32_t{1} << 30));
  EXPECT_FALSE(receive());
  EXPECT_TRUE(was_told("payload of 1073741824 bytes"));
}

TEST_F(SessionTest, EndsAtAMessageThatIsCutShort) {
  send_bytes(fields(uint32_t{5}, kPlain, uint32_t{100}, uint64_t{0}));
  hang_up();
  EXPECT_TRUE(was_told("cut short"));
}

TEST_F(SessionTest, TooManyDescriptorsAreClosed) {
  const io::Descriptor event(eventfd(0, EFD_CLOEXEC));
  const std::vector<int> many(kMaxDescriptors + 1, event.get());
  send_message(5, kPlain, fields(uint64_t{0}), many);
  EXPECT_FALSE(receive());
  EXPECT_TRUE(was_told("too many descriptors"));
}

TEST_F(SessionTest, DescriptorsThatNobodyAskedForDoNoHarm) {
  const io::Descriptor event(eventfd(0, EFD_CLOEXEC));
  const int one[] = {event.get()};
  send_message(static_cast<uint32_t>(Request::kGetQueueCount), kPlain, {}, one);
  const auto reply = receive();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->number(), 2U);
}

TEST_F(SessionTest, RegionsComeAndGo) {
  negotiate_acknowledgements();
  const io::Descriptor memory = shared_memory();
  const int one[] = {memory.get()};
  EXPECT_EQ(demand(Request::kAddMemoryRegion, region(0, kMemoryBytes, kUserBase), one), 0U);
  EXPECT_EQ(demand(Request::kAddMemoryRegion, region(4096, 4096, 0), one), 1U);
  EXPECT_EQ(demand(Request::kAddMemoryRegion, region(kMemoryBytes, 0, 0), one), 1U);
  EXPECT_EQ(demand(Request::kAddMemoryRegion, region(UINT64_MAX - 4095, 8192, 0), one), 1U);
  EXPECT_EQ(demand(Request::kRemoveMemoryRegion, region(0, 4096, kUserBase)), 1U);
  EXPECT_EQ(demand(Request::kRemoveMemoryRegion, region(0, kMemoryBytes, kUserBase)), 0U);
  EXPECT_EQ(demand(Request::kSetMemoryTable, fields(uint32_t{9}, uint32_t{0})), 1U);
  EXPECT_EQ(demand(Request::kSetMemoryTable, fields(uint32_t{1}, uint32_t{0})), 1U);
}

TEST_F(SessionTest, ARingOutsideOfTheMemoryIsRefused) {
  negotiate_acknowledgements();
  const io::Descriptor memory = shared_memory();
  const io::Descriptor event(eventfd(0, EFD_CLOEXEC));
  const int shared[] = {memory.get()};
  const int kick[] = {event.get()};
  EXPECT_EQ(demand(Request::kSetFeatures, fields(virtio::kVersion1)), 0U);
  EXPECT_EQ(demand(Request::kAddMemoryRegion, region(0, kMemoryBytes, kUserBase), shared), 0U);
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{0}, uint32_t{16})), 0U);
  EXPECT_EQ(demand(Request::kSetVringAddress,
                   fields(uint32_t{0}, uint32_t{0}, kUserBase + kMemoryBytes - 16, kUserBase,
                          kUserBase + 4096, uint64_t{0})),
            0U);
  EXPECT_EQ(demand(Request::kSetVringKick, fields(uint64_t{0}), kick), 1U);
  EXPECT_EQ(demand(Request::kSetVringAddress, fields(uint32_t{0}, uint32_t{0}, kUserBase + 8192,
                                                     kUserBase, kUserBase + 4096, uint64_t{0})),
            0U);
  EXPECT_EQ(demand(Request::kSetVringKick, fields(uint64_t{0}), kick), 0U);
  // It runs now: what it stands on stays.
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{0}, uint32_t{32})), 1U);
  send_message(static_cast<uint32_t>(Request::kGetVringBase), kPlain,
               fields(uint32_t{0}, uint32_t{0}));
  const auto base = receive();
  ASSERT_TRUE(base);
  EXPECT_EQ(base->payload, fields(uint32_t{0}, uint32_t{0}));
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{0}, uint32_t{32})), 0U);
}

TEST_F(SessionTest, AResetMakesTheDeviceNew) {
  negotiate_acknowledgements();
  EXPECT_EQ(demand(Request::kSetFeatures, fields(virtio::kVersion1)), 0U);
  EXPECT_EQ(demand(Request::kSetStatus, fields(uint64_t{15})), 0U);
  EXPECT_EQ(ask(Request::kGetStatus), 15U);
  EXPECT_EQ(demand(Request::kResetDevice, {}), 0U);
  EXPECT_EQ(ask(Request::kGetStatus), 0U);
}

// ---- Requests in flight

// Of a region (virtio/inflight.h).
constexpr size_t kRegionVersion = 8;

class InflightSessionTest : public SessionTest {
 protected:
  void SetUp() override {
    SessionTest::SetUp();
    negotiate_acknowledgements();
  }
  // GET_INFLIGHT_FD; the payload is empty where it is refused.
  std::pair<std::vector<uint8_t>, io::Descriptor> get(std::span<const uint8_t> payload) {
    send_message(static_cast<uint32_t>(Request::kGetInflight), kWantsReply, payload);
    uint32_t header[3] = {};
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {};
    iovec piece = {.iov_base = header, .iov_len = sizeof header};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    EXPECT_EQ(recvmsg(socket_.get(), &message, MSG_WAITALL), ssize_t{sizeof header});
    std::vector<uint8_t> answer(header[2]);
    EXPECT_EQ(recv(socket_.get(), answer.data(), answer.size(), MSG_WAITALL),
              static_cast<ssize_t>(answer.size()));
    const cmsghdr* rights = CMSG_FIRSTHDR(&message);
    if (rights == nullptr) return {};
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(rights), sizeof descriptor);
    return {answer, io::Descriptor(descriptor)};
  }
  static std::vector<uint8_t> description(uint16_t queues, uint16_t size, uint64_t bytes = 0) {
    return fields(bytes, uint64_t{0}, queues, size);
  }
  uint64_t set(const io::Descriptor& file, std::span<const uint8_t> payload) {
    const int one[] = {file.get()};
    return demand(Request::kSetInflight, payload, one);
  }
  // A ring of 16 entries is there, and wants only to be started.
  void prepare_ring(uint64_t features) {
    const io::Descriptor memory = shared_memory();
    const int shared[] = {memory.get()};
    EXPECT_EQ(demand(Request::kSetFeatures, fields(features)), 0U);
    EXPECT_EQ(demand(Request::kAddMemoryRegion, region(0, kMemoryBytes, kUserBase), shared), 0U);
    EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{0}, uint32_t{16})), 0U);
    EXPECT_EQ(demand(Request::kSetVringAddress, fields(uint32_t{0}, uint32_t{0}, kUserBase + 8192,
                                                       kUserBase, kUserBase + 4096, uint64_t{0})),
              0U);
  }
  uint64_t start_ring() {
    const io::Descriptor event(eventfd(0, EFD_CLOEXEC));
    const int kick[] = {event.get()};
    return demand(Request::kSetVringKick, fields(uint64_t{0}), kick);
  }
  static uint16_t version_in(const io::Descriptor& file) {
    uint16_t version = UINT16_MAX;
    EXPECT_EQ(pread(file.get(), &version, sizeof version, kRegionVersion), ssize_t{sizeof version});
    return version;
  }
};

// Whichever rings come then: it is asked for before the features are set.
TEST_F(InflightSessionTest, GivesMemoryForAllKindsOfRings) {
  const auto [answer, file] = get(description(2, 16));
  const uint64_t bytes = 2 * virtio::inflight_bytes(true, 16);
  EXPECT_EQ(answer, description(2, 16, bytes));
  ASSERT_TRUE(file);
  EXPECT_EQ(lseek(file.get(), 0, SEEK_END), static_cast<off_t>(bytes));
  EXPECT_EQ(version_in(file), 0);
  EXPECT_NE(ftruncate(file.get(), 0), 0) << "it is sealed";
  for (const uint64_t features : {virtio::kVersion1, virtio::kVersion1 | virtio::kPackedRing}) {
    const auto [again, other] = get(description(2, 16));
    EXPECT_EQ(set(other, again), 0U);
    prepare_ring(features);
    EXPECT_EQ(start_ring(), 0U);
    EXPECT_EQ(version_in(other), 1);
    EXPECT_EQ(demand(Request::kResetDevice, {}), 0U);
    EXPECT_EQ(demand(Request::kRemoveMemoryRegion, region(0, kMemoryBytes, kUserBase)), 0U);
  }
}

TEST_F(InflightSessionTest, AnswersAtTheLengthOfTheQuestion) {
  auto question = description(1, 16);
  question.resize(24);
  EXPECT_EQ(get(question).first.size(), 24U);
  question.resize(23);
  EXPECT_TRUE(get(question).first.empty());
}

TEST_F(InflightSessionTest, RefusesQueuesThatItCannotHave) {
  EXPECT_TRUE(get(description(0, 16)).first.empty());
  EXPECT_TRUE(get(description(3, 16)).first.empty());
  EXPECT_TRUE(get(description(1, 0)).first.empty());
  EXPECT_TRUE(get(description(1, 1025)).first.empty());
  EXPECT_EQ(get(description(2, 1024)).first.size(), 20U);
}

TEST_F(InflightSessionTest, ARingThatRunsKeepsWhatItHas) {
  const auto [answer, file] = get(description(1, 16));
  prepare_ring(virtio::kVersion1);
  EXPECT_EQ(start_ring(), 0U);
  EXPECT_EQ(version_in(file), 0) << "it was not given back";
  EXPECT_EQ(set(file, answer), 1U);
}

TEST_F(InflightSessionTest, AResetForgetsWhatWasInFlight) {
  const auto [answer, file] = get(description(1, 16));
  EXPECT_EQ(set(file, answer), 0U);
  prepare_ring(virtio::kVersion1);
  EXPECT_EQ(start_ring(), 0U);
  EXPECT_EQ(version_in(file), 1);
  EXPECT_EQ(demand(Request::kSetStatus, fields(uint64_t{0})), 0U);
  EXPECT_EQ(version_in(file), 0);
}

// It may have lost its back-end in the middle of something.
TEST_F(InflightSessionTest, AFrontEndThatGoesLeavesItAsItIs) {
  const auto [answer, file] = get(description(1, 16));
  EXPECT_EQ(set(file, answer), 0U);
  prepare_ring(virtio::kVersion1);
  EXPECT_EQ(start_ring(), 0U);
  hang_up();
  EXPECT_EQ(version_in(file), 1);
}

TEST_F(InflightSessionTest, RefusesRingsOfAnotherSizeOrKind) {
  const auto [answer, file] = get(description(1, 8));
  EXPECT_EQ(set(file, answer), 0U);
  prepare_ring(virtio::kVersion1);
  EXPECT_EQ(start_ring(), 1U);
  const auto [larger, other] = get(description(1, 32));
  EXPECT_EQ(set(other, larger), 0U);
  EXPECT_EQ(start_ring(), 0U) << "a guest may use less of a queue than it has";
  send_message(static_cast<uint32_t>(Request::kGetVringBase), kPlain,
               fields(uint32_t{0}, uint32_t{0}));
  ASSERT_TRUE(receive());
  EXPECT_EQ(demand(Request::kSetFeatures, fields(virtio::kVersion1 | virtio::kPackedRing)), 0U);
  EXPECT_EQ(start_ring(), 1U);
  EXPECT_TRUE(was_told("of the other kind"));
}

TEST_F(InflightSessionTest, AQueueThatItHasNoRoomForIsRefused) {
  const auto [answer, file] = get(description(1, 16));
  EXPECT_EQ(set(file, answer), 0U);
  prepare_ring(virtio::kVersion1);
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{1}, uint32_t{16})), 0U);
  EXPECT_EQ(demand(Request::kSetVringAddress, fields(uint32_t{1}, uint32_t{0}, kUserBase + 8192,
                                                     kUserBase, kUserBase + 4096, uint64_t{0})),
            0U);
  const io::Descriptor event(eventfd(0, EFD_CLOEXEC));
  const int kick[] = {event.get()};
  EXPECT_EQ(demand(Request::kSetVringKick, fields(uint64_t{1}), kick), 1U);
  EXPECT_TRUE(was_told("of 1 queues only"));
}

// ---- The device's state

class StateSessionTest : public InflightSessionTest {
 protected:
  static constexpr uint32_t kSave = 0;
  static constexpr uint32_t kLoad = 1;
  static constexpr uint64_t kTaken = 256;
  static constexpr uint64_t kRefused = 257;

  void SetUp() override {
    SessionTest::SetUp();
    signal(SIGPIPE, SIG_IGN);
    send_message(static_cast<uint32_t>(Request::kSetProtocolFeatures), kPlain,
                 fields(uint64_t{kReplyAck | kDeviceState}));
  }
  struct Pipe {
    io::Descriptor from;
    io::Descriptor to;
  };
  static Pipe make_pipe() {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    return {io::Descriptor(ends[0]), io::Descriptor(ends[1])};
  }
  uint64_t transfer(uint32_t direction, const io::Descriptor& file, uint32_t phase = 0) {
    const int one[] = {file.get()};
    return demand(Request::kSetDeviceState, fields(direction, phase), one);
  }
  uint64_t check() { return ask(Request::kCheckDeviceState); }
  uint64_t load(std::span<const uint8_t> bytes) {
    Pipe pipe = make_pipe();
    EXPECT_EQ(transfer(kLoad, pipe.from), kTaken);
    EXPECT_EQ(write(pipe.to.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    pipe.to.reset();
    return check();
  }
  std::vector<uint8_t> save() {
    Pipe pipe = make_pipe();
    EXPECT_EQ(transfer(kSave, pipe.to), kTaken);
    pipe.to.reset();
    std::vector<uint8_t> bytes(virtio::blk::DeviceState::kMaxBytes + 1);
    size_t count = 0;
    for (ssize_t got; (got = read(pipe.from.get(), &bytes[count], bytes.size() - count)) > 0;)
      count += static_cast<size_t>(got);
    bytes.resize(count);
    EXPECT_EQ(check(), 0U);
    return bytes;
  }
};

TEST_F(StateSessionTest, IsLoadedAsItWasSaved) {
  EXPECT_EQ(demand(Request::kSetFeatures, fields(virtio::kVersion1 | virtio::kPackedRing)), 0U);
  EXPECT_EQ(demand(Request::kSetVringSize, fields(uint32_t{1}, uint32_t{16})), 0U);
  EXPECT_EQ(demand(Request::kSetVringBase, fields(uint32_t{1}, uint32_t{0x80050003})), 0U);
  EXPECT_EQ(demand(Request::kSetStatus, fields(uint64_t{11})), 0U);
  const auto state = save();
  EXPECT_EQ(demand(Request::kResetDevice, {}), 0U);
  EXPECT_NE(save(), state);
  EXPECT_EQ(load(state), 0U);
  EXPECT_EQ(ask(Request::kGetStatus), 11U);
  EXPECT_EQ(save(), state);
}

TEST_F(StateSessionTest, WhatIsNoTransferIsRefused) {
  const Pipe pipe = make_pipe();
  EXPECT_EQ(check(), 1U) << "there was none";
  EXPECT_EQ(transfer(2, pipe.to), kRefused);
  EXPECT_EQ(transfer(kSave, pipe.to, 1), kRefused);
  EXPECT_EQ(transfer(kLoad, shared_memory()), kRefused);
  EXPECT_EQ(demand(Request::kSetDeviceState, fields(kLoad, uint32_t{0})), kRefused);
  EXPECT_EQ(demand(Request::kSetDeviceState, fields(kLoad)), kRefused);
  send_message(static_cast<uint32_t>(Request::kSetProtocolFeatures), kPlain,
               fields(uint64_t{kReplyAck}));
  EXPECT_EQ(transfer(kSave, pipe.to), kRefused) << "was not negotiated";
  EXPECT_TRUE(was_told("was not negotiated"));
}

TEST_F(StateSessionTest, ARingThatRunsHasNone) {
  const Pipe pipe = make_pipe();
  auto state = save();
  prepare_ring(virtio::kVersion1);
  EXPECT_EQ(transfer(kLoad, pipe.from), kTaken);
  EXPECT_EQ(start_ring(), 0U);
  EXPECT_EQ(transfer(kSave, pipe.to), kRefused);
  EXPECT_EQ(transfer(kLoad, pipe.from), kRefused);
}

TEST_F(StateSessionTest, RubbishIsRefused) {
  const auto state = save();
  EXPECT_EQ(load({}), 1U);
  EXPECT_EQ(load(std::span(state).first(state.size() - 1)), 1U);
  auto changed = state;
  changed[8] = 9;
  EXPECT_EQ(load(changed), 1U);
  EXPECT_TRUE(was_told("CHECK_DEVICE_STATE: virtio-blk: The state of a device has version 9"));
  EXPECT_EQ(load(std::vector<uint8_t>(60'000)), 1U);
  EXPECT_TRUE(was_told("a state of more than"));
  EXPECT_EQ(load(state), 0U);
}

// Nobody waits for a front-end that does not do its part.
TEST_F(StateSessionTest, APipeThatIsNotServedHoldsNobodyUp) {
  Pipe open = make_pipe();
  EXPECT_EQ(transfer(kLoad, open.from), kTaken);
  EXPECT_EQ(check(), 1U);
  EXPECT_TRUE(was_told("its end has not come"));
  Pipe full = make_pipe();
  fcntl(full.to.get(), F_SETFL, O_NONBLOCK);
  const std::vector<uint8_t> junk(4096);
  while (write(full.to.get(), junk.data(), junk.size()) > 0) {
  }
  EXPECT_EQ(transfer(kSave, full.to), kTaken);
  EXPECT_EQ(check(), 1U);
  EXPECT_TRUE(was_told("not all of it was taken"));
  // The next one takes its place, and so does the end of the session.
  EXPECT_EQ(transfer(kSave, full.to), kTaken);
  EXPECT_EQ(transfer(kLoad, open.from), kTaken);
  Pipe closed = make_pipe();
  closed.from.reset();
  EXPECT_EQ(transfer(kSave, closed.to), kTaken);
  EXPECT_EQ(check(), 1U);
  EXPECT_EQ(transfer(kLoad, open.from), kTaken);
}

// ---- Others

TEST_F(SessionTest, AFloodOfMessagesIsAnsweredOneByOne) {
  constexpr unsigned kMany = 3000;
  std::thread sender([&] {
    for (unsigned i = 0; i < kMany; ++i)
      send_message(static_cast<uint32_t>(Request::kGetFeatures), kPlain, {});
  });
  for (unsigned i = 0; i < kMany; ++i) ASSERT_TRUE(receive());
  sender.join();
}

TEST_F(SessionTest, TellsThatTheDiskHasChanged) {
  negotiate_acknowledgements();
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const io::Descriptor near(ends[0]);
  io::Descriptor far(ends[1]);
  const int one[] = {far.get()};
  EXPECT_EQ(demand(Request::kSetBackendChannel, {}, one), 0U);
  far.reset();
  run(tell_change());
  uint32_t header[3] = {};
  ASSERT_EQ(recv(near.get(), header, sizeof header, MSG_WAITALL), ssize_t{sizeof header});
  EXPECT_EQ(header[0], 2U);
  EXPECT_EQ(header[2], 0U);
}

}  // namespace
}  // namespace platter::vhost_user
