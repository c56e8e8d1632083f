#include "block/types.h"

#include <array>
#include <utility>

namespace platter::block {

std::string permission_names(Permissions permissions) {
  static constexpr std::array<std::pair<Permission, std::string_view>, 4> kNames = {{
      {Permission::kConsistentRead, "consistent read"},
      {Permission::kWrite, "write"},
      {Permission::kWriteUnchanged, "write unchanged"},
      {Permission::kResize, "resize"},
  }};
  std::string names;
  for (auto [permission, name] : kNames) {
    if (!permissions.has(permission)) continue;
    if (!names.empty()) names += ", ";
    names += name;
  }
  return names;
}

}  // namespace platter::block
