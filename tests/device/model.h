// Model: what a virtio-blk device has to do with a request, plain and slow: the disk is an array of
// bytes, a request a list of bytes and a number of bytes of room (virtio 1.2, 5.2.6).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "support/virtio_blk_numbers.h"
#include "virtio/blk/properties.h"

namespace platter::device_test {

using namespace support::virtio_blk;

struct Asked {
  uint32_t type = 0;
  uint64_t sector = 0;
  std::vector<uint8_t> data;  // that the driver sends, after the header
  size_t room = 0;            // for data from the device, before the status
};

struct Answer {
  uint8_t status;
  // What the driver finds at the beginning of its room; nothing where a byte may be any.
  std::vector<std::optional<uint8_t>> data;
};

// The first request of its type that touches the sector fails.
struct Fault {
  uint32_t type;  // kRead, kWrite, kDiscard or kWriteZeroes
  uint64_t sector;
};

class Model {
 public:
  // What fails is kReport, kIgnore or kStop, reads and writes alike.
  Model(const virtio::blk::Properties& properties, size_t disk_bytes, std::vector<Fault> faults,
        virtio::blk::OnError on_error)
      : properties_(properties),
        disk_(disk_bytes, uint8_t{0}),
        faults_(std::move(faults)),
        on_error_(on_error) {}

  // Nothing: it is no request, and the device needs a reset.
  std::optional<Answer> carry_out(const Asked& asked);
  // It may have been carried out, or not.
  void forget(const Asked& asked);
  // Which sectors it reads or changes: the first one, and how many.
  std::pair<uint64_t, uint64_t> touches(const Asked& asked) const;

 private:
  bool is_on_disk(uint64_t sector, uint64_t bytes) const;
  std::optional<Answer> carry_out_well(const Asked& asked);
  bool fails(const Asked& asked);
  Answer read(const Asked& asked) const;
  Answer write(const Asked& asked);
  Answer identify(const Asked& asked) const;
  std::optional<Answer> clear(const Asked& asked, bool zeroes);

  const virtio::blk::Properties properties_;
  std::vector<std::optional<uint8_t>> disk_;  // nothing: was discarded, or is not known
  std::vector<Fault> faults_;
  const virtio::blk::OnError on_error_;
};

}  // namespace platter::device_test
