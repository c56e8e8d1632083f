// The zoned disk in memory beside a plain model of zones, one reactor at random and several at
// once.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstring>
#include <initializer_list>
#include <random>
#include <thread>

#include "block/test_disk.h"

namespace platter::protocol {
namespace {

using block::Zone;
using block::ZoneAction;
using block::ZoneModel;
using block::ZoneState;
using block::ZoneType;

constexpr uint64_t kZoneBytes = 8192;
constexpr uint64_t kBlock = 512;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t below(uint64_t bound) { return engine_() % bound; }
  uint64_t between(uint64_t first, uint64_t last) { return first + below(last - first + 1); }
  bool one_in(uint64_t n) { return below(n) == 0; }
  template <typename T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[below(choices.size())];
  }

 private:
  std::mt19937_64 engine_;
};

struct Shape {
  bool managed = true;
  uint64_t disk_bytes = 0;
  uint64_t capacity = kZoneBytes;
  uint64_t conventional = 0;
  uint64_t max_open = 0;
  uint64_t max_active = 0;
  uint64_t max_append = 0;
  uint64_t alignment = 1;

  std::string options() const {
    std::string text = "driver=memory,zoned=";
    text += managed ? "host-managed" : "host-aware";
    const auto add = [&](const char* name, uint64_t value) {
      text += std::string(",") + name + "=" + std::to_string(value);
    };
    add("size", disk_bytes);
    add("zone-size", kZoneBytes);
    add("zone-capacity", capacity);
    add("conventional-zones", conventional);
    add("max-open-zones", max_open);
    add("max-active-zones", max_active);
    add("max-append-bytes", max_append);
    add("request-alignment", alignment);
    return text;
  }
};

// Zones as the specification tells of them, and nothing clever: what is open is counted anew each
// time. Operations return 0 or the error's code.
class Model {
 public:
  explicit Model(const Shape& shape) : shape_(shape) {
    for (uint64_t start = 0; start < shape.disk_bytes; start += kZoneBytes) {
      ModelZone zone;
      zone.start = start;
      zone.bytes.resize(std::min(kZoneBytes, shape.disk_bytes - start));
      zone.conventional = zones_.size() < shape.conventional;
      zone.capacity =
          std::min<uint64_t>(zone.conventional ? kZoneBytes : shape.capacity, zone.bytes.size());
      zone.state = zone.conventional ? ZoneState::kNoWritePointer : ZoneState::kEmpty;
      zones_.push_back(std::move(zone));
    }
  }

  int write(uint64_t offset, std::span<const uint8_t> data) {
    if ((offset | data.size()) % shape_.alignment != 0) return block::kZoneUnaligned;
    const uint64_t first = offset / kZoneBytes;
    const uint64_t last = (offset + data.size() - 1) / kZoneBytes;
    if (shape_.managed && first != last && !zones_[last].conventional) return block::kZoneInvalid;
    for (uint64_t i = first; i <= last; ++i) {
      ModelZone& zone = zones_[i];
      const uint64_t begin = std::max(offset, zone.start);
      const uint64_t end = std::min(offset + data.size(), zone.start + zone.bytes.size());
      if (const int code = write_zone(zone, begin, data.subspan(begin - offset, end - begin));
          code != 0)
        return code;
    }
    return 0;
  }
  int append(uint64_t offset, std::span<const uint8_t> data, uint64_t& at) {
    if (shape_.max_append == 0) return ENOTSUP;
    if (data.empty() || data.size() > shape_.max_append) return block::kZoneInvalid;
    if ((offset | data.size()) % shape_.alignment != 0) return block::kZoneUnaligned;
    ModelZone& zone = zones_[offset / kZoneBytes];
    if (zone.conventional || !shape_.managed || offset != zone.start) return block::kZoneInvalid;
    at = zone.start + zone.written;
    return write_zone(zone, at, data);
  }
  int discard(uint64_t offset, uint64_t length) {
    const bool refused = shape_.managed && !zones_[(offset + length - 1) / kZoneBytes].conventional;
    for (uint64_t i = offset; !refused && i < offset + length; ++i)
      zones_[i / kZoneBytes].bytes[i % kZoneBytes] = 0;
    return 0;
  }
  int manage(ZoneAction action, uint64_t offset, uint64_t length) {
    if (length == 0 || offset % kZoneBytes != 0) return block::kZoneInvalid;
    if ((offset + length) % kZoneBytes != 0 && offset + length != shape_.disk_bytes)
      return block::kZoneInvalid;
    const bool all = action == ZoneAction::kResetAll;
    if (all && length != shape_.disk_bytes) return block::kZoneInvalid;
    if (!all && zones_[offset / kZoneBytes].conventional) return block::kZoneInvalid;
    for (uint64_t at = offset; at < offset + length; at += kZoneBytes) {
      if (zones_[at / kZoneBytes].conventional) continue;
      if (const int code = change(zones_[at / kZoneBytes], action); code != 0) return code;
    }
    return 0;
  }

  Zone describe(size_t index) const {
    const ModelZone& zone = zones_[index];
    const uint64_t end = zone.start + zone.bytes.size();
    const bool no_pointer = zone.conventional || zone.state == ZoneState::kFull;
    const ZoneType sequential =
        shape_.managed ? ZoneType::kSequentialRequired : ZoneType::kSequentialPreferred;
    return {.offset = zone.start,
            .length = zone.bytes.size(),
            .capacity = zone.capacity,
            .write_pointer = no_pointer ? end : zone.start + zone.written,
            .type = zone.conventional ? ZoneType::kConventional : sequential,
            .state = zone.state};
  }
  size_t count() const { return zones_.size(); }
  const std::vector<uint8_t>& content(size_t index) const { return zones_[index].bytes; }

 private:
  struct ModelZone {
    uint64_t start = 0;
    uint64_t capacity = 0;
    uint64_t written = 0;
    bool conventional = false;
    ZoneState state{};
    uint64_t opened = 0;  // when, where a write did it
    std::vector<uint8_t> bytes;
  };

  static bool is_open(const ModelZone& zone) {
    return zone.state == ZoneState::kImplicitlyOpen || zone.state == ZoneState::kExplicitlyOpen;
  }
  static bool is_active(const ModelZone& zone) {
    return is_open(zone) || zone.state == ZoneState::kClosed;
  }

  int make_room(const ModelZone& zone) {
    const auto active = static_cast<uint64_t>(std::ranges::count_if(zones_, is_active));
    const auto open = static_cast<uint64_t>(std::ranges::count_if(zones_, is_open));
    if (!is_active(zone) && shape_.max_active != 0 && active >= shape_.max_active)
      return block::kZoneActiveLimit;
    if (is_open(zone) || shape_.max_open == 0 || open < shape_.max_open) return 0;
    ModelZone* oldest = nullptr;
    for (ModelZone& each : zones_) {
      if (each.state != ZoneState::kImplicitlyOpen) continue;
      if (oldest == nullptr || each.opened < oldest->opened) oldest = &each;
    }
    if (oldest == nullptr) return block::kZoneOpenLimit;
    oldest->state = ZoneState::kClosed;
    return 0;
  }

  int write_zone(ModelZone& zone, uint64_t offset, std::span<const uint8_t> data) {
    const uint64_t into = offset - zone.start;
    const uint64_t granularity = std::max(shape_.alignment, kBlock);
    const bool halves = (offset | data.size()) % granularity != 0;
    if (!zone.conventional) {
      if (shape_.managed && zone.state == ZoneState::kFull) return block::kZoneInvalid;
      if (shape_.managed && (halves || into != zone.written)) return block::kZoneUnaligned;
      if (halves || into + data.size() > zone.capacity) return block::kZoneInvalid;
      if (zone.state != ZoneState::kFull) {
        if (const int code = make_room(zone); code != 0) return code;
        if (!is_open(zone)) {
          zone.state = ZoneState::kImplicitlyOpen;
          zone.opened = ++clock_;
        }
      }
      zone.written = std::max(zone.written, into + data.size());
      if (zone.written == zone.capacity) zone.state = ZoneState::kFull;
    }
    std::ranges::copy(data, zone.bytes.begin() + static_cast<ptrdiff_t>(into));
    return 0;
  }

  int change(ModelZone& zone, ZoneAction action) {
    switch (action) {
      case ZoneAction::kOpen:
        if (zone.state == ZoneState::kFull) return block::kZoneInvalid;
        if (const int code = make_room(zone); code != 0) return code;
        zone.state = ZoneState::kExplicitlyOpen;
        return 0;
      case ZoneAction::kClose:
        if (!is_active(zone)) return block::kZoneInvalid;
        zone.state = zone.written == 0 ? ZoneState::kEmpty : ZoneState::kClosed;
        return 0;
      case ZoneAction::kFinish: zone.state = ZoneState::kFull; return 0;
      default:
        zone.state = ZoneState::kEmpty;
        zone.written = 0;
        std::ranges::fill(zone.bytes, uint8_t{0});
        return 0;
    }
  }

  const Shape shape_;
  std::vector<ModelZone> zones_;
  uint64_t clock_ = 0;
};

class ZonedDriverTest : public block::DiskTest {
 protected:
  static constexpr unsigned kReactors = 3;

  ZonedDriverTest() : DiskTest(kReactors) {}
  std::string open(const std::string& options) {
    const auto opened = try_open(options);
    return opened ? "" : std::string(opened.error().message());
  }
  Zone zone(uint64_t offset) {
    Zone found;
    EXPECT_EQ(run(backend_->zone_report(offset, {&found, 1})).value_or(0), 1U);
    return found;
  }
  int write(uint64_t offset, uint64_t length, uint8_t byte = 1) {
    std::vector<uint8_t> data(length, byte);
    return code_of(run(backend_->write(offset, io::BufferList(data))));
  }
  int manage(ZoneAction action, uint64_t index) {
    return code_of(run(backend_->zone_manage(action, index * kZoneBytes, kZoneBytes)));
  }
  template <typename T>
  static int code_of(const Result<T>& result) {
    return result ? 0 : result.error().code();
  }
};

// ---- At random

Shape draw_shape(Random& random) {
  Shape shape;
  shape.managed = !random.one_in(4);
  shape.alignment = random.pick({1U, 1U, 512U, 4096U});
  const uint64_t unit = std::max(shape.alignment, kBlock);
  const uint64_t zones = random.between(1, 12);
  shape.disk_bytes = zones * kZoneBytes;
  if (zones > 1 && random.one_in(3)) shape.disk_bytes -= kZoneBytes / 2;
  if (shape.managed && random.one_in(2))
    shape.capacity = random.between(1, kZoneBytes / unit) * unit;
  shape.conventional = random.one_in(2) ? 0 : random.below(zones + 1);
  shape.max_active = random.one_in(3) ? 0 : random.between(1, 6);
  shape.max_open =
      random.one_in(3) ? 0 : random.between(1, shape.max_active == 0 ? 6 : shape.max_active);
  if (shape.managed) shape.max_append = random.below(shape.capacity / unit + 1) * unit;
  return shape;
}

class RandomRun {
 public:
  RandomRun(block::Backend& backend, const Shape& shape, Random& random)
      : backend_(backend), shape_(shape), random_(random), model_(shape) {}

  // What is not as in the model; nothing: all is.
  io::Task<std::string> run(unsigned steps) {
    for (unsigned step = 0; step < steps; ++step) {
      int expected = 0;
      int found = 0;
      std::string what;
      switch (random_.below(8)) {
        case 0:
        case 1:
        case 2: co_await write(expected, found, what); break;
        case 3:
        case 4: co_await append(expected, found, what); break;
        case 5: co_await discard_or_zero(expected, found, what); break;
        default: co_await manage(expected, found, what);
      }
      std::string wrong;
      if (found != expected) {
        wrong = "code " + std::to_string(found) + ", not " + std::to_string(expected);
      } else {
        wrong = co_await compare();
      }
      if (!wrong.empty()) co_return "step " + std::to_string(step) + ": " + what + ": " + wrong;
    }
    co_return "";
  }

 private:
  // At the write pointer, mostly.
  uint64_t draw_offset() {
    const size_t index = random_.below(model_.count());
    const Zone zone = model_.describe(index);
    if (!random_.one_in(4) && zone.write_pointer < zone.offset + zone.length)
      return zone.write_pointer;
    return zone.offset + random_.below(zone.length / kBlock) * kBlock;
  }
  uint64_t draw_length(uint64_t offset) {
    const uint64_t unit = std::max(shape_.alignment, kBlock);
    uint64_t length = random_.between(1, random_.one_in(8) ? 40 : 6) * unit;
    if (random_.one_in(16)) length += kBlock;
    return std::min(length, shape_.disk_bytes - offset);
  }
  std::vector<uint8_t> draw_data(uint64_t length) {
    std::vector<uint8_t> data(length);
    const auto seed = static_cast<uint8_t>(random_.below(256));
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(seed + i / kBlock);
    return data;
  }
  static int code_of(const auto& result) { return result ? 0 : result.error().code(); }
  static std::string range(std::string_view name, uint64_t offset, uint64_t length) {
    return std::string(name) + " of " + std::to_string(length) + " at " + std::to_string(offset);
  }

  io::Task<void> write(int& expected, int& found, std::string& what) {
    const uint64_t offset = draw_offset();
    std::vector<uint8_t> data = draw_data(draw_length(offset));
    what = range("write", offset, data.size());
    expected = model_.write(offset, data);
    found = code_of(co_await backend_.write(offset, io::BufferList(data)));
  }
  io::Task<void> append(int& expected, int& found, std::string& what) {
    const Zone zone = model_.describe(random_.below(model_.count()));
    const uint64_t offset = random_.one_in(10) ? draw_offset() : zone.offset;
    std::vector<uint8_t> data = draw_data(draw_length(offset));
    what = range("append", offset, data.size());
    uint64_t expected_at = 0;
    expected = model_.append(offset, data, expected_at);
    const auto at = co_await backend_.zone_append(offset, io::BufferList(data));
    found = code_of(at);
    if (at && expected == 0 && *at != expected_at) found = -1;
  }
  // Of whole blocks: the node cuts others into parts.
  io::Task<void> discard_or_zero(int& expected, int& found, std::string& what) {
    const uint64_t offset = draw_offset() / shape_.alignment * shape_.alignment;
    const uint64_t length = draw_length(offset) / std::max(shape_.alignment, kBlock) *
                            std::max(shape_.alignment, kBlock);
    if (length == 0) co_return;
    if (random_.one_in(2)) {
      what = range("discard", offset, length);
      expected = model_.discard(offset, length);
      found = code_of(co_await backend_.discard(offset, length));
      co_return;
    }
    what = range("zero", offset, length);
    expected = model_.write(offset, std::vector<uint8_t>(length));
    found = code_of(co_await backend_.zero(offset, length));
  }
  io::Task<void> manage(int& expected, int& found, std::string& what) {
    const auto action =
        random_.pick({ZoneAction::kOpen, ZoneAction::kOpen, ZoneAction::kClose, ZoneAction::kFinish,
                      ZoneAction::kReset, ZoneAction::kReset, ZoneAction::kResetAll});
    const Zone zone = model_.describe(random_.below(model_.count()));
    uint64_t offset = zone.offset;
    uint64_t length = zone.length;
    if (random_.one_in(4)) length = std::min(length * 3, shape_.disk_bytes - offset);
    if (random_.one_in(12)) offset = draw_offset();
    if (action == ZoneAction::kResetAll && !random_.one_in(4)) {
      offset = 0;
      length = shape_.disk_bytes;
      // Seldom: there is little to see in an empty disk.
      if (!random_.one_in(3)) co_return;
    }
    length = std::min(length, shape_.disk_bytes - offset);
    what = range("action " + std::to_string(static_cast<int>(action)), offset, length);
    expected = model_.manage(action, offset, length);
    found = code_of(co_await backend_.zone_manage(action, offset, length));
  }

  io::Task<std::string> compare() {
    std::vector<Zone> zones(model_.count() + 2);
    const auto count = co_await backend_.zone_report(0, zones);
    if (count.value_or(0) != model_.count()) co_return "another number of zones";
    for (size_t i = 0; i < model_.count(); ++i) {
      if (zones[i] == model_.describe(i)) continue;
      co_return "zone " + std::to_string(i) + " has state " +
          std::to_string(static_cast<int>(zones[i].state)) + " and its pointer at " +
          std::to_string(zones[i].write_pointer);
    }
    std::vector<uint8_t> content(shape_.disk_bytes);
    if (!co_await backend_.read(0, io::BufferList(content))) co_return "it cannot be read";
    for (size_t i = 0; i < model_.count(); ++i) {
      const auto& bytes = model_.content(i);
      if (std::memcmp(bytes.data(), content.data() + i * kZoneBytes, bytes.size()) != 0)
        co_return "the content of zone " + std::to_string(i) + " differs";
    }
    co_return "";
  }

  block::Backend& backend_;
  const Shape shape_;
  Random& random_;
  Model model_;
};

TEST_F(ZonedDriverTest, DoesWhatTheModelDoes) {
  for (uint64_t seed = 0; seed < 150; ++seed) {
    Random random(seed);
    const Shape shape = draw_shape(random);
    ASSERT_EQ(open(shape.options()), "") << shape.options();
    RandomRun one(*backend_, shape, random);
    ASSERT_EQ(run(one.run(150)), "") << "seed " << seed << ": " << shape.options();
  }
}

// ---- Several reactors

// Each block that is appended is filled with a byte that is not 0.
io::Task<uint64_t> append_blocks(block::Backend& backend, uint64_t offset, unsigned count,
                                 uint8_t byte) {
  std::vector<uint8_t> data(kBlock, byte);
  uint64_t done = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (co_await backend.zone_append(offset, io::BufferList(data))) ++done;
  }
  co_return done;
}

TEST_F(ZonedDriverTest, AppendsOfSeveralReactorsDoNotMeet) {
  ASSERT_EQ(open("driver=memory,size=4M,zoned=host-managed,zone-size=1M,max-open-zones=3"), "");
  std::atomic<uint64_t> done = 0;
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < kReactors; ++i) {
      threads.emplace_back([&, i] {
        done += run(append_blocks(*backend_, 0, 300, static_cast<uint8_t>(i + 1)), i);
        done += run(append_blocks(*backend_, (i + 1) << 20, 300, static_cast<uint8_t>(i + 1)), i);
      });
    }
  }
  EXPECT_EQ(done, 2 * 300 * kReactors);
  EXPECT_EQ(zone(0).write_pointer, 300 * kReactors * kBlock);
  std::vector<uint8_t> content(300 * kReactors * kBlock);
  ASSERT_TRUE(run(backend_->read(0, io::BufferList(content))));
  uint64_t blocks[kReactors + 1] = {};
  for (uint64_t at = 0; at < content.size(); at += kBlock) {
    const auto block = std::span(content).subspan(at, kBlock);
    ASSERT_TRUE(std::ranges::all_of(block, [&](uint8_t byte) { return byte == block[0]; })) << at;
    ++blocks[block[0]];
  }
  for (unsigned i = 1; i <= kReactors; ++i) EXPECT_EQ(blocks[i], 300U);
}

// What was being written when a zone was reset does not come up in it later.
TEST_F(ZonedDriverTest, AResetWaitsForWhatIsBeingWritten) {
  constexpr uint64_t kBytes = 256 << 10;
  ASSERT_EQ(open("driver=memory,size=1M,zoned=host-managed,zone-size=512k"), "");
  std::vector<uint8_t> data(kBytes, 1);
  std::vector<uint8_t> content(kBytes);
  for (int round = 0; round < 200; ++round) {
    std::barrier together(2);
    {
      std::jthread resetting([&] {
        together.arrive_and_wait();
        EXPECT_TRUE(run(backend_->zone_manage(ZoneAction::kReset, 0, 512 << 10), 1));
      });
      together.arrive_and_wait();
      EXPECT_TRUE(run(backend_->zone_append(0, io::BufferList(data)), 0));
    }
    const bool written = zone(0).state != ZoneState::kEmpty;
    ASSERT_TRUE(run(backend_->read(0, io::BufferList(content))));
    ASSERT_EQ(std::ranges::count(content, uint8_t{written}), kBytes) << round;
    ASSERT_TRUE(run(backend_->zone_manage(ZoneAction::kReset, 0, 512 << 10)));
  }
}

// ---- One by one

TEST_F(ZonedDriverTest, AnotherZoneIsClosedWhereTooManyAreOpen) {
  ASSERT_EQ(open("driver=memory,size=48k,zoned=host-managed,zone-size=8k,max-open-zones=2,"
                 "max-active-zones=4"),
            "");
  EXPECT_EQ(write(0, kBlock), 0);
  EXPECT_EQ(write(kZoneBytes, kBlock), 0);
  EXPECT_EQ(write(kBlock, kBlock), 0);
  EXPECT_EQ(write(2 * kZoneBytes, kBlock), 0);
  EXPECT_EQ(zone(0).state, ZoneState::kClosed) << "opened the longest ago";
  EXPECT_EQ(zone(kZoneBytes).state, ZoneState::kImplicitlyOpen);
  EXPECT_EQ(manage(ZoneAction::kOpen, 1), 0);
  EXPECT_EQ(manage(ZoneAction::kOpen, 3), 0);
  EXPECT_EQ(zone(2 * kZoneBytes).state, ZoneState::kClosed);
  EXPECT_EQ(write(0, kBlock), block::kZoneUnaligned);
  EXPECT_EQ(write(2 * kBlock, kBlock), block::kZoneOpenLimit) << "none was opened by a write";
  EXPECT_EQ(zone(0).state, ZoneState::kClosed);
  EXPECT_EQ(write(4 * kZoneBytes, kBlock), block::kZoneActiveLimit) << "both limits are reached";
  EXPECT_EQ(manage(ZoneAction::kFinish, 0), 0);
  EXPECT_EQ(manage(ZoneAction::kClose, 3), 0);
  EXPECT_EQ(zone(3 * kZoneBytes).state, ZoneState::kEmpty) << "nothing was written to it";
  EXPECT_EQ(write(4 * kZoneBytes, kBlock), 0);
}

TEST_F(ZonedDriverTest, ItsSizeStays) {
  ASSERT_EQ(open("driver=memory,size=16k,zoned=host-managed,zone-size=8k"), "");
  EXPECT_EQ(backend_->node().driver().resizable(), nullptr);
  EXPECT_EQ(write(16384, kBlock), EIO);
  EXPECT_EQ(code_of(run(backend_->zone_manage(ZoneAction::kReset, 8192, UINT64_MAX))), EIO);
  Zone found;
  EXPECT_EQ(code_of(run(backend_->zone_report(16384, {&found, 1}))), EINVAL);
}

TEST_F(ZonedDriverTest, RefusesZonesThatCannotBe) {
  const std::string managed = "driver=memory,size=1M,zoned=host-managed,";
  const std::string aware = "driver=memory,size=1M,zoned=host-aware,";
  EXPECT_NE(open(managed + "zone-size=100k"), "");
  EXPECT_NE(open(managed + "zone-size=2k"), "");
  EXPECT_NE(open(managed + "zone-size=64k,zone-capacity=128k"), "");
  EXPECT_NE(open(managed + "zone-size=64k,zone-capacity=100"), "");
  EXPECT_NE(open(managed + "zone-size=64k,conventional-zones=17"), "");
  EXPECT_NE(open(managed + "max-open-zones=3,max-active-zones=2"), "");
  EXPECT_NE(open(managed + "zone-size=64k,max-append-bytes=128k"), "");
  EXPECT_NE(open(managed + "zone-size=4k,request-alignment=8k"), "");
  EXPECT_NE(open(aware + "zone-size=64k,zone-capacity=32k"), "");
  EXPECT_NE(open(aware + "max-append-bytes=64k"), "");
  EXPECT_NE(open("driver=memory,zoned=host-managed"), "");
  EXPECT_NE(open("driver=memory,size=1000,zoned=host-managed"), "");
  EXPECT_NE(open("driver=memory,size=16T,zoned=host-managed,zone-size=1M"), "");
  EXPECT_EQ(open("driver=memory,size=1M,zone-size=64k"),
            "'zone-size' is for a zoned disk: it goes with 'zoned'");
  EXPECT_EQ(open(managed), "") << "one zone, smaller than zone-size";
  EXPECT_EQ(zone(0).length, 1U << 20);
}

}  // namespace
}  // namespace platter::protocol
