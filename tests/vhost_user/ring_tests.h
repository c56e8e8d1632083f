// What suites share that run over kinds of rings.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

#include "vhost_user/block_device.h"

namespace platter::front_end {

// Far longer than anything takes: it ends a test that hangs.
inline constexpr std::chrono::seconds kLimit{20};

inline std::string ring_name(const testing::TestParamInfo<RingOptions>& info) {
  return fmt::format("{}{}{}", info.param.packed ? "packed" : "split",
                     info.param.event_index ? "_events" : "",
                     info.param.indirect ? "_indirect" : "");
}

// Each of the requests comes back, with that status, and none twice. `out`: by slot.
template <typename Place>
void expect_all(BlockQueue& queue, std::map<uint32_t, Place> out, uint8_t status = kOk) {
  while (!out.empty()) {
    const auto done = queue.collect();
    if (!done) {
      ASSERT_TRUE(queue.wait(kLimit)) << out.size() << " are missing";
      continue;
    }
    EXPECT_EQ(done->status, status) << "slot " << done->slot;
    ASSERT_EQ(out.erase(done->slot), 1U) << done->slot;
  }
  EXPECT_FALSE(queue.collect());
}

}  // namespace platter::front_end
