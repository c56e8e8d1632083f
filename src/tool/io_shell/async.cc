// aio_read, aio_write, aio_flush: requests that run beside the commands that follow.
#include <cstring>
#include <memory>

#include "base/math.h"
#include "base/try.h"
#include "tool/io_shell/numbers.h"
#include "tool/io_shell/transfer.h"

namespace platter::tool::io_shell {

extern const IoCommand kAioFlush, kAioRead, kAioWrite;

namespace {

using block::WriteFlag;
using block::WriteFlags;

// A request under way. Its task owns it.
struct AsyncRequest {
  explicit AsyncRequest(Shell& the_shell) : shell(the_shell) {}

  Shell& shell;
  Ranges ranges;
  ReportStyle style = ReportStyle::kFull;
  bool dump = false;
  std::optional<uint8_t> pattern;
  WriteFlags flags;
  std::optional<TransferBuffer> buffer;  // nothing: a write of zeroes
  Stopwatch stopwatch;

  void say(std::string_view text) {
    shell.print(text);
    shell.session().console().flush();
  }
  std::string report(std::string_view operation) const {
    return report_text({.operation = operation,
                        .offset = ranges.offset,
                        .bytes = ranges.total,
                        .elapsed_ns = stopwatch.elapsed_ns(),
                        .style = style});
  }
};

io::Task<void> read_later(std::unique_ptr<AsyncRequest> request) {
  AsyncRequest& r = *request;
  auto done = co_await r.shell.backend().read(r.ranges.offset, r.buffer->view());
  if (!done) {
    r.say(failure_line("readv", done.error()) + "\n");
    co_return;
  }
  std::string out;
  if (r.pattern && !is_filled(r.buffer->bytes(), *r.pattern))
    out += mismatch_line(r.ranges.offset, r.ranges.total) + "\n";
  if (r.dump && r.style != ReportStyle::kQuiet) out += hex_dump(r.ranges.offset, r.buffer->bytes());
  r.say(out + r.report("read"));
}

io::Task<void> write_later(std::unique_ptr<AsyncRequest> request) {
  AsyncRequest& r = *request;
  block::Backend& backend = r.shell.backend();
  Result<void> done;
  if (r.buffer) {
    done = co_await backend.write(r.ranges.offset, r.buffer->view(), r.flags);
  } else {
    done = co_await backend.zero(r.ranges.offset, r.ranges.total, r.flags);
  }
  r.say(done ? r.report("wrote") : failure_line("aio_write", done.error()) + "\n");
}

bool run_aio_read(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "CiP:qrv");
  if (!words) return shell.fail_words(kAioRead, words.error());
  auto request = std::make_unique<AsyncRequest>(shell);
  if (auto text = words->value('P')) {
    auto pattern = parse_pattern(*text);
    if (!pattern) return shell.fail_out(pattern.error().message());
    request->pattern = *pattern;
  }
  if (words->has('i')) {
    shell.print("injecting invalid read request\n");
    return true;
  }
  if (words->operands().size() < 2) return shell.fail_usage(kAioRead);
  auto ranges = parse_ranges(words->operands());
  if (!ranges) return shell.fail_out(ranges.error().message());
  auto buffer = TransferBuffer::make(shell, ranges->lengths);
  if (!buffer) return shell.fail_out(failure_line("readv", buffer.error()));
  request->ranges = std::move(*ranges);
  request->buffer = std::move(*buffer);
  request->style = report_style(*words);
  request->dump = words->has('v');
  shell.start(read_later(std::move(request)));
  return true;
}

// The lengths of what is to be written, with the memory for it unless it is zeroes.
bool prepare_write(Shell& shell, const Words& words, uint8_t pattern, AsyncRequest& request) {
  if (words.has('z')) {
    if (words.operands().size() != 2)
      return shell.fail_out("-z supports only a single length parameter");
    auto offset = parse_bytes(words.operands()[0]);
    if (!offset) return shell.fail_out(offset.error().message());
    auto length = parse_bytes(words.operands()[1]);
    if (!length) return shell.fail_out(length.error().message());
    request.ranges = {*offset, {*length}, *length};
    return true;
  }
  auto ranges = parse_ranges(words.operands());
  if (!ranges) return shell.fail_out(ranges.error().message());
  auto buffer = TransferBuffer::make(shell, ranges->lengths);
  if (!buffer) return shell.fail_out(failure_line("aio_write", buffer.error()));
  if (base::range_within(ranges->offset, ranges->total, shell.backend().size()))
    std::memset(buffer->bytes().data(), pattern, buffer->bytes().size());
  request.ranges = std::move(*ranges);
  request.buffer = std::move(*buffer);
  return true;
}

bool run_aio_write(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "CfiP:qruz");
  if (!words) return shell.fail_words(kAioWrite, words.error());
  uint8_t pattern = kDefaultPattern;
  if (auto text = words->value('P')) {
    auto value = parse_pattern(*text);
    if (!value) return shell.fail_out(value.error().message());
    pattern = *value;
  }
  if (words->has('i')) {
    shell.print("injecting invalid write request\n");
    return true;
  }
  if (words->operands().size() < 2) return shell.fail_usage(kAioWrite);
  if (words->has('u') && !words->has('z')) return shell.fail_out("-u requires -z to be specified");
  auto request = std::make_unique<AsyncRequest>(shell);
  if (!prepare_write(shell, *words, pattern, *request)) return false;
  if (words->has('f')) request->flags |= WriteFlag::kFua;
  if (words->has('u')) request->flags |= WriteFlag::kMayUnmap;
  request->style = report_style(*words);
  shell.start(write_later(std::move(request)));
  return true;
}

bool run_aio_flush(Shell& shell, const std::vector<std::string>&) {
  shell.wait_for_started();
  return true;
}

}  // namespace

const IoCommand kAioRead = {
    .name = "aio_read",
    .min_arguments = 2,
    .max_arguments = -1,
    .arguments = "[-Ciqrv] [-P pattern] off len [len..]",
    .summary = "asynchronously reads a number of bytes",
    .help =
        "\n"
        " Starts a read and goes on with the next command; prints when the read has ended.\n"
        " aio_flush waits for it. How the read ends does not count for the exit status.\n\n"
        " -i  make no request (it is accounted as an invalid one)\n"
        " -P  check that every byte is this one\n"
        " -r  accepted, means nothing: all memory is as good as registered\n"
        " -v  show the bytes\n"
        " -C  print the figures in a form for programs\n"
        " -q  print no figures\n",
    .run = run_aio_read,
};

const IoCommand kAioWrite = {
    .name = "aio_write",
    .min_arguments = 2,
    .max_arguments = -1,
    .access = Access::kWrite,
    .arguments = "[-Cfiqruz] [-P pattern] off len [len..]",
    .summary = "asynchronously writes a number of bytes",
    .help =
        "\n"
        " Starts a write and goes on with the next command; prints when the write has ended.\n"
        " aio_flush waits for it. How the write ends does not count for the exit status.\n\n"
        " -f  have it on stable storage when it completes\n"
        " -i  make no request (it is accounted as an invalid one)\n"
        " -P  write this byte\n"
        " -r  accepted, means nothing: all memory is as good as registered\n"
        " -u  with -z: the range may be deallocated\n"
        " -z  write zeroes\n"
        " -C  print the figures in a form for programs\n"
        " -q  print no figures\n",
    .run = run_aio_write,
};

const IoCommand kAioFlush = {
    .name = "aio_flush",
    .summary = "completes all outstanding aio requests",
    .run = run_aio_flush,
};

}  // namespace platter::tool::io_shell
