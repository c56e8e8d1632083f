// DeviceOptions: a virtio-blk device as device_add and --device describe it: with the names,
// defaults and limits of QEMU's device. It is served to a front-end by vhost-user.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "export/vhost_user/export.h"

namespace platter::monitor {

struct DeviceOptions {
  // Of a device whose user names no number: a front-end takes as many of them as it likes.
  static constexpr uint16_t kAutomaticQueues = 64;

  std::string id;
  std::string drive;
  bool shares_writes = false;
  vhost_user::Options served;  // without reactors
  // The I/O thread of queue i is iothreads[i % size]. Empty: every reactor takes its part.
  std::vector<std::string> iothreads;
};

// `all` has passed the schema. EINVAL: what cannot be, by the property's name.
Result<DeviceOptions> read_device_options(const base::Json& all);

}  // namespace platter::monitor
