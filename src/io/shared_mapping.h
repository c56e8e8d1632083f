// SharedMapping: memory that another process gave us as a file, and that it may shorten at any
// time.
//
// A look at a page that is no longer in the file would end this process (SIGBUS). While such a
// mapping lives, the signal is caught: the mapping is replaced by empty memory of our own, says so
// (was_lost), and the look goes on there. Other causes of the signal are passed to whoever handled
// it before.
//
// Thread-safe. The signal's handler is the process's own: it is installed with the first mapping
// and stays.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "platter/error.h"

namespace platter::io {

class SharedMapping {
 public:
  // Mappings at the same time, at most, in this process.
  static constexpr size_t kMaxMappings = 8192;

  // Readable and writable. EINVAL: nothing, or more than the address space has; ENOSPC: too many.
  static Result<std::shared_ptr<SharedMapping>> map(int descriptor, uint64_t offset,
                                                    uint64_t bytes);
  ~SharedMapping();
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;

  uint8_t* data() const { return data_; }
  uint64_t size() const { return bytes_; }
  bool was_lost() const;

 private:
  struct Place;
  SharedMapping(Place& place, void* base, size_t mapped, uint64_t skip, uint64_t bytes)
      : place_(place),
        base_(base),
        mapped_(mapped),
        bytes_(bytes),
        data_(static_cast<uint8_t*>(base) + skip) {}
  static Place* take_place();
  static Place* places();
  friend struct SignalGuard;

  Place& place_;
  void* const base_;
  const size_t mapped_;
  const uint64_t bytes_;
  uint8_t* const data_;
};

}  // namespace platter::io
