// zone_report, zone_open, zone_close, zone_finish, zone_reset, zone_append.
#include <cstring>

#include "base/math.h"
#include "fmt/format.h"
#include "tool/io_shell/numbers.h"
#include "tool/io_shell/transfer.h"

namespace platter::tool::io_shell {

extern const IoCommand kZoneAppend, kZoneClose, kZoneFinish, kZoneOpen, kZoneReport, kZoneReset;

namespace {

using block::Zone;
using block::ZoneAction;

constexpr uint64_t kSectorBytes = 512;

// As Linux's tools print one: in sectors.
std::string describe(const Zone& zone) {
  return fmt::format("start: {:#x}, len {:#x}, cap {:#x}, wptr {:#x}, zcond:{}, [type: {}]\n",
                     zone.offset / kSectorBytes, zone.length / kSectorBytes,
                     zone.capacity / kSectorBytes, zone.write_pointer / kSectorBytes,
                     static_cast<unsigned>(zone.state), static_cast<unsigned>(zone.type));
}

bool run_report(Shell& shell, const std::vector<std::string>& words) {
  const auto range = parse_range({words[1], words[2]});
  if (!range) return shell.fail_out(range.error().message());
  const auto failed = [&](const Error& error) {
    return shell.fail_out(failure_line("zone report", error));
  };
  const auto zoned = shell.backend().zoned_characteristics();
  if (!zoned) return failed(Error::from_errno(ENOTSUP));
  const uint64_t there = base::divide_round_up(shell.backend().size(), zoned->zone_size);
  std::vector<Zone> zones(std::min(range->total, there));
  const auto count = shell.wait(shell.backend().zone_report(range->offset, zones));
  if (!count) return failed(count.error());
  std::string out;
  for (size_t i = 0; i < *count; ++i) out += describe(zones[i]);
  shell.print(out);
  return true;
}

bool manage(Shell& shell, const std::vector<std::string>& words, ZoneAction action,
            std::string_view name) {
  const auto range = parse_range({words[1], words[2]});
  if (!range) return shell.fail_out(range.error().message());
  // All of the disk: what has no state is passed over.
  const bool all = range->offset == 0 && range->total == shell.backend().size();
  if (action == ZoneAction::kReset && all) action = ZoneAction::kResetAll;
  const auto done = shell.wait(shell.backend().zone_manage(action, range->offset, range->total));
  return done || shell.fail_out(failure_line(name, done.error()));
}

bool run_open(Shell& shell, const std::vector<std::string>& words) {
  return manage(shell, words, ZoneAction::kOpen, "zone open");
}
bool run_close(Shell& shell, const std::vector<std::string>& words) {
  return manage(shell, words, ZoneAction::kClose, "zone close");
}
bool run_finish(Shell& shell, const std::vector<std::string>& words) {
  return manage(shell, words, ZoneAction::kFinish, "zone finish");
}
bool run_reset(Shell& shell, const std::vector<std::string>& words) {
  return manage(shell, words, ZoneAction::kReset, "zone reset");
}

bool run_append(Shell& shell, const std::vector<std::string>& line) {
  const auto words = Words::parse(line, "pP:");
  if (!words) return shell.fail_words(kZoneAppend, words.error());
  const auto pattern = pattern_option(*words);
  if (!pattern) return shell.fail_out(pattern.error().message());
  if (words->operands().size() < 2) return shell.fail_usage(kZoneAppend);
  const auto ranges = parse_ranges(words->operands());
  if (!ranges) return shell.fail_out(ranges.error().message());
  const auto buffer = TransferBuffer::make(shell, ranges->lengths);
  if (!buffer) return shell.fail_out(failure_line("zone append", buffer.error()));
  std::memset(buffer->bytes().data(), pattern->value_or(kDefaultPattern), ranges->total);
  const auto at = shell.wait(shell.backend().zone_append(ranges->offset, buffer->view()));
  if (!at) return shell.fail_out(failure_line("zone append", at.error()));
  shell.print(fmt::format("After zap done, the append sector is {:#x}\n", *at / kSectorBytes));
  return true;
}

}  // namespace

const IoCommand kZoneReport = {
    .name = "zone_report",
    .alias = "zrp",
    .min_arguments = 2,
    .max_arguments = 2,
    .arguments = "offset number",
    .summary = "prints what zones are like",
    .help =
        "\n"
        " Prints so many zones from the one on that the offset is in: start, length, capacity\n"
        " and write pointer in sectors of 512 bytes.\n"
        " State: 0 no write pointer, 1 empty, 2 open by a write, 3 opened, 4 closed, 13 "
        "read-only,\n"
        " 14 full, 15 offline. Type: 1 conventional, 2 sequential, 3 preferably sequential.\n",
    .run = run_report,
};

const IoCommand kZoneOpen = {
    .name = "zone_open",
    .alias = "zo",
    .min_arguments = 2,
    .max_arguments = 2,
    .access = Access::kWrite,
    .arguments = "offset len",
    .summary = "opens zones",
    .run = run_open,
};

const IoCommand kZoneClose = {
    .name = "zone_close",
    .alias = "zc",
    .min_arguments = 2,
    .max_arguments = 2,
    .access = Access::kWrite,
    .arguments = "offset len",
    .summary = "closes zones",
    .run = run_close,
};

const IoCommand kZoneFinish = {
    .name = "zone_finish",
    .alias = "zf",
    .min_arguments = 2,
    .max_arguments = 2,
    .access = Access::kWrite,
    .arguments = "offset len",
    .summary = "makes zones full",
    .run = run_finish,
};

const IoCommand kZoneReset = {
    .name = "zone_reset",
    .alias = "zrs",
    .min_arguments = 2,
    .max_arguments = 2,
    .access = Access::kWrite,
    .arguments = "offset len",
    .summary = "makes zones empty",
    .help =
        "\n"
        " What is reset is empty, and reads as zeroes. Of the whole disk, conventional zones are\n"
        " passed over.\n",
    .run = run_reset,
};

const IoCommand kZoneAppend = {
    .name = "zone_append",
    .alias = "zap",
    .min_arguments = 2,
    .max_arguments = -1,
    .access = Access::kWrite,
    .arguments = "[-P pattern] offset len [len..]",
    .summary = "writes a number of bytes where a zone goes on",
    .help =
        "\n"
        " Writes at the write pointer of the zone that begins at the offset, in one request, and\n"
        " says at which sector that was.\n\n"
        " -p  accepted, means nothing\n"
        " -P  write this byte\n",
    .run = run_append,
};

}  // namespace platter::tool::io_shell
