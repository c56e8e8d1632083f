// The drivers that are part of the library. The only file of this room that names them.

#include "block/registry.h"
#include "filter/blkdebug/driver_type.h"
#include "filter/copy_on_read/driver_type.h"
#include "format/luks/driver_type.h"
#include "format/qcow2/driver_type.h"
#include "format/raw/driver_type.h"
#include "protocol/file/driver_type.h"
#include "protocol/memory/driver_type.h"
#include "protocol/null/driver_type.h"

namespace platter::block {

DriverRegistry DriverRegistry::builtin() {
  return DriverRegistry({
      &format::kLuks,
      &format::kQcow2,
      &format::kRaw,
      &filter::kBlkdebug,
      &filter::kCopyOnRead,
      &protocol::kFile,
      &protocol::kMemory,
      &protocol::kNull,
  });
}

}  // namespace platter::block
