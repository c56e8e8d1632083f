// What query-qmp-schema answers: the schema as clients read it. Types that are neither commands,
// events nor built in have numbers for names, as what they are called is nobody's business.
#pragma once

#include "base/json.h"
#include "monitor/schema.h"

namespace platter::monitor {

base::Json introspect(const Schema& schema);

}  // namespace platter::monitor
