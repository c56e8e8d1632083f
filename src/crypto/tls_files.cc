#include "crypto/tls_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/try.h"
#include "io/descriptor.h"

namespace platter::crypto {

Result<void> check_readable(const std::string& path) {
  if (access(path.c_str(), R_OK) == 0) return {};
  return std::unexpected(
      Error::from_errno(errno, fmt::format("Unable to access credentials {}", path)));
}

Result<base::SecretBytes> read_tls_file(const std::string& path, std::string_view what) {
  auto failed = [&](int code) {
    return std::unexpected(Error::from_errno(code, fmt::format("{} '{}'", what, path)));
  };
  // A pipe is not waited for.
  const io::Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return failed(errno);
  struct stat found{};
  if (fstat(file.get(), &found) != 0) return failed(errno);
  if (S_ISDIR(found.st_mode)) return failed(EISDIR);
  if (!S_ISREG(found.st_mode))
    return fail(EINVAL, fmt::format("{} '{}': it is not a regular file", what, path));
  base::SecretBytes buffer(kMaxTlsFileBytes + 1);
  size_t size = 0;
  while (size < buffer.size()) {
    const ssize_t got = read(file.get(), buffer.data() + size, buffer.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(errno);
    if (got == 0) return base::SecretBytes::copy_of(buffer.span().first(size));
    size += static_cast<size_t>(got);
  }
  return fail(EFBIG,
              fmt::format("{} '{}': it has more than {} bytes", what, path, kMaxTlsFileBytes));
}

Result<std::optional<base::SecretBytes>> read_tls_file_if_any(const std::string& path,
                                                              std::string_view what) {
  auto bytes = read_tls_file(path, what);
  if (!bytes && bytes.error().code() == ENOENT) return std::nullopt;
  if (!bytes) return std::unexpected(std::move(bytes).error());
  return std::optional(std::move(*bytes));
}

std::optional<base::SecretBytes> find_pre_shared_key(std::string_view text, std::string_view user) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (!line.starts_with(user) || !line.substr(user.size()).starts_with(':')) continue;
    line.remove_prefix(user.size() + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    return base::SecretBytes::copy_of(line);
  }
  return std::nullopt;
}

}  // namespace platter::crypto
