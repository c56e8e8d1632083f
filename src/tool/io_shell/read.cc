// read, readv.
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "tool/io_shell/numbers.h"
#include "tool/io_shell/transfer.h"

namespace platter::tool::io_shell {

extern const IoCommand kRead, kReadv;

namespace {

// What is looked at in the bytes that were read: all of them, or a part.
struct Verification {
  uint8_t pattern = 0;
  uint64_t skip = 0;
  uint64_t length = 0;
};

// Reads and says what came of it. `failure_name`: what it is called if it fails.
bool read_and_report(Shell& shell, const Words& words, const Ranges& ranges,
                     std::optional<Verification> verification, std::string_view failure_name,
                     block::VmStateStore* vm_state = nullptr) {
  auto buffer = TransferBuffer::make(shell, ranges.lengths);
  if (!buffer) return shell.fail_out(failure_line(failure_name, buffer.error()));
  const Stopwatch stopwatch;
  auto done =
      shell.wait(vm_state != nullptr ? vm_state->read_vm_state(ranges.offset, buffer->view())
                                     : shell.backend().read(ranges.offset, buffer->view()));
  const uint64_t elapsed_ns = stopwatch.elapsed_ns();
  if (!done) return shell.fail_out(failure_line(failure_name, done.error()));
  bool matches = true;
  std::string out;
  if (verification) {
    const auto part = buffer->bytes().subspan(verification->skip, verification->length);
    matches = is_filled(part, verification->pattern);
    if (!matches) {
      out += mismatch_line(ranges.offset + verification->skip, verification->length) + "\n";
    }
  }
  if (!words.has('q')) {
    if (words.has('v')) out += hex_dump(ranges.offset, buffer->bytes());
    out += report_text({.operation = "read",
                        .offset = ranges.offset,
                        .bytes = ranges.total,
                        .elapsed_ns = elapsed_ns,
                        .style = report_style(words)});
  }
  shell.print(out);
  return matches;
}

bool run_read(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "bCl:pP:qrs:v");
  if (!words) return shell.fail_words(kRead, words.error());
  std::optional<Verification> verification;
  std::optional<uint64_t> part_offset, part_length;
  for (auto [letter, part] : {std::pair('l', &part_length), std::pair('s', &part_offset)}) {
    if (auto text = words->value(letter)) {
      auto value = parse_bytes(*text);
      if (!value) return shell.fail_out(value.error().message());
      *part = *value;
    }
  }
  const auto pattern = pattern_option(*words);
  if (!pattern) return shell.fail_out(pattern.error().message());
  if (*pattern) verification = Verification{.pattern = **pattern};
  if (words->operands().size() != 2) return shell.fail_usage(kRead);
  const auto range = parse_range(words->operands());
  if (!range) return shell.fail_out(range.error().message());
  if (range->total > block::kMaxRequest) {
    return shell.fail_out(
        fmt::format("length cannot exceed {}, given {}", block::kMaxRequest, words->operands()[1]));
  }
  if (!verification && (part_offset || part_length)) return shell.fail_usage(kRead);
  if (verification) {
    verification->skip = part_offset.value_or(0);
    if (!base::range_within(verification->skip, part_length.value_or(0), range->total)) {
      return shell.fail_out("pattern verification range exceeds end of read data");
    }
    verification->length = part_length.value_or(range->total - verification->skip);
  }
  if (words->has('b')) {
    if (auto wrong = unaligned_line(*range)) return shell.fail_out(*wrong);
    auto* state = shell.backend().node().driver().vm_state_store();
    if (state == nullptr) return shell.fail_out(failure_line("read", Error::from_errno(ENOTSUP)));
    return read_and_report(shell, *words, *range, verification, "read", state);
  }
  return read_and_report(shell, *words, *range, verification, "read");
}

bool run_readv(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "CP:qrv");
  if (!words) return shell.fail_words(kReadv, words.error());
  std::optional<Verification> verification;
  const auto pattern = pattern_option(*words);
  if (!pattern) return shell.fail_out(pattern.error().message());
  if (*pattern) verification = Verification{.pattern = **pattern};
  if (words->operands().size() < 2) return shell.fail_usage(kReadv);
  auto ranges = parse_ranges(words->operands());
  if (!ranges) return shell.fail_out(ranges.error().message());
  if (verification) verification->length = ranges->total;
  return read_and_report(shell, *words, *ranges, verification, "readv");
}

}  // namespace

const IoCommand kRead = {
    .name = "read",
    .alias = "r",
    .min_arguments = 2,
    .max_arguments = -1,
    .arguments = "[-abCqrv] [-P pattern [-s off] [-l len]] off len",
    .summary = "reads a number of bytes at a specified offset",
    .help =
        "\n"
        " Reads one range of the image. 'read -v 512 1k' shows 1 KiB from offset 512.\n\n"
        " -b  read the saved state of a virtual machine, not the disk\n"
        " -l  check only this many bytes (with -P)\n"
        " -p  accepted, means nothing\n"
        " -P  check that every byte is this one\n"
        " -r  accepted, means nothing: all memory is as good as registered\n"
        " -s  begin the check at this offset within the range (with -P)\n"
        " -v  show the bytes\n"
        " -C  print the figures in a form for programs\n"
        " -q  print no figures\n",
    .run = run_read,
};

const IoCommand kReadv = {
    .name = "readv",
    .min_arguments = 2,
    .max_arguments = -1,
    .arguments = "[-Cqrv] [-P pattern] off len [len..]",
    .summary = "reads a number of bytes at a specified offset",
    .help =
        "\n"
        " Reads one range into several pieces of memory, in one request.\n"
        " 'readv -v 512 1k 1k' shows 2 KiB from offset 512.\n\n"
        " -P  check that every byte is this one\n"
        " -r  accepted, means nothing: all memory is as good as registered\n"
        " -v  show the bytes\n"
        " -C  print the figures in a form for programs\n"
        " -q  print no figures\n",
    .run = run_readv,
};

}  // namespace platter::tool::io_shell
