// The drivers of memory: a plain disk, and one that is cut into zones.
#pragma once

#include <atomic>
#include <memory>

#include "block/driver.h"
#include "block/zoned.h"
#include "protocol/memory/page_table.h"
#include "protocol/memory/zone_table.h"

namespace platter::protocol {

class MemoryDriver : public block::Driver, public block::Resizable, public block::Reopenable {
 public:
  MemoryDriver(uint64_t size, uint32_t alignment, block::Node& node)
      : size_(size), alignment_(alignment), node_(node) {}

  uint64_t size() const override { return size_.load(std::memory_order_acquire); }
  block::Limits limits() const override;
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override;
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers,
                               block::WriteFlags flags) override;
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, block::WriteFlags flags) override;
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override;
  io::Task<Result<block::BlockStatus>> status(uint64_t offset, uint64_t length,
                                              block::StatusDetail detail) override;
  io::Task<Result<uint64_t>> allocated_size() override {
    return io::Task<Result<uint64_t>>::ready(pages_.stored_bytes());
  }
  bool zero_initialised() const override { return true; }
  block::Resizable* resizable() override { return this; }
  block::Reopenable* reopenable() override { return this; }
  io::Task<Result<void>> reopen(base::OptionSet, block::OpenFlags) override {
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<void>> resize(uint64_t size, block::Preallocation preallocation,
                                bool exact) override;

 protected:
  void store(uint64_t offset, io::BufferList buffers);

  PageTable pages_;

 private:
  void grow(uint64_t end);

  std::atomic<uint64_t> size_;
  const uint32_t alignment_;
  block::Node& node_;
};

// Of a size that stays. Zeroes are written as data is: at the write pointer.
class ZonedMemoryDriver final : public MemoryDriver, public block::Zoned {
 public:
  ZonedMemoryDriver(uint64_t size, uint32_t alignment, block::Node& node,
                    const ZoneSettings& settings)
      : MemoryDriver(size, alignment, node), zones_(settings, size) {}

  block::Limits limits() const override;
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers,
                               block::WriteFlags flags) override;
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, block::WriteFlags flags) override;
  // ENOTSUP: a zone that must be written in order is among them.
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override;
  block::Resizable* resizable() override { return nullptr; }

  block::Zoned* zoned() override { return this; }
  block::ZonedCharacteristics zoned_characteristics() const override {
    return zones_.characteristics();
  }
  io::Task<Result<size_t>> zone_report(uint64_t offset, std::span<block::Zone> zones) override;
  io::Task<Result<void>> zone_manage(block::ZoneAction action, uint64_t offset,
                                     uint64_t length) override;
  io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers,
                                         block::WriteFlags flags) override;

 private:
  // Calls fill(offset, length) for what of the range lies in one zone, zone by zone, with the right
  // to write there.
  template <typename Fill>
  Result<void> fill_zones(uint64_t offset, uint64_t length, Fill fill);

  ZoneTable zones_;
};

}  // namespace platter::protocol
