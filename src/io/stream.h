// Stream: bytes in order to a peer and from it.
//
// One receive() and one send() at a time each, side by side, on one reactor.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <span>

#include "io/descriptor.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::io {

class Stream {
 public:
  virtual ~Stream() = default;

  // Fills what there is into `pieces`, from the first one on: at least one byte. 0: the peer has
  // ended, or is gone. ECANCELED. The array and its pieces outlive it.
  virtual Task<Result<size_t>> receive(std::span<const iovec> pieces) = 0;
  // Sends all of it. EPIPE, ECONNRESET: the peer is gone. The array is changed on the way.
  virtual Task<Result<void>> send(std::span<iovec> pieces) = 0;

  // The peer sees the end of what was sent; best effort.
  virtual void finish() = 0;
  // Ends what is under way, and all that would begin.
  virtual void cancel() = 0;

  // Fills all of `bytes`. False: the peer had ended before the first one. EPROTO: after it.
  Task<Result<bool>> receive_all(std::span<uint8_t> bytes);
  Task<Result<void>> send_all(std::span<const uint8_t> bytes);
};

// Over a connected socket that does not block.
class SocketStream final : public Stream {
 public:
  explicit SocketStream(Descriptor socket)
      : socket_(std::move(socket)), readable_(socket_.get()), writable_(socket_.get()) {}

  Task<Result<size_t>> receive(std::span<const iovec> pieces) override;
  Task<Result<void>> send(std::span<iovec> pieces) override;
  void finish() override;
  void cancel() override;
  // For who goes on with it otherwise; nothing is under way. Only destroyed afterwards.
  Descriptor release() { return std::move(socket_); }

 private:
  Descriptor socket_;
  DescriptorWait readable_;
  DescriptorWait writable_;
};

// Cuts the first `bytes` off `pieces`: what is left, without empty ones at its front.
std::span<iovec> skip_bytes(std::span<iovec> pieces, size_t bytes);

}  // namespace platter::io
