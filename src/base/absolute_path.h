// What a path means wherever the process goes: a daemon leaves the directory that it was started
// in.
#pragma once

#include <string>

#include "platter/error.h"

namespace platter::base {

// Nothing needs to be there. EINVAL: the path is empty.
Result<std::string> absolute_path(const std::string& path);

}  // namespace platter::base
