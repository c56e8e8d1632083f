// Naming an internal snapshot on a command line.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "block/backend.h"
#include "block/driver.h"

namespace platter::tool {

// "snapshot.id=ID,snapshot.name=NAME" (either may be missing), or an id or name by itself.
struct SnapshotSelector {
  std::optional<std::string> id;
  std::optional<std::string> name;
  std::string id_or_name;  // where neither of the above is given

  static Result<SnapshotSelector> parse(std::string_view text);
};

// Where a name is also another one's id, the id counts. Null: there is none.
const block::SnapshotInfo* find_snapshot(std::span<const block::SnapshotInfo> snapshots,
                                         const SnapshotSelector& selector);

// The image, open for reading, shows the snapshot from now on.
io::Task<Result<void>> load_snapshot(block::Backend& image, SnapshotSelector selector);

}  // namespace platter::tool
