#pragma once

#include "block/driver.h"

namespace platter::protocol {

extern const block::DriverType kMemory;

}  // namespace platter::protocol
