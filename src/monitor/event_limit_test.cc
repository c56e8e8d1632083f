#include "monitor/event_limit.h"

#include <gtest/gtest.h>

#include "io/simulation.h"

namespace platter::monitor {
namespace {

using base::Json;

class EventLimitTest : public testing::Test {
 protected:
  static constexpr auto kHalf = std::chrono::milliseconds(500);

  io::Task<void> offer_in_bursts() {
    limit_.offer(Json(uint64_t{1}));
    for (const uint64_t each : {2, 3, 4}) limit_.offer(Json(each));
    EXPECT_EQ(told_, std::vector<std::string>{"1"});
    co_await io::Reactor::current()->sleep_for(EventLimit::kPeriod + kHalf);
    EXPECT_EQ(told_, (std::vector<std::string>{"1", "4"})) << "the last one of a second";
    limit_.offer(Json(uint64_t{5}));
    EXPECT_EQ(told_.size(), 2U) << "half a second later";
    co_await io::Reactor::current()->sleep_for(3 * EventLimit::kPeriod);
    limit_.offer(Json(uint64_t{6}));
    EXPECT_EQ(told_, (std::vector<std::string>{"1", "4", "5", "6"})) << "after a rest, at once";
    limit_.offer(Json(uint64_t{7}));
    co_await limit_.close();
    EXPECT_EQ(told_.size(), 4U);
  }

  std::vector<std::string> told_;
  EventLimit limit_{[this](Json event) { told_.push_back(event.dump()); }};
};

TEST_F(EventLimitTest, TellsOnceASecond) {
  io::Simulation simulation(1);
  simulation.run(offer_in_bursts());
}

}  // namespace
}  // namespace platter::monitor
