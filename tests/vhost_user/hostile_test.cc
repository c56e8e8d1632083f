// Who breaks the rules of a ring or of the protocol harms nobody but himself: whatever he does, the
// back-end lives, and the next one who connects has a disk.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "support/scratch_directory.h"
#include "vhost_user/back_end.h"
#include "vhost_user/block_device.h"

namespace platter::front_end {
namespace {

using virtio::kDescriptorIndirect;
using virtio::kDescriptorNext;
using virtio::kDescriptorWrite;

constexpr uint32_t kEntries = 16;
constexpr uint64_t kNowhere = 0x7000'0000'0000;

// A back-end that has seen through it says so within this time.
constexpr int kNoticeLimitMs = 20'000;

struct Attack {
  const char* name;
  std::function<void(BlockDevice&)> carry_out;
};

bool is_told_of_an_error(BlockDevice& device) {
  pollfd awaited = {device.queue(0).error_file(), POLLIN, 0};
  return poll(&awaited, 1, kNoticeLimitMs) == 1;
}

// An address in memory that no request uses.
uint64_t somewhere(BlockDevice& device) { return device.ram().take(4096); }

void make_available(BlockDevice& device, std::initializer_list<virtio::Descriptor> descriptors) {
  auto& ring = dynamic_cast<SplitRing&>(device.queue(0).ring());
  uint32_t index = 0;
  for (const virtio::Descriptor& each : descriptors) ring.put(index++, each);
  ring.expose(0);
  ring.publish();
  device.queue(0).kick();
}

void say(BlockDevice& device, const Message& message, std::span<const int> descriptors = {}) {
  // The back-end may hang up before it has heard all.
  static_cast<void>(device.front_end().send(message, descriptors));
}

Message message_of(Request request, size_t bytes, uint8_t fill = 0xff) {
  return {.request = static_cast<uint32_t>(request), .payload = std::vector<uint8_t>(bytes, fill)};
}

const std::vector<Attack>& ring_attacks() {
  static const std::vector<Attack> attacks = {
      {"ChainThatLoops",
       [](BlockDevice& device) {
         const uint64_t place = somewhere(device);
         make_available(device, {{place, 16, kDescriptorNext, 1}, {place, 16, kDescriptorNext, 0}});
       }},
      {"DescriptorOutsideMemory",
       [](BlockDevice& device) { make_available(device, {{kNowhere, 16, 0, 0}}); }},
      {"DescriptorPastTheEndOfAddresses",
       [](BlockDevice& device) { make_available(device, {{UINT64_MAX - 4, 4096, 0, 0}}); }},
      {"NextPastTheTable",
       [](BlockDevice& device) {
         make_available(device, {{somewhere(device), 16, kDescriptorNext, 0xfff0}});
       }},
      {"HeadPastTheTable",
       [](BlockDevice& device) {
         auto& ring = dynamic_cast<SplitRing&>(device.queue(0).ring());
         ring.expose(0x8000);
         ring.publish();
         device.queue(0).kick();
       }},
      {"IndexThatJumps",
       [](BlockDevice& device) {
         auto& ring = dynamic_cast<SplitRing&>(device.queue(0).ring());
         for (uint32_t i = 0; i < kEntries + 5; ++i) ring.expose(0);
         ring.publish();
         device.queue(0).kick();
       }},
      {"NoBytes",
       [](BlockDevice& device) { make_available(device, {{somewhere(device), 0, 0, 0}}); }},
      {"HeaderTooShort",
       [](BlockDevice& device) {
         const uint64_t place = somewhere(device);
         make_available(device,
                        {{place, 7, kDescriptorNext, 1}, {place + 64, 1, kDescriptorWrite, 0}});
       }},
      {"NoRoomForAStatus",
       [](BlockDevice& device) { make_available(device, {{somewhere(device), 16, 0, 0}}); }},
      {"ReadAfterWrite",
       [](BlockDevice& device) {
         const uint64_t place = somewhere(device);
         make_available(device, {{place, 16, kDescriptorWrite | kDescriptorNext, 1},
                                 {place + 64, 16, kDescriptorNext, 2},
                                 {place + 128, 1, kDescriptorWrite, 0}});
       }},
      {"IndirectThatWasNotNegotiated",
       [](BlockDevice& device) {
         make_available(device, {{somewhere(device), 48, kDescriptorIndirect, 0}});
       }},
  };
  return attacks;
}

const std::vector<Attack>& message_attacks() {
  static const std::vector<Attack> attacks = {
      {"UnknownRequest", [](BlockDevice& device) { say(device, {.request = 12345}); }},
      {"RequestZero", [](BlockDevice& device) { say(device, {.request = 0}); }},
      {"OtherVersion",
       [](BlockDevice& device) {
         say(device, {.request = static_cast<uint32_t>(Request::kGetFeatures), .flags = 3});
       }},
      {"SizeWithoutEnd",
       [](BlockDevice& device) {
         const Message message = message_of(Request::kSetFeatures, 8);
         static_cast<void>(device.front_end().send_with_size(message, UINT32_MAX));
       }},
      {"HeaderThatEndsEarly",
       [](BlockDevice& device) {
         EXPECT_EQ(::send(device.front_end().socket(), "\5\0\0", 3, MSG_NOSIGNAL), 3);
       }},
      {"MemoryTableWithoutFiles",
       [](BlockDevice& device) { say(device, message_of(Request::kSetMemTable, 8 + 32, 1)); }},
      {"MemoryTableOfManyRegions",
       [](BlockDevice& device) { say(device, message_of(Request::kSetMemTable, 8 + 8 * 32)); }},
      {"DescriptorsThatNobodyAskedFor",
       [](BlockDevice& device) {
         const std::vector<int> many(FrontEnd::kMaxDescriptors, STDERR_FILENO);
         for (int i = 0; i < 20; ++i) say(device, message_of(Request::kGetFeatures, 0), many);
       }},
      {"QueueThatIsNotThere",
       [](BlockDevice& device) { say(device, message_of(Request::kSetVringNum, 8)); }},
      {"AddressesOutsideMemory",
       [](BlockDevice& device) {
         Message message = message_of(Request::kSetVringAddr, 40, 0x11);
         std::ranges::fill(std::span(message.payload).first(8), uint8_t{0});
         say(device, message);
       }},
      {"ConfigOfAnySize",
       [](BlockDevice& device) { say(device, message_of(Request::kGetConfig, 12)); }},
  };
  return attacks;
}

class HostileTest : public testing::TestWithParam<Attack> {
 protected:
  void SetUp() override {
    const std::string image = scratch_.path("disk.qcow2");
    ASSERT_EQ(std::system(fmt::format("qemu-img create -q -f qcow2 {} 8M", image).c_str()), 0);
    auto started = BackEnd::start("platter", {.image = image, .socket = socket()});
    ASSERT_TRUE(started) << started.error().message();
    back_end_.emplace(std::move(*started));
  }

  std::string socket() const { return scratch_.path("socket"); }
  std::unique_ptr<BlockDevice> connect() {
    auto device = BlockDevice::connect(socket(), {.ring = {.size = kEntries}});
    if (device) return std::move(*device);
    ADD_FAILURE() << device.error().message();
    return nullptr;
  }
  void expect_a_disk() {
    const auto device = connect();
    ASSERT_TRUE(device);
    const std::vector<uint8_t> data(4096, 0x77);
    std::vector<uint8_t> found(data.size());
    EXPECT_EQ(device->write(8, data).value_or(kIoError), kOk);
    EXPECT_EQ(device->read(8, found).value_or(kIoError), kOk);
    EXPECT_EQ(found, data);
  }

  void attack_and_look(const std::function<void(BlockDevice&)>& afterwards);

  support::ScratchDirectory scratch_;
  std::optional<BackEnd> back_end_;
};

class HostileRingTest : public HostileTest {};
class HostileMessageTest : public HostileTest {};

void HostileTest::attack_and_look(const std::function<void(BlockDevice&)>& afterwards) {
  for (int round = 0; round < 2; ++round) {
    {
      const auto device = connect();
      ASSERT_TRUE(device);
      for (uint64_t sector = 0; sector < 24; sector += 8)
        device->queue(0).add(kWrite, sector, kSectorBytes);
      device->queue(0).publish();
      GetParam().carry_out(*device);
      afterwards(*device);
    }
    ASSERT_TRUE(back_end_->running());
    expect_a_disk();
  }
  EXPECT_EQ(back_end_->stop(), 0);
}

TEST_P(HostileRingTest, BreaksItsQueueAlone) {
  attack_and_look([](BlockDevice& device) { EXPECT_TRUE(is_told_of_an_error(device)); });
}

TEST_P(HostileMessageTest, EndsItsSessionAlone) {
  attack_and_look([](BlockDevice&) {});
}

std::string name_of(const testing::TestParamInfo<Attack>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(All, HostileRingTest, testing::ValuesIn(ring_attacks()), name_of);
INSTANTIATE_TEST_SUITE_P(All, HostileMessageTest, testing::ValuesIn(message_attacks()), name_of);

}  // namespace
}  // namespace platter::front_end
