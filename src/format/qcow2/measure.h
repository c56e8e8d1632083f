// How large the file of an image to be made will be.
#pragma once

#include "block/driver.h"

namespace platter::format::qcow2 {

// Reads the block status of the source, in several places at once.
io::Task<Result<block::Measurement>> measure(const block::MeasureContext& context);

}  // namespace platter::format::qcow2
