#pragma once

#include "block/driver.h"

namespace platter::protocol {

extern const block::DriverType kNull;

}  // namespace platter::protocol
