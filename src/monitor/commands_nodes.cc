// Commands about nodes: made, deleted, resized, described.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/try.h"
#include "block/accounting.h"
#include "block/latency_histogram.h"
#include "block/named_nodes.h"
#include "block/write_threshold.h"
#include "monitor/commands.h"
#include "monitor/devices.h"
#include "monitor/image_info.h"
#include "monitor/snapshots.h"

namespace platter::monitor {
namespace {

using base::Json;
using block::Node;

// ---- blockdev-add, blockdev-del

io::Task<Reply> blockdev_add(Control& control, Arguments arguments) {
  if (arguments.has("node-name") && arguments.text("node-name").empty())
    co_return refuse("Invalid node-name: ''");
  block::OpenRequest request;
  PLATTER_CO_ASSIGN(request.options, base::Options::from_json(arguments.json()));
  request.flags = {.read_only = false};
  request.policy = control.policy();
  PLATTER_CO_TRY(co_await block::add_node(control.graph(), std::move(request)));
  co_return done();
}

io::Task<Reply> blockdev_del(Control& control, Arguments arguments) {
  const std::string& name = arguments.text("node-name");
  Node* node = control.graph().find(name);
  if (node == nullptr)
    co_return refuse(fmt::format("Failed to find node with node-name='{}'", name));
  for (const block::NodeUse& use : block::uses(*node)) {
    if (use.parent == nullptr) co_return refuse(fmt::format("Node {} is in use", name));
  }
  PLATTER_CO_TRY(check_replaceable(*node));
  if (!block::is_kept(*node))
    co_return refuse(fmt::format("Node {} is not owned by the monitor", name));
  Result<void> deleted = co_await block::delete_node(control.graph(), *node);
  control.bitmaps().sweep();
  PLATTER_CO_TRY(std::move(deleted));
  co_return done();
}

// ---- query-named-block-nodes

std::string_view detect_zeroes_name(block::DetectZeroes detect) {
  switch (detect) {
    case block::DetectZeroes::kOff: return "off";
    case block::DetectZeroes::kOn: return "on";
    case block::DetectZeroes::kUnmap: return "unmap";
  }
  return "off";
}

Json describe_bitmaps(const std::vector<NodeBitmaps::Listed>& bitmaps) {
  Json list = Json::array();
  for (const auto& bitmap : bitmaps) {
    Json& one = list.append(Json::object());
    one.add("name", bitmap.info.name);
    one.add("recording", bitmap.info.enabled && !bitmap.info.inconsistent);
    one.add("persistent", bitmap.persistent);
    one.add("busy", bitmap.busy);
    if (bitmap.info.inconsistent) one.add("inconsistent", true);
    one.add("granularity", bitmap.info.granularity);
    one.add("count", bitmap.dirty_bytes);
  }
  return list;
}

// `flat`: without the images that it stands on; otherwise `depth` counts them.
io::Task<Result<Json>> describe_image(Node& node, bool flat, unsigned& depth) {
  PLATTER_CO_ASSIGN(const ImageInfo info, co_await collect_image_info(node));
  Json image = to_json(info);
  if (!flat && node.backing() != nullptr) {
    ++depth;
    PLATTER_CO_ASSIGN(Json below, co_await describe_image(node.backing()->node(), flat, depth));
    image.add("backing-image", std::move(below));
  }
  co_return image;
}

io::Task<Result<Json>> describe_node(Control& control, Node& node, bool flat) {
  Json device = Json::object();
  unsigned depth = 0;
  PLATTER_CO_ASSIGN(Json image, co_await describe_image(node, flat, depth));
  const bool encrypted = image.find("encrypted") != nullptr;
  device.add("image", std::move(image));
  device.add("node-name", node.name());
  device.add("file", node.filename());
  device.add("drv", node.type().name);
  device.add("ro", node.read_only());
  device.add("encrypted", encrypted);
  const block::NodeSettings settings = block::settings(node);
  device.add("detect_zeroes", detect_zeroes_name(settings.detect_zeroes));
  device.add("backing_file_depth", depth);
  if (node.backing() != nullptr) device.add("backing_file", node.backing()->node().filename());
  Json& cache = device.add("cache", Json::object());
  cache.add("writeback", true);
  cache.add("direct", settings.cache_direct);
  cache.add("no-flush", settings.cache_no_flush);
  // No node is throttled.
  for (const auto* limit : {"iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"})
    device.add(limit, 0);
  device.add("write_threshold", static_cast<int64_t>(block::write_threshold(node)));
  PLATTER_CO_ASSIGN(const auto bitmaps, co_await control.bitmaps().list(node));
  if (!bitmaps.empty()) device.add("dirty-bitmaps", describe_bitmaps(bitmaps));
  co_return device;
}

io::Task<Reply> query_named_block_nodes(Control& control, Arguments arguments) {
  const bool flat = arguments.flag("flat");
  Json list = Json::array();
  for (Node* node : control.graph().nodes()) {
    PLATTER_CO_ASSIGN(Json described, co_await describe_node(control, *node, flat));
    list.append(std::move(described));
  }
  co_return list;
}

std::vector<Devices::Listed> devices_of(Control& control) {
  return control.devices() == nullptr ? std::vector<Devices::Listed>() : control.devices()->list();
}

std::string_view name_of(virtio::blk::ErrorPolicy::IoStatus status) {
  using Status = virtio::blk::ErrorPolicy::IoStatus;
  switch (status) {
    case Status::kOk: return "ok";
    case Status::kNoSpace: return "nospace";
    case Status::kFailed: break;
  }
  return "failed";
}

// Exports are not among them.
io::Task<Reply> query_block(Control& control, Arguments) {
  Json list = Json::array();
  for (const Devices::Listed& device : devices_of(control)) {
    Json one = Json::object();
    one.add("device", "");
    one.add("qdev", device.id);
    one.add("type", "unknown");
    one.add("removable", false);
    one.add("locked", false);
    if (device.errors.has_status()) one.add("io-status", name_of(device.errors.status()));
    PLATTER_CO_ASSIGN(Json inserted, co_await describe_node(control, device.backend.node(), false));
    one.add("inserted", std::move(inserted));
    list.append(std::move(one));
  }
  co_return list;
}

// ---- query-blockstats

void add_counters(Json& statistics, const block::BackendStatistics& counted) {
  // Zeroing is a way of writing.
  const block::Accounting& rd = counted.read;
  const block::Accounting& zero = counted.zero;
  const block::Accounting& wr = counted.write;
  const block::Accounting& append = counted.zone_append;
  const block::Accounting& unmap = counted.discard;
  const block::Accounting& flush = counted.flush;
  const std::pair<std::string_view, uint64_t> counters[] = {
      {"rd_bytes", rd.bytes},
      {"wr_bytes", wr.bytes + zero.bytes},
      {"zone_append_bytes", append.bytes},
      {"unmap_bytes", unmap.bytes},
      {"rd_operations", rd.operations},
      {"wr_operations", wr.operations + zero.operations},
      {"zone_append_operations", append.operations},
      {"flush_operations", flush.operations},
      {"unmap_operations", unmap.operations},
      {"rd_total_time_ns", rd.total_time_ns},
      {"wr_total_time_ns", wr.total_time_ns + zero.total_time_ns},
      {"zone_append_total_time_ns", append.total_time_ns},
      {"flush_total_time_ns", flush.total_time_ns},
      {"unmap_total_time_ns", unmap.total_time_ns},
      {"failed_rd_operations", rd.failed},
      {"failed_wr_operations", wr.failed + zero.failed},
      {"failed_zone_append_operations", append.failed},
      {"failed_flush_operations", flush.failed},
      {"failed_unmap_operations", unmap.failed},
  };
  for (const auto& [name, value] : counters) statistics.add(std::string(name), value);
}

void add_histograms(Json& statistics, const Node& node) {
  constexpr std::pair<std::string_view, block::LatencyKind> kHistograms[] = {
      {"rd_latency_histogram", block::LatencyKind::kRead},
      {"wr_latency_histogram", block::LatencyKind::kWrite},
      {"zone_append_latency_histogram", block::LatencyKind::kZoneAppend},
      {"flush_latency_histogram", block::LatencyKind::kFlush}};
  for (const auto& [name, kind] : kHistograms) {
    const block::LatencyHistogram* histogram = block::latency_histogram(node, kind);
    if (histogram == nullptr) continue;
    Json& described = statistics.add(std::string(name), Json::object());
    Json& boundaries = described.add("boundaries", Json::array());
    for (const uint64_t boundary : histogram->boundaries()) boundaries.append(boundary);
    Json& bins = described.add("bins", Json::array());
    for (const uint64_t bin : histogram->bins()) bins.append(bin);
  }
}

// What the backends on a node have counted. Nothing is merged on the way to them, and what they
// refuse fails.
Json statistics_of(const Node& node, const block::BackendStatistics& counted) {
  constexpr std::string_view kNothing[] = {"rd_merged",
                                           "wr_merged",
                                           "zone_append_merged",
                                           "unmap_merged",
                                           "invalid_rd_operations",
                                           "invalid_wr_operations",
                                           "invalid_zone_append_operations",
                                           "invalid_flush_operations",
                                           "invalid_unmap_operations"};
  Json statistics = Json::object();
  add_counters(statistics, counted);
  statistics.add("wr_highest_offset", block::highest_written(node));
  if (counted.last_ended.count() != 0) {
    const auto idle = std::max(io::Reactor::current()->now() - counted.last_ended, {});
    statistics.add("idle_time_ns", static_cast<uint64_t>(idle.count()));
  }
  for (const auto counter : kNothing) statistics.add(std::string(counter), 0);
  statistics.add("account_invalid", false);
  statistics.add("account_failed", false);
  statistics.add("timed_stats", Json::array());
  add_histograms(statistics, node);
  return statistics;
}

Json describe_statistics(const Node& node);

void add_statistics(Json& described, const Node& node, const block::BackendStatistics& counted) {
  described.add("node-name", node.name());
  described.add("stats", statistics_of(node, counted));
  if (base::Json own = node.driver().statistics(); own.is_object()) {
    own.add("driver", node.type().name);
    described.add("driver-specific", std::move(own));
  }
  if (node.primary() != nullptr)
    described.add("parent", describe_statistics(node.primary()->node()));
}

Json describe_statistics(const Node& node) {
  Json described = Json::object();
  add_statistics(described, node, block::statistics(node));
  return described;
}

io::Task<Reply> query_blockstats(Control& control, Arguments arguments) {
  Json list = Json::array();
  if (arguments.flag("query-nodes")) {
    for (const Node* node : control.graph().nodes()) list.append(describe_statistics(*node));
    return ready(std::move(list));
  }
  for (const Devices::Listed& device : devices_of(control)) {
    Json& one = list.append(Json::object());
    one.add("device", "");
    one.add("qdev", device.id);
    add_statistics(one, device.backend.node(), device.backend.statistics());
  }
  return ready(std::move(list));
}

// ---- x-debug-query-block-graph

Json permission_list(block::Permissions permissions) {
  using block::Permission;
  constexpr std::pair<Permission, std::string_view> kNames[] = {
      {Permission::kConsistentRead, "consistent-read"},
      {Permission::kWrite, "write"},
      {Permission::kWriteUnchanged, "write-unchanged"},
      {Permission::kResize, "resize"}};
  Json list = Json::array();
  for (const auto& [permission, name] : kNames) {
    if (permissions.has(permission)) list.append(name);
  }
  return list;
}

class GraphPicture {
 public:
  explicit GraphPicture(const block::Graph& graph) {
    const auto all = graph.nodes();
    for (const Node* node : all) ids_.emplace(node, add_node("block-driver", node->name()));
    for (const Node* node : all) {
      for (const block::NodeUse& use : block::uses(*node)) add_edge(use, *node);
    }
  }
  Json take() {
    Json picture = Json::object();
    picture.add("nodes", std::move(nodes_));
    picture.add("edges", std::move(edges_));
    return picture;
  }

 private:
  unsigned add_node(std::string_view type, std::string_view name) {
    Json& node = nodes_.append(Json::object());
    node.add("id", ++last_id_);
    node.add("type", type);
    node.add("name", name);
    return last_id_;
  }
  void add_edge(const block::NodeUse& use, const Node& child) {
    const unsigned parent =
        use.parent != nullptr ? ids_.at(use.parent) : add_node("block-backend", "");
    Json& edge = edges_.append(Json::object());
    edge.add("parent", parent);
    edge.add("child", ids_.at(&child));
    edge.add("name", use.name);
    edge.add("perm", permission_list(use.needed));
    edge.add("shared-perm", permission_list(use.shared));
  }

  std::map<const Node*, unsigned> ids_;
  unsigned last_id_ = 0;
  Json nodes_ = Json::array();
  Json edges_ = Json::array();
};

io::Task<Reply> query_block_graph(Control& control, Arguments) {
  return ready(GraphPicture(control.graph()).take());
}

// ---- block_resize

io::Task<Reply> block_resize(Control& control, Arguments arguments) {
  auto found =
      find_node(control, arguments.text_or_empty("device"), arguments.text_or_empty("node-name"));
  if (!found) co_return std::unexpected(std::move(found).error());
  Node& node = **found;
  const int64_t size = arguments.integer("size");
  if (size < 0) co_return refuse("Parameter 'size' expects a >0 size");
  if (static_cast<uint64_t>(size) > block::kMaxLength)
    co_return refuse(fmt::format("offset({}) exceeds maximum({})", size, block::kMaxLength));
  for (const Node* below = &node; below != nullptr;
       below = below->primary() == nullptr ? nullptr : &below->primary()->node()) {
    if (below->read_only()) co_return refuse("Image is read-only");
  }
  PLATTER_CO_ASSIGN(auto backend, co_await control.graph().attach(node, block::Permission::kResize,
                                                                  block::kAllPermissions));
  Result<void> resized = co_await backend->resize(static_cast<uint64_t>(size),
                                                  block::Preallocation::kOff, /*exact=*/false);
  if (resized) resized = control.bitmaps().follow_size(node);
  control.exports().sizes_may_have_changed();
  if (control.devices() != nullptr) control.devices()->sizes_may_have_changed();
  Result<void> closed = co_await backend->close();
  PLATTER_CO_TRY(std::move(resized));
  PLATTER_CO_TRY(std::move(closed));
  co_return done();
}

constexpr CommandFunction kCommands[] = {
    {"blockdev-add", blockdev_add},
    {"blockdev-del", blockdev_del},
    {"query-named-block-nodes", query_named_block_nodes},
    {"query-block", query_block},
    {"query-blockstats", query_blockstats},
    {"x-debug-query-block-graph", query_block_graph},
    {"block_resize", block_resize},
};

}  // namespace

std::expected<Node*, Failure> find_node(Control& control, std::string_view device,
                                        std::string_view node_name) {
  if (!node_name.empty()) {
    if (Node* node = control.graph().find(node_name)) return node;
  }
  return refuse(fmt::format("Cannot find device='{}' nor node-name='{}'", device, node_name));
}

std::span<const CommandFunction> node_commands() { return kCommands; }

}  // namespace platter::monitor
