#include "format/qcow2/create_options.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/driver.h"
#include "crypto/luks_options.h"
#include "fmt/format.h"
#include "format/qcow2/create.h"

namespace platter::format::qcow2 {

using base::OptionDef;
using base::OptionSet;
using base::OptionType;
using block::Preallocation;

namespace {

constexpr OptionDef kOptions[] = {
    {.name = "encryption",
     .type = OptionType::kBool,
     .help = "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
    {.name = "encrypt.format",
     .type = OptionType::kString,
     .help = "Encrypt the image, format choices: 'aes', 'luks'"},
    {.name = "encrypt.key-secret",
     .type = OptionType::kString,
     .help = "ID of secret providing qcow AES key or LUKS passphrase"},
    {.name = "encrypt.cipher-alg",
     .type = OptionType::kString,
     .help = "Name of encryption cipher algorithm"},
    {.name = "encrypt.cipher-mode",
     .type = OptionType::kString,
     .help = "Name of encryption cipher mode"},
    {.name = "encrypt.ivgen-alg",
     .type = OptionType::kString,
     .help = "Name of IV generator algorithm"},
    {.name = "encrypt.ivgen-hash-alg",
     .type = OptionType::kString,
     .help = "Name of IV generator hash algorithm"},
    {.name = "encrypt.hash-alg",
     .type = OptionType::kString,
     .help = "Name of encryption hash algorithm"},
    {.name = "encrypt.iter-time",
     .type = OptionType::kNumber,
     .help = "Time to spend in PBKDF in milliseconds"},
    {.name = "cluster_size",
     .type = OptionType::kSize,
     .help = "qcow2 cluster size",
     .default_value = "65536"},
    {.name = "extended_l2",
     .type = OptionType::kBool,
     .help = "Extended L2 tables",
     .default_value = "off"},
    {.name = "preallocation",
     .type = OptionType::kString,
     .help = "Preallocation mode (allowed values: off, metadata, falloc, full)"},
    {.name = "compression_type",
     .type = OptionType::kString,
     .help = "Compression method used for image cluster compression",
     .default_value = "zlib"},
    {.name = "size", .type = OptionType::kSize, .help = "Virtual disk size"},
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
    {.name = "lazy_refcounts",
     .type = OptionType::kBool,
     .help = "Postpone refcount updates",
     .default_value = "off"},
    {.name = "refcount_bits",
     .type = OptionType::kNumber,
     .help = "Width of a reference count entry in bits",
     .default_value = "16"},
};

constexpr std::string_view kNeedsVersion3 =
    "{} only supported with compatibility level 1.1 and above (use version=v3 or greater)";

std::string text_or(const OptionSet& options, std::string_view name, std::string_view otherwise) {
  return options.has(name) ? options.get_string(name) : std::string(otherwise);
}
bool is_on(const OptionSet& options, std::string_view name) {
  return options.has(name) && options.get_bool(name);
}

std::unexpected<Error> bad_value(std::string_view name, std::string_view value) {
  return fail(EINVAL, fmt::format("Parameter '{}' does not accept value '{}'", name, value));
}

// The first encryption option given that is none of `allowed`.
const OptionDef* other_encryption_option(const OptionSet& options,
                                         std::initializer_list<std::string_view> allowed) {
  for (const OptionDef& def : kOptions) {
    const bool is_allowed = std::ranges::find(allowed, def.name) != allowed.end();
    if (def.name.starts_with("encrypt.") && options.given(def.name) && !is_allowed) return &def;
  }
  return nullptr;
}

Result<void> parse_encryption(const OptionSet& options, CreateOptions& parsed) {
  const bool format_given = options.given("encrypt.format");
  if (is_on(options, "encryption") && format_given) {
    return fail(EINVAL,
                "'encrypt.format' and its alias 'encryption' can't be used at the same time");
  }
  if (!format_given && !is_on(options, "encryption")) {
    if (other_encryption_option(options, {}) == nullptr) return {};
    return fail(EINVAL, "Parameter 'encrypt.format' is missing");
  }
  const std::string format = text_or(options, "encrypt.format", "aes");
  if (format != "aes" && format != "luks") return bad_value("format", format);
  if (format == "aes") {
    const OptionDef* other =
        other_encryption_option(options, {"encrypt.format", "encrypt.key-secret"});
    if (other != nullptr)
      return fail(EINVAL, fmt::format("Parameter '{}' is unexpected", other->name));
    parsed.header.crypt_method = CryptMethod::kAes;
  } else {
    parsed.header.crypt_method = CryptMethod::kLuks;
    PLATTER_ASSIGN(parsed.luks, crypto::parse_new_volume(options, "encrypt."));
  }
  parsed.key_secret = text_or(options, "encrypt.key-secret", "");
  return {};
}

Result<void> parse_version(const OptionSet& options, Header& header) {
  const std::string compat = text_or(options, "compat", "v3");
  if (compat == "0.10" || compat == "v2") {
    header.version = 2;
  } else if (compat == "1.1" || compat == "v3") {
    header.version = 3;
  } else {
    return bad_value("version", compat);
  }
  return {};
}

Result<void> parse_preallocation(const OptionSet& options, Preallocation& preallocation) {
  const std::string mode = text_or(options, "preallocation", "off");
  if (mode == "off")
    preallocation = Preallocation::kOff;
  else if (mode == "metadata")
    preallocation = Preallocation::kMetadata;
  else if (mode == "falloc")
    preallocation = Preallocation::kFalloc;
  else if (mode == "full")
    preallocation = Preallocation::kFull;
  else
    return bad_value("preallocation", mode);
  return {};
}

Result<void> parse_cluster_size(const OptionSet& options, Header& header) {
  const uint64_t size = options.get_size("cluster_size");
  if (!base::is_power_of_two(size) || size < uint64_t{1} << kMinClusterBits ||
      size > uint64_t{1} << kMaxClusterBits) {
    return fail(EINVAL, fmt::format("Cluster size must be a power of two between {} and {}k",
                                    1 << kMinClusterBits, 1 << (kMaxClusterBits - 10)));
  }
  header.cluster_bits = static_cast<uint32_t>(std::countr_zero(size));
  return {};
}

Result<void> parse_extended_l2_and_data_file(const OptionSet& options, Header& header) {
  constexpr uint64_t kMinExtendedL2Cluster = uint64_t{1} << kMinExtendedL2ClusterBits;
  if (is_on(options, "extended_l2")) {
    if (header.version < 3)
      return fail(EINVAL, fmt::format(kNeedsVersion3, "Extended L2 entries are"));
    if (header.cluster_size() < kMinExtendedL2Cluster) {
      return fail(EINVAL,
                  fmt::format("Extended L2 entries are only supported with cluster sizes of at "
                              "least {} bytes",
                              kMinExtendedL2Cluster));
    }
    header.incompatible |= kExtendedL2;
  }
  const bool raw = is_on(options, "data_file_raw");
  if (!options.given("data_file")) {
    if (raw) return fail(EINVAL, "data-file-raw requires data-file");
    return {};
  }
  if (header.version < 3)
    return fail(EINVAL, fmt::format(kNeedsVersion3, "External data files are"));
  if (raw && options.has("backing_file"))
    return fail(EINVAL, "Backing file and data-file-raw cannot be used at the same time");
  header.data_file = options.get_string("data_file");
  if (header.data_file.empty())
    return fail(ENOENT, "Could not create '': No such file or directory");
  header.incompatible |= kExternalDataFile;
  if (raw) header.autoclear |= kRawExternalData;
  return {};
}

Result<void> parse_refcounts(const OptionSet& options, Header& header) {
  if (options.get_bool("lazy_refcounts")) {
    if (header.version < 3) return fail(EINVAL, fmt::format(kNeedsVersion3, "Lazy refcounts"));
    header.compatible |= kLazyRefcounts;
  }
  const uint64_t bits = options.get_number("refcount_bits");
  if (!base::is_power_of_two(bits) || bits > uint64_t{1} << kMaxRefcountOrder) {
    return fail(EINVAL, "Refcount width must be a power of two and may not exceed 64 bits");
  }
  if (header.version < 3 && bits != 16) {
    return fail(EINVAL,
                "Different refcount widths than 16 bits require compatibility level 1.1 or "
                "above (use version=v3 or greater)");
  }
  header.refcount_order = static_cast<uint32_t>(std::countr_zero(bits));
  return {};
}

Result<void> parse_compression_type(const OptionSet& options, Header& header) {
  const std::string& type = options.get_string("compression_type");
  if (type == "zlib") return {};
  if (type != "zstd") return bad_value("compression-type", type);
  if (header.version < 3) {
    return fail(EINVAL, fmt::format(kNeedsVersion3, "Non-zlib compression type is"));
  }
  header.compression_type = CompressionType::kZstd;
  header.incompatible |= kCompressionTypeBit;
  return {};
}

Result<void> parse_backing(const OptionSet& options, Header& header) {
  header.backing_file = text_or(options, "backing_file", "");
  header.backing_format = text_or(options, "backing_fmt", "");
  if (header.backing_file.empty()) {
    if (!header.backing_format.empty()) {
      return fail(EINVAL, "Backing format cannot be used without backing file");
    }
    return {};
  }
  if (header.backing_format.size() > kMaxFormatNameBytes) {
    return bad_value("backing-fmt", header.backing_format);
  }
  if (auto head = serialise_header(header); !head) {
    return fail(
        head.error().code(),
        fmt::format("Could not assign backing file '{}' with format '{}': {}", header.backing_file,
                    header.backing_format, Error::from_errno(head.error().code()).message()));
  }
  return {};
}

Result<void> parse_size(const OptionSet& options, Header& header) {
  if (!options.has("size")) return fail(EINVAL, "Image creation needs a size parameter");
  const uint64_t size = options.get_size("size");
  if (size > block::kMaxLength) {
    return fail(EFBIG,
                "The image size is too large for file format 'qcow2' (try using a larger "
                "cluster size)");
  }
  header.size = base::align_up(size, kSectorBytes);
  const uint64_t l1_entries = header.geometry().l1_entries_for(header.size);
  if (l1_entries > kMaxL1TableBytes / kTableEntryBytes) {
    return fail(EFBIG,
                "The image size is too large for file format 'qcow2' (try using a larger "
                "cluster size)");
  }
  header.l1_entries = static_cast<uint32_t>(l1_entries);
  return {};
}

}  // namespace

uint64_t encryption_bytes(const CreateOptions& options) {
  return options.luks ? crypto::luks_payload_offset(crypto::key_bytes(options.luks->cipher)) : 0;
}

base::OptionSchema create_options() { return base::OptionSchema(kOptions); }

Result<CreateOptions> parse_create_options(const OptionSet& options) {
  CreateOptions parsed;
  Header& header = parsed.header;
  PLATTER_TRY(parse_encryption(options, parsed));
  PLATTER_TRY(parse_version(options, header));
  PLATTER_TRY(parse_preallocation(options, parsed.preallocation));
  PLATTER_TRY(parse_cluster_size(options, header));
  PLATTER_TRY(parse_extended_l2_and_data_file(options, header));
  PLATTER_TRY(parse_refcounts(options, header));
  PLATTER_TRY(parse_compression_type(options, header));
  PLATTER_TRY(parse_size(options, header));
  PLATTER_TRY(parse_backing(options, header));
  // All that is in the raw file is the guest's.
  if (header.has(kRawExternalData) && parsed.preallocation == Preallocation::kOff)
    parsed.preallocation = Preallocation::kMetadata;
  if (!header.backing_file.empty() && parsed.preallocation != Preallocation::kOff &&
      !header.has(kExtendedL2)) {
    return fail(EINVAL,
                "Backing file and preallocation can only be used at the same time if "
                "extended_l2 is on");
  }
  return parsed;
}

}  // namespace platter::format::qcow2
