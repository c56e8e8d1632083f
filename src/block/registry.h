// The drivers a runtime knows. Built-in ones stand in block/builtin.cc, the only file of this room
// that names drivers.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "block/driver.h"

namespace platter::block {

class DriverRegistry {
 public:
  explicit DriverRegistry(std::vector<const DriverType*> types) : types_(std::move(types)) {}
  const DriverType* find(std::string_view name) const;
  // By the prefix of "prefix:rest"; null if none is named so.
  const DriverType* find_by_prefix(std::string_view prefix) const;
  // The best score wins; raw if no format recognises the bytes.
  const DriverType& probe(std::span<const uint8_t> head, std::string_view filename) const;
  std::span<const DriverType* const> types() const { return types_; }

  static DriverRegistry builtin();

 private:
  std::vector<const DriverType*> types_;
};

}  // namespace platter::block
