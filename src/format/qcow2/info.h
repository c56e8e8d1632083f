// What `info` tells about a qcow2 image.
#pragma once

#include <span>

#include "block/driver.h"
#include "format/qcow2/bitmaps.h"
#include "format/qcow2/header.h"

namespace platter::format::qcow2 {

// Members in qemu-img's order. `bitmaps` is the image's bitmap directory (empty: none).
block::DriverInfo describe(const Header& header, std::span<const Bitmap> bitmaps);

}  // namespace platter::format::qcow2
