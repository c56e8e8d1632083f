// The qcow2 driver, for the registry.
#pragma once

#include "block/driver.h"

namespace platter::format {

extern const block::DriverType kQcow2;

}  // namespace platter::format
