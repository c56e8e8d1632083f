#include "workload/image_setup.h"

#include <algorithm>

#include "fmt/format.h"

namespace platter::workload {

namespace {

constexpr unsigned kClusterSizes = 13;  // 512 to 2M
constexpr uint32_t kMinExtendedL2Cluster = 16384;
constexpr unsigned kEncryptions = 7;  // LUKS, AES and five times none

uint64_t draw_size(Random& random, uint64_t unit, uint64_t max_size) {
  uint64_t units = std::max<uint64_t>(max_size / unit, 1);
  uint64_t size = random.between(std::max<uint64_t>(units / 8, 1), units) * unit;
  if (random.one_in(3) && size > 512) size -= random.below(unit / 512) * 512;
  return std::max<uint64_t>(size, 512);
}

void draw_qcow2(Random& random, uint64_t index, const DrawLimits& limits, ImageSetup& setup) {
  setup.cluster_size = uint32_t{512} << (index % kClusterSizes);
  while (setup.cluster_size > limits.max_cluster_size) setup.cluster_size /= 4;
  // Small clusters make many tables: keep their images small, so that runs stay short.
  uint64_t max_size = std::min<uint64_t>(limits.max_size, setup.cluster_size * uint64_t{4096});
  max_size = std::max<uint64_t>(max_size, setup.cluster_size * uint64_t{6});
  setup.size = draw_size(random, setup.cluster_size, max_size);
  setup.compat = random.one_in(4) ? "0.10" : "1.1";
  if (setup.compat == "1.1") {
    setup.refcount_bits = random.pick({1u, 2u, 4u, 8u, 16u, 16u, 32u, 64u});
    setup.lazy_refcounts = random.one_in(4);
    setup.bitmaps = random.one_in(2);
    setup.extended_l2 = setup.cluster_size >= kMinExtendedL2Cluster && random.one_in(2);
  }
  setup.small_caches = random.one_in(2);
  setup.cleans_caches = index % 2 == 0;
  if (random.one_in(2)) {
    setup.backing = random.one_in(2) ? BackingKind::kRaw : BackingKind::kQcow2;
    setup.backing_size = random.one_in(3) ? setup.size : draw_size(random, 512, setup.size * 3 / 2);
  }
  if (setup.compat == "1.1" && random.one_in(4)) {
    const bool may_be_raw = setup.backing == BackingKind::kNone;
    setup.data_file = may_be_raw && random.one_in(2) ? DataFile::kRaw : DataFile::kExternal;
  }
  const bool may_preallocate = setup.backing == BackingKind::kNone || setup.extended_l2;
  if (limits.preallocation && may_preallocate && random.one_in(3)) {
    setup.preallocation = random.pick({"metadata", "falloc", "full"});
  }
}

}  // namespace

ImageSetup draw_setup(Random& random, uint64_t index, const DrawLimits& limits) {
  ImageSetup setup;
  if (limits.raw && (random.one_in(10) || !limits.qcow2)) {
    setup.format = "raw";
    setup.size = draw_size(random, 4096, limits.max_size);
  } else {
    draw_qcow2(random, index, limits, setup);
  }
  setup.unmap = random.one_in(2);
  if (random.one_in(3)) setup.detect_zeroes = setup.unmap && random.one_in(2) ? "unmap" : "on";
  setup.direct = limits.direct && random.one_in(4);
  // A data file that is to be read as it is cannot be encrypted.
  if (setup.is_qcow2() && setup.data_file != DataFile::kRaw) {
    if (index % kEncryptions == 3) setup.encryption = "luks";
    if (index % kEncryptions == 5) setup.encryption = "aes";
  }
  // What was preallocated and never written decrypts to something that is not zeroes.
  if (!setup.encryption.empty()) setup.preallocation = "off";
  return setup;
}

std::string ImageSetup::describe() const {
  std::string text = fmt::format("{} size={}", format, size);
  if (is_qcow2()) {
    text += fmt::format(
        " cluster_size={} compat={} refcount_bits={} lazy_refcounts={} "
        "preallocation={} extended_l2={}",
        cluster_size, compat, refcount_bits, lazy_refcounts, preallocation, extended_l2);
    if (backing != BackingKind::kNone) {
      text += fmt::format(" backing={}:{}", backing == BackingKind::kRaw ? "raw" : "qcow2",
                          backing_size);
    }
    if (has_data_file()) text += data_file == DataFile::kRaw ? " data-file-raw" : " data-file";
    if (small_caches) text += " small-caches";
    if (!cleans_caches) text += " never-cleaned-caches";
    if (bitmaps) text += " bitmaps";
    if (!encryption.empty()) text += " encryption=" + encryption;
  }
  return text + fmt::format(" discard={} detect-zeroes={} direct={}", unmap ? "unmap" : "ignore",
                            detect_zeroes, direct);
}

base::Options ImageSetup::create_options(const std::string& backing_path,
                                         const std::string& data_path) const {
  base::Options options;
  options.set("size", std::to_string(size));
  if (!is_qcow2()) return options;
  options.set("cluster_size", std::to_string(cluster_size));
  options.set("compat", compat);
  options.set("refcount_bits", std::to_string(refcount_bits));
  options.set("lazy_refcounts", std::string(lazy_refcounts ? "on" : "off"));
  options.set("preallocation", preallocation);
  options.set("extended_l2", std::string(extended_l2 ? "on" : "off"));
  if (has_data_file()) {
    options.set("data_file", data_path);
    options.set("data_file_raw", std::string(data_file == DataFile::kRaw ? "on" : "off"));
  }
  if (!encryption.empty()) {
    options.set("encrypt.format", encryption);
    options.set("encrypt.key-secret", secret);
  }
  if (encryption == "luks") options.set("encrypt.iter-time", std::string("1"));
  if (backing != BackingKind::kNone) {
    options.set("backing_file", backing_path);
    options.set("backing_fmt", std::string(backing == BackingKind::kRaw ? "raw" : "qcow2"));
  }
  return options;
}

std::string ImageSetup::qemu_image_options(const std::string& path) const {
  return fmt::format("driver={},{}file.filename={}", format,
                     encryption.empty() ? "" : fmt::format("encrypt.key-secret={},", secret), path);
}

block::OpenRequest ImageSetup::open_request(const std::string& path) const {
  block::OpenRequest request;
  request.filename = path;
  request.format = format;
  request.flags.read_only = false;
  request.cache.direct = direct;
  request.discard_unmap = unmap;
  request.policy = OpenPolicy::anything();
  if (detect_zeroes != "off") request.options.set("detect-zeroes", detect_zeroes);
  if (!encryption.empty()) request.options.set("encrypt.key-secret", secret);
  if (is_qcow2() && !cleans_caches) request.options.set("cache-clean-interval", std::string("0"));
  if (is_qcow2() && small_caches) {
    uint64_t entry = std::min<uint64_t>(cluster_size, 4096);
    request.options.set("l2-cache-entry-size", std::to_string(entry));
    request.options.set("l2-cache-size", std::to_string(2 * entry));
    request.options.set("refcount-cache-size", std::to_string(4 * uint64_t{cluster_size}));
  }
  return request;
}

}  // namespace platter::workload
