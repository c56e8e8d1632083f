// copy-on-read: what a read finds in a backing file is written to the image on the way.
#pragma once

#include "block/driver.h"

namespace platter::filter {

extern const block::DriverType kCopyOnRead;

}  // namespace platter::filter
