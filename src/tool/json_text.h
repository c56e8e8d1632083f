// JSON values as people read them, in the form that qemu-img prints.
#pragma once

#include <string>

#include "base/json.h"

namespace platter::tool {

// Appends one "key: value" a line for an object or array; what is nested stands below its key, four
// spaces further in. Dashes in keys become blanks. `depth`: of the indentation.
void print_json_text(std::string& out, const base::Json& value, unsigned depth);

}  // namespace platter::tool
