// InflightArea: the memory in which a device's queues note what is in flight (virtio/inflight.h), a
// part for each, in a file that the front-end keeps while there is no back-end: GET_INFLIGHT_FD
// makes it, SET_INFLIGHT_FD brings it, be it another back-end's.
//
// For one reactor; the parts are their queues'.
#pragma once

#include <memory>
#include <optional>

#include "export/vhost_user/message.h"
#include "io/descriptor.h"
#include "io/shared_mapping.h"
#include "virtio/inflight.h"

namespace platter::vhost_user {

class InflightArea {
 public:
  // A new file for so many queues of that size, and how much of it they need. It does for split and
  // for packed rings, as which of them come may not be known yet.
  static Result<io::Descriptor> make(InflightDescription& description);
  // EINVAL: it lies outside of the file, or has no room for the queues.
  static Result<std::shared_ptr<InflightArea>> map(const InflightDescription& description,
                                                   const io::Descriptor& file);

  // EINVAL: there is no part for this queue, or for rings of this kind.
  Result<virtio::InflightMemory> queue(uint32_t index, bool packed);
  // Nothing is in flight any more, nor was: the device was reset, or this queue has ended.
  void forget();
  void forget(uint32_t index);
  // The file was shortened.
  bool was_lost() const { return mapping_->was_lost(); }

 private:
  InflightArea(const InflightDescription& description, std::shared_ptr<io::SharedMapping> mapping)
      : description_(description), mapping_(std::move(mapping)) {}

  const InflightDescription description_;
  const std::shared_ptr<io::SharedMapping> mapping_;
  std::optional<bool> packed_;  // once a ring uses it
};

}  // namespace platter::vhost_user
