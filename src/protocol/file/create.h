// Making a new file for an image.
#pragma once

#include "block/driver.h"

namespace platter::protocol {

extern const base::OptionSchema kFileCreateSchema;

// An existing file is emptied, unless somebody uses it; an existing block device is taken as it is.
io::Task<Result<void>> create_file(block::CreateContext& context);

}  // namespace platter::protocol
