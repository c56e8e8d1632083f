#pragma once

#include "block/driver.h"

namespace platter::protocol {

extern const block::DriverType kFile;

}  // namespace platter::protocol
