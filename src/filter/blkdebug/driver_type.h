// blkdebug: passes requests on, and has those fail or wait that its rules say. For testing what
// stands above it.
#pragma once

#include "block/driver.h"

namespace platter::filter {

extern const block::DriverType kBlkdebug;

}  // namespace platter::filter
