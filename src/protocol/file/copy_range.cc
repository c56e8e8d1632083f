// Copying from file to file inside the kernel: block sharing where the file system has it, and in
// any case no trip through our memory.

#include <unistd.h>

#include <cerrno>

#include "base/try.h"
#include "io/reactor.h"
#include "protocol/file/driver.h"

namespace platter::protocol {
namespace {

// One call: bounds the time until a cancellation is noticed where the bytes are really copied.
constexpr uint64_t kMaxStep = uint64_t{16} << 20;

// Errors that mean "not with these two files", after which reading and writing may still work.
bool is_refusal(int code) {
  return code == EXDEV || code == EOPNOTSUPP || code == ENOSYS || code == EINVAL || code == EBADF ||
         code == EPERM || code == ETXTBSY || code == EISDIR;
}

}  // namespace

io::Task<Result<void>> FileDriver::copy_range(block::Driver& source, uint64_t source_offset,
                                              uint64_t offset, uint64_t length) {
  auto* other = dynamic_cast<FileDriver*>(&source);
  const int to = file().descriptor();
  const int from = other != nullptr ? other->file().descriptor() : -1;
  if (from < 0 || to < 0 || !copies_.load(std::memory_order_relaxed)) co_return fail_errno(ENOTSUP);
  forget_extent();
  while (length != 0) {
    const auto step = [=]() -> int64_t {
      auto at = static_cast<off_t>(source_offset);
      auto target = static_cast<off_t>(offset);
      const ssize_t copied = copy_file_range(from, &at, to, &target, std::min(length, kMaxStep), 0);
      return copied < 0 ? -errno : copied;
    };
    const int64_t copied = co_await io::Reactor::current()->call(step);
    // The source has become shorter: what it reads as now is for a read to find out.
    if (copied == 0) co_return fail_errno(ENOTSUP);
    if (copied == -EINTR) continue;
    if (copied < 0) {
      const int code = static_cast<int>(-copied);
      if (!is_refusal(code)) co_return fail_errno(code);
      copies_.store(false, std::memory_order_relaxed);
      co_return fail_errno(ENOTSUP);
    }
    grown_to(offset + static_cast<uint64_t>(copied));
    source_offset += static_cast<uint64_t>(copied);
    offset += static_cast<uint64_t>(copied);
    length -= static_cast<uint64_t>(copied);
  }
  co_return Result<void>{};
}

}  // namespace platter::protocol
