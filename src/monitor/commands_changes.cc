// Commands that change what nodes hold: bitmaps, snapshots, and transactions of them.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/math.h"
#include "base/try.h"
#include "block/dirty_bitmap.h"
#include "crypto/digest.h"
#include "monitor/actions.h"
#include "monitor/commands.h"
#include "monitor/image_info.h"
#include "monitor/snapshots.h"

namespace platter::monitor {
namespace {

using base::Json;
using block::Node;

// ---- Each of these is a transaction of one.

io::Task<Reply> one(Control& control, std::string_view kind, Arguments arguments) {
  return run_actions(control, {Action{kind, &arguments.json()}});
}
io::Task<Reply> add_bitmap(Control& control, Arguments arguments) {
  return one(control, "block-dirty-bitmap-add", arguments);
}
io::Task<Reply> remove_bitmap(Control& control, Arguments arguments) {
  return one(control, "block-dirty-bitmap-remove", arguments);
}
io::Task<Reply> clear_bitmap(Control& control, Arguments arguments) {
  return one(control, "block-dirty-bitmap-clear", arguments);
}
io::Task<Reply> enable_bitmap(Control& control, Arguments arguments) {
  return one(control, "block-dirty-bitmap-enable", arguments);
}
io::Task<Reply> disable_bitmap(Control& control, Arguments arguments) {
  return one(control, "block-dirty-bitmap-disable", arguments);
}
io::Task<Reply> merge_bitmaps(Control& control, Arguments arguments) {
  return one(control, "block-dirty-bitmap-merge", arguments);
}
io::Task<Reply> snapshot(Control& control, Arguments arguments) {
  return one(control, "blockdev-snapshot", arguments);
}
io::Task<Reply> snapshot_sync(Control& control, Arguments arguments) {
  return one(control, "blockdev-snapshot-sync", arguments);
}
io::Task<Reply> snapshot_internal(Control& control, Arguments arguments) {
  return one(control, "blockdev-snapshot-internal-sync", arguments);
}

// ---- x-debug-block-dirty-bitmap-sha256

constexpr size_t kHashedBytes = size_t{64} << 10;

// Of the bits, eight a byte, filled up to whole words. Parts that are zero, as most are, take no
// room.
std::string hash_bits(const block::DirtyBitmap& bitmap) {
  const block::BitTree& tree = bitmap.tree();
  const uint64_t bytes = base::divide_round_up(tree.size(), block::BitTree::kWordBits) * 8;
  const std::vector<uint8_t> zeroes(kHashedBytes);
  std::vector<std::vector<uint8_t>> kept;
  std::vector<std::span<const uint8_t>> parts;
  for (uint64_t offset = 0; offset < bytes; offset += kHashedBytes) {
    const auto length = static_cast<size_t>(std::min<uint64_t>(kHashedBytes, bytes - offset));
    if (tree.next_set(offset * 8) >= std::min((offset + length) * 8, tree.size())) {
      parts.push_back(std::span(zeroes).first(length));
      continue;
    }
    kept.emplace_back(length);
    tree.store(offset * 8, kept.back());
    parts.push_back(kept.back());
  }
  std::array<uint8_t, 32> digest;
  crypto::hash(crypto::HashAlgorithm::kSha256, parts, digest);
  std::string text;
  for (const uint8_t byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

io::Task<Reply> hash_bitmap(Control& control, Arguments arguments) {
  const std::string& node_name = arguments.text("node");
  Node* node = control.graph().find(node_name);
  if (node == nullptr) co_return refuse(fmt::format("Node '{}' not found", node_name));
  PLATTER_CO_ASSIGN(const auto bits,
                    co_await control.bitmaps().bits(*node, arguments.text("name")));
  Json reply = Json::object();
  reply.add("sha256", hash_bits(*bits));
  co_return reply;
}

io::Task<Reply> transaction(Control& control, Arguments arguments) {
  const bool grouped = arguments.has("properties") &&
                       arguments.object("properties").text_or_empty("completion-mode") == "grouped";
  std::vector<Action> actions;
  for (const Json& action : arguments.array("actions")) {
    const Arguments given(action);
    // No action goes on after the transaction, so that there is nothing to group.
    if (grouped) {
      co_return refuse(
          fmt::format("Action '{}' does not support Transaction property "
                      "completion-mode = grouped",
                      given.text("type")));
    }
    actions.push_back({given.text("type"), &given.at("data")});
  }
  co_return co_await run_actions(control, std::move(actions));
}

// ---- blockdev-snapshot-delete-internal-sync

std::string or_null(const Arguments& arguments, std::string_view name) {
  return arguments.has(name) ? arguments.text(name) : "null";
}

io::Task<Reply> delete_snapshot(Control& control, Arguments arguments) {
  PLATTER_CO_ASSIGN(block::Node * node, find_root(control, arguments.text("device")));
  const bool by_id = arguments.has("id");
  const bool by_name = arguments.has("name");
  if (!by_id && !by_name) co_return refuse("Name or id must be provided");
  block::SnapshotStore* store = node->driver().snapshot_store();
  const auto all = store != nullptr ? store->snapshots() : std::vector<block::SnapshotInfo>();
  const auto found = std::ranges::find_if(all, [&](const block::SnapshotInfo& one) {
    return (!by_id || one.id == arguments.text("id")) &&
           (!by_name || one.name == arguments.text("name"));
  });
  if (found == all.end()) {
    co_return refuse(fmt::format(
        "Snapshot with id '{}' and name '{}' does not exist on device '{}'",
        or_null(arguments, "id"), or_null(arguments, "name"), arguments.text("device")));
  }
  if (node->read_only()) co_return refuse(fmt::format("Device '{}' is read only", node->name()));
  co_await control.graph().drained_begin(*node);
  Result<void> deleted = co_await store->delete_snapshot(found->id);
  control.graph().drained_end(*node);
  PLATTER_CO_TRY(std::move(deleted));
  co_return to_json(*found);
}

constexpr CommandFunction kCommands[] = {
    {"block-dirty-bitmap-add", add_bitmap},
    {"block-dirty-bitmap-remove", remove_bitmap},
    {"block-dirty-bitmap-clear", clear_bitmap},
    {"block-dirty-bitmap-enable", enable_bitmap},
    {"block-dirty-bitmap-disable", disable_bitmap},
    {"block-dirty-bitmap-merge", merge_bitmaps},
    {"x-debug-block-dirty-bitmap-sha256", hash_bitmap},
    {"blockdev-snapshot", snapshot},
    {"blockdev-snapshot-internal-sync", snapshot_internal},
    {"blockdev-snapshot-sync", snapshot_sync},
    {"blockdev-snapshot-delete-internal-sync", delete_snapshot},
    {"transaction", transaction},
};

}  // namespace

std::span<const CommandFunction> change_commands() { return kCommands; }

}  // namespace platter::monitor
