// Making a LUKS volume, and how large one will be.
#pragma once

#include "block/driver.h"

namespace platter::format::luks {

io::Task<Result<void>> create(block::CreateContext& context);
io::Task<Result<block::Measurement>> measure(const block::MeasureContext& context);

}  // namespace platter::format::luks
