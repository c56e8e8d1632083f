// Making a new image as a command line describes it: what `create` does, and `convert` for its
// target.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tool/command.h"
#include "tool/session.h"

namespace platter::tool {

struct NewImage {
  std::string filename;
  std::string format;
  std::string option_list;       // -o, joined
  std::optional<uint64_t> size;  // not in option_list
  std::optional<std::string> backing_file;
  std::optional<std::string> backing_format;
  bool backing_unchecked = false;  // -u: the backing file is not opened
  bool quiet = true;               // otherwise prints "Formatting '...', ..."
};

// Errors are "FILENAME: why". What it began to make is removed when it fails or is interrupted.
io::Task<Result<void>> create_image(Session& session, NewImage image);

// The text of `-o help`: of the format, and of the protocol that `filename` is of unless it is
// empty.
Result<std::string> create_option_help(const block::DriverRegistry& registry,
                                       std::string_view format, std::string_view filename);

// A format driver that can create images, for a target name of a protocol that can.
struct CreateDrivers {
  const block::DriverType* format;
  const block::DriverType* protocol;
};
Result<CreateDrivers> find_create_drivers(const block::DriverRegistry& registry,
                                          std::string_view format, std::string_view filename);

}  // namespace platter::tool
