#include "virtio/inflight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <set>

namespace platter::virtio {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// ---- The structures and the steps of the specification, word for word

struct DescStateSplit {
  uint8_t inflight;
  uint8_t padding[5];
  uint16_t next;
  uint64_t counter;
};
struct QueueRegionSplit {
  uint64_t features;
  uint16_t version;
  uint16_t desc_num;
  uint16_t last_batch_head;
  uint16_t used_idx;
  DescStateSplit desc[8];
};
struct DescStatePacked {
  uint8_t inflight;
  uint8_t padding;
  uint16_t next;
  uint16_t last;
  uint16_t num;
  uint64_t counter;
  uint16_t id;
  uint16_t flags;
  uint32_t len;
  uint64_t addr;
};
struct QueueRegionPacked {
  uint64_t features;
  uint16_t version;
  uint16_t desc_num;
  uint16_t free_head;
  uint16_t old_free_head;
  uint16_t used_idx;
  uint16_t old_used_idx;
  uint8_t used_wrap_counter;
  uint8_t old_used_wrap_counter;
  uint8_t padding[7];
  DescStatePacked desc[8];
};

constexpr uint16_t kEntries = 8;

template <typename Region>
class Memory {
 public:
  explicit Memory(bool packed) : bytes_(inflight_bytes(packed, kEntries) / sizeof(uint64_t)) {}
  InflightMemory memory() {
    return {.bytes = {reinterpret_cast<uint8_t*>(bytes_.data()), bytes_.size() * sizeof(uint64_t)},
            .entries = kEntries};
  }
  Region* operator->() { return reinterpret_cast<Region*>(bytes_.data()); }
  Region copy() {
    Region region;
    std::memcpy(&region, bytes_.data(), sizeof region);
    return region;
  }

 private:
  std::vector<uint64_t> bytes_;
};

std::string error_of(const auto& result) { return result ? "" : result.error().message(); }

// ---- Split

class SplitInflightTest : public testing::Test {
 protected:
  SplitInflight open() { return SplitInflight(memory_.memory(), kEntries); }
  auto recover(uint16_t used) { return open().recover(used); }

  Memory<QueueRegionSplit> memory_{false};
};

TEST_F(SplitInflightTest, PartsAreAligned) {
  EXPECT_EQ(inflight_bytes(false, 1), 64U);
  EXPECT_EQ(inflight_bytes(false, 128), 2112U);
  EXPECT_EQ(inflight_bytes(true, 128), 4160U);
}

TEST_F(SplitInflightTest, BeginsWhereNothingWas) {
  SplitInflight region = open();
  EXPECT_FALSE(region.in_use());
  region.begin(77);
  EXPECT_EQ(memory_->version, 1);
  EXPECT_EQ(memory_->desc_num, kEntries);
  EXPECT_EQ(memory_->used_idx, 77);
  EXPECT_TRUE(open().in_use());
  forget_inflight(memory_.memory().bytes.data());
  EXPECT_FALSE(open().in_use());
}

TEST_F(SplitInflightTest, FollowsTheSteps) {
  std::mt19937 random(5);
  SplitInflight region = open();
  region.begin(0xfff0);
  QueueRegionSplit model = memory_.copy();
  uint64_t counter = 0;
  uint16_t used = 0xfff0;
  std::set<uint16_t> out;
  std::vector<uint16_t> batch;
  for (int step = 0; step < 5000; ++step) {
    const auto i = static_cast<uint16_t>(random() % kEntries);
    switch (random() % 3) {
      case 0:
        if (model.desc[i].inflight != 0) break;
        region.taken(i);
        model.desc[i].counter = counter++;
        model.desc[i].inflight = 1;
        out.insert(i);
        break;
      case 1:
        if (out.erase(i) == 0) break;
        region.returned(i);
        model.desc[i].next = model.last_batch_head;
        model.last_batch_head = i;
        batch.push_back(i);
        break;
      default:
        if (batch.empty()) break;
        used = static_cast<uint16_t>(used + batch.size());
        region.shown(used);
        for (const uint16_t each : batch) model.desc[each].inflight = 0;
        model.used_idx = used;
        batch.clear();
    }
    const QueueRegionSplit found = memory_.copy();
    ASSERT_EQ(std::memcmp(&found, &model, sizeof model), 0) << step;
  }
}

TEST_F(SplitInflightTest, GivesWhatIsInFlightInItsOrder) {
  SplitInflight region = open();
  region.begin(0);
  for (const uint16_t head : {5, 2, 7, 0}) region.taken(head);
  region.returned(2);
  EXPECT_THAT(recover(0).value(), ElementsAre(5, 2, 7, 0)) << "nobody has seen it";
  EXPECT_THAT(recover(1).value(), ElementsAre(5, 7, 0));
  EXPECT_EQ(memory_->used_idx, 1);
  EXPECT_THAT(recover(1).value(), ElementsAre(5, 7, 0));
}

TEST_F(SplitInflightTest, CountsOnAfterRecovery) {
  SplitInflight region = open();
  region.begin(0);
  region.taken(6);
  region.taken(3);
  SplitInflight again = open();
  ASSERT_TRUE(again.recover(0));
  again.taken(1);
  EXPECT_THAT(recover(0).value(), ElementsAre(6, 3, 1));
}

TEST_F(SplitInflightTest, TakesAnyIndexWhereNothingIsInFlight) {
  SplitInflight region = open();
  region.begin(5000);
  EXPECT_THAT(recover(3).value(), ElementsAre());
  EXPECT_EQ(memory_->used_idx, 3);
}

TEST_F(SplitInflightTest, RefusesRubbish) {
  open().begin(0);
  memory_->desc[3].inflight = 1;
  const QueueRegionSplit sound = memory_.copy();
  const auto complaint = [&](auto damage, uint16_t used = 0) {
    std::memcpy(memory_.operator->(), &sound, sizeof sound);
    damage(*memory_.operator->());
    return error_of(recover(used));
  };
  using Region = QueueRegionSplit&;
  EXPECT_EQ(complaint([](Region) {}), "");
  EXPECT_THAT(complaint([](Region region) { region.version = 2; }), HasSubstr("version is 2"));
  EXPECT_THAT(complaint([](Region region) { region.features = 4; }), HasSubstr("features 0x4"));
  EXPECT_THAT(complaint([](Region region) { region.desc_num = 9; }), HasSubstr("says 9"));
  EXPECT_THAT(complaint([](Region region) { region.desc[1].inflight = 2; }), HasSubstr("2 times"));
  EXPECT_THAT(complaint([](Region) {}, 9), HasSubstr("batch has 9"));
  EXPECT_THAT(complaint([](Region region) { region.last_batch_head = 8; }, 1),
              HasSubstr("batch is broken"));
  EXPECT_THAT(complaint([](Region region) { region.desc[0].next = 0; }, 2),
              HasSubstr("batch is broken"));
}

TEST_F(SplitInflightTest, RefusesHeadsThatASmallerRingHasNot) {
  open().begin(0);
  memory_->desc[4].inflight = 1;
  SplitInflight smaller(memory_.memory(), 4);
  EXPECT_THAT(error_of(smaller.recover(0)), HasSubstr("descriptor 4 of 4"));
}

// ---- Packed

constexpr uint16_t kFreshUsed = 0x8000;
constexpr uint16_t kAvailableFlags = 1 << 7;
constexpr uint16_t kUsedFlags = 1 << 7 | 1 << 15;

class PackedInflightTest : public testing::Test {
 protected:
  PackedInflight open() { return PackedInflight(memory_.memory(), kEntries); }
  auto recover(uint16_t flags = kAvailableFlags) {
    return open().recover([=](uint16_t) { return flags; });
  }
  static uint16_t take(PackedInflight& region, uint16_t id, int descriptors) {
    for (int i = 0; i < descriptors; ++i) {
      const bool more = i + 1 < descriptors;
      region.note({.address = id * 16U,
                   .bytes = id,
                   .flags = more ? kDescriptorNext : uint16_t{0},
                   .link = id});
    }
    return region.taken().value();
  }
  static std::vector<uint16_t> ids(const Result<PackedInflight::Recovered>& recovered) {
    std::vector<uint16_t> all;
    for (const auto& request : recovered.value().requests)
      all.push_back(request.descriptors.back().link);
    return all;
  }

  Memory<QueueRegionPacked> memory_{true};
};

TEST_F(PackedInflightTest, BeginsWhereNothingWas) {
  static_assert(offsetof(QueueRegionPacked, desc) == 32);
  PackedInflight region = open();
  EXPECT_FALSE(region.in_use());
  region.begin(0x8003);
  EXPECT_EQ(memory_->version, 1);
  EXPECT_EQ(memory_->desc_num, kEntries);
  EXPECT_EQ(memory_->used_idx, 3);
  EXPECT_EQ(memory_->old_used_idx, 3);
  EXPECT_EQ(memory_->used_wrap_counter, 1);
  EXPECT_EQ(memory_->desc[2].next, 3);
  const auto recovered = recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(recovered->used, 0x8003);
}

// Answers are noted when they are shown, as the steps have it; what is taken meanwhile is not part
// of the batch.
TEST_F(PackedInflightTest, FollowsTheSteps) {
  struct Out {
    uint16_t entry;
    uint16_t slots;
  };
  std::mt19937 random(5);
  PackedInflight region = open();
  region.begin(kFreshUsed);
  QueueRegionPacked model = memory_.copy();
  uint64_t counter = 0;
  uint32_t used = 0;  // of a ring that never ends
  uint32_t free = kEntries;
  std::vector<Out> out;
  std::vector<Out> batch;
  for (int step = 0; step < 5000; ++step) {
    switch (random() % 3) {
      case 0: {
        const uint32_t slots = 1 + random() % 4;
        if (slots > free) break;
        const uint16_t head = model.old_free_head;
        for (uint32_t i = 0; i < slots; ++i) {
          const bool last = i + 1 == slots;
          const Descriptor d = {random(), static_cast<uint32_t>(random()),
                                last ? uint16_t{0} : kDescriptorNext,
                                static_cast<uint16_t>(random())};
          region.note(d);
          if (i == 0) {
            model.desc[head].num = 0;
            model.desc[head].counter = counter++;
            model.desc[head].inflight = 1;
          }
          if (last) model.desc[head].last = model.free_head;
          ++model.desc[head].num;
          DescStatePacked& state = model.desc[model.free_head];
          state.addr = d.address;
          state.len = d.bytes;
          state.flags = d.flags;
          state.id = d.link;
          model.free_head = state.next;
          if (last) model.old_free_head = model.free_head;
        }
        ASSERT_EQ(region.taken().value(), head);
        out.push_back({head, static_cast<uint16_t>(slots)});
        free -= slots;
        break;
      }
      case 1: {
        if (out.empty()) break;
        const size_t which = random() % out.size();
        region.returned(out[which].entry);
        batch.push_back(out[which]);
        out.erase(out.begin() + static_cast<ptrdiff_t>(which));
        break;
      }
      default:
        if (batch.empty()) break;
        for (const Out& e : batch) {
          model.desc[model.desc[e.entry].last].next = model.free_head;
          model.free_head = e.entry;
          used += e.slots;
          free += e.slots;
        }
        model.used_idx = static_cast<uint16_t>(used % kEntries);
        model.used_wrap_counter = used / kEntries % 2 == 0;
        region.before_show(
            static_cast<uint16_t>(model.used_idx | (model.used_wrap_counter != 0 ? 0x8000 : 0)));
        {
          const QueueRegionPacked found = memory_.copy();
          ASSERT_EQ(std::memcmp(&found, &model, sizeof model), 0) << step;
        }
        region.after_show();
        for (const Out& e : batch) model.desc[e.entry].inflight = 0;
        model.old_free_head = model.free_head;
        model.old_used_idx = model.used_idx;
        model.old_used_wrap_counter = model.used_wrap_counter;
        batch.clear();
    }
    const QueueRegionPacked found = memory_.copy();
    ASSERT_EQ(std::memcmp(&found, &model, sizeof model), 0) << step;
  }
}

TEST_F(PackedInflightTest, GivesWhatIsInFlightInItsOrder) {
  PackedInflight region = open();
  region.begin(kFreshUsed);
  take(region, 10, 2);
  const uint16_t second = take(region, 11, 1);
  take(region, 12, 3);
  EXPECT_THAT(ids(recover()), ElementsAre(10, 11, 12));
  region.returned(second);
  region.before_show(0x8001);
  // Each recovers a copy of its own.
  const QueueRegionPacked unsettled = memory_.copy();
  EXPECT_THAT(ids(recover(kAvailableFlags)), ElementsAre(10, 11, 12)) << "nobody has seen it";
  EXPECT_EQ(recover().value().used, 0x8000);
  std::memcpy(memory_.operator->(), &unsettled, sizeof unsettled);
  const auto shown = recover(kUsedFlags);
  EXPECT_THAT(ids(shown), ElementsAre(10, 12));
  EXPECT_EQ(shown->used, 0x8001);
  EXPECT_EQ(memory_->old_used_idx, 1);
}

// The index is the same then, and the wrap counter another.
TEST_F(PackedInflightTest, AFullRingMayBeOneBatch) {
  PackedInflight region = open();
  region.begin(kFreshUsed);
  for (uint16_t id = 0; id < kEntries; ++id) region.returned(take(region, id, 1));
  region.before_show(0);
  const auto recovered = recover(kUsedFlags);
  EXPECT_THAT(ids(recovered), ElementsAre());
  EXPECT_EQ(recovered->used, 0);
}

TEST_F(PackedInflightTest, RefusesMoreThanThereIsRoomFor) {
  PackedInflight region = open();
  region.begin(kFreshUsed);
  for (uint16_t id = 0; id < kEntries; ++id) region.returned(take(region, id, 1));
  region.note({});
  EXPECT_THAT(error_of(region.taken()), HasSubstr("More requests are in flight"));
}

TEST_F(PackedInflightTest, RefusesRubbish) {
  PackedInflight region = open();
  region.begin(kFreshUsed);
  take(region, 1, 2);
  take(region, 2, 1);
  const QueueRegionPacked sound = memory_.copy();
  const auto complaint = [&](auto damage) {
    std::memcpy(memory_.operator->(), &sound, sizeof sound);
    damage(*memory_.operator->());
    return error_of(recover());
  };
  using Region = QueueRegionPacked&;
  EXPECT_EQ(complaint([](Region) {}), "");
  EXPECT_THAT(complaint([](Region each) { each.version = 7; }), HasSubstr("version is 7"));
  EXPECT_THAT(complaint([](Region each) { each.old_used_idx = 8; }), HasSubstr("outside"));
  EXPECT_THAT(complaint([](Region each) { each.used_idx = 0x7fff; }), HasSubstr("outside"));
  EXPECT_THAT(complaint([](Region each) { each.desc[7].next = 4; }), HasSubstr("is a loop"));
  EXPECT_THAT(complaint([](Region each) { each.old_free_head = 9; }), HasSubstr("0 free of 8"));
  EXPECT_THAT(complaint([](Region each) { each.desc[0].num = 0; }), HasSubstr("0 descriptors"));
  EXPECT_THAT(complaint([](Region each) { each.desc[0].num = 9; }), HasSubstr("9 descriptors"));
  EXPECT_THAT(complaint([](Region each) { each.desc[0].next = 2; }), HasSubstr("ends elsewhere"));
  EXPECT_THAT(complaint([](Region each) { each.desc[0].next = 3; }),
              HasSubstr("list of a request"));
  EXPECT_THAT(complaint([](Region each) { each.desc[0].next = 500; }),
              HasSubstr("list of a request"));
  EXPECT_THAT(complaint([](Region each) { each.desc[0].next = 0; }),
              HasSubstr("list of a request"));
  EXPECT_THAT(complaint([](Region each) { each.desc[0].last = 5; }), HasSubstr("ends elsewhere"));
  EXPECT_THAT(complaint([](Region each) { each.desc[1].flags = kDescriptorNext; }),
              HasSubstr("or after it"));
  EXPECT_THAT(complaint([](Region each) { each.desc[2].inflight = 0; }), HasSubstr("5 free of 8"));
}

TEST_F(PackedInflightTest, RubbishOfAnyKindHasAnEnd) {
  std::mt19937 random(9);
  for (int round = 0; round < 20'000; ++round) {
    PackedInflight region = open();
    forget_inflight(memory_.memory().bytes.data());
    open().begin(kFreshUsed);
    const auto bytes = memory_.memory().bytes;
    for (unsigned flips = 1 + random() % 40; flips > 0; --flips)
      bytes[12 + random() % (bytes.size() - 12)] = static_cast<uint8_t>(random() % 10);
    const auto recovered = recover(static_cast<uint16_t>(random()));
    if (recovered) ASSERT_LE(recovered->requests.size(), kEntries);
  }
}

}  // namespace
}  // namespace platter::virtio
