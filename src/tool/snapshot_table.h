// The table of an image's snapshots, as info and snapshot -l print it.
#pragma once

#include <span>
#include <string>

#include "block/driver.h"

namespace platter::tool {

// Heading and rows, in qemu-img's columns; dates in local time.
std::string snapshot_table(std::span<const block::SnapshotInfo> snapshots);

}  // namespace platter::tool
