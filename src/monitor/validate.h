// Whether a value is what the schema says. The messages are those that QMP clients know.
#pragma once

#include "base/json.h"
#include "monitor/schema.h"
#include "platter/error.h"

namespace platter::monitor {

// `arguments` is an object. The first thing that is wrong, in the order of the schema; what the
// schema lacks comes last: "Parameter 'size' is missing", "Invalid parameter type for
// 'cache.direct', expected: boolean", "Parameter 'driver' does not accept value 'x'", "Parameter
// 'file.x' is unexpected".
Result<void> validate(const Type& type, const base::Json& arguments);

}  // namespace platter::monitor
