// What every cluster of an image's file is used for: a reference walk that tells a visitor where it
// has been. Read-only.
#pragma once

#include "block/driver.h"
#include "format/qcow2/check.h"
#include "format/qcow2/header.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// Called with nothing in flight and with caches written back. Where several things refer to a
// cluster it is shown once: metadata before the disk as it is now, that before snapshots.
io::Task<Result<block::CheckResult>> chart_image(block::Child& file, Header header,
                                                 block::LayoutVisitor& visitor,
                                                 CheckOptions options = {});

}  // namespace platter::format::qcow2
