#include "format/qcow2/amend_options.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"

namespace platter::format::qcow2 {
namespace {

using base::OptionSet;
using base::OptionType;

constexpr base::OptionDef kOptions[] = {
    {.name = "compat",
     .type = OptionType::kString,
     .help = "Compatibility level (v2 [0.10] or v3 [1.1])"},
    {.name = "backing_file", .type = OptionType::kString, .help = "File name of a base image"},
    {.name = "backing_fmt", .type = OptionType::kString, .help = "Image format of the base image"},
    {.name = "data_file",
     .type = OptionType::kString,
     .help = "File name of an external data file"},
    {.name = "data_file_raw",
     .type = OptionType::kBool,
     .help = "The external data file must stay valid as a raw image"},
    {.name = "encrypt.state",
     .type = OptionType::kString,
     .help = "Select new state of affected keyslots (active/inactive)"},
    {.name = "encrypt.keyslot",
     .type = OptionType::kNumber,
     .help = "Select a single keyslot to modify explicitly"},
    {.name = "encrypt.old-secret",
     .type = OptionType::kString,
     .help = "Select all keyslots that match this password"},
    {.name = "encrypt.new-secret",
     .type = OptionType::kString,
     .help = "New secret to set in the matching keyslots. Empty string to erase"},
    {.name = "encrypt.iter-time",
     .type = OptionType::kNumber,
     .help = "Time to spend in PBKDF in milliseconds"},
    {.name = "lazy_refcounts", .type = OptionType::kBool, .help = "Postpone refcount updates"},
    {.name = "refcount_bits",
     .type = OptionType::kNumber,
     .help = "Width of a reference count entry in bits"},
    {.name = "size", .type = OptionType::kSize, .help = "Virtual disk size"},
};

Result<void> parse_version(const OptionSet& options, Amendment& amendment) {
  if (!options.given("compat")) return {};
  const std::string& compat = options.get_string("compat");
  if (compat == "0.10" || compat == "v2") {
    amendment.version = 2;
  } else if (compat == "1.1" || compat == "v3") {
    amendment.version = 3;
  } else {
    return fail(EINVAL, fmt::format("Unknown compatibility level {}", compat));
  }
  return {};
}

// What stands in the header may be said again; only rebase changes it.
Result<void> check_fixed(const OptionSet& options, const Header& header) {
  const auto differs = [&](std::string_view name, const std::string& present) {
    return options.given(name) && options.get_string(name) != present;
  };
  if (differs("backing_file", header.backing_file) ||
      differs("backing_fmt", header.backing_format)) {
    return std::unexpected(Error(EINVAL, "Cannot amend the backing file")
                               .with_hint("You can use 'qemu-img rebase' instead."));
  }
  if (options.given("data_file") && !header.has(kExternalDataFile)) {
    return fail(EINVAL, "data-file can only be set for images that use an external data file");
  }
  if (options.given("data_file_raw") && options.get_bool("data_file_raw") &&
      !header.has(kRawExternalData)) {
    return fail(EINVAL, "data-file-raw cannot be set on existing images");
  }
  return {};
}

Result<void> parse_slots(const OptionSet& options, const Header& header, Amendment& amendment) {
  const bool given = std::ranges::any_of(kOptions, [&options](const auto& def) {
    return def.name.starts_with("encrypt.") && options.given(def.name);
  });
  if (!given) return {};
  if (header.crypt_method == CryptMethod::kNone)
    return fail(EINVAL, "Can't amend encryption options - encryption not present");
  if (header.crypt_method != CryptMethod::kLuks)
    return fail(ENOTSUP, "Only LUKS encryption options can be amended");
  PLATTER_ASSIGN(amendment.slots, crypto::parse_slot_change(options, "encrypt."));
  return {};
}

}  // namespace

base::OptionSchema amend_options() { return base::OptionSchema(kOptions); }

Result<Amendment> parse_amendment(const OptionSet& options, const Header& header) {
  Amendment amendment = {.version = header.version,
                         .refcount_order = header.refcount_order,
                         .lazy_refcounts = header.has(kLazyRefcounts),
                         .data_file = header.data_file,
                         .data_file_raw = header.has(kRawExternalData)};
  PLATTER_TRY(parse_version(options, amendment));
  PLATTER_TRY(check_fixed(options, header));
  if (options.given("data_file")) amendment.data_file = options.get_string("data_file");
  if (options.given("data_file_raw")) amendment.data_file_raw = options.get_bool("data_file_raw");
  PLATTER_TRY(parse_slots(options, header, amendment));
  if (amendment.version < 3) amendment.lazy_refcounts = false;
  if (options.given("lazy_refcounts")) {
    amendment.lazy_refcounts = options.get_bool("lazy_refcounts");
    if (amendment.lazy_refcounts && amendment.version < 3) {
      return fail(EINVAL,
                  "Lazy refcounts only supported with compatibility level 1.1 and above (use "
                  "compat=1.1 or greater)");
    }
  }
  if (options.given("refcount_bits")) {
    const uint64_t bits = options.get_number("refcount_bits");
    if (!base::is_power_of_two(bits) || bits > uint64_t{1} << kMaxRefcountOrder) {
      return fail(EINVAL, "Refcount width must be a power of two and may not exceed 64 bits");
    }
    amendment.refcount_order = static_cast<unsigned>(std::countr_zero(bits));
    if (bits != 16 && amendment.version < 3) {
      return fail(EINVAL,
                  "Refcount widths other than 16 bits require compatibility level 1.1 or above "
                  "(use compat=1.1 or greater)");
    }
  }
  if (amendment.version < 3 && amendment.refcount_order != 4)
    return fail(ENOTSUP, "compat=0.10 requires refcount_bits=16");
  // As qemu-img has it, 0 asks for nothing.
  if (options.given("size") && options.get_size("size") != 0)
    amendment.size = options.get_size("size");
  return amendment;
}

}  // namespace platter::format::qcow2
