// Random 4 KiB reads inside one process, 64 in flight on each reactor: what our own code costs.
//
// usage: request_bench DIRECTORY [ROUNDS] [SLICE_MS]
//
// A qcow2 image is filled in DIRECTORY and read with O_DIRECT, as qcow2 and as the raw file that it
// is; then the null and the memory protocol, where no disk hides anything. The cases take turns,
// slice by slice; what is printed is medians over the rounds and half the range between the
// quartiles. Without ROUNDS there are 31, or as many as there is time for on a machine that has
// other work. Exit status 1: qcow2 is below 0.95 of raw, or two reactors on one image below 1.7 of
// one.
#include <fmt/format.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "io/sync.h"

namespace platter {
namespace {

constexpr uint64_t kImageBytes = uint64_t{1} << 30;
constexpr uint64_t kFillBytes = 1 << 20;
constexpr size_t kReadBytes = 4096;
constexpr unsigned kDepth = 64;
constexpr int kDefaultRounds = 31;
constexpr int kFewestRounds = 3;
// From the start, for rounds that nobody has asked for.
constexpr std::chrono::seconds kPatience(40);
constexpr double kQcow2Bound = 0.95;
constexpr double kTwoReactorsBound = 1.7;

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const Error& error) {
  fmt::print(stderr, "request_bench: {}\n", error.message());
  exit(2);
}

template <typename T>
T must(Result<T> result) {
  if (!result) die(result.error());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

struct Stop {
  alignas(64) std::atomic<bool> asked = false;
};

// One of the requests in flight: reads blocks at random until it is told to stop. Returns how many.
io::Task<uint64_t> read_blocks(block::Backend& backend, uint64_t seed, const Stop& stop) {
  io::AlignedBuffer buffer(kReadBytes);
  const uint64_t blocks = backend.size() / kReadBytes;
  uint64_t count = 0;
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  while (!stop.asked.load(std::memory_order_relaxed)) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    auto result = co_await backend.read(state % blocks * kReadBytes, buffer.view());
    if (!result) die(result.error());
    ++count;
  }
  co_return count;
}

io::Task<uint64_t> run_depth(block::Backend& backend, uint64_t seed, const Stop& stop) {
  std::vector<io::Task<uint64_t>> readers;
  for (unsigned i = 0; i < kDepth; ++i) readers.push_back(read_blocks(backend, seed + i, stop));
  uint64_t total = 0;
  for (uint64_t count : co_await io::when_all(std::move(readers))) total += count;
  co_return total;
}

io::Task<uint64_t> run_reactors(io::ReactorGroup& group, unsigned reactors, block::Backend& backend,
                                const Stop& stop) {
  std::vector<io::Task<uint64_t>> parts;
  for (unsigned i = 0; i < reactors; ++i) {
    parts.push_back(io::run_on(group.at(i), run_depth(backend, 1000 * (i + 1), stop)));
  }
  uint64_t total = 0;
  for (uint64_t count : co_await io::when_all(std::move(parts))) total += count;
  co_return total;
}

struct Measured {
  double rate;    // requests a second
  double cpu_ns;  // processor time of all threads, the kernel's for us included, a request
};

double processor_seconds() {
  timespec now = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

Measured measure(io::ReactorGroup& group, unsigned reactors, block::Backend& backend,
                 std::chrono::milliseconds slice) {
  Stop stop;
  std::thread timer([&] {
    std::this_thread::sleep_for(slice);
    stop.asked.store(true, std::memory_order_relaxed);
  });
  auto start = Clock::now();
  double cpu_start = processor_seconds();
  uint64_t total = io::run_blocking(group.at(0), run_reactors(group, reactors, backend, stop));
  double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  double cpu = processor_seconds() - cpu_start;
  timer.join();
  return {static_cast<double>(total) / seconds, 1e9 * cpu / static_cast<double>(total)};
}

// A reactor, and the kernel's helpers that it starts, keep to a processor of their own: else one
// reactor is measured with the help of the processor that the second one is to have.
io::Task<void> keep_to_processor(unsigned number) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) co_return;
  for (unsigned processor = 0, seen = 0; processor < CPU_SETSIZE; ++processor) {
    if (!CPU_ISSET(processor, &allowed) || seen++ != number) continue;
    CPU_ZERO(&allowed);
    CPU_SET(processor, &allowed);
    sched_setaffinity(0, sizeof allowed, &allowed);
    co_return;
  }
}

// ---- The images

io::Task<Result<std::unique_ptr<block::Backend>>> open_image(block::Graph& graph, std::string text,
                                                             bool direct, bool writable) {
  block::OpenRequest request;
  request.options = must(base::Options::from_key_values(text));
  request.flags.read_only = !writable;
  request.cache.direct = direct;
  request.policy = OpenPolicy::deny();
  block::Permissions needed = block::Permission::kConsistentRead;
  if (writable) needed |= block::Permission::kWrite | block::Permission::kResize;
  return graph.open(std::move(request), needed, block::kAllPermissions);
}

io::Task<Result<void>> fill(block::Backend& backend) {
  io::AlignedBuffer buffer(kFillBytes);
  uint64_t state = 1;
  for (size_t i = 0; i < kFillBytes; i += sizeof state) {
    state = state * 6364136223846793005 + 1442695040888963407;
    memcpy(buffer.data() + i, &state, sizeof state);
  }
  for (uint64_t offset = 0; offset < kImageBytes; offset += kFillBytes) {
    auto written = co_await backend.write(offset, buffer.view());
    if (!written) co_return written;
  }
  co_return Result<void>{};
}

io::Task<Result<void>> make_image(block::Graph& graph, std::string path) {
  base::Options options;
  options.set("size", kImageBytes);
  auto made =
      co_await graph.create({.filename = path, .format = "qcow2", .options = std::move(options)});
  if (!made) co_return made;
  auto image = co_await open_image(graph, "driver=qcow2,file.driver=file,file.filename=" + path,
                                   false, true);
  if (!image) co_return std::unexpected(std::move(image).error());
  auto filled = co_await fill(**image);
  if (!filled) co_return filled;
  co_return co_await (*image)->close();
}

// ---- The table

struct Case {
  std::string name;
  unsigned reactors;
  block::Backend* backend;
  std::vector<double> rates;
  std::vector<double> cpu_ns;
};

double quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(fraction * static_cast<double>(values.size() - 1) + 0.5)];
}

// The median of the ratios of slices that ran next to each other.
double ratio(const Case& above, const Case& below) {
  std::vector<double> ratios;
  for (size_t i = 0; i < above.rates.size(); ++i) ratios.push_back(above.rates[i] / below.rates[i]);
  return quantile(ratios, 0.5);
}

void print_case(const Case& entry) {
  double rate = quantile(entry.rates, 0.5);
  double half_range = (quantile(entry.rates, 0.75) - quantile(entry.rates, 0.25)) / 2;
  fmt::print(
      "  {:<12} {:>2} reactor{} {:>9.0f} k/s ±{:>4.1f}% {:>8.0f} ns a request on each, {:>6.0f} ns "
      "of processor\n",
      entry.name, entry.reactors, entry.reactors == 1 ? " " : "s", rate / 1000,
      100 * half_range / rate, 1e9 * entry.reactors / rate, quantile(entry.cpu_ns, 0.5));
}

bool print_ratio(const char* what, double value, double bound) {
  fmt::print("  {:<44} {:>5.2f}  (at least {:.2f}){}\n", what, value, bound,
             value < bound ? "  BELOW" : "");
  return value >= bound;
}

struct Plan {
  std::string directory;
  int rounds;
  int fewest_rounds;  // enough when `end` has come
  Clock::time_point end;
  std::chrono::milliseconds slice;
};

int run(const Plan& plan) {
  auto group = must(io::ReactorGroup::start({.reactors = 2}));
  for (unsigned i = 0; i < group->size(); ++i) io::run_blocking(group->at(i), keep_to_processor(i));
  auto registry = block::DriverRegistry::builtin();
  base::Log log;
  block::Graph graph({.registry = registry, .files = io::system_files(), .log = log});
  const std::string path = plan.directory + "/request_bench.qcow2";
  must(io::run_blocking(group->at(0), make_image(graph, path)));

  auto open = [&](std::string text, bool direct, bool writable) {
    return must(
        io::run_blocking(group->at(0), open_image(graph, std::move(text), direct, writable)));
  };
  const std::string file = "file.driver=file,file.filename=" + path;
  auto raw = open("driver=raw," + file, true, false);
  auto qcow2 = open("driver=qcow2," + file, true, false);
  auto null = open("driver=null-co,size=1G", false, false);
  auto memory = open("driver=memory,size=1G", false, true);
  must(io::run_blocking(group->at(0), fill(*memory)));

  std::vector<Case> cases;
  for (unsigned reactors : {1u, 2u}) {
    cases.push_back({"raw file", reactors, raw.get(), {}, {}});
    cases.push_back({"qcow2 file", reactors, qcow2.get(), {}, {}});
    cases.push_back({"null-co", reactors, null.get(), {}, {}});
    cases.push_back({"memory", reactors, memory.get(), {}, {}});
  }
  for (int round = -1; round < plan.rounds; ++round) {  // the first one warms up
    if (round >= plan.fewest_rounds && Clock::now() >= plan.end) break;
    for (Case& entry : cases) {
      Measured measured = measure(*group, entry.reactors, *entry.backend, plan.slice);
      if (round < 0) continue;
      entry.rates.push_back(measured.rate);
      entry.cpu_ns.push_back(measured.cpu_ns);
    }
  }
  for (const Case& entry : cases) print_case(entry);
  bool good = print_ratio("qcow2 beside raw, one reactor", ratio(cases[1], cases[0]), kQcow2Bound);
  good &= print_ratio("qcow2 beside raw, two reactors", ratio(cases[5], cases[4]), kQcow2Bound);
  for (int i : {1, 2, 3}) {
    good &= print_ratio(fmt::format("{}: two reactors beside one", cases[i].name).c_str(),
                        ratio(cases[i + 4], cases[i]), kTwoReactorsBound);
  }
  for (auto* backend : {&raw, &qcow2, &null, &memory}) {
    must(io::run_blocking(group->at(0), (*backend)->close()));
  }
  unlink(path.c_str());
  return good ? 0 : 1;
}

}  // namespace
}  // namespace platter

int main(int count, char** arguments) {
  const int rounds = count > 2 ? atoi(arguments[2]) : platter::kDefaultRounds;
  const int slice_ms = count > 3 ? atoi(arguments[3]) : 100;
  if (count < 2 || rounds < 1 || slice_ms < 1) {
    fmt::print(stderr, "usage: request_bench DIRECTORY [ROUNDS] [SLICE_MS]\n");
    return 2;
  }
  return platter::run({.directory = arguments[1],
                       .rounds = rounds,
                       .fewest_rounds = count > 2 ? rounds : platter::kFewestRounds,
                       .end = platter::Clock::now() + platter::kPatience,
                       .slice = std::chrono::milliseconds(slice_ms)});
}
