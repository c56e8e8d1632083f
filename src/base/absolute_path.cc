#include "base/absolute_path.h"

#include <filesystem>
#include <system_error>

namespace platter::base {

Result<std::string> absolute_path(const std::string& path) {
  std::error_code failed;
  std::string found = std::filesystem::absolute(path, failed);
  if (failed) {
    return std::unexpected(
        Error::from_errno(failed.value(), "Could not find the directory of '" + path + "'"));
  }
  return found;
}

}  // namespace platter::base
