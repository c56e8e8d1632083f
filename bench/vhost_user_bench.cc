// Drives a vhost-user-blk back-end as a guest does, and tells how many requests it ends a second
// and how long each takes. bench/vhost_user runs it beside others.
//
// usage: vhost_user_bench SOCKET read|write|first-touch|idle SECONDS [polling] [depth=N] [queues=N]
//            [requests=N] [packed]
//
// 4 KiB each, `depth` of them in flight on every queue. first-touch goes through the disk with one
// write to each 64 KiB, far from the one before, and ends at the end of the disk at the latest.
// idle asks for nothing after a first request, and says "idle" when that has ended. One line:
// thousand requests a second, and the median and 99th percentile of the time each took, us.
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <thread>
#include <vector>

#include "base/try.h"
#include "io/random.h"
#include "vhost_user/block_device.h"

namespace platter::front_end {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

constexpr uint32_t kBytes = 4096;
constexpr uint64_t kClusterBytes = 64 * 1024;
// Of the time; what is measured comes after.
constexpr int kWarmUpPart = 8;
// Nothing comes for so long: the back-end is stuck.
constexpr std::chrono::milliseconds kStuck{20000};

enum class Work { kRead, kWrite, kFirstTouch, kIdle };

struct NamedWork {
  std::string_view name;
  Work work;
};
constexpr NamedWork kWorks[] = {{"read", Work::kRead},
                                {"write", Work::kWrite},
                                {"first-touch", Work::kFirstTouch},
                                {"idle", Work::kIdle}};

struct Settings {
  std::string socket;
  Work work = Work::kRead;
  double seconds = 1;
  bool polling = false;
  uint32_t depth = 32;
  uint32_t queues = 1;
  uint64_t requests = UINT64_MAX;
  bool packed = false;
};

// Durations in buckets that are at most an eighth wider than what they hold.
class Histogram {
 public:
  void add(nanoseconds duration) {
    ++counts_[bucket(static_cast<uint64_t>(duration.count()))];
    ++total_;
  }
  double percentile_us(double part) const {
    auto left = static_cast<int64_t>(static_cast<double>(total_) * part);
    size_t at = 0;
    while (at + 1 < counts_.size() && (left -= static_cast<int64_t>(counts_[at])) > 0) ++at;
    return static_cast<double>(lowest(at)) / 1000;
  }
  uint64_t total() const { return total_; }

 private:
  static constexpr int kFractionBits = 3;
  static size_t bucket(uint64_t value) {
    if (value < (1U << kFractionBits)) return value;
    const int shift = std::bit_width(value) - 1 - kFractionBits;
    return (static_cast<size_t>(shift + 1) << kFractionBits) + ((value >> shift) & 7);
  }
  static uint64_t lowest(size_t bucket) {
    if (bucket < (1U << kFractionBits)) return bucket;
    const size_t shift = (bucket >> kFractionBits) - 1;
    return (uint64_t{8} + (bucket & 7)) << shift;
  }

  std::array<uint64_t, 64 << kFractionBits> counts_ = {};
  uint64_t total_ = 0;
};

class Load {
 public:
  Load(BlockDevice& device, const Settings& settings)
      : device_(device),
        settings_(settings),
        blocks_(device.sectors() * kSectorBytes / kBytes),
        clusters_(device.sectors() * kSectorBytes / kClusterBytes),
        started_(settings.queues,
                 std::vector<Clock::time_point>(std::bit_ceil(settings.depth * 4))) {}

  Result<void> run() {
    const auto begin = Clock::now();
    const auto length = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(settings_.seconds));
    // A disk is touched for the first time but once: there all of it counts.
    warm_ = settings_.work == Work::kFirstTouch ? begin : begin + length / kWarmUpPart;
    Clock::time_point now = begin;
    Clock::time_point heard = begin;
    first_ = warm_;
    while (now - begin < length && (more() || in_flight() != 0)) {
      for (uint32_t i = 0; i < settings_.queues; ++i) fill(i, now);
      const bool any = collect(now);
      if (any) heard = now;
      now = Clock::now();
      if (now - heard > kStuck) return fail(ETIMEDOUT, "Requests do not end");
      if (!any && !settings_.polling) PLATTER_TRY(sleep());
    }
    last_ = now;
    return drain();
  }

  void report() const {
    const double seconds = std::chrono::duration<double>(last_ - first_).count();
    fmt::print("{:.1f} {:.1f} {:.1f}\n", static_cast<double>(counted_.total()) / seconds / 1000,
               counted_.percentile_us(0.5), counted_.percentile_us(0.99));
  }

 private:
  bool more() const {
    const uint64_t most = settings_.work == Work::kFirstTouch ? clusters_ : UINT64_MAX;
    return sent_ < std::min(settings_.requests, most);
  }
  uint32_t in_flight() const {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < settings_.queues; ++i) sum += device_.queue(i).in_flight();
    return sum;
  }
  // The step has no factor in common with the number of clusters, a power of two.
  uint64_t next_sector() {
    if (settings_.work == Work::kFirstTouch)
      return sent_ * 324019 % clusters_ * (kClusterBytes / kSectorBytes);
    return random_.below(blocks_) * (kBytes / kSectorBytes);
  }

  void fill(uint32_t index, Clock::time_point now) {
    BlockQueue& queue = device_.queue(index);
    // As Linux does: the device sees each as soon as it is there, and is told once of all.
    bool notify = false;
    while (queue.in_flight() < settings_.depth && more()) {
      const uint32_t type = settings_.work == Work::kRead ? kRead : kWrite;
      const auto slot = queue.add(type, next_sector(), kBytes);
      if (!slot) break;
      started_[index][*slot] = now;
      ++sent_;
      notify |= queue.ring().publish();
    }
    if (notify) queue.kick();
  }

  bool collect(Clock::time_point& now) {
    bool any = false;
    for (uint32_t i = 0; i < settings_.queues; ++i) {
      while (const auto done = device_.queue(i).collect()) {
        if (!any) now = Clock::now();
        any = true;
        if (done->status != kOk) ++failed_;
        if (now >= warm_) counted_.add(now - started_[i][done->slot]);
      }
    }
    return any;
  }

  Result<void> sleep() {
    if (settings_.queues == 1) {
      if (device_.queue(0).wait(kStuck)) return {};
      return fail(ETIMEDOUT, "No interrupt came");
    }
    std::vector<pollfd> awaited;
    for (uint32_t i = 0; i < settings_.queues; ++i) {
      device_.queue(i).ring().want_interrupt(true);
      if (device_.queue(i).ring().any_used()) return {};
      awaited.push_back({device_.queue(i).call_file(), POLLIN, 0});
    }
    if (poll(awaited.data(), awaited.size(), static_cast<int>(kStuck.count())) <= 0)
      return fail(ETIMEDOUT, "No interrupt came");
    for (const pollfd& each : awaited) {
      uint64_t count = 0;
      if ((each.revents & POLLIN) != 0 && ::read(each.fd, &count, sizeof count) < 0)
        return std::unexpected(Error::from_errno(errno, "An interrupt could not be taken"));
    }
    return {};
  }

  Result<void> drain() {
    const auto limit = Clock::now() + kStuck;
    while (in_flight() != 0) {
      for (uint32_t i = 0; i < settings_.queues; ++i) {
        while (const auto done = device_.queue(i).collect()) failed_ += done->status != kOk;
      }
      if (Clock::now() > limit) return fail(ETIMEDOUT, "Requests do not end");
    }
    if (failed_ != 0) return fail(EIO, fmt::format("{} requests failed", failed_));
    return {};
  }

  BlockDevice& device_;
  const Settings& settings_;
  const uint64_t blocks_;
  const uint64_t clusters_;
  std::vector<std::vector<Clock::time_point>> started_;
  io::Random random_{1};
  Histogram counted_;
  Clock::time_point warm_;
  Clock::time_point first_;
  Clock::time_point last_;
  uint64_t sent_ = 0;
  uint64_t failed_ = 0;
};

template <typename T>
bool take_number(std::string_view word, std::string_view name, T& number) {
  if (!word.starts_with(name)) return false;
  word.remove_prefix(name.size());
  return std::from_chars(word.data(), word.data() + word.size(), number).ptr == word.end();
}

bool take_option(std::string_view word, Settings& settings) {
  if (word == "polling") return settings.polling = true;
  if (word == "packed") return settings.packed = true;
  return take_number(word, "depth=", settings.depth) ||
         take_number(word, "queues=", settings.queues) ||
         take_number(word, "requests=", settings.requests);
}

std::optional<Settings> settings_of(std::span<char*> words) {
  Settings settings;
  if (words.size() < 3) return std::nullopt;
  settings.socket = words[0];
  const auto* work = std::ranges::find(kWorks, std::string_view(words[1]), &NamedWork::name);
  if (work == std::end(kWorks)) return std::nullopt;
  settings.work = work->work;
  if (!take_number(words[2], "", settings.seconds)) return std::nullopt;
  for (char* word : words.subspan(3)) {
    if (!take_option(word, settings)) return std::nullopt;
  }
  return settings;
}

Result<void> idle(BlockDevice& device, double seconds) {
  PLATTER_ASSIGN(const uint8_t status, device.run(kRead, 0, kBytes));
  if (status != kOk) return fail(EIO, "The first request failed");
  fmt::print("idle\n");
  std::fflush(stdout);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return device.stop();
}

Result<void> measure(const Settings& settings) {
  const DeviceOptions options = {
      .queues = settings.queues,
      .ring = {.size = std::bit_ceil(settings.depth * 4),
               .packed = settings.packed,
               .event_index = true,
               .indirect = true},
      .ram_bytes = (uint64_t{settings.queues} * settings.depth * 4 * 2 + 64) * 2 * kBytes,
      .buffer_bytes = kBytes,
      .polling = settings.polling};
  PLATTER_ASSIGN(const std::unique_ptr<BlockDevice> device,
                 BlockDevice::connect(settings.socket, options));
  if (settings.packed && !device->queue(0).ring().options().packed)
    return fail(ENOTSUP, "The back-end has no packed rings");
  if (settings.work == Work::kIdle) return idle(*device, settings.seconds);
  Load load(*device, settings);
  PLATTER_TRY(load.run());
  PLATTER_TRY(device->stop());
  load.report();
  return {};
}

}  // namespace
}  // namespace platter::front_end

int main(int count, char** words) {
  using namespace platter::front_end;
  const auto settings = settings_of({words + 1, static_cast<size_t>(count - 1)});
  if (!settings) {
    fmt::print(stderr,
               "usage: vhost_user_bench SOCKET read|write|first-touch|idle SECONDS [polling] "
               "[depth=N] [queues=N] [requests=N] [packed]\n");
    return 2;
  }
  if (const auto measured = measure(*settings); !measured) {
    fmt::print(stderr, "vhost_user_bench: {}\n", measured.error().message());
    return 1;
  }
  return 0;
}
