// luks: a LUKS volume, version 1, as an image format of its own.
#pragma once

#include "block/driver.h"

namespace platter::format {

extern const block::DriverType kLuks;

}  // namespace platter::format
