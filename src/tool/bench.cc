// platter bench: requests of one size against an image, and the time they take.
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <climits>
#include <cstring>

#include "base/size.h"
#include "base/try.h"
#include "fmt/format.h"
#include "io/when_all.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

constexpr unsigned kMaxDepth = 65536;
constexpr uint64_t kMaxBufferMemory = uint64_t{4} << 30;

struct BenchArguments {
  uint64_t count = 75000;
  uint64_t depth = 64;
  uint64_t buffer_bytes = 4096;
  std::optional<uint64_t> step;
  uint64_t offset = 0;
  uint64_t flush_interval = 0;  // requests; 0: no flushes
  uint8_t pattern = 0;
  bool write = false;
  bool drain_on_flush = true;
  bool json = false;
  ImageArgument image;
};

// The requests, taken one after the other by `depth` tasks over all reactors.
class Load {
 public:
  Load(Session& session, block::Backend& backend, const BenchArguments& arguments)
      : session_(session), backend_(backend), arguments_(arguments), image_bytes_(backend.size()) {}

  // Ends with the first request that fails.
  io::Task<Result<void>> run() {
    std::vector<io::AlignedBuffer> buffers;
    for (uint64_t i = 0; i < arguments_.depth; ++i) {
      buffers.emplace_back(std::max<uint64_t>(arguments_.buffer_bytes, 1));
      std::memset(buffers.back().data(), arguments_.pattern, buffers.back().size());
    }
    const uint64_t interval = arguments_.drain_on_flush ? arguments_.flush_interval : 0;
    while (next_ < arguments_.count && !failed_) {
      round_end_ = arguments_.count;
      // A flush that waits for what came before it parts the requests into rounds.
      if (interval != 0) round_end_ = std::min(arguments_.count, next_ + interval);
      co_await run_round(buffers);
      if (interval != 0 && !failed_ && next_ % interval == 0) note(co_await backend_.flush());
    }
    if (failed_) co_return std::unexpected(std::move(*error_));
    co_return Result<void>{};
  }

 private:
  io::Task<void> run_round(std::vector<io::AlignedBuffer>& buffers) {
    std::vector<io::Task<bool>> workers;
    for (size_t i = 0; i < buffers.size(); ++i) {
      auto& reactor = session_.reactors().at(static_cast<unsigned>(i) % session_.reactors().size());
      workers.push_back(io::run_on(reactor, work(buffers[i])));
    }
    co_await io::when_all(std::move(workers));
    next_ = round_end_;
  }

  io::Task<bool> work(io::AlignedBuffer& buffer) {
    for (;;) {
      const uint64_t index = next_.fetch_add(1, std::memory_order_relaxed);
      if (index >= round_end_ || failed_.load(std::memory_order_relaxed)) co_return true;
      note(co_await request(offset_of(index), buffer));
      const uint64_t interval = arguments_.drain_on_flush ? 0 : arguments_.flush_interval;
      if (interval != 0 && (index + 1) % interval == 0) note(co_await backend_.flush());
    }
  }

  io::Task<Result<void>> request(uint64_t offset, io::AlignedBuffer& buffer) {
    if (arguments_.buffer_bytes == 0) return io::Task<Result<void>>::ready({});
    const auto bytes = buffer.view(0, arguments_.buffer_bytes);
    return arguments_.write ? backend_.write(offset, bytes) : backend_.read(offset, bytes);
  }

  // Begins anew at the start where the image ends.
  uint64_t offset_of(uint64_t index) const {
    if (index == 0 || image_bytes_ == 0) return arguments_.offset;
    const auto step = static_cast<unsigned __int128>(*arguments_.step);
    return static_cast<uint64_t>((arguments_.offset + step * index) % image_bytes_);
  }

  void note(Result<void> result) {
    if (result) return;
    if (failed_.exchange(true)) return;
    error_ = std::move(result).error();
  }

  Session& session_;
  block::Backend& backend_;
  const BenchArguments& arguments_;
  const uint64_t image_bytes_;
  std::atomic<uint64_t> next_ = 0;
  uint64_t round_end_ = 0;
  std::atomic<bool> failed_ = false;
  std::optional<Error> error_;  // by whoever set `failed_`
};

std::string description(const BenchArguments& arguments) {
  std::string text = fmt::format(
      "Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size "
      "{})\n",
      arguments.count, arguments.write ? "write" : "read", arguments.buffer_bytes, arguments.depth,
      arguments.offset, *arguments.step);
  if (arguments.flush_interval != 0)
    text += fmt::format("Sending flush every {} requests\n", arguments.flush_interval);
  return text;
}

base::Json result_of(const BenchArguments& arguments, const block::Backend& backend,
                     double seconds) {
  auto json = describe_image(arguments.image.name, backend);
  json.add("operation", arguments.write ? "write" : "read");
  json.add("requests", arguments.count);
  json.add("request-size", arguments.buffer_bytes);
  json.add("depth", arguments.depth);
  json.add("seconds", seconds);
  const double per_second = seconds > 0 ? static_cast<double>(arguments.count) / seconds : 0;
  json.add("requests-per-second", per_second);
  json.add("bytes-per-second",
           static_cast<uint64_t>(per_second * static_cast<double>(arguments.buffer_bytes)));
  return json;
}

io::Task<int> run_backend(Session& session, const Invocation& invocation, block::Backend& backend,
                          const BenchArguments& arguments) {
  const bool quiet = invocation.has("q") || arguments.json;
  if (!quiet) invocation.console.print(description(arguments));
  invocation.console.flush();
  Load load(session, backend, arguments);
  const auto start = std::chrono::steady_clock::now();
  if (auto ended = co_await load.run(); !ended)
    co_return invocation.fail(std::move(ended).error().with_context("Failed request"));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  if (arguments.json)
    invocation.console.print(result_of(arguments, backend, taken.count()).dump_pretty() + "\n");
  if (!quiet)
    invocation.console.print(fmt::format("Run completed in {:3.3f} seconds.\n", taken.count()));
  co_return 0;
}

io::Task<int> run_in(Session& session, const Invocation& invocation,
                     const BenchArguments& arguments) {
  auto backend = co_await open_image(session, arguments.image);
  if (!backend) co_return invocation.fail(backend.error());
  (*backend)->set_write_cache(arguments.image.cache.writeback);
  const int status = co_await run_backend(session, invocation, **backend, arguments);
  co_return co_await close_image(invocation, **backend, status);
}

std::optional<uint64_t> parse_number(std::string_view text, uint64_t max) {
  const int base = text.starts_with("0x") || text.starts_with("0X") ? 16 : 10;
  if (base == 16) text.remove_prefix(2);
  uint64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (code != std::errc() || end != text.data() + text.size() || number > max) return std::nullopt;
  return number;
}

// An exit status where a number is wrong.
std::optional<int> read_numbers(const Invocation& invocation, BenchArguments& arguments) {
  auto read = [&](std::string_view option, std::string_view what, uint64_t max, auto& value) {
    const auto text = invocation.value(option);
    if (!text) return true;
    const auto number = parse_number(*text, max);
    if (number) value = static_cast<std::remove_reference_t<decltype(value)>>(*number);
    if (!number) invocation.fail(fmt::format("Invalid {} specified", what));
    return number.has_value();
  };
  if (!read("c", "request count", INT_MAX, arguments.count) ||
      !read("d", "queue depth", INT_MAX, arguments.depth) ||
      !read("flush-interval", "flush interval", INT_MAX, arguments.flush_interval) ||
      !read("pattern", "pattern byte", UINT8_MAX, arguments.pattern)) {
    return 1;
  }
  if (arguments.depth == 0 || arguments.depth > kMaxDepth) {
    return invocation.fail(fmt::format("The queue depth must be between 1 and {}", kMaxDepth));
  }
  return std::nullopt;
}

std::optional<uint64_t> parse_buffer_size(const Invocation& invocation, std::string_view what,
                                          const std::string& text) {
  const auto size = base::parse_size(text);
  if (!size && size.error().code() != ERANGE) return parse_size_argument(invocation, what, text);
  if (size && *size <= INT_MAX) return *size;
  invocation.fail(fmt::format("Invalid {} specified. Must be between 0 and {}.", what, INT_MAX));
  return std::nullopt;
}

std::optional<int> read_sizes(const Invocation& invocation, BenchArguments& arguments) {
  if (auto text = invocation.value("o")) {
    auto offset = parse_size_argument(invocation, "offset", *text);
    if (!offset) return 1;
    arguments.offset = *offset;
  }
  if (auto text = invocation.value("s")) {
    auto size = parse_buffer_size(invocation, "buffer size", *text);
    if (!size) return 1;
    arguments.buffer_bytes = *size;
  }
  if (auto text = invocation.value("S")) {
    arguments.step = parse_buffer_size(invocation, "step_size", *text);
    if (!arguments.step) return 1;
  }
  if (!arguments.step || *arguments.step == 0) arguments.step = arguments.buffer_bytes;
  if (arguments.buffer_bytes * arguments.depth > kMaxBufferMemory) {
    return invocation.fail(
        fmt::format("{} requests of {} bytes at a time are more than {} of memory", arguments.depth,
                    arguments.buffer_bytes, base::format_size(kMaxBufferMemory)));
  }
  return std::nullopt;
}

// How files are read and written: -i and -n, in the words of --engine.
std::optional<int> choose_engine(Invocation& invocation, const block::CacheMode& cache) {
  std::string aio = invocation.value_or("i", "");
  if (invocation.has("n")) aio = "native";
  if (aio.empty()) return std::nullopt;
  if (aio != "threads" && aio != "native" && aio != "io_uring")
    return invocation.fail("Invalid aio option: " + aio);
  if (aio == "native" && !cache.direct) {
    return invocation.fail(
        fmt::format("Could not open '{}': aio=native was specified, but it requires "
                    "cache.direct=on, which was not specified.",
                    invocation.operands[0]));
  }
  invocation.set_native_option("engine", aio == "threads" ? "threads" : "io_uring");
  return std::nullopt;
}

int run_bench(Invocation& invocation) {
  BenchArguments arguments;
  if (auto status = read_numbers(invocation, arguments)) return *status;
  if (auto status = read_sizes(invocation, arguments)) return *status;
  auto cache = block::CacheMode::parse(invocation.value_or("t", "writeback"));
  if (!cache) return invocation.fail("Invalid cache mode");
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  arguments.write = invocation.has("w");
  arguments.drain_on_flush = !invocation.has("no-drain");
  if (!arguments.write && arguments.flush_interval != 0)
    return invocation.fail("--flush-interval is only available in write tests");
  if (arguments.flush_interval != 0 && arguments.flush_interval < arguments.depth)
    return invocation.fail("Flush interval can't be smaller than depth");
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  const auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  arguments.json = *json;
  if (auto status = choose_engine(invocation, *cache)) return *status;
  arguments.image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = invocation.value_or("f", ""),
      .force_share = invocation.has("force-share"),
      .flags = {.read_only = !arguments.write},
      .cache = *cache,
  };
  if (arguments.write) {
    arguments.image.needed = block::Permission::kConsistentRead | block::Permission::kWrite;
  }
  return run_session(
      invocation, [&](Session& session) { return run_in(session, invocation, arguments); },
      Reactors::kOneAProcessor);
}

constexpr CommandOption kOptions[] = {
    {.letter = 'c', .argument = "COUNT", .help = "requests (default: 75000)"},
    {.letter = 'd', .argument = "DEPTH", .help = "requests in flight (default: 64)"},
    {.letter = 'f', .argument = "FMT", .help = "format of the image (default: found out)"},
    {.name = "flush-interval", .argument = "N", .help = "flush after every N requests (with -w)"},
    {.name = "no-drain", .help = "do not wait for the requests before a flush"},
    {.letter = 'i', .argument = "AIO", .help = "threads, native or io_uring"},
    {.letter = 'n', .help = "the same as -i native"},
    {.letter = 'o', .argument = "OFFSET", .help = "where the first request begins (default: 0)"},
    {.name = "pattern", .argument = "BYTE", .help = "what is written (default: 0)"},
    {.letter = 'q', .help = "say nothing but errors"},
    {.letter = 's', .argument = "BYTES", .help = "size of a request (default: 4k)"},
    {.letter = 'S',
     .argument = "BYTES",
     .help = "from one request to the next (default: the size of a request)"},
    {.letter = 't', .argument = "CACHE", .help = "cache mode (default: writeback)"},
    {.letter = 'w', .help = "write (default: read)"},
    {.letter = 'U', .name = "force-share", .help = "open it even while somebody writes to it"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.name = "output", .argument = "FORM", .help = "human or json", .native = true},
};

}  // namespace

extern const Command kBenchCommand;
const Command kBenchCommand = {
    .name = "bench",
    .summary = "Measure how fast an image answers requests.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_bench,
};

}  // namespace platter::tool
