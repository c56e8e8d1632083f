// What a process that died has left in a state file (state_file.h), brought to the disk.
#pragma once

#include <memory>
#include <string>

#include "format/qcow2/image.h"
#include "format/qcow2/state_file.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

// The state file of this image in that directory, which is made if need be.
Result<std::unique_ptr<StateFile>> open_state_file(const Image& image,
                                                   const std::string& directory);

// Writes back what was left, in the order of order.h, and gives back the clusters that were counted
// and not yet used. May be interrupted, and is then done again. Before any table is loaded.
//
// EIO: what was left cannot be read, or the image was changed since: it is not touched then, and
// neither is the state file.
io::Task<Result<void>> take_up_left_state(Image& image, StateFile& state);

}  // namespace platter::format::qcow2
