// Reply: what is sent back for one request: headers that it makes, and data that it points at.
//
// Its memory is kept from one use to the next.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <sys/uio.h>

#include "export/nbd/protocol.h"

namespace platter::nbd {

class Reply {
 public:
  // Kept from one reply to the next, at most.
  static constexpr size_t kKeptBytes = 4096;

  // Empties it: what follows is for `request`, which outlives it.
  void begin(Framing framing, const Request& request);
  bool empty() const { return headers_.empty(); }

  // The whole of a simple reply; 0: success, and the data of a read is to follow.
  void simple(uint32_t error);
  // A chunk's header with so many bytes of its own behind it, which the caller fills before the
  // next call; `attached` more are to follow.
  std::span<uint8_t> chunk(Chunk type, bool last, size_t own, size_t attached = 0);
  // Data as it is, which stays where it is until the reply is sent.
  void attach(std::span<const uint8_t> data);

  // The error, in whichever form the client understands.
  void error(uint32_t number, std::string_view message);
  // Success without data.
  void done();

  void append_to(std::vector<iovec>& pieces);

 private:
  std::span<uint8_t> append(size_t bytes);

  struct Attached {
    size_t after;  // so many bytes of headers_
    std::span<const uint8_t> data;
  };
  Framing framing_{};
  const Request* request_ = nullptr;
  std::vector<uint8_t> headers_;
  std::vector<Attached> attached_;
};

}  // namespace platter::nbd
