// FilterDriver: a driver that passes everything on to its one child. A filter derives from it and
// overrides what it is there for.
#pragma once

#include "block/child_zones.h"
#include "block/driver.h"
#include "block/node.h"

namespace platter::block {

class FilterDriver : public Driver, public Resizable, public ChildZones {
 public:
  // `child` has the roles kFiltered and kPrimary, and outlives the driver.
  explicit FilterDriver(Child& child) : ChildZones(child), child_(child) {}

  uint64_t size() const override { return child_.size(); }
  Limits limits() const override { return child_.node().limits(); }

  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    return child_.read(offset, buffers);
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags) override {
    return child_.write(offset, buffers, flags);
  }
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags) override {
    return child_.zero(offset, length, flags);
  }
  io::Task<Result<void>> discard(uint64_t offset, uint64_t length) override {
    return child_.discard(offset, length);
  }
  io::Task<Result<void>> flush() override { return child_.flush(); }
  io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length,
                                       StatusDetail detail) override {
    return child_.status(offset, length, detail);
  }
  io::Task<Result<uint64_t>> allocated_size() override {
    return child_.node().driver().allocated_size();
  }
  bool zero_initialised() const override { return child_.node().driver().zero_initialised(); }

  VmStateStore* vm_state_store() override { return child_.node().driver().vm_state_store(); }
  Resizable* resizable() override { return this; }
  io::Task<Result<void>> resize(uint64_t size, Preallocation preallocation, bool exact) override {
    return child_.resize(size, preallocation, exact);
  }

  Zoned* zoned() override { return child_.node().driver().zoned() != nullptr ? this : nullptr; }

 protected:
  Child& child_;
};

}  // namespace platter::block
