// The type iothread. Which reactor stands for one: monitor/iothreads.h.
#pragma once

#include <cstdint>
#include <vector>

#include "monitor/object_properties.h"
#include "platter/error.h"

namespace platter::monitor {

struct IoThread {
  uint64_t poll_max_ns = 32768;
  uint64_t poll_grow = 0;  // 0: chosen, as all below
  uint64_t poll_shrink = 0;
  uint64_t max_batch = 0;
  uint64_t thread_pool_min = 0;
  uint64_t thread_pool_max = 64;
};

// What the properties do not say stays as it is.
Result<IoThread> take_io_thread(Properties& properties, IoThread thread = {});
// EINVAL: a pool that cannot be.
Result<void> check_pool(const IoThread& thread);
std::vector<ObjectProperty> describe(const IoThread& thread);

}  // namespace platter::monitor
