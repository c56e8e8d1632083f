// Repair: makes an image's counts and copied flags what its tables say.
// Specification: docs/format/qcow2.md, "Consistency".
#pragma once

#include "block/driver.h"
#include "format/qcow2/image.h"

namespace platter::format::qcow2 {

// Checks the image, repairs what `what` covers, and checks again. Counts and flags become right all
// at once (TableSwitch); guest data and the entries that map it are never changed. Leaks alone are
// repaired only where every table can be followed: behind a damaged one, what looks leaked may be
// in use.
// Called with no cache in use; what was found before is reported, and what is done about it.
io::Task<Result<block::CheckResult>> repair_image(Image& image, block::CheckReporter& reporter,
                                                  block::Repair what);

}  // namespace platter::format::qcow2
