// Definitions: what a command line says of a thing that the schema has a type for, as JSON or as
// words: "driver=qcow2,file.driver=file,file.filename=a".
#pragma once

#include <string_view>

#include "base/json.h"
#include "monitor/schema.h"
#include "platter/error.h"

namespace platter::monitor {

// An object that has passed the schema (monitor/validate.h). `implied_key` is what the first word
// may leave out.
Result<base::Json> parse_definition(const Type& type, std::string_view text,
                                    std::string_view implied_key);

}  // namespace platter::monitor
