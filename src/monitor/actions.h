// Actions: the changes that a transaction is made of. A command that makes one of them alone is a
// transaction of one.
#pragma once

#include <string_view>
#include <vector>

#include "base/json.h"
#include "monitor/control.h"

namespace platter::monitor {

struct Action {
  std::string_view kind;  // as in the schema's TransactionActionKind
  const base::Json* data;
};

// All of them or none: what was done is undone where a later one fails. Meanwhile no request is in
// flight on the nodes that they name. `data` outlives the call.
io::Task<Reply> run_actions(Control& control, std::vector<Action> actions);

}  // namespace platter::monitor
