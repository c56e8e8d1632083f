// What `info` tells about a qcow2 image.
#pragma once

#include <span>

#include "block/driver.h"
#include "crypto/luks_header.h"
#include "format/qcow2/bitmaps.h"
#include "format/qcow2/header.h"
#include "format/qcow2/snapshots.h"

namespace platter::format::qcow2 {

block::SnapshotInfo describe_snapshot(const Snapshot& snapshot);

// Members in qemu-img's order. `bitmaps` and `snapshots` as their tables were read (empty: none),
// `luks` for an image that is encrypted so.
block::DriverInfo describe(const Header& header, std::span<const Bitmap> bitmaps,
                           std::span<const Snapshot> snapshots = {},
                           const crypto::LuksHeader* luks = nullptr);

}  // namespace platter::format::qcow2
