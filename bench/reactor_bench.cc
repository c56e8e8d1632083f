// What the runtime itself costs: a ready task, an awaited task, an I/O, a wake-up across reactors.
// Prints nanoseconds each, of time and of processor time (which a busy machine disturbs less), the
// medians of several rounds.
//
//   reactor_bench [FILE]     FILE: for the reads, opened direct; default one on /dev/shm

#include <fmt/format.h>

#include <time.h>

#include <algorithm>
#include <cstdlib>

#include "io/file_io.h"
#include "io/reactor_group.h"
#include "io/sync.h"

namespace platter::io {
namespace {

constexpr int kRounds = 7;
constexpr uint64_t kFileBytes = uint64_t{256} << 20;

struct Cost {
  double wall_ns;
  double processor_ns;
};

Nanoseconds processor_time() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + Nanoseconds(time.tv_nsec);
}

template <typename Round>
Cost measure(uint64_t operations, Round round) {
  std::vector<double> wall, processor;
  for (int i = 0; i < kRounds; ++i) {
    auto start = std::chrono::steady_clock::now();
    Nanoseconds processor_start = processor_time();
    round();
    Nanoseconds spent = std::chrono::steady_clock::now() - start;
    auto each = [&](Nanoseconds time) {
      return static_cast<double>(time.count()) / static_cast<double>(operations);
    };
    wall.push_back(each(spent));
    processor.push_back(each(processor_time() - processor_start));
  }
  std::sort(wall.begin(), wall.end());
  std::sort(processor.begin(), processor.end());
  return {wall[kRounds / 2], processor[kRounds / 2]};
}

void report(const char* what, Cost cost) {
  fmt::print("{:<44} {:9.1f} ns   {:9.1f} ns of processor\n", what, cost.wall_ns,
             cost.processor_ns);
}

Task<void> yield_often(int times) {
  Reactor& reactor = *Reactor::current();
  for (int i = 0; i < times; ++i) co_await reactor.yield();
}
Task<int> trivial(int value) { co_return value; }
Task<int> await_often(int times) {
  int sum = 0;
  for (int i = 0; i < times; ++i) sum += co_await trivial(i);
  co_return sum;
}

// Completes at once, through the same awaiter and queue as a real one: what is left is our own
// code.
class NullEngine final : public Engine {
 public:
  void submit(IoRequest& request) override {
    request.result = static_cast<int64_t>(request.buffers.size());
    request.waiter.reactor->resume_later(request.waiter.handle);
  }
  void submit(ReadinessRequest& request) override {
    request.waiter.reactor->resume_later(request.waiter.handle);
  }
  void cancel(ReadinessRequest&) override {}
  void turn(bool may_block, Nanoseconds) override {
    while (may_block && !woken_.exchange(false)) std::this_thread::yield();
  }
  void wake() override { woken_ = true; }
  const char* name() const override { return "null"; }

 private:
  std::atomic<bool> woken_{false};
};

Task<Result<void>> read_often(File& file, uint64_t seed, int times) {
  AlignedBuffer buffer(4096);
  Random random(seed);
  for (int i = 0; i < times; ++i) {
    uint64_t offset = random.below(kFileBytes / 4096) * 4096;
    auto end = co_await read_full(file, offset, buffer.view());
    if (!end) co_return end;
  }
  co_return Result<void>();
}

Task<void> read_in_parallel(File& file, unsigned depth, int times) {
  std::vector<Task<Result<void>>> tasks;
  for (unsigned i = 0; i < depth; ++i) tasks.push_back(read_often(file, i + 1, times));
  for (auto& end : co_await when_all(std::move(tasks))) {
    if (!end) {
      fmt::print(stderr, "reactor_bench: {}\n", end.error().message());
      std::exit(1);
    }
  }
}

Task<void> ping(Event& mine, Event& theirs, int times) {
  for (int i = 0; i < times; ++i) {
    co_await mine;
    mine.reset();
    theirs.set();
  }
}
Task<void> ping_pong(Reactor& a, Reactor& b, int times) {
  Event to_a, to_b;
  Gate gate;
  gate.spawn(a, ping(to_a, to_b, times));
  gate.spawn(b, ping(to_b, to_a, times));
  to_a.set();
  co_await gate.close();
}

std::unique_ptr<ReactorGroup> start(unsigned reactors, EngineKind kind) {
  auto group = ReactorGroup::start({.reactors = reactors, .engine = kind});
  if (!group) {
    fmt::print(stderr, "reactor_bench: {}\n", group.error().message());
    std::exit(1);
  }
  return std::move(*group);
}

void bench_tasks() {
  constexpr int kTimes = 1'000'000;
  auto group = start(1, EngineKind::kUring);
  report("resume a ready task (yield)",
         measure(kTimes, [&] { run_blocking(group->at(0), yield_often(kTimes)); }));
  report("await a task that does not suspend",
         measure(kTimes, [&] { run_blocking(group->at(0), await_often(kTimes)); }));
}

void bench_null_io(File& file) {
  constexpr int kTimes = 20'000;
  WorkerPool workers;
  Reactor reactor(0, std::make_unique<NullEngine>(), {.now = {}, .workers = &workers});
  std::thread thread([&] { reactor.run(); });
  report("null I/O, 64 in flight, own code alone",
         measure(kTimes * 64, [&] { run_blocking(reactor, read_in_parallel(file, 64, kTimes)); }));
  reactor.stop();
  thread.join();
}

void bench_reads(File& file, EngineKind kind) {
  constexpr int kTimes = 4000;
  auto group = start(1, kind);
  for (unsigned depth : {1u, 64u}) {
    report(fmt::format("read 4 KiB direct, {} in flight, {}", depth, group->engine_name()).c_str(),
           measure(kTimes * depth,
                   [&] { run_blocking(group->at(0), read_in_parallel(file, depth, kTimes)); }));
  }
}

void bench_ping_pong(EngineKind kind) {
  constexpr int kTimes = 20'000;
  auto group = start(2, kind);
  report(fmt::format("wake-up across reactors, {}", group->engine_name()).c_str(),
         measure(kTimes * 2, [&] {
           run_blocking(group->at(0), ping_pong(group->at(0), group->at(1), kTimes));
         }));
}

int run_all(const char* path) {
  std::string made;
  if (path == nullptr) {
    made = "/dev/shm/platter-reactor-bench";
    auto file = system_files().open(made, {.write = true, .create = true, .truncate = true});
    if (!file) {
      fmt::print(stderr, "reactor_bench: {}: {}\n", made, file.error().message());
      return 1;
    }
    auto group = start(1, EngineKind::kAuto);
    std::vector<uint8_t> bytes(kFileBytes, 0x5a);
    auto end = run_blocking(group->at(0), write_full(**file, 0, BufferList(bytes)));
    if (!end) return 1;
    path = made.c_str();
  }
  auto file = system_files().open(path, {.direct = true});
  if (!file) {
    fmt::print(stderr, "reactor_bench: {}: {}\n", path, file.error().message());
    return 1;
  }
  bench_tasks();
  bench_null_io(**file);
  for (EngineKind kind : {EngineKind::kUring, EngineKind::kThreads}) {
    bench_reads(**file, kind);
    bench_ping_pong(kind);
  }
  if (!made.empty() && !system_files().remove(made)) return 1;
  return 0;
}

}  // namespace
}  // namespace platter::io

int main(int argc, char** argv) { return platter::io::run_all(argc > 1 ? argv[1] : nullptr); }
