// Channel: the connection to a front-end, as messages and the descriptors that come with them.
//
// For one reactor. receive() and send() one at a time each.
#pragma once

#include <optional>
#include <span>

#include "export/vhost_user/message.h"
#include "io/descriptor.h"
#include "io/task.h"

namespace platter::vhost_user {

class Channel {
 public:
  explicit Channel(io::Descriptor socket)
      : socket_(std::move(socket)), readable_(socket_.get()), writable_(socket_.get()) {}

  // Nothing: the peer has closed it, between messages. EPROTO: what is no message; ECANCELED.
  io::Task<Result<std::optional<Message>>> receive();
  // The descriptor, where there is one, goes with the first byte.
  io::Task<Result<void>> send(std::span<const uint8_t> bytes, int descriptor = -1);

  // The peer sees the end.
  void hang_up();
  // Ends what is under way, and all that would begin.
  void cancel() {
    readable_.cancel();
    writable_.cancel();
  }

 private:
  // Fills as much of `bytes` as is there, at least one; 0: the peer is gone.
  io::Task<Result<size_t>> receive_some(std::span<uint8_t> bytes, Message& message);
  // 0: it was gone before the first byte.
  io::Task<Result<size_t>> receive_all(std::span<uint8_t> bytes, Message& message);

  io::Descriptor socket_;
  io::DescriptorWait readable_;
  io::DescriptorWait writable_;
};

}  // namespace platter::vhost_user
