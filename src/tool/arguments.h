// Readings of option values that several commands share, with the messages that go with them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/options.h"
#include "block/types.h"
#include "platter/error.h"
#include "tool/command.h"

namespace platter::tool {

// --output: whether it is json rather than human.
Result<bool> json_output(const Invocation& invocation);

// What --image-opts beside a format means to every command.
Result<void> check_common_options(const Invocation& invocation);

// A size in bytes; `what` ("image size") is for the error, which has been printed if there is no
// value.
std::optional<uint64_t> parse_size_argument(const Invocation& invocation, std::string_view what,
                                            std::string_view text);

// off, metadata, falloc or full.
Result<block::Preallocation> parse_preallocation(std::string_view name);

// Every -o that was given, as one list. The error's text says which list is malformed.
Result<std::string> join_option_lists(const Invocation& invocation);
// Whether such a list asks for help ("help" or "?" among its words).
bool asks_for_help(std::string_view option_list);

}  // namespace platter::tool
