#include "monitor/device_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "base/try.h"
#include "monitor/arguments.h"
#include "monitor/export_address.h"
#include "virtio/features.h"

namespace platter::monitor {
namespace {

using base::Json;
using virtio::blk::OnError;
using virtio::blk::OnOffAuto;
using virtio::blk::Properties;

// What a number says that is chosen for the user.
constexpr uint32_t kAutomaticBytes = UINT32_MAX;
constexpr uint16_t kAutomaticQueuesProperty = UINT16_MAX;

Result<uint32_t> read_bytes(const Arguments& given, std::string_view name, uint32_t fallback) {
  const uint64_t bytes = given.natural(name, fallback);
  if (bytes <= UINT32_MAX) return static_cast<uint32_t>(bytes);
  return fail(EINVAL, fmt::format("{} must not exceed {}", name, UINT32_MAX));
}

OnError read_on_error(const Arguments& given, std::string_view name) {
  return *virtio::blk::parse_on_error(given.has(name) ? given.text(name) : "auto");
}

Result<void> read_sizes(const Arguments& given, Properties& properties) {
  // 0 is what is chosen for the user.
  const auto block = [&](std::string_view name) -> Result<uint32_t> {
    PLATTER_ASSIGN(const uint32_t bytes, read_bytes(given, name, 0));
    return bytes == 0 ? virtio::blk::kSectorBytes : bytes;
  };
  PLATTER_ASSIGN(properties.logical_block_bytes, block("logical_block_size"));
  PLATTER_ASSIGN(properties.physical_block_bytes, block("physical_block_size"));
  PLATTER_ASSIGN(properties.min_io_bytes, read_bytes(given, "min_io_size", 0));
  PLATTER_ASSIGN(properties.opt_io_bytes, read_bytes(given, "opt_io_size", 0));
  PLATTER_ASSIGN(const uint32_t granularity,
                 read_bytes(given, "discard_granularity", kAutomaticBytes));
  if (granularity != kAutomaticBytes) properties.discard_granularity = granularity;
  const auto number = [&](std::string_view name) {
    return static_cast<uint32_t>(given.natural(name, 0));
  };
  properties.geometry = {
      .cylinders = number("cyls"), .heads = number("heads"), .sectors = number("secs")};
  return {};
}

void read_features(const Arguments& given, Properties& properties) {
  constexpr struct {
    std::string_view name;
    uint64_t feature;
    bool by_itself;
  } kFeatures[] = {{"indirect_desc", virtio::kIndirectDescriptors, true},
                   {"event_idx", virtio::kEventIndex, true},
                   {"notify_on_empty", virtio::kNotifyOnEmpty, true},
                   {"any_layout", virtio::kAnyLayout, true},
                   {"packed", virtio::kPackedRing, false},
                   {"in_order", virtio::kInOrder, false}};
  for (const auto& each : kFeatures) {
    if (!given.flag(each.name, each.by_itself)) properties.withheld_features |= each.feature;
  }
}

Result<Properties> read_properties(const Arguments& given) {
  Properties properties;
  PLATTER_TRY(read_sizes(given, properties));
  read_features(given, properties);
  if (given.has("write-cache")) {
    const std::string& cache = given.text("write-cache");
    properties.write_cache = cache == "on"    ? OnOffAuto::kOn
                             : cache == "off" ? OnOffAuto::kOff
                                              : OnOffAuto::kAuto;
  }
  properties.read_error = read_on_error(given, "rerror");
  properties.write_error = read_on_error(given, "werror");
  // A driver sees the beginning of a longer one.
  properties.serial = given.text_or_empty("serial").substr(0, virtio::blk::kMaxSerialBytes);
  properties.config_wce = given.flag("config-wce", properties.config_wce);
  properties.enable_wce_if_config_wce =
      given.flag("x-enable-wce-if-config-wce", properties.enable_wce_if_config_wce);
  properties.request_merging = given.flag("request-merging", properties.request_merging);
  properties.queue_size = static_cast<uint16_t>(given.natural("queue-size", properties.queue_size));
  properties.seg_max_adjust = given.flag("seg-max-adjust", properties.seg_max_adjust);
  properties.discard = given.flag("discard", properties.discard);
  properties.write_zeroes = given.flag("write-zeroes", properties.write_zeroes);
  properties.report_discard_granularity =
      given.flag("report-discard-granularity", properties.report_discard_granularity);
  properties.max_discard_sectors =
      static_cast<uint32_t>(given.natural("max-discard-sectors", properties.max_discard_sectors));
  properties.max_write_zeroes_sectors = static_cast<uint32_t>(
      given.natural("max-write-zeroes-sectors", properties.max_write_zeroes_sectors));
  return properties;
}

// ---- iothread-vq-mapping

std::unexpected<Error> wrong_mapping(std::string_view what) {
  return fail(EINVAL, fmt::format("iothread-vq-mapping {}", what));
}

std::vector<uint64_t> queues_of(const Arguments& entry) {
  std::vector<uint64_t> queues;
  for (const Json& item : entry.array("vqs")) {
    const auto* large = item.get_if<uint64_t>();
    queues.push_back(large != nullptr ? *large : static_cast<uint64_t>(*item.get_if<int64_t>()));
  }
  return queues;
}

// Nothing: no entry has any.
Result<std::optional<uint64_t>> highest_queue(const Json::Array& mapping) {
  size_t with_queues = 0;
  std::optional<uint64_t> highest;
  for (const Json& item : mapping) {
    const Arguments entry(item);
    if (!entry.has("vqs")) continue;
    ++with_queues;
    for (const uint64_t queue : queues_of(entry)) highest = std::max(highest.value_or(0), queue);
  }
  if (with_queues == 0) return std::nullopt;
  if (with_queues != mapping.size()) return wrong_mapping("has vqs for some of its iothreads only");
  if (!highest) return wrong_mapping("assigns no vq");
  return highest;
}

Result<void> assign_queues(const Json::Array& mapping, std::vector<std::string>& iothreads) {
  for (const Json& item : mapping) {
    const Arguments entry(item);
    const std::string& iothread = entry.text("iothread");
    for (const uint64_t queue : queues_of(entry)) {
      if (queue >= iothreads.size()) {
        return wrong_mapping(fmt::format("assigns vq {} to \"{}\"; num-queues is {}", queue,
                                         iothread, iothreads.size()));
      }
      std::string& owner = iothreads[queue];
      if (!owner.empty()) {
        return wrong_mapping(fmt::format("assigns vq {} to \"{}\", and has assigned it to \"{}\"",
                                         queue, iothread, owner));
      }
      owner = iothread;
    }
  }
  const auto missing = std::ranges::find(iothreads, std::string());
  if (missing == iothreads.end()) return {};
  return wrong_mapping(fmt::format("assigns vq {} to no iothread", missing - iothreads.begin()));
}

Result<void> check_names(const Json::Array& mapping) {
  if (mapping.empty()) return wrong_mapping("names no iothread");
  std::vector<std::string> names;
  for (const Json& item : mapping) {
    const std::string& name = Arguments(item).text("iothread");
    if (name.empty()) return wrong_mapping("has an iothread without a name");
    if (std::ranges::find(names, name) != names.end())
      return wrong_mapping(fmt::format("names iothread \"{}\" twice", name));
    names.push_back(name);
  }
  return {};
}

// The threads of all queues, and how many of those there are where the user has not said.
Result<std::vector<std::string>> read_mapping(const Json::Array& mapping, uint16_t& queues,
                                              bool automatic) {
  PLATTER_TRY(check_names(mapping));
  std::vector<std::string> iothreads;
  PLATTER_ASSIGN(const auto highest, highest_queue(mapping));
  if (!highest) {
    for (const Json& item : mapping) iothreads.push_back(Arguments(item).text("iothread"));
    return iothreads;
  }
  if (automatic) queues = static_cast<uint16_t>(std::min<uint64_t>(*highest + 1, UINT16_MAX));
  iothreads.resize(queues);
  PLATTER_TRY(assign_queues(mapping, iothreads));
  return iothreads;
}

Result<void> read_queues(const Arguments& given, DeviceOptions& options) {
  uint16_t& queues = options.served.properties.queues;
  const uint64_t wanted = given.natural("num-queues", kAutomaticQueuesProperty);
  const bool automatic = wanted == kAutomaticQueuesProperty;
  queues = automatic ? DeviceOptions::kAutomaticQueues : static_cast<uint16_t>(wanted);
  const std::string iothread = given.text_or_empty("iothread");
  if (!given.has("iothread-vq-mapping")) {
    if (!iothread.empty()) options.iothreads = {iothread};
    return {};
  }
  if (!iothread.empty()) return fail(EINVAL, "iothread and iothread-vq-mapping exclude each other");
  PLATTER_ASSIGN(options.iothreads,
                 read_mapping(given.array("iothread-vq-mapping"), queues, automatic));
  return {};
}

}  // namespace

Result<DeviceOptions> read_device_options(const Json& all) {
  const Arguments given(all);
  DeviceOptions options;
  options.id = given.text("id");
  options.drive = given.text_or_empty("drive");
  if (options.drive.empty()) return fail(EINVAL, "drive property not set");
  options.shares_writes = given.flag("share-rw");
  PLATTER_ASSIGN(options.served.properties, read_properties(given));
  PLATTER_TRY(read_queues(given, options));
  PLATTER_TRY(virtio::blk::check(options.served.properties));
  PLATTER_TRY(read_address(given.object("addr"), options.served));
  return options;
}

}  // namespace platter::monitor
