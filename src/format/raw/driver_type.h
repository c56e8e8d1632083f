#pragma once

#include "block/driver.h"

namespace platter::format {

extern const block::DriverType kRaw;

}  // namespace platter::format
