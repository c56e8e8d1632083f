#include "monitor/image_info.h"

#include "base/try.h"
#include "block/filename.h"
#include "block/graph.h"

namespace platter::monitor {

io::Task<Result<ImageInfo>> collect_image_info(block::Node& node) {
  ImageInfo info;
  info.filename = node.filename();
  info.format = node.type().name;
  info.virtual_size = node.size();
  if (auto allocated = co_await node.driver().allocated_size()) info.actual_size = *allocated;
  PLATTER_CO_ASSIGN(info.driver, node.driver().info());
  info.backing = node.driver().backing_reference();
  if (info.backing) {
    if (auto full = block::resolve_backing_name(node, info.backing->filename)) {
      info.full_backing_filename = *full;
    }
  }
  co_return info;
}

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

base::Json to_json(const block::SnapshotInfo& snapshot) {
  auto json = base::Json::object();
  if (snapshot.icount) json.add("icount", *snapshot.icount);
  json.add("vm-clock-nsec", snapshot.vm_clock_nanoseconds % kNanosecondsPerSecond);
  json.add("name", snapshot.name);
  json.add("date-sec", snapshot.date_seconds);
  json.add("date-nsec", snapshot.date_nanoseconds);
  json.add("vm-clock-sec", snapshot.vm_clock_nanoseconds / kNanosecondsPerSecond);
  json.add("id", snapshot.id);
  json.add("vm-state-size", snapshot.vm_state_size);
  return json;
}

base::Json to_json(const ImageInfo& info) {
  auto json = base::Json::object();
  if (!info.driver.snapshots.empty()) {
    auto list = base::Json::array();
    for (const auto& snapshot : info.driver.snapshots) list.append(to_json(snapshot));
    json.add("snapshots", std::move(list));
  }
  const bool has_format = info.backing && !info.backing->format.empty();
  if (has_format) json.add("backing-filename-format", info.backing->format);
  json.add("virtual-size", info.virtual_size);
  json.add("filename", info.filename);
  if (info.driver.cluster_size != 0) json.add("cluster-size", info.driver.cluster_size);
  json.add("format", info.format);
  if (info.actual_size) json.add("actual-size", *info.actual_size);
  if (info.driver.specific.is_object()) json.add("format-specific", info.driver.specific);
  if (!info.full_backing_filename.empty())
    json.add("full-backing-filename", info.full_backing_filename);
  if (info.backing) json.add("backing-filename", info.backing->filename);
  if (info.driver.compressed) json.add("compressed", true);
  if (info.driver.encrypted) json.add("encrypted", true);
  json.add("dirty-flag", info.driver.dirty);
  return json;
}

}  // namespace platter::monitor
