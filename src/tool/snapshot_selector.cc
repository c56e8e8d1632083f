#include "tool/snapshot_selector.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/options.h"
#include "base/try.h"

namespace platter::tool {

Result<SnapshotSelector> SnapshotSelector::parse(std::string_view text) {
  SnapshotSelector selector;
  if (!text.starts_with("snapshot.")) {
    selector.id_or_name = text;
    return selector;
  }
  const std::string failed = fmt::format("Failed in parsing snapshot param '{}'", text);
  auto options = base::Options::from_key_values(text);
  if (!options) return std::unexpected(std::move(options).error().with_hint(failed));
  for (const auto& [key, value] : options->entries()) {
    auto given = options->find_string(key);
    if (key == "snapshot.id" && given) {
      selector.id = *given;
    } else if (key == "snapshot.name" && given) {
      selector.name = *given;
    } else {
      return std::unexpected(
          Error(EINVAL, fmt::format("Invalid parameter '{}'", key)).with_hint(failed));
    }
  }
  return selector;
}

const block::SnapshotInfo* find_snapshot(std::span<const block::SnapshotInfo> snapshots,
                                         const SnapshotSelector& selector) {
  auto find = [&](auto matches) -> const block::SnapshotInfo* {
    auto found = std::ranges::find_if(snapshots, matches);
    return found == snapshots.end() ? nullptr : &*found;
  };
  if (selector.id || selector.name) {
    return find([&](const block::SnapshotInfo& snapshot) {
      return (!selector.id || snapshot.id == *selector.id) &&
             (!selector.name || snapshot.name == *selector.name);
    });
  }
  const auto* by_id =
      find([&](const auto& snapshot) { return snapshot.id == selector.id_or_name; });
  if (by_id != nullptr) return by_id;
  return find([&](const auto& snapshot) { return snapshot.name == selector.id_or_name; });
}

io::Task<Result<void>> load_snapshot(block::Backend& image, SnapshotSelector selector) {
  block::Node& node = image.node().skip_filters();
  auto* store = node.driver().snapshot_store();
  if (store == nullptr) {
    co_return fail(ENOTSUP, fmt::format("Block format '{}' used by device '' does not support "
                                        "temporarily loading internal snapshots",
                                        node.type().name));
  }
  const auto snapshots = store->snapshots();
  const auto* found = find_snapshot(snapshots, selector);
  if (found == nullptr) co_return fail(ENOENT, "Can't find snapshot");
  co_return co_await store->load_snapshot(found->id);
}

}  // namespace platter::tool
