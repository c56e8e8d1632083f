#include "format/qcow2/open_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/math.h"
#include "base/try.h"

namespace platter::format::qcow2 {
namespace {

using base::OptionType;

constexpr uint64_t kDefaultL2CacheBytes = uint64_t{32} << 20;
constexpr uint64_t kDefaultRefcountCacheBytes = uint64_t{1} << 20;
constexpr uint64_t kMinRefcountCacheClusters = 4;
constexpr uint64_t kDefaultSliceBytes = 4096;
constexpr uint64_t kMinSliceBytes = 512;
constexpr uint64_t kMaxCacheBytes = INT64_MAX;
// More than this is accepted and not used.
constexpr uint64_t kMaxUsedCacheBytes = uint64_t{4} << 30;

constexpr std::string_view kOverlapTemplates[] = {"none", "constant", "cached", "all"};

constexpr std::string_view kEncryptionFormats[] = {"aes", "luks"};

constexpr base::OptionDef kDefs[] = {
    {.name = "encrypt.format",
     .type = OptionType::kString,
     .help = "Encryption that the image is known to have (aes, luks)",
     .choices = kEncryptionFormats},
    {.name = "encrypt.key-secret",
     .type = OptionType::kString,
     .help = "ID of secret providing qcow2 AES key or LUKS passphrase",
     .changeable = true},
    {.name = "lazy-refcounts",
     .type = OptionType::kBool,
     .help = "Postpone refcount updates",
     .changeable = true},
    {.name = "pass-discard-request",
     .type = OptionType::kBool,
     .help = "Pass guest discard requests to the layer below",
     .changeable = true},
    {.name = "pass-discard-snapshot",
     .type = OptionType::kBool,
     .help = "Generate discard requests when snapshot related space is freed",
     .default_value = "on",
     .changeable = true},
    {.name = "pass-discard-other",
     .type = OptionType::kBool,
     .help = "Generate discard requests when other clusters are freed",
     .default_value = "off",
     .changeable = true},
    {.name = "discard-no-unref",
     .type = OptionType::kBool,
     .help = "Do not unreference discarded clusters",
     .changeable = true},
    {.name = "overlap-check",
     .type = OptionType::kString,
     .help = "Selects which overlap checks to perform",
     .choices = kOverlapTemplates,
     .changeable = true},
    {.name = "overlap-check.template",
     .type = OptionType::kString,
     .help = "Selects which overlap checks to perform",
     .choices = kOverlapTemplates,
     .changeable = true},
    {.name = "overlap-check.main-header",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into the main qcow2 header",
     .changeable = true},
    {.name = "overlap-check.active-l1",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into the active L1 table",
     .changeable = true},
    {.name = "overlap-check.active-l2",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into an active L2 table",
     .changeable = true},
    {.name = "overlap-check.refcount-table",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into the refcount table",
     .changeable = true},
    {.name = "overlap-check.refcount-block",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into a refcount block",
     .changeable = true},
    {.name = "overlap-check.snapshot-table",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into the snapshot table",
     .changeable = true},
    {.name = "overlap-check.inactive-l1",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into an inactive L1 table",
     .changeable = true},
    {.name = "overlap-check.inactive-l2",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into an inactive L2 table",
     .changeable = true},
    {.name = "overlap-check.bitmap-directory",
     .type = OptionType::kBool,
     .help = "Check for unintended writes into the bitmap directory",
     .changeable = true},
    {.name = "cache-size",
     .type = OptionType::kSize,
     .help = "Maximum combined metadata (L2 tables and refcount blocks) cache size",
     .max = kMaxCacheBytes,
     .changeable = true},
    {.name = "l2-cache-size",
     .type = OptionType::kSize,
     .help = "Maximum L2 table cache size",
     .max = kMaxCacheBytes,
     .changeable = true},
    {.name = "l2-cache-entry-size",
     .type = OptionType::kSize,
     .help = "Size of each entry in the L2 cache",
     .max = kMaxCacheBytes,
     .changeable = true},
    {.name = "refcount-cache-size",
     .type = OptionType::kSize,
     .help = "Maximum refcount block cache size",
     .max = kMaxCacheBytes,
     .changeable = true},
    {.name = "cache-clean-interval",
     .type = OptionType::kNumber,
     .help = "Clean unused cache entries after this time (in seconds)",
     .default_value = "600",
     .changeable = true},
};

struct OverlapCheck {
  const char* option;
  Structure structure;
};
constexpr OverlapCheck kOverlapChecks[] = {
    {"overlap-check.main-header", kMainHeader},
    {"overlap-check.active-l1", kActiveL1},
    {"overlap-check.active-l2", kActiveL2},
    {"overlap-check.refcount-table", kRefcountTable},
    {"overlap-check.refcount-block", kRefcountBlock},
    {"overlap-check.snapshot-table", kSnapshotTable},
    {"overlap-check.inactive-l1", kInactiveL1},
    {"overlap-check.inactive-l2", kInactiveL2},
    {"overlap-check.bitmap-directory", kBitmapDirectory},
};

Structures structures_of_template(std::string_view name) {
  if (name == "none") return 0;
  if (name == "constant") return kConstantStructures;
  if (name == "all") return kAllStructures;
  return kCachedStructures;
}

// The template, and what is said of single structures.
Structures read_overlap_checks(const base::OptionSet& options) {
  Structures structures = kCachedStructures;
  for (const char* name : {"overlap-check", "overlap-check.template"}) {
    if (options.given(name)) structures = structures_of_template(options.get_string(name));
  }
  for (const auto& [option, structure] : kOverlapChecks) {
    if (!options.given(option)) continue;
    structures = options.get_bool(option) ? structures | structure : structures & ~structure;
  }
  return structures;
}

}  // namespace

constinit const base::OptionSchema kRuntimeOptions{kDefs};

Result<OpenOptions> read_open_options(const base::OptionSet& options, const Header& header,
                                      bool unmap) {
  OpenOptions result;
  result.pass_discard_request =
      options.given("pass-discard-request") ? options.get_bool("pass-discard-request") : unmap;
  result.pass_discard_snapshot = options.get_bool("pass-discard-snapshot");
  result.pass_discard_other = options.get_bool("pass-discard-other");
  result.discard_no_unref =
      options.given("discard-no-unref") && options.get_bool("discard-no-unref");
  if (result.discard_no_unref && header.version < 3) {
    return fail(EINVAL, "discard-no-unref is only supported since qcow2 version 3");
  }
  result.lazy_refcounts = options.given("lazy-refcounts") ? options.get_bool("lazy-refcounts")
                                                          : header.has(kLazyRefcounts);
  if (result.lazy_refcounts && header.version < 3) {
    return fail(EINVAL,
                "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level");
  }
  if (options.given("overlap-check") && options.given("overlap-check.template") &&
      options.get_string("overlap-check") != options.get_string("overlap-check.template")) {
    return fail(EINVAL,
                fmt::format("Conflicting values for qcow2 options 'overlap-check' ('{}') and "
                            "'overlap-check.template' ('{}')",
                            options.get_string("overlap-check"),
                            options.get_string("overlap-check.template")));
  }
  result.overlap_checks = read_overlap_checks(options);
  const uint64_t interval = options.get_number("cache-clean-interval");
  if (interval > UINT32_MAX) return fail(EINVAL, "Cache clean interval too big");
  result.cache_clean_interval = std::chrono::seconds(interval);
  return result;
}

Result<CacheSizes> read_cache_sizes(const base::OptionSet& options, const Header& header) {
  const uint64_t cluster = header.cluster_size();
  // What covers the whole disk, and every refcount of a file of that size.
  const uint64_t l2_needed = base::align_up(
      (header.virtual_size() / cluster + 1) * header.geometry().l2_entry_bytes(), cluster);
  const uint64_t min_refcount = kMinRefcountCacheClusters * cluster;

  CacheSizes sizes;
  const bool total_given = options.given("cache-size");
  const bool l2_given = options.given("l2-cache-size");
  const bool refcount_given = options.given("refcount-cache-size");
  if (total_given) {
    const uint64_t total = options.get_size("cache-size");
    if (l2_given && refcount_given) {
      return fail(
          EINVAL,
          "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
    }
    if (l2_given && options.get_size("l2-cache-size") > total) {
      return fail(EINVAL, "l2-cache-size may not exceed cache-size");
    }
    if (refcount_given && options.get_size("refcount-cache-size") > total) {
      return fail(EINVAL, "refcount-cache-size may not exceed cache-size");
    }
    if (l2_given) {
      sizes.l2_bytes = options.get_size("l2-cache-size");
      sizes.refcount_bytes = total - sizes.l2_bytes;
    } else if (refcount_given) {
      sizes.refcount_bytes = options.get_size("refcount-cache-size");
      sizes.l2_bytes = total - sizes.refcount_bytes;
    } else {
      sizes.refcount_bytes =
          total >= l2_needed + min_refcount ? total - l2_needed : std::min(total, min_refcount);
      sizes.l2_bytes = total - sizes.refcount_bytes;
    }
  } else {
    sizes.l2_bytes =
        l2_given ? options.get_size("l2-cache-size") : std::min(kDefaultL2CacheBytes, l2_needed);
    sizes.refcount_bytes = refcount_given ? options.get_size("refcount-cache-size")
                                          : std::max(kDefaultRefcountCacheBytes, min_refcount);
  }
  sizes.l2_bytes = std::min({sizes.l2_bytes, l2_needed, kMaxUsedCacheBytes});
  sizes.refcount_bytes = std::clamp(sizes.refcount_bytes, min_refcount, kMaxUsedCacheBytes);

  sizes.refcount_slice_bytes = std::min(cluster, kDefaultSliceBytes);
  sizes.l2_slice_bytes = sizes.refcount_slice_bytes;
  if (options.given("l2-cache-entry-size")) {
    sizes.l2_slice_bytes = options.get_size("l2-cache-entry-size");
    if (sizes.l2_slice_bytes < kMinSliceBytes || sizes.l2_slice_bytes > cluster ||
        !base::is_power_of_two(sizes.l2_slice_bytes)) {
      return fail(
          EINVAL,
          fmt::format(
              "L2 cache entry size must be a power of two between {} and the cluster size ({})",
              kMinSliceBytes, cluster));
    }
  }
  return sizes;
}

TableCache::Config refcount_cache(const CacheSizes& sizes) {
  return {.slice_bytes = sizes.refcount_slice_bytes,
          .budget_bytes = sizes.refcount_bytes,
          .load_event = block::DebugEvent::kRefblockLoad};
}

TableCache::Config l2_cache(const CacheSizes& sizes, const Geometry& geometry,
                            uint64_t virtual_size) {
  const uint64_t coverage = (sizes.l2_slice_bytes / geometry.l2_entry_bytes())
                            << geometry.cluster_bits;
  return {.slice_bytes = sizes.l2_slice_bytes,
          .budget_bytes = sizes.l2_bytes,
          .slice_count = virtual_size / coverage + 1,
          .paired_words = geometry.extended_l2};
}

}  // namespace platter::format::qcow2
