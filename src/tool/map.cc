// platter map: where the data of an image is, through all of its backing chain.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "base/size.h"
#include "base/try.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/chart.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/session.h"

namespace platter::tool {
namespace {

struct Extent {
  uint64_t start = 0;
  uint64_t length = 0;
  unsigned depth = 0;
  bool present = false;
  bool zero = false;
  bool data = false;
  std::optional<uint64_t> host_offset{};
  const block::Node* host = nullptr;

  bool continues_as(const Extent& next) const {
    if (present != next.present || zero != next.zero || data != next.data || depth != next.depth)
      return false;
    if (host != next.host || host_offset.has_value() != next.host_offset.has_value()) return false;
    return !host_offset || *host_offset + length == *next.host_offset;
  }
};

class Printer {
 public:
  virtual ~Printer() = default;
  virtual void begin(std::string& out) = 0;
  virtual Result<void> extent(std::string& out, const Extent& extent) = 0;
  virtual void end(std::string& out) = 0;
};

class HumanPrinter : public Printer {
 public:
  void begin(std::string& out) override {
    out += fmt::format("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File");
  }
  Result<void> extent(std::string& out, const Extent& extent) override {
    if (!extent.data || extent.zero) return {};
    if (!extent.host_offset || extent.host == nullptr) {
      return fail(ENOTSUP, "File contains external, encrypted or compressed clusters.");
    }
    fmt::format_to(std::back_inserter(out), "{:<16}{:<16}{:<16}{}\n", hexadecimal(extent.start),
                   hexadecimal(extent.length), hexadecimal(*extent.host_offset),
                   extent.host->filename());
    return {};
  }
  void end(std::string&) override {}

 private:
  static std::string hexadecimal(uint64_t value) {
    return value == 0 ? "0" : fmt::format("{:#x}", value);
  }
};

class JsonPrinter : public Printer {
 public:
  void begin(std::string& out) override { out += "["; }
  Result<void> extent(std::string& out, const Extent& extent) override {
    if (!first_) out += ",\n";
    first_ = false;
    fmt::format_to(std::back_inserter(out),
                   "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": "
                   "{}, \"data\": {}",
                   extent.start, extent.length, extent.depth, extent.present, extent.zero,
                   extent.data);
    if (extent.host_offset)
      fmt::format_to(std::back_inserter(out), ", \"offset\": {}", *extent.host_offset);
    out += "}";
    return {};
  }
  void end(std::string& out) override { out += "]\n"; }

 private:
  bool first_ = true;
};

struct MapRange {
  uint64_t start = 0;
  uint64_t max_length = base::kMaxSize;
};

// The first layer that knows what the bytes are answers for them, where it shows the zeroes that
// lie past the end of its backing file too.
io::Task<Result<Extent>> next_extent(block::Backend& backend, uint64_t offset, uint64_t length) {
  Extent extent{.start = offset};
  block::BlockStatus status;
  for (block::Node* node = &backend.node();; node = &node->backing()->node(), ++extent.depth) {
    node = &node->skip_filters();
    PLATTER_CO_ASSIGN(status, co_await node->status(offset, length, block::StatusDetail::kPrecise));
    length = status.length;
    if (status.data || status.zero || node->backing() == nullptr) break;
  }
  extent.length = status.length;
  extent.present = status.allocated;
  extent.zero = status.zero;
  extent.data = status.data;
  if (status.has_host_offset) {
    extent.host_offset = status.host_offset;
    extent.host = status.host;
  }
  co_return extent;
}

io::Task<Result<void>> print_map(Console& console, block::Backend& backend, MapRange range,
                                 Printer& printer) {
  constexpr size_t kChunk = size_t{1} << 16;
  const uint64_t end = std::min(
      backend.size(), range.start + std::min(range.max_length, base::kMaxSize - range.start));
  std::string out;
  out.reserve(2 * kChunk);
  printer.begin(out);
  // The extent that grows while its neighbours continue it. One that covers nothing is printed too
  // where nothing was asked for, as scripts know it.
  Extent current{.start = range.start};
  uint64_t offset = range.start;
  while (offset < end) {
    auto next = co_await next_extent(backend, offset, end - offset);
    if (!next) {
      console.print(out);
      co_return std::unexpected(
          std::move(next).error().with_context("Could not read file metadata"));
    }
    offset += next->length;
    console.events().progress(offset - range.start, end - range.start);
    if (current.length != 0 && current.continues_as(*next)) {
      current.length += next->length;
      continue;
    }
    if (current.length != 0) {
      if (auto printed = printer.extent(out, current); !printed) {
        console.print(out);
        co_return printed;
      }
      if (out.size() >= kChunk) {
        console.print(out);
        out.clear();
      }
    }
    current = *next;
  }
  auto printed = printer.extent(out, current);
  if (printed) printer.end(out);
  console.print(out);
  co_return printed;
}

// What --svg and --chart ask for.
struct Picture {
  std::optional<std::string> svg;  // a file's name, "-" for standard output
  bool text = false;
};

Result<void> write_picture(const std::string& path, std::string_view text) {
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  const auto failed = [&] {
    const int code = errno;
    struct stat status = {};
    // What was begun goes, unless it is a device or a pipe.
    if (descriptor >= 0 && fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) {
      unlink(path.c_str());
    }
    if (descriptor >= 0) close(descriptor);
    return std::unexpected(Error::from_errno(code, "Could not write '" + path + "'"));
  };
  if (descriptor < 0) return failed();
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0 && errno != EINTR) return failed();
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
  }
  if (close(descriptor) != 0) {
    return std::unexpected(Error::from_errno(errno, "Could not write '" + path + "'"));
  }
  return {};
}

unsigned terminal_columns() {
  winsize size = {};
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0;
  return known ? size.ws_col : 80;
}

io::Task<Result<void>> draw(Console& console, block::Backend& backend, Picture picture) {
  PLATTER_CO_ASSIGN(const Chart chart, co_await collect_chart(backend));
  if (picture.text) {
    console.print(chart_text(chart, terminal_columns(), isatty(STDOUT_FILENO) != 0));
  }
  if (!picture.svg) co_return Result<void>{};
  if (*picture.svg == "-") {
    console.print(chart_svg(chart));
    co_return Result<void>{};
  }
  co_return write_picture(*picture.svg, chart_svg(chart));
}

io::Task<int> run_in(Session& session, const Invocation& invocation, ImageArgument image,
                     MapRange range, bool json, Picture picture) {
  auto backend = co_await open_image(session, std::move(image));
  if (!backend) co_return invocation.fail(backend.error());
  HumanPrinter human;
  JsonPrinter machine;
  auto printed = picture.text || picture.svg
                     ? co_await draw(invocation.console, **backend, std::move(picture))
                     : co_await print_map(
                           invocation.console, **backend, range,
                           json ? static_cast<Printer&>(machine) : static_cast<Printer&>(human));
  const int status = printed ? 0
                             : invocation.fail(explain(std::move(printed).error(), "map",
                                                       (*backend)->node().filename()));
  co_return co_await close_image(invocation, **backend, status);
}

int run_map(Invocation& invocation) {
  MapRange range;
  if (auto text = invocation.value("start-offset")) {
    auto start = parse_size_argument(invocation, "start offset", *text);
    if (!start) return 1;
    range.start = *start;
  }
  if (auto text = invocation.value("max-length")) {
    auto length = parse_size_argument(invocation, "max length", *text);
    if (!length) return 1;
    range.max_length = *length;
  }
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  const Picture picture = {.svg = invocation.value("svg"), .text = invocation.has("chart")};
  if ((picture.svg || picture.text) &&
      (*json || invocation.has("start-offset") || invocation.has("max-length"))) {
    return invocation.fail(
        "--svg and --chart show the whole image: they go without -s, -l and --output");
  }
  ImageArgument image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = invocation.value_or("format", ""),
      .force_share = invocation.has("force-share"),
      .flags = {.read_only = true},
      .cache = {},
  };
  return run_session(invocation, [&](Session& session) {
    return run_in(session, invocation, image, range, *json, picture);
  });
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'f',
     .name = "format",
     .argument = "FMT",
     .help = "format of the image (default: found out)"},
    {.letter = 's', .name = "start-offset", .argument = "OFFSET", .help = "where to begin"},
    {.letter = 'l', .name = "max-length", .argument = "LENGTH", .help = "how much to show"},
    {.name = "output", .argument = "FORM", .help = "human or json"},
    {.name = "chart", .help = "draw where everything lies, as text", .native = true},
    {.name = "svg",
     .argument = "IMAGE.svg",
     .help = "draw where everything lies, as a picture ('-': to standard output)",
     .native = true},
    {.letter = 'U', .name = "force-share", .help = "open it even while somebody writes to it"},
};

}  // namespace

extern const Command kMapCommand;
const Command kMapCommand = {
    .name = "map",
    .summary = "Show where the data of an image is, and in which file.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_map,
};

}  // namespace platter::tool
