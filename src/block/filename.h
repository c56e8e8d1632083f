// Names of images: paths, "protocol:rest" and "json:{...}".
#pragma once

#include <string>
#include <string_view>

#include "block/driver.h"
#include "block/registry.h"
#include "platter/error.h"

namespace platter::block {

inline constexpr std::string_view kJsonPrefix = "json:";

// The part before a ':' that no '/' precedes ("./a:b" has none); empty: none.
std::string_view protocol_prefix(std::string_view filename);
// "Unknown protocol 'x'" if it has a prefix that no driver has; `file` if it has none.
Result<const DriverType*> protocol_of(const DriverRegistry& registry, std::string_view filename);

// `name` as seen from the directory of the file `base`, both plain paths.
std::string combine_paths(std::string_view base, std::string_view name);

// The name by which `node` can be opened again: its primary child's if nothing else matters, else
// json:{...}.
std::string reopening_name(const Node& node);
// The path, where there is one, that relative names in `node`'s image start from: of the file that
// holds it, where json:{...} is its own name.
const std::string& naming_file(const Node& node);
std::string absolute_directory(std::string_view filename);

// Whether `policy` lets the image `image` (a path) name the file `target` (resolved). `written` is
// the name as the image has it, `what` what the file is to the image.
Result<void> check_reach(const OpenPolicy& policy, const std::string& image,
                         const std::string& target, const std::string& written,
                         std::string_view what = "Backing file");

}  // namespace platter::block
