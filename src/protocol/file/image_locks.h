// ImageLocks: the byte locks by which programs that have an image open refuse each other.
//
// Each permission has two bytes in the file: one (from 100) is locked by who holds it, one (from
// 200) by who does not share it. Only read locks are ever taken; a conflict is found by asking
// whether a write lock could be had on the opposite byte. The bytes and the order are those that
// QEMU uses, so the two refuse each other. Locks belong to the open file description, and go with
// it.
#pragma once

#include <string>

#include "block/types.h"
#include "io/file.h"
#include "platter/error.h"

namespace platter::protocol {

class ImageLocks {
 public:
  // `file` outlives the locks and is open for reading. `name` is what a message calls it.
  ImageLocks(io::File& file, std::string name) : file_(file), name_(std::move(name)) {}

  // Takes what is lacking, makes sure that nobody objects, drops what is no longer needed. On a
  // conflict nothing has changed: "Failed to get "write" lock".
  Result<void> set(block::Permissions held, block::Permissions shared);
  // Whether this file can be locked at all.
  static bool supported(io::File& file);

 private:
  Result<void> lock_bytes(uint64_t base, block::Permissions bits, io::LockKind kind);
  Result<void> test(block::Permissions held, block::Permissions unshared);

  io::File& file_;
  std::string name_;
  block::Permissions held_;
  block::Permissions unshared_;
};

}  // namespace platter::protocol
