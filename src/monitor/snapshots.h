// Snapshots as clients ask for them: within an image, or as an overlay on it.
#pragma once

#include <string>

#include "monitor/control.h"

namespace platter::monitor {

// The node, which is nobody's child: "Need a root block node" otherwise.
std::expected<block::Node*, Failure> find_root(Control& control, const std::string& name);

// Keeps the disk as it is now; the new snapshot's id. In a drained section.
io::Task<std::expected<std::string, Failure>> take_snapshot(Control& control, block::Node& node,
                                                            std::string name);

// Makes the overlay that blockdev-snapshot-sync asks for, or finds it there, and opens it: a kept
// node without a backing file.
io::Task<std::expected<block::Node*, Failure>> open_overlay(Control& control,
                                                            const block::Node& node,
                                                            Arguments wish);

// Whether an overlay may be put on `node`, or it may go: it is no other's backing file.
Result<void> check_replaceable(const block::Node& node);

}  // namespace platter::monitor
