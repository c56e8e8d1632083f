#include "virtio/blk/device_state.h"

#include <gtest/gtest.h>

#include <random>

namespace platter::virtio::blk {
namespace {

DeviceState sample() {
  DeviceState state = {.features = 0x1'3000'0244,
                       .status = 0x4f,
                       .write_cache = true,
                       .serial = "a disk of 20 letters",
                       .queues = {{.size = 256, .position = QueueState{7, 0}},
                                  {},
                                  {.size = 64, .position = QueueState{0x8003, 0x8001}}}};
  for (size_t i = 0; i < DeviceState::kShortConfigBytes; ++i)
    state.config[i] = static_cast<uint8_t>(i);
  return state;
}

std::string complaint(std::vector<uint8_t> bytes) {
  const auto parsed = DeviceState::parse(bytes);
  return parsed ? "" : parsed.error().message();
}

TEST(DeviceState, IsReadAsItWasWritten) {
  const auto parsed = DeviceState::parse(sample().encode());
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(*parsed, sample());
  EXPECT_EQ(sample().encode().size(), DeviceState::kHeaderBytes + 3 * DeviceState::kQueueBytes);
}

TEST(DeviceState, IsLongerWhereTheConfigurationIs) {
  DeviceState state = sample();
  state.config[72] = 1;
  auto bytes = state.encode();
  EXPECT_EQ(bytes.size(), DeviceState::kLongHeaderBytes + 3 * DeviceState::kQueueBytes);
  EXPECT_EQ(bytes[8], 2);
  EXPECT_EQ(bytes[112 + 12], 1);
  const auto parsed = DeviceState::parse(bytes);
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(*parsed, state);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(complaint({bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)}), "") << size;
  }
  bytes[112 + 12] = 0;
  EXPECT_NE(complaint(bytes), "") << "the first version would do";
}

TEST(DeviceState, IsNotReadInPart) {
  auto bytes = sample().encode();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(complaint({bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)}), "") << size;
  }
  bytes.push_back(0);
  EXPECT_NE(complaint(bytes), "");
}

TEST(DeviceState, AnotherVersionIsNamed) {
  auto bytes = sample().encode();
  bytes[8] = 3;
  EXPECT_EQ(complaint(bytes),
            "virtio-blk: The state of a device has version 3; only 1 and 2 are known");
}

TEST(DeviceState, WhatCannotBeIsRefused) {
  const auto refuse = [](size_t offset, uint8_t value) {
    auto bytes = sample().encode();
    bytes[offset] = value;
    EXPECT_NE(complaint(bytes), "") << offset;
  };
  refuse(0, 'p');
  refuse(12, 4);  // queues
  refuse(15, 0xff);
  refuse(24, 0x10);  // status
  refuse(25, 2);     // write cache
  refuse(26, 1);
  refuse(90, 0);  // within the serial number
  refuse(111, 1);
  refuse(113, 5);  // the first queue's size: 1280
  refuse(114, 2);
  refuse(114, 0);  // no position, but where it is
}

// Whatever is taken for a state is one.
TEST(DeviceState, RubbishIsRefusedOrReadAsItStands) {
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    auto bytes = sample().encode();
    for (unsigned changes = random() % 4; changes > 0; --changes)
      bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    if (const auto parsed = DeviceState::parse(bytes)) EXPECT_EQ(parsed->encode(), bytes);
  }
}

}  // namespace
}  // namespace platter::virtio::blk
