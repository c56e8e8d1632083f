// length, info, map, alloc.
#include <cstring>

#include "base/try.h"
#include "fmt/format.h"
#include "tool/io_shell/numbers.h"
#include "tool/io_shell/shell.h"
#include "tool/json_text.h"

namespace platter::tool::io_shell {

extern const IoCommand kAlloc, kInfo, kLength, kMap;

namespace {

std::string in_units(uint64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

bool run_length(Shell& shell, const std::vector<std::string>&) {
  shell.print(in_units(shell.backend().size()) + "\n");
  return true;
}

bool run_info(Shell& shell, const std::vector<std::string>&) {
  block::Node& node = shell.image()->node().skip_filters();
  auto info = node.driver().info();
  if (!info) return shell.fail_error(info.error());
  std::string out =
      fmt::format("format name: {}\ncluster size: {}\nvm state offset: {}\n", node.type().name,
                  in_units(info->cluster_size), in_units(info->vm_state_offset));
  const bool specific = info->specific.is_object();
  if (const auto* data = specific ? info->specific.find("data") : nullptr; data != nullptr) {
    out += "Format specific information:\n";
    print_json_text(out, *data, 1);
  }
  shell.print(out);
  return true;
}

// A run that the image itself, rather than its backing file, does or does not decide.
struct Run {
  uint64_t length = 0;
  bool allocated = false;
};

io::Task<Result<Run>> next_run(block::Backend& backend, uint64_t offset, uint64_t end) {
  block::Node& layer = backend.node().skip_filters();
  block::Node* below = layer.backing() != nullptr ? &layer.backing()->node() : nullptr;
  Run run;
  while (offset < end) {
    PLATTER_CO_ASSIGN(const auto status, co_await backend.status_above(below, offset, end - offset,
                                                                       block::StatusDetail::kFast));
    if (run.length != 0 && status.allocated != run.allocated) break;
    run.allocated = status.allocated;
    run.length += status.length;
    offset += status.length;
  }
  co_return run;
}

bool run_map(Shell& shell, const std::vector<std::string>&) {
  const uint64_t size = shell.backend().size();
  std::string out;
  for (uint64_t offset = 0; offset < size;) {
    auto run = shell.wait(next_run(shell.backend(), offset, size));
    if (!run) {
      shell.print(out);
      return shell.fail_error(
          Error::from_errno(run.error().code(), "Failed to get allocation status"));
    }
    out +=
        fmt::format("{} ({:#x}) bytes {} allocated at offset {} ({:#x})\n", in_units(run->length),
                    run->length, run->allocated ? "   " : "not", in_units(offset), offset);
    offset += run->length;
  }
  shell.print(out);
  return true;
}

bool run_alloc(Shell& shell, const std::vector<std::string>& words) {
  constexpr uint64_t kSectorBytes = 512;
  auto start = parse_bytes(words[1]);
  if (!start) return shell.fail_out(start.error().message());
  uint64_t count = kSectorBytes;
  if (words.size() == 3) {
    auto given = parse_bytes(words[2]);
    if (!given) return shell.fail_out(given.error().message());
    count = *given;
  }
  const uint64_t size = shell.backend().size();
  count = std::min(count, size - std::min(*start, size));
  uint64_t allocated = 0;
  for (uint64_t offset = *start; offset < *start + count;) {
    auto run = shell.wait(next_run(shell.backend(), offset, *start + count));
    if (!run) {
      return shell.fail_out(
          fmt::format("is_allocated failed: {}", std::strerror(run.error().code())));
    }
    if (run->allocated) allocated += run->length;
    offset += run->length;
  }
  shell.print(
      fmt::format("{}/{} bytes allocated at offset {}\n", allocated, count, in_units(*start)));
  return true;
}

}  // namespace

const IoCommand kLength = {
    .name = "length",
    .alias = "l",
    .summary = "gets the length of the current file",
    .run = run_length,
};

const IoCommand kInfo = {
    .name = "info",
    .alias = "i",
    .summary = "prints information about the current file",
    .run = run_info,
};

const IoCommand kMap = {
    .name = "map",
    .summary = "prints the allocated areas of a file",
    .run = run_map,
};

const IoCommand kAlloc = {
    .name = "alloc",
    .alias = "a",
    .min_arguments = 1,
    .max_arguments = 2,
    .arguments = "offset [count]",
    .summary = "checks if offset is allocated in the file",
    .run = run_alloc,
};

}  // namespace platter::tool::io_shell
