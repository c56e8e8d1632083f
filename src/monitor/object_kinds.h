// Kinds of objects by their properties: credentials (monitor/tls_objects.h), authorisation
// (monitor/authorization.h), and those of which nothing but their definition is known. Secrets,
// throttle groups and I/O threads are in monitor/objects.h.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/options.h"
#include "platter/error.h"

namespace platter::monitor {

struct KindProperty {
  std::string_view name;
  std::string_view type;  // "string", "bool", "int", or an enum of ours (object_kinds.cc)
  std::string_view fallback = {};
  bool required = false;
};

struct ObjectKind {
  std::string_view name;
  std::string_view parent;
  std::span<const KindProperty> properties;
  // Of values that have their types; null: any will do.
  Result<void> (*check)(const base::Json& values) = nullptr;
  bool only_one = false;
};

// By name.
std::span<const ObjectKind> object_kinds();
const ObjectKind* find_object_kind(std::string_view name);  // or null

// All of the kind's properties with the values that `given` says, or else their own: an object.
// What is not a property of the kind is refused.
Result<base::Json> read_properties(const ObjectKind& kind, base::Options given);

// The same for an authz-list that stands in a file: {"policy": ..., "rules": [...]}.
Result<base::Json> read_access_list(const base::Json& list);

}  // namespace platter::monitor
