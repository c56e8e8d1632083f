#include "block/registry.h"

#include "base/assert.h"

namespace platter::block {

const DriverType* DriverRegistry::find(std::string_view name) const {
  for (const DriverType* type : types_) {
    if (type->name == name) return type;
  }
  return nullptr;
}

const DriverType* DriverRegistry::find_by_prefix(std::string_view prefix) const {
  if (prefix.empty()) return nullptr;
  for (const DriverType* type : types_) {
    if (type->filename_prefix == prefix) return type;
  }
  return nullptr;
}

const DriverType& DriverRegistry::probe(std::span<const uint8_t> head,
                                        std::string_view filename) const {
  const DriverType* best = find("raw");
  PLATTER_ASSERT(best != nullptr);
  int best_score = 0;
  for (const DriverType* type : types_) {
    if (type->probe == nullptr) continue;
    const int score = type->probe(head, filename);
    if (score > best_score) {
      best = type;
      best_score = score;
    }
  }
  return *best;
}

}  // namespace platter::block
