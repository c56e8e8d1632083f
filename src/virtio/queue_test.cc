#include "virtio/queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <random>
#include <tuple>

#include "virtio/test_driver.h"

namespace platter::virtio {
namespace {

using test::Buffer;
using test::Driver;
using test::Guest;
using test::make_driver;
using test::options_of;
using test::Used;
using testing::HasSubstr;

constexpr uint64_t kCommon = kVersion1 | kIndirectDescriptors;

// ---- Whatever the ring is, and whatever was negotiated

class AnyQueue : public testing::TestWithParam<std::tuple<bool, bool, bool, uint32_t>> {
 protected:
  AnyQueue() : options_(options_of(std::get<3>(GetParam()), features())) {
    driver_ = make_driver(guest_, options_);
    queue_ = *Queue::make(options_, guest_.memory());
  }
  static uint64_t features() {
    const auto [packed, event_index, in_order, size] = GetParam();
    return kCommon | (packed ? kPackedRing : 0) | (event_index ? kEventIndex : 0) |
           (in_order ? kInOrder : 0);
  }
  bool in_order() const { return std::get<2>(GetParam()); }

  Guest guest_;
  QueueOptions options_;
  std::unique_ptr<Driver> driver_;
  std::unique_ptr<Queue> queue_;
};

TEST_P(AnyQueue, HandsOutWhatTheDriverPutIn) {
  Chain chain;
  EXPECT_FALSE(*queue_->pop(chain));
  const uint16_t id = driver_->add(
      {{Guest::kData, 16, false}, {Guest::kMiddle - 100, 300, false}, {Guest::kMiddle, 1, true}},
      true);
  ASSERT_TRUE(*queue_->pop(chain));
  EXPECT_EQ(queue_->in_flight(), 1U);
  ASSERT_EQ(chain.readable().size(), 3U) << "one buffer lies in two regions";
  EXPECT_EQ(chain.readable()[0].iov_base, guest_.at(Guest::kData));
  EXPECT_EQ(chain.readable()[1].iov_len, 100U);
  EXPECT_EQ(chain.readable()[2].iov_base, guest_.at(Guest::kMiddle));
  EXPECT_EQ(chain.readable_bytes(), 316U);
  ASSERT_EQ(chain.writable().size(), 1U);
  EXPECT_EQ(chain.writable_bytes(), 1U);
  Chain none;
  EXPECT_FALSE(*queue_->pop(none));
  EXPECT_EQ(driver_->collect(), std::nullopt);
  queue_->push(chain, 1);
  EXPECT_EQ(driver_->collect(), std::nullopt) << "not published";
  EXPECT_TRUE(queue_->publish());
  EXPECT_EQ(driver_->collect(), (Used{id, 1}));
  EXPECT_FALSE(queue_->publish()) << "nothing new";
}

// The queue looks at requests before it takes them: what counts is how they are then.
TEST_P(AnyQueue, BelievesNothingThatItSawAhead) {
  const auto move_buffer = [&](uint16_t id, uint64_t address) {
    std::memcpy(guest_.at(Guest::kTables + id * 64 * kDescriptorBytes), &address, sizeof address);
  };
  const auto add = [&](uint64_t address) {
    return driver_->add({{address, 16, false}, {Guest::kMiddle, 1, true}}, true);
  };
  Chain chains[2];
  add(Guest::kData);
  const uint16_t repaired = add(Guest::kEnd);
  const uint16_t spoiled = add(Guest::kData);
  ASSERT_TRUE(*queue_->pop(chains[0]));
  move_buffer(repaired, Guest::kData + 512);
  ASSERT_TRUE(*queue_->pop(chains[1]));
  EXPECT_EQ(chains[1].readable()[0].iov_base, guest_.at(Guest::kData + 512));
  move_buffer(spoiled, Guest::kEnd);
  Chain none;
  EXPECT_FALSE(queue_->pop(none));
  for (Chain& each : chains) queue_->push(each, 0);
}

TEST_P(AnyQueue, GoesOnFromItsState) {
  Chain chain;
  for (uint32_t round = 0; round < 3 * options_.size + 1; ++round) {
    const uint16_t id = driver_->add({{Guest::kData, 512, true}}, false);
    ASSERT_TRUE(*queue_->pop(chain));
    queue_->push(chain, 512);
    (void)queue_->publish();
    ASSERT_EQ(driver_->collect(), (Used{id, 512})) << round;
    options_.state = queue_->state();
    queue_ = *Queue::make(options_, guest_.memory());
  }
}

TEST_P(AnyQueue, ChainsKeepTheirMemory) {
  driver_->add({{Guest::kData, 512, true}}, false);
  auto memory = guest_.memory();
  std::weak_ptr<const GuestMemory> old = memory;
  ASSERT_TRUE(queue_->set_memory(std::move(memory)));
  Chain chain;
  ASSERT_TRUE(*queue_->pop(chain));
  ASSERT_TRUE(queue_->set_memory(guest_.memory()));
  EXPECT_FALSE(old.expired());
  driver_->collect();
  queue_->push(chain, 0);
  EXPECT_TRUE(old.expired());
}

TEST_P(AnyQueue, RefusesMemoryWithoutItsRings) {
  auto elsewhere = GuestMemory::make(
      {{Guest::kMiddle, Guest::kRegionBytes, guest_.at(Guest::kMiddle), nullptr}});
  auto set = queue_->set_memory(*elsewhere);
  ASSERT_FALSE(set);
  EXPECT_THAT(set.error().message(), HasSubstr("is not memory of the guest"));
  Chain chain;
  EXPECT_FALSE(queue_->pop(chain)) << "it is broken";
}

TEST_P(AnyQueue, RefusesMoreThanItHasEntriesInFlight) {
  // The driver makes entries available again that are still out.
  std::vector<Chain> chains(options_.size + 1);
  for (uint32_t i = 0; i < options_.size; ++i) {
    driver_->add({{Guest::kData, 512, true}}, false);
    ASSERT_TRUE(*queue_->pop(chains[i]));
  }
  if (std::get<0>(GetParam())) {
    auto* flags = guest_.at(Guest::kDescriptors + 14);
    base::store_little<uint16_t>({flags, 2}, 0, 1 << 15);  // available in the second round
  } else {
    auto* index = guest_.at(Guest::kDriverArea + 2);
    base::store_little<uint16_t>({index, 2}, 0, static_cast<uint16_t>(options_.size + 1));
  }
  auto popped = queue_->pop(chains.back());
  ASSERT_FALSE(popped);
  EXPECT_THAT(popped.error().message(), HasSubstr("More requests are in flight"));
  EXPECT_TRUE(queue_->broken());
}

// Requests of every shape, answered in any order, beside a list of what is out.
TEST_P(AnyQueue, AnswersEachRequestOnce) {
  struct Out {
    uint16_t id;
    std::vector<Buffer> buffers;
  };
  std::mt19937 random(options_.size + static_cast<uint32_t>(features()));
  const auto below = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  std::deque<Out> waiting;                   // made available
  std::vector<std::pair<Out, Chain>> taken;  // by the device
  std::map<uint16_t, uint32_t> answered;     // and not collected
  std::deque<uint16_t> order;                // in which they went out
  uint64_t collected = 0;
  bool asked = true;  // for an interrupt at the next used entry
  bool asleep = false;
  driver_->ask_for_interrupt(true);
  for (int step = 0; step < 20'000; ++step) {
    switch (below(5)) {
      case 0: {
        const uint32_t pieces = 1 + below(std::min<uint32_t>(options_.size, 6));
        const bool indirect = below(2) == 0;
        if (driver_->free() < (indirect ? 1 : pieces)) break;
        Out out;
        const uint32_t readable = below(pieces + 1);
        for (uint32_t i = 0; i < pieces; ++i) {
          const uint64_t at = Guest::kData + below(Guest::kEnd - Guest::kData - 9000);
          out.buffers.push_back({at, 1 + below(8192), i >= readable});
        }
        out.id = driver_->add(out.buffers, indirect);
        waiting.push_back(out);
        if (std::exchange(asleep, false)) ASSERT_TRUE(driver_->must_notify()) << step;
        break;
      }
      case 1: {
        Chain chain;
        auto popped = queue_->pop(chain);
        ASSERT_TRUE(popped) << popped.error().message();
        ASSERT_EQ(*popped, !waiting.empty());
        if (waiting.empty()) break;
        uint64_t sums[2] = {};
        for (const Buffer& buffer : waiting.front().buffers) sums[buffer.write] += buffer.bytes;
        ASSERT_EQ(chain.readable_bytes(), sums[0]);
        ASSERT_EQ(chain.writable_bytes(), sums[1]);
        const Buffer& first = waiting.front().buffers.front();
        const auto pieces = first.write ? chain.writable() : chain.readable();
        ASSERT_EQ(pieces.front().iov_base, guest_.at(first.address));
        order.push_back(waiting.front().id);
        taken.emplace_back(std::move(waiting.front()), std::move(chain));
        waiting.pop_front();
        break;
      }
      case 2: {
        if (taken.empty()) break;
        const size_t which = below(static_cast<uint32_t>(taken.size()));
        auto& [out, chain] = taken[which];
        const auto most = static_cast<uint32_t>(chain.writable_bytes());
        const uint32_t written = most == 0 ? 0 : below(most + 1);
        queue_->push(chain, written);
        ASSERT_TRUE(answered.emplace(out.id, written).second);
        taken.erase(taken.begin() + static_cast<ptrdiff_t>(which));
        break;
      }
      case 3: {
        const QueueState before = queue_->state();
        const bool interrupt = queue_->publish();
        const bool shown = queue_->state().used != before.used;
        if (!shown) ASSERT_FALSE(interrupt);
        if (shown && asked) ASSERT_TRUE(interrupt) << "the driver sleeps, " << step;
        if (interrupt) asked = false;
        while (auto used = driver_->collect()) {
          ASSERT_EQ(answered.count(used->id), 1U);
          ASSERT_EQ(answered[used->id], used->written);
          answered.erase(used->id);
          if (in_order()) {
            ASSERT_EQ(order.front(), used->id);
            order.pop_front();
          }
          ++collected;
        }
        if (!asked && below(2) == 0) {
          driver_->ask_for_interrupt(true);
          asked = true;
        } else if (!asked) {
          driver_->ask_for_interrupt(false);
        }
        break;
      }
      default:
        (void)driver_->must_notify();
        if (below(2) == 0) {
          queue_->disable_notifications();
          asleep = false;
        } else {
          const bool more = queue_->enable_notifications();
          ASSERT_EQ(more, !waiting.empty());
          asleep = !more;
        }
    }
    ASSERT_EQ(queue_->in_flight(), taken.size());
  }
  EXPECT_GT(collected, 1000U);
  for (auto& [out, chain] : taken) queue_->push(chain, 0);
}

// A guest that writes anything anywhere: no access outside of its memory, no endless loop.
TEST_P(AnyQueue, SurvivesAnyRing) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    Guest guest;
    auto options = options_;
    options.state = {};
    auto queue = *Queue::make(options, guest.memory());
    auto driver = make_driver(guest, options);
    std::vector<Chain> chains(options_.size + 8);
    size_t out = 0;
    for (int step = 0; step < 50; ++step) {
      // Several, so that the queue looks ahead of what it takes.
      do {
        if (driver->free() < 2) break;
        driver->add({{Guest::kData, 512, false}, {Guest::kMiddle - 256, 512, true}},
                    random() % 2 == 0);
      } while (random() % 4 != 0);
      for (int flips = static_cast<int>(random() % 4); flips > 0; --flips) {
        constexpr uint64_t kPlaces[] = {Guest::kDescriptors, Guest::kDriverArea, Guest::kTables};
        *guest.at(kPlaces[random() % 3] + random() % (options.size * kDescriptorBytes)) ^=
            static_cast<uint8_t>(1U << random() % 8);
      }
      if (out == chains.size()) break;
      auto popped = queue->pop(chains[out]);
      if (!popped) break;
      if (!*popped) continue;
      for (const auto side : {chains[out].readable(), chains[out].writable()}) {
        for (const iovec& piece : side) {
          auto* last = static_cast<uint8_t*>(piece.iov_base) + piece.iov_len - 1;
          *last = *static_cast<uint8_t*>(piece.iov_base);
        }
      }
      ++out;
      if (random() % 2 == 0) {
        --out;
        queue->push(chains[out], 0);
        (void)queue->publish();
      }
    }
    while (out != 0) queue->push(chains[--out], 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Rings, AnyQueue,
                         testing::Combine(testing::Bool(), testing::Bool(), testing::Bool(),
                                          testing::Values(4U, 64U)));

// ---- Split rings

class SplitRing : public testing::Test {
 protected:
  SplitRing() : options_(options_of(8, kCommon)), driver_(guest_, options_) {
    queue_ = *Queue::make(options_, guest_.memory());
  }
  // What pop() says of one that is broken.
  std::string complaint() {
    Chain chain;
    auto popped = queue_->pop(chain);
    if (popped) return *popped ? "(a request)" : "(nothing)";
    auto again = queue_->pop(chain);
    EXPECT_FALSE(again) << "broken once, broken for good";
    return popped.error().message();
  }
  void descriptor(uint16_t index, Buffer buffer, uint16_t flags = 0, uint16_t next = 0) {
    driver_.put_descriptor(options_.descriptor_area, index, buffer, flags, next);
  }
  void entry(uint16_t index, Buffer buffer, uint16_t flags = 0, uint16_t next = 0) {
    driver_.put_descriptor(Guest::kTables, index, buffer, flags, next);
  }

  static constexpr Buffer kRead = {Guest::kData, 512, false};
  static constexpr Buffer kWrite = {Guest::kData, 512, true};

  Guest guest_;
  QueueOptions options_;
  test::SplitDriver driver_;
  std::unique_ptr<Queue> queue_;
};

TEST_F(SplitRing, RefusesAnIndexThatJumps) {
  base::store_little<uint16_t>({guest_.at(Guest::kDriverArea + 2), 2}, 0, 9);
  EXPECT_THAT(complaint(), HasSubstr("moved the available index from 0 to 9"));
}

TEST_F(SplitRing, RefusesAHeadPastTheTable) {
  driver_.make_available(8);
  EXPECT_THAT(complaint(), HasSubstr("made descriptor 8 of 8 available"));
}

TEST_F(SplitRing, RefusesANextPastTheTable) {
  descriptor(0, kRead, kDescriptorNext, 8);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("followed by number 8"));
}

TEST_F(SplitRing, RefusesALoop) {
  descriptor(0, kRead, kDescriptorNext, 1);
  descriptor(1, kRead, kDescriptorNext, 0);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("form a loop"));
}

TEST_F(SplitRing, RefusesEmptyBuffers) {
  descriptor(0, {Guest::kData, 0, false});
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("zero bytes"));
}

TEST_F(SplitRing, RefusesWhatIsReadAfterWhatIsWritten) {
  descriptor(0, kWrite, kDescriptorNext, 1);
  descriptor(1, kRead);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("follows one that it writes"));
}

TEST_F(SplitRing, RefusesMemoryThatIsNotTheGuests) {
  descriptor(0, {Guest::kEnd - 1, 2, false});
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("not all memory of the guest"));
}

TEST_F(SplitRing, RefusesAddressesThatOverflow) {
  descriptor(0, {UINT64_MAX, 512, false});
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("not all memory of the guest"));
}

TEST_F(SplitRing, RefusesTablesOfOddLength) {
  descriptor(0, {Guest::kTables, 24, false}, kDescriptorIndirect);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("has 24 bytes"));
}

TEST_F(SplitRing, RefusesEmptyTables) {
  descriptor(0, {Guest::kTables, 0, false}, kDescriptorIndirect);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("has 0 bytes"));
}

TEST_F(SplitRing, RefusesTablesInTables) {
  entry(0, {Guest::kTables, 16, false}, kDescriptorIndirect);
  descriptor(0, {Guest::kTables, 16, false}, kDescriptorIndirect);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("names another"));
}

TEST_F(SplitRing, RefusesTablesThatGoOn) {
  entry(0, kRead);
  descriptor(0, {Guest::kTables, 16, false}, kDescriptorIndirect | kDescriptorNext, 1);
  descriptor(1, kRead);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("is followed by another"));
}

TEST_F(SplitRing, RefusesALoopInATable) {
  entry(0, kRead, kDescriptorNext, 1);
  entry(1, kRead, kDescriptorNext, 0);
  descriptor(0, {Guest::kTables, 32, false}, kDescriptorIndirect);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("form a loop"));
}

TEST_F(SplitRing, RefusesANextPastItsTable) {
  entry(0, kRead, kDescriptorNext, 2);
  descriptor(0, {Guest::kTables, 32, false}, kDescriptorIndirect);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("past its table"));
}

TEST_F(SplitRing, RefusesMorePiecesThanOneTransferHas) {
  for (uint16_t i = 0; i <= Chain::kMaxPieces; ++i)
    entry(i, kRead, kDescriptorNext, static_cast<uint16_t>(i + 1));
  descriptor(0, {Guest::kTables, (Chain::kMaxPieces + 2) * kDescriptorBytes, false},
             kDescriptorIndirect);
  driver_.make_available(0);
  EXPECT_THAT(complaint(), HasSubstr("more than 1024 pieces"));
}

TEST_F(SplitRing, TakesATableAfterDescriptors) {
  entry(0, kWrite);
  descriptor(0, kRead, kDescriptorNext, 1);
  descriptor(1, {Guest::kTables, 16, false}, kDescriptorIndirect);
  driver_.make_available(0);
  EXPECT_EQ(complaint(), "(a request)");
}

TEST_F(SplitRing, RefusesTablesThatWereNotNegotiated) {
  options_.features = kVersion1;
  queue_ = *Queue::make(options_, guest_.memory());
  driver_.add({kRead}, true);
  EXPECT_THAT(complaint(), HasSubstr("not negotiated"));
}

TEST_F(SplitRing, InterruptsWhenEmptyWhateverTheDriverAsks) {
  options_.features |= kNotifyOnEmpty;
  queue_ = *Queue::make(options_, guest_.memory());
  driver_.ask_for_interrupt(false);
  Chain chains[2];
  for (Chain& chain : chains) {
    driver_.add({kWrite}, false);
    ASSERT_TRUE(*queue_->pop(chain));
  }
  queue_->push(chains[0], 0);
  EXPECT_FALSE(queue_->publish());
  queue_->push(chains[1], 0);
  EXPECT_TRUE(queue_->publish());
}

// ---- Packed rings

TEST(PackedRing, RefusesAChainLongerThanTheRing) {
  Guest guest;
  const auto options = options_of(4, kCommon | kPackedRing);
  test::PackedDriver driver(guest, options);
  auto queue = *Queue::make(options, guest.memory());
  for (uint16_t i = 0; i < 4; ++i) {
    driver.put_descriptor(options.descriptor_area + i * kDescriptorBytes, {Guest::kData, 1, false},
                          i, kDescriptorNext | driver.available_flags(true));
  }
  Chain chain;
  auto popped = queue->pop(chain);
  ASSERT_FALSE(popped);
  EXPECT_THAT(popped.error().message(), HasSubstr("longer than the ring"));
}

TEST(PackedRing, RefusesATableInAChain) {
  Guest guest;
  const auto options = options_of(4, kCommon | kPackedRing);
  test::PackedDriver driver(guest, options);
  auto queue = *Queue::make(options, guest.memory());
  driver.put_descriptor(options.descriptor_area, {Guest::kData, 1, false}, 0,
                        kDescriptorNext | driver.available_flags(true));
  driver.put_descriptor(options.descriptor_area + kDescriptorBytes, {Guest::kTables, 16, false}, 0,
                        kDescriptorIndirect | driver.available_flags(true));
  Chain chain;
  auto popped = queue->pop(chain);
  ASSERT_FALSE(popped);
  EXPECT_THAT(popped.error().message(), HasSubstr("part of a longer chain"));
}

// ---- What cannot be made

TEST(QueueOptions, AreJudged) {
  Guest guest;
  const auto complaint = [&](const QueueOptions& options) -> std::string {
    auto queue = Queue::make(options, guest.memory());
    return queue ? "" : queue.error().message();
  };
  EXPECT_EQ(complaint(options_of(1024, kCommon)), "");
  EXPECT_EQ(complaint(options_of(1, kCommon)), "");
  EXPECT_EQ(complaint(options_of(6, kCommon | kPackedRing)), "");
  EXPECT_THAT(complaint(options_of(6, kCommon)), HasSubstr("A split virtqueue cannot have 6"));
  EXPECT_THAT(complaint(options_of(0, kCommon)), HasSubstr("cannot have 0"));
  EXPECT_THAT(complaint(options_of(2048, kCommon | kPackedRing)), HasSubstr("cannot have 2048"));
  auto options = options_of(8, kCommon);
  options.driver_area += 1;
  EXPECT_THAT(complaint(options), HasSubstr("driver area"));
  EXPECT_THAT(complaint(options), HasSubstr("is not aligned"));
  options = options_of(8, kCommon);
  options.state = {.available = 3, .used = 4};
  EXPECT_THAT(complaint(options), HasSubstr("More of a split virtqueue is used"));
  options = options_of(8, kCommon | kPackedRing);
  options.state.available = 8;
  EXPECT_THAT(complaint(options), HasSubstr("outside of the ring"));
}

}  // namespace
}  // namespace platter::virtio
