// write, writev, discard.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "tool/io_shell/numbers.h"
#include "tool/io_shell/transfer.h"

namespace platter::tool::io_shell {

extern const IoCommand kDiscard, kWrite, kWritev;

namespace {

using block::WriteFlag;
using block::WriteFlags;

// Fills `bytes` with what the file holds, over and over.
Result<void> fill_from_file(std::span<uint8_t> bytes, const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "re"), std::fclose);
  if (file == nullptr) return std::unexpected(Error::from_errno(errno, path));
  const size_t held = std::fread(bytes.data(), 1, bytes.size(), file.get());
  if (std::ferror(file.get()) != 0) return std::unexpected(Error::from_errno(errno, path));
  if (held == 0) return fail(EINVAL, path + ": file is empty");
  for (size_t done = held; done < bytes.size();) {
    const size_t piece = std::min(done, bytes.size() - done);
    std::memcpy(bytes.data() + done, bytes.data(), piece);
    done += piece;
  }
  return {};
}

bool report_write(Shell& shell, const Words& words, std::string_view failure_name,
                  const Ranges& ranges, const Result<void>& done, uint64_t elapsed_ns) {
  if (!done) return shell.fail_out(failure_line(failure_name, done.error()));
  shell.print(report_text({.operation = "wrote",
                           .offset = ranges.offset,
                           .bytes = ranges.total,
                           .elapsed_ns = elapsed_ns,
                           .style = report_style(words)}));
  return true;
}

// Writes memory full of `pattern`, or of the file's content.
bool write_data(Shell& shell, const Words& words, const Ranges& ranges, uint8_t pattern,
                const std::optional<std::string>& file, WriteFlags flags,
                std::string_view failure_name, block::VmStateStore* vm_state = nullptr) {
  auto buffer = TransferBuffer::make(shell, ranges.lengths);
  if (!buffer) return shell.fail_out(failure_line(failure_name, buffer.error()));
  if (file) {
    if (auto filled = fill_from_file(buffer->bytes(), *file); !filled)
      return shell.fail_err(filled.error().message());
  } else if (vm_state != nullptr ||
             base::range_within(ranges.offset, ranges.total, shell.backend().size())) {
    // What cannot be written needs no content.
    std::memset(buffer->bytes().data(), pattern, buffer->bytes().size());
  }
  const Stopwatch stopwatch;
  auto done =
      shell.wait(vm_state != nullptr ? vm_state->write_vm_state(ranges.offset, buffer->view())
                                     : shell.backend().write(ranges.offset, buffer->view(), flags));
  return report_write(shell, words, failure_name, ranges, done, stopwatch.elapsed_ns());
}

// What is wrong with the options of `write`; nothing: they go together.
std::optional<std::string_view> conflict(const Words& words) {
  if (words.has('b') && words.has('z')) return "-b and -z cannot be specified at the same time";
  if (words.has('f') && (words.has('b') || words.has('c')))
    return "-f and -b or -c cannot be specified at the same time";
  if (words.has('n') && !words.has('z')) return "-n requires -z to be specified";
  if (words.has('u') && !words.has('z')) return "-u requires -z to be specified";
  if (words.has('z') + words.has('P') + words.has('s') > 1)
    return "Only one of -z, -P, and -s can be specified at the same time";
  return std::nullopt;
}

WriteFlags write_flags(const Words& words) {
  WriteFlags flags;
  if (words.has('f')) flags |= WriteFlag::kFua;
  if (words.has('u')) flags |= WriteFlag::kMayUnmap;
  if (words.has('n')) flags |= WriteFlag::kNoFallback;
  return flags;
}

bool run_write(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "bcCfnpP:qrs:uz");
  if (!words) return shell.fail_words(kWrite, words.error());
  const auto pattern = pattern_option(*words);
  if (!pattern) return shell.fail_out(pattern.error().message());
  if (words->operands().size() != 2) return shell.fail_usage(kWrite);
  if (auto wrong = conflict(*words)) return shell.fail_out(*wrong);
  const auto range = parse_range(words->operands());
  if (!range) return shell.fail_out(range.error().message());
  if (range->total > block::kMaxRequest && !words->has('n')) {
    return shell.fail_out(fmt::format("length cannot exceed {} without -n, given {}",
                                      block::kMaxRequest, words->operands()[1]));
  }
  if (words->has('b') || words->has('c')) {
    if (auto wrong = unaligned_line(*range)) return shell.fail_out(*wrong);
  }
  WriteFlags flags = write_flags(*words);
  if (words->has('b')) {
    auto* state = shell.backend().node().driver().vm_state_store();
    if (state == nullptr) return shell.fail_out(failure_line("write", Error::from_errno(ENOTSUP)));
    return write_data(shell, *words, *range, pattern->value_or(kDefaultPattern), words->value('s'),
                      {}, "write", state);
  }
  if (words->has('z')) {
    const Stopwatch stopwatch;
    auto done = shell.wait(shell.backend().zero(range->offset, range->total, flags));
    return report_write(shell, *words, "write", *range, done, stopwatch.elapsed_ns());
  }
  if (words->has('c')) flags |= WriteFlag::kCompressed;
  return write_data(shell, *words, *range, pattern->value_or(kDefaultPattern), words->value('s'),
                    flags, "write");
}

bool run_writev(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "CfP:qr");
  if (!words) return shell.fail_words(kWritev, words.error());
  const auto pattern = pattern_option(*words);
  if (!pattern) return shell.fail_out(pattern.error().message());
  if (words->operands().size() < 2) return shell.fail_usage(kWritev);
  auto ranges = parse_ranges(words->operands());
  if (!ranges) return shell.fail_out(ranges.error().message());
  return write_data(shell, *words, *ranges, pattern->value_or(kDefaultPattern), std::nullopt,
                    write_flags(*words), "writev");
}

bool run_discard(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "Cq");
  if (!words) return shell.fail_words(kDiscard, words.error());
  if (words->operands().size() != 2) return shell.fail_usage(kDiscard);
  const auto range = parse_range(words->operands());
  if (!range) return shell.fail_out(range.error().message());
  if (range->total > block::kMaxRequest) {
    return shell.fail_out(
        fmt::format("length cannot exceed {}, given {}", block::kMaxRequest, words->operands()[1]));
  }
  const Stopwatch stopwatch;
  auto done = shell.wait(shell.backend().discard(range->offset, range->total));
  if (!done) return shell.fail_out(failure_line("discard", done.error()));
  shell.print(report_text({.operation = "discard",
                           .offset = range->offset,
                           .bytes = range->total,
                           .elapsed_ns = stopwatch.elapsed_ns(),
                           .style = report_style(*words)}));
  return true;
}

}  // namespace

const IoCommand kWrite = {
    .name = "write",
    .alias = "w",
    .min_arguments = 2,
    .max_arguments = -1,
    .access = Access::kWrite,
    .arguments = "[-bcCfnqruz] [-P pattern | -s source_file] off len",
    .summary = "writes a number of bytes at a specified offset",
    .help =
        "\n"
        " Writes one range of the image, with bytes of 0xcd unless told otherwise.\n"
        " 'write 512 1k' writes 1 KiB at offset 512.\n\n"
        " -b  write the saved state of a virtual machine, not the disk\n"
        " -c  write compressed\n"
        " -f  have it on stable storage when it completes\n"
        " -n  with -z: fail rather than write zeroes as data\n"
        " -p  accepted, means nothing\n"
        " -P  write this byte\n"
        " -r  accepted, means nothing: all memory is as good as registered\n"
        " -s  write what this file holds, repeated as needed\n"
        " -u  with -z: the range may be deallocated\n"
        " -z  write zeroes\n"
        " -C  print the figures in a form for programs\n"
        " -q  print no figures\n",
    .run = run_write,
};

const IoCommand kWritev = {
    .name = "writev",
    .min_arguments = 2,
    .max_arguments = -1,
    .access = Access::kWrite,
    .arguments = "[-Cfqr] [-P pattern] off len [len..]",
    .summary = "writes a number of bytes at a specified offset",
    .help =
        "\n"
        " Writes one range from several pieces of memory, in one request, with bytes of 0xcd\n"
        " unless told otherwise. 'writev 512 1k 1k' writes 2 KiB at offset 512.\n\n"
        " -f  have it on stable storage when it completes\n"
        " -P  write this byte\n"
        " -r  accepted, means nothing: all memory is as good as registered\n"
        " -C  print the figures in a form for programs\n"
        " -q  print no figures\n",
    .run = run_writev,
};

const IoCommand kDiscard = {
    .name = "discard",
    .alias = "d",
    .min_arguments = 2,
    .max_arguments = -1,
    .access = Access::kWrite,
    .arguments = "[-Cq] off len",
    .summary = "discards a number of bytes at a specified offset",
    .help =
        "\n"
        " Tells the image that what a range holds is not needed any more.\n"
        " 'discard 512 1k' discards 1 KiB from offset 512.\n\n"
        " -C  print the figures in a form for programs\n"
        " -q  print no figures\n",
    .run = run_discard,
};

}  // namespace platter::tool::io_shell
