// The request path: padding, overlap, splitting, drain and accounts, against a plain model.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>

#include "base/try.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/gate.h"
#include "io/reactor_group.h"

namespace platter::block {
namespace {

constexpr unsigned kReactors = 3;

class RequestTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = kReactors});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  std::unique_ptr<Backend> open(const std::string& options) {
    OpenRequest request;
    request.options = *base::Options::from_key_values(options);
    request.flags.read_only = false;
    request.discard_unmap = true;
    auto opened = run(graph_.open(
        std::move(request), Permission::kConsistentRead | Permission::kWrite | Permission::kResize,
        kAllPermissions));
    EXPECT_TRUE(opened) << opened.error().message();
    return std::move(*opened);
  }

  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
};

// What disagrees, or nothing.
io::Task<std::string> compare_with_model(Backend& backend, uint64_t seed) {
  const uint64_t size = backend.size();
  std::vector<uint8_t> model(size), back(size), data;
  std::mt19937_64 random(seed);
  for (int step = 0; step < 2000; ++step) {
    const uint64_t offset = random() % size;
    const uint64_t length = 1 + random() % std::min<uint64_t>(size - offset, 20000);
    const auto at = model.begin() + static_cast<ptrdiff_t>(offset);
    data.assign(length, static_cast<uint8_t>(random() % 4));
    Result<void> result;
    switch (random() % 4) {
      case 0:
      case 1:
        result = co_await backend.write(offset, io::BufferList(data));
        std::ranges::copy(data, at);
        break;
      case 2:
        result = co_await backend.zero(offset, length);
        std::fill_n(at, length, 0);
        break;
      default:
        back.resize(length);
        result = co_await backend.read(offset, io::BufferList(back));
        if (!std::ranges::equal(back, std::span(model).subspan(offset, length))) {
          co_return "step " + std::to_string(step);
        }
    }
    if (!result) co_return result.error().message();
  }
  back.resize(size);
  Result<void> result = co_await backend.read(0, io::BufferList(back));
  co_return result&& back == model ? "" : "at the end";
}

TEST_F(RequestTest, UnalignedRequestsAgreeWithAModel) {
  for (const char* options : {"driver=memory,size=256k,request-alignment=512",
                              "driver=memory,size=256k,request-alignment=4096,detect-zeroes=unmap,"
                              "discard=unmap",
                              "driver=raw,offset=512,file.driver=memory,file.size=263168,"
                              "file.request-alignment=4096"}) {
    auto backend = open(options);
    ASSERT_GE(backend->size(), 256u << 10);
    EXPECT_EQ(run(compare_with_model(*backend, 7)), "") << options;
    EXPECT_TRUE(run(backend->close()));
  }
}

int code_of(const Result<void>& result) { return result ? 0 : result.error().code(); }

TEST_F(RequestTest, NothingIsReadNorWrittenPastTheEnd) {
  for (const char* options :
       {"driver=raw,size=64k,file.driver=memory,file.size=128k",
        "driver=raw,size=64k,file.driver=memory,file.size=128k,file.request-alignment=4096"}) {
    auto backend = open(options);
    ASSERT_EQ(backend->size(), 65536u) << options;
    std::vector<uint8_t> ones(8192, 1);
    ASSERT_TRUE(run(backend->write(65536 - 8192, io::BufferList(ones))));
    for (const uint64_t offset : {65536u - 4096u, 65536u - 1u, 65536u, 65536u + 512u, 1u << 30}) {
      std::vector<uint8_t> back(8192, 9), expected(8192, 0);
      const uint64_t inside = offset < 65536 ? 65536 - offset : 0;
      std::fill_n(expected.begin(), inside, 1);
      EXPECT_EQ(code_of(run(backend->read(offset, io::BufferList(back)))), EIO)
          << options << offset;
      // What other nodes read of this one.
      ASSERT_TRUE(run(backend->node().read(offset, io::BufferList(back)))) << options;
      EXPECT_EQ(back, expected) << options << " " << offset;
      EXPECT_EQ(code_of(run(backend->write(offset, io::BufferList(back)))), EIO)
          << options << offset;
      EXPECT_EQ(code_of(run(backend->zero(offset, 8192))), EIO) << options << offset;
      EXPECT_EQ(code_of(run(backend->discard(offset, 8192))), EIO) << options << offset;
    }
    std::vector<uint8_t> back(8192, 9);
    EXPECT_EQ(code_of(run(backend->read(UINT64_MAX - 4096, io::BufferList(back)))), EIO) << options;
    EXPECT_TRUE(run(backend->close()));
  }
}

// Each writer owns every third run of 100 bytes, which share blocks with its neighbours' runs: a
// read-modify-write that another write gets in between of loses that write.
io::Task<void> write_own_runs(Backend& backend, unsigned writer, unsigned rounds) {
  constexpr uint64_t kRun = 100;
  std::vector<uint8_t> data(kRun);
  for (unsigned round = 1; round <= rounds; ++round) {
    data.assign(kRun, static_cast<uint8_t>(writer * 64 + round));
    for (uint64_t run = writer; run < 300; run += kReactors) {
      Result<void> written = co_await backend.write(run * kRun, io::BufferList(data));
      PLATTER_ASSERT(written);
      if (run % 7 == 0) co_await io::Reactor::current()->yield();
    }
  }
}
// Whole blocks just behind: aligned writes, which are only counted while no padded one is about.
io::Task<void> write_blocks(Backend& backend, unsigned rounds) {
  io::AlignedBuffer block(4096);
  for (unsigned round = 1; round <= rounds; ++round) {
    std::ranges::fill(block.span(), static_cast<uint8_t>(round));
    for (uint64_t number = 8; number < 16; ++number) {
      Result<void> written = co_await backend.write(number * 4096, block.view());
      PLATTER_ASSERT(written);
    }
  }
}

TEST_F(RequestTest, PaddedWritesOfManyReactorsLoseNothing) {
  auto backend = open("driver=memory,size=64k,request-alignment=4096");
  constexpr unsigned kRounds = 30;
  io::Gate gate;
  for (unsigned writer = 0; writer < kReactors; ++writer) {
    gate.spawn(reactors_->at(writer), write_own_runs(*backend, writer, kRounds));
    gate.spawn(reactors_->at(writer), write_blocks(*backend, kRounds));
  }
  run(gate.close());
  std::vector<uint8_t> back(65536);
  ASSERT_TRUE(run(backend->read(0, io::BufferList(back))));
  for (uint64_t i = 0; i < 30000; ++i) {
    ASSERT_EQ(back[i], static_cast<uint8_t>((i / 100 % kReactors) * 64 + kRounds)) << "byte " << i;
  }
  for (uint64_t i = 8 * 4096; i < 16 * 4096; ++i) ASSERT_EQ(back[i], kRounds) << "byte " << i;
  EXPECT_TRUE(run(backend->close()));
}

io::Task<void> keep_writing(Backend& backend, std::atomic<bool>& stop,
                            std::atomic<uint64_t>& writes) {
  std::vector<uint8_t> data(512, 1);
  while (!stop.load()) {
    Result<void> written = co_await backend.write(0, io::BufferList(data));
    PLATTER_ASSERT(written);
    writes.fetch_add(1);
    co_await io::Reactor::current()->yield();
  }
}

TEST_F(RequestTest, ADrainedSectionHoldsRequestsBackAndLetsThemGoOn) {
  auto backend = open("driver=raw,file.driver=memory,file.size=1M");
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> writes = 0;
  io::Gate gate;
  for (unsigned i = 0; i < kReactors; ++i) {
    gate.spawn(reactors_->at(i), keep_writing(*backend, stop, writes));
  }
  Node& file = backend->node().child("file")->node();
  for (int round = 0; round < 20; ++round) {
    run(graph_.drained_begin(file));
    run(graph_.drained_begin(file));
    const uint64_t before = backend->statistics().write.operations;
    graph_.drained_end(file);
    EXPECT_EQ(backend->statistics().write.operations, before);
    graph_.drained_end(file);
    run(file.requests_in_flight_end());
  }
  stop = true;
  run(gate.close());
  EXPECT_EQ(backend->statistics().write.operations, writes.load());
  EXPECT_EQ(backend->statistics().write.bytes, writes.load() * 512);
  EXPECT_TRUE(run(backend->close()));
}

TEST_F(RequestTest, UsersComeAndGoWhileOthersWrite) {
  auto backend = open("driver=raw,file.driver=memory,file.size=1M");
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> writes = 0;
  io::Gate gate;
  for (unsigned i = 1; i < kReactors; ++i) {
    gate.spawn(reactors_->at(i), keep_writing(*backend, stop, writes));
  }
  for (int round = 0; round < 50; ++round) {
    auto other = run(graph_.attach(backend->node(), Permission::kConsistentRead, kAllPermissions));
    ASSERT_TRUE(other) << other.error().message();
    EXPECT_TRUE(run((*other)->flush()));
    run(backend->node().child("file")->node().requests_in_flight_end());
    EXPECT_TRUE(run((*other)->close()));
  }
  stop = true;
  run(gate.close());
  EXPECT_TRUE(run(backend->close()));
}

// A driver whose reads end when they are let: the one at 0 and the others apart.
struct Holds {
  io::Event first, others;
  std::atomic<bool> first_ended = false;
};
thread_local Holds* current_holds = nullptr;
class HeldDriver final : public Driver {
 public:
  explicit HeldDriver(Holds& holds) : holds_(holds) {}
  uint64_t size() const override { return 1 << 20; }
  Limits limits() const override { return {}; }
  io::Task<Result<void>> read(uint64_t offset, io::BufferList) override {
    co_await (offset == 0 ? holds_.first : holds_.others);
    if (offset == 0) holds_.first_ended = true;
    co_return Result<void>{};
  }
  io::Task<Result<BlockStatus>> status(uint64_t, uint64_t length, StatusDetail) override {
    BlockStatus status;
    status.length = length;
    return io::Task<Result<BlockStatus>>::ready(status);
  }

 private:
  Holds& holds_;
};
io::Task<Result<std::unique_ptr<Driver>>> open_held(OpenContext&) {
  co_return std::make_unique<HeldDriver>(*current_holds);
}
const DriverType kHeld = {.name = "held",
                          .kind = DriverKind::kProtocol,
                          .runtime_options = base::OptionSchema(std::span<const base::OptionDef>()),
                          .create_options = base::OptionSchema(std::span<const base::OptionDef>()),
                          .open = open_held};

io::Task<Result<std::unique_ptr<Backend>>> open_holding(Graph& graph, Holds& holds) {
  current_holds = &holds;
  OpenRequest request;
  request.format = "held";
  co_return co_await graph.open(std::move(request), Permission::kConsistentRead, kAllPermissions);
}
io::Task<void> read_sector(Backend& backend, uint64_t offset) {
  std::vector<uint8_t> data(512);
  Result<void> read = co_await backend.read(offset, io::BufferList(data));
  EXPECT_TRUE(read);
}
io::Task<void> nothing() { co_return; }
io::Task<void> wait_for_earlier(Node& node, const Holds& holds, io::Event& over) {
  co_await node.requests_in_flight_end();
  EXPECT_TRUE(holds.first_ended);
  over.set();
}
io::Task<void> wait_for(io::Event& event) { co_await event; }

TEST_F(RequestTest, AGracePeriodWaitsForEarlierRequestsOnly) {
  DriverRegistry registry({&kHeld});
  Graph graph({registry, io::system_files(), log_});
  Holds holds;
  auto backend = run(open_holding(graph, holds));
  ASSERT_TRUE(backend) << backend.error().message();
  io::Gate gate;
  gate.spawn(reactors_->at(1), read_sector(**backend, 0));
  // What was queued behind it has run: the request is under way.
  run(io::run_on(reactors_->at(1), nothing()));
  io::Event over;
  gate.spawn(reactors_->at(0), wait_for_earlier((*backend)->node(), holds, over));
  run(io::run_on(reactors_->at(0), nothing()));
  EXPECT_FALSE(over.is_set());
  gate.spawn(reactors_->at(2), read_sector(**backend, 512));
  run(io::run_on(reactors_->at(2), nothing()));
  holds.first.set();
  // Although the later one is still held.
  run(wait_for(over));
  holds.others.set();
  run(gate.close());
  EXPECT_TRUE(run((*backend)->close()));
}

// A driver that counts what reaches it.
struct Calls {
  std::atomic<unsigned> reads{0}, writes{0}, zeroes{0}, flushes{0};
  std::atomic<uint64_t> largest{0};
};
class CountingDriver final : public Driver {
 public:
  CountingDriver(Calls& calls, Limits limits) : calls_(calls), limits_(limits) {}
  uint64_t size() const override { return 1 << 20; }
  Limits limits() const override { return limits_; }
  io::Task<Result<void>> read(uint64_t, io::BufferList buffers) override {
    calls_.reads++;
    note(buffers.size());
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<void>> write(uint64_t, io::BufferList buffers, WriteFlags flags) override {
    calls_.writes++;
    note(buffers.size());
    EXPECT_FALSE(flags.has(WriteFlag::kFua));
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<void>> zero(uint64_t, uint64_t, WriteFlags) override {
    calls_.zeroes++;
    return io::Task<Result<void>>::ready(fail_errno(ENOTSUP));
  }
  io::Task<Result<void>> flush() override {
    calls_.flushes++;
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<BlockStatus>> status(uint64_t, uint64_t length, StatusDetail) override {
    BlockStatus status;
    status.length = length;
    status.data = status.allocated = true;
    return io::Task<Result<BlockStatus>>::ready(status);
  }

 private:
  void note(uint64_t size) {
    if (size > calls_.largest) calls_.largest = size;
  }
  Calls& calls_;
  Limits limits_;
};

// Tests reach their driver through a thread-local: a DriverType carries no state of its own.
thread_local Calls* current_calls = nullptr;
io::Task<Result<std::unique_ptr<Driver>>> open_counting(OpenContext&) {
  Limits limits;
  limits.max_transfer = 65536;
  co_return std::make_unique<CountingDriver>(*current_calls, limits);
}
const DriverType kCounting = {
    .name = "counting",
    .kind = DriverKind::kProtocol,
    .runtime_options = base::OptionSchema(std::span<const base::OptionDef>()),
    .create_options = base::OptionSchema(std::span<const base::OptionDef>()),
    .open = open_counting};

io::Task<Result<std::unique_ptr<Backend>>> open_counted(Graph& graph, Calls& calls) {
  current_calls = &calls;
  OpenRequest request;
  request.format = "counting";
  request.flags.read_only = false;
  co_return co_await graph.open(std::move(request),
                                Permission::kConsistentRead | Permission::kWrite, kAllPermissions);
}

TEST_F(RequestTest, SplitsFallsBackAndFlushesOnlyWhatIsNeeded) {
  DriverRegistry registry({&kCounting});
  Graph graph({registry, io::system_files(), log_});
  Calls calls;
  auto backend = run(open_counted(graph, calls));
  ASSERT_TRUE(backend) << backend.error().message();
  std::vector<uint8_t> data(200000, 1);
  EXPECT_TRUE(run((*backend)->read(0, io::BufferList(data))));
  EXPECT_EQ(calls.reads, 4u);
  EXPECT_EQ(calls.largest, 65536u);
  // What cannot be zeroed is written, unless the caller would rather know.
  EXPECT_TRUE(run((*backend)->zero(0, 65536)));
  EXPECT_EQ(calls.zeroes, 1u);
  EXPECT_EQ(calls.writes, 1u);
  auto refused = run((*backend)->zero(0, 65536, WriteFlag::kNoFallback));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOTSUP);
  EXPECT_EQ(calls.writes, 1u);
  // A discard that the driver does not know is no error.
  EXPECT_TRUE(run((*backend)->discard(0, 65536)));
  // One flush after a write; none when nothing was written since.
  EXPECT_TRUE(run((*backend)->flush()));
  EXPECT_TRUE(run((*backend)->flush()));
  EXPECT_EQ(calls.flushes, 1u);
  // A durable write is a write and a flush where the driver knows no better.
  EXPECT_TRUE(run((*backend)->write(0, io::BufferList(data.data(), 512), WriteFlag::kFua)));
  EXPECT_EQ(calls.flushes, 2u);
  (*backend)->set_write_cache(false);
  EXPECT_TRUE(run((*backend)->write(0, io::BufferList(data.data(), 512))));
  EXPECT_EQ(calls.flushes, 3u);
  EXPECT_TRUE(run((*backend)->close()));
}

}  // namespace
}  // namespace platter::block
