// The bitmaps extension of the header, changed while the image is in use.
//
// A header may be longer than the sector that a disk writes as a whole, and the name of the backing
// file lies behind the extensions. So nothing moves that a reader needs: a step that is one write
// within a sector makes each change count, and the autoclear bit is off wherever the extension's
// fields could be half written.
#pragma once

#include <optional>

#include "format/qcow2/image.h"

namespace platter::format::qcow2 {

// Names another directory, or none; durable when it returns. A crash on the way leaves the old
// directory, the new one, or bitmaps that are not trusted. Under the allocation mutex.
io::Task<Result<void>> publish_bitmaps(Image& image, std::optional<BitmapsExtension> next);

}  // namespace platter::format::qcow2
