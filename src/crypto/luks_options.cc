#include "crypto/luks_options.h"

#include <cerrno>

#include "base/try.h"
#include "crypto/sector_cipher.h"
#include "fmt/format.h"

namespace platter::crypto {
namespace {

class Words {
 public:
  Words(const base::OptionSet& options, std::string_view prefix)
      : options_(options), prefix_(prefix) {}

  bool given(std::string_view name) const { return options_.given(full(name)); }
  std::optional<std::string> text(std::string_view name) const {
    if (!given(name)) return std::nullopt;
    return options_.get_string(full(name));
  }
  std::optional<uint64_t> number(std::string_view name) const {
    if (!given(name)) return std::nullopt;
    return options_.get_number(full(name));
  }

 private:
  std::string full(std::string_view name) const { return prefix_ + std::string(name); }
  const base::OptionSet& options_;
  std::string prefix_;
};

std::unexpected<Error> bad_value(std::string_view name, std::string_view value) {
  return fail(EINVAL, fmt::format("Parameter '{}' does not accept value '{}'", name, value));
}

// Names of algorithms that other programs have for other purposes.
bool is_known_elsewhere(std::string_view cipher) { return cipher == "des" || cipher == "3des"; }

Result<void> parse_cipher(const Words& words, CipherSpec& cipher) {
  if (const auto name = words.text("cipher-alg")) {
    const auto found = find_cipher_algorithm(*name);
    if (!found && is_known_elsewhere(*name))
      return fail(ENOTSUP, fmt::format("Algorithm '{}' not supported", *name));
    if (!found) return bad_value("cipher-alg", *name);
    cipher.algorithm = *found;
  }
  if (const auto name = words.text("cipher-mode")) {
    const auto found = find_cipher_mode(*name);
    if (!found) return bad_value("cipher-mode", *name);
    cipher.mode = *found;
  }
  return {};
}

Result<void> parse_iv(const Words& words, CipherSpec& cipher) {
  if (const auto name = words.text("ivgen-alg")) {
    const auto found = find_iv_generator(*name);
    if (!found) return bad_value("ivgen-alg", *name);
    cipher.iv_generator = *found;
  }
  if (const auto name = words.text("ivgen-hash-alg")) {
    const auto found = find_hash_algorithm(*name);
    if (!found) return bad_value("ivgen-hash-alg", *name);
    cipher.iv_hash = *found;
  }
  if (cipher.iv_generator == IvGenerator::kEssiv && !cipher.iv_hash)
    cipher.iv_hash = HashAlgorithm::kSha256;
  return {};
}

}  // namespace

Result<NewVolume> parse_new_volume(const base::OptionSet& options, std::string_view prefix) {
  const Words words(options, prefix);
  NewVolume volume;
  PLATTER_TRY(parse_cipher(words, volume.cipher));
  PLATTER_TRY(parse_iv(words, volume.cipher));
  if (const auto name = words.text("hash-alg")) {
    const auto found = find_hash_algorithm(*name);
    if (!found) return bad_value("hash-alg", *name);
    volume.hash = *found;
  }
  if (const auto time = words.number("iter-time")) volume.iter_time_ms = *time;
  PLATTER_TRY(check_spec(volume.cipher));
  return volume;
}

Result<SlotChange> parse_slot_change(const base::OptionSet& options, std::string_view prefix) {
  const Words words(options, prefix);
  SlotChange change;
  const auto state = words.text("state");
  if (!state) return fail(EINVAL, "Parameter 'state' is missing");
  if (*state != "active" && *state != "inactive") return bad_value("state", *state);
  change.activate = *state == "active";
  change.slot = words.number("keyslot");
  change.old_secret = words.text("old-secret");
  change.new_secret = words.text("new-secret");
  change.iter_time_ms = words.number("iter-time");
  if (change.activate) {
    if (!change.new_secret) return fail(EINVAL, "'new-secret' is required to activate a keyslot");
    if (change.old_secret)
      return fail(EINVAL, "'old-secret' must not be given when activating keyslots");
  } else {
    if (change.new_secret)
      return fail(EINVAL, "'new-secret' must not be given when erasing keyslots");
    if (change.iter_time_ms)
      return fail(EINVAL, "'iter-time' must not be given when erasing keyslots");
    if (!change.slot && !change.old_secret) {
      return fail(EINVAL,
                  "To erase keyslot(s), either explicit keyslot index or the password currently "
                  "contained in them must be given");
    }
  }
  if (change.slot && *change.slot >= kLuksSlots) {
    return fail(EINVAL, fmt::format("Invalid keyslot {} specified, must be between 0 and {}",
                                    *change.slot, kLuksSlots - 1));
  }
  return change;
}

void describe_volume(const LuksHeader& header, std::string_view format, base::Json& json) {
  json.add("ivgen-alg", name_of(header.cipher.iv_generator));
  json.add("hash-alg", name_of(header.hash));
  json.add("cipher-alg", name_of(header.cipher.algorithm));
  json.add("uuid", header.uuid);
  if (header.cipher.iv_hash && header.cipher.iv_generator == IvGenerator::kEssiv)
    json.add("ivgen-hash-alg", name_of(*header.cipher.iv_hash));
  if (!format.empty()) json.add("format", format);
  json.add("cipher-mode", name_of(header.cipher.mode));
  auto slots = base::Json::array();
  for (const LuksSlot& slot : header.slots) {
    auto item = base::Json::object();
    item.add("active", slot.active);
    if (slot.active) item.add("iters", slot.iterations);
    item.add("key-offset", uint64_t{slot.key_sector} * kSectorBytes);
    if (slot.active) item.add("stripes", kStripes);
    slots.append(std::move(item));
  }
  json.add("slots", std::move(slots));
  json.add("payload-offset", header.payload_offset());
  json.add("master-key-iters", header.digest_iterations);
  if (header.payload_sector == 0) json.add("detached-header", true);
}

}  // namespace platter::crypto
