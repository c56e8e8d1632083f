// What fuzz targets have in common that open encrypted images: the one secret that there is, and
// whether trying it is quick. An input could make key derivation as long as it likes.
#pragma once

#include <cstdint>
#include <string_view>

#include "block/secret_source.h"
#include "crypto/luks_header.h"

namespace platter::fuzz {

inline constexpr uint64_t kMaxIterations = 20'000;

// "abc", by whatever id.
class OneSecret final : public block::SecretSource {
 public:
  Result<base::SecretBytes> secret(std::string_view) const override {
    return base::SecretBytes::copy_of(std::string_view("abc"));
  }
};

inline bool is_quick(const crypto::LuksHeader& header) {
  uint64_t iterations = 0;
  for (const auto& slot : header.slots) {
    if (slot.active) iterations += uint64_t{slot.iterations} + header.digest_iterations;
  }
  return iterations <= kMaxIterations;
}

}  // namespace platter::fuzz
