// ChildZones: the zones of a child, handed on as they are.
#pragma once

#include "block/node.h"
#include "block/zoned.h"

namespace platter::block {

class ChildZones : public Zoned {
 public:
  // `child` outlives it, and is zoned where anything is asked for.
  explicit ChildZones(Child& child) : child_(child) {}

  ZonedCharacteristics zoned_characteristics() const override {
    return *child_.node().zoned_characteristics();
  }
  io::Task<Result<size_t>> zone_report(uint64_t offset, std::span<Zone> zones) override {
    return child_.zone_report(offset, zones);
  }
  io::Task<Result<void>> zone_manage(ZoneAction action, uint64_t offset, uint64_t length) override {
    return child_.zone_manage(action, offset, length);
  }
  io::Task<Result<uint64_t>> zone_append(uint64_t offset, io::BufferList buffers,
                                         WriteFlags flags) override {
    return child_.zone_append(offset, buffers, flags);
  }

 private:
  Child& child_;
};

}  // namespace platter::block
