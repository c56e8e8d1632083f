// Making a qcow2 image.
//
// Everything is validated before the file is touched. The metadata is laid out in one go: header,
// refcount table, refcount blocks, L1 and, with preallocation, L2 tables lie one after another in
// front of the data, and are written front to back in large pieces with bounded memory; the header
// is written last, so that what a crash leaves behind is no image.
#pragma once

#include "base/options.h"
#include "block/driver.h"

namespace platter::format::qcow2 {

// The `-o` table.
base::OptionSchema create_options();

// DriverType::create.
io::Task<Result<void>> create(block::CreateContext& context);

}  // namespace platter::format::qcow2
