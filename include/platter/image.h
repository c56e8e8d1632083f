// Image: a virtual disk that is open: read, written, measured, resized.
//
// Every request comes in two forms. The asynchronous one returns at once and calls its Completion
// exactly once, on a reactor's thread, which must not be blocked there: hand the result to a thread
// of your own, or start the next request. The blocking one waits for the same thing; it must not be
// called from a completion.
//
// Offsets and lengths are bytes, and need no alignment. A range that leaves the image fails with
// EIO, a write to an image that was not opened for writing with EPERM. Memory given to a request
// belongs to it until it has completed. Requests of one image run side by side, on all reactors;
// two that overlap have no order.
//
// Thread-safety: requests may be made from any thread at the same time. close() is the last call.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "platter/error.h"
#include "platter/open_policy.h"
#include "platter/runtime.h"

namespace platter {

// Called with the result of an asynchronous request. `user` is handed back as it was given.
struct Completion {
  void (*done)(void* user, Result<void> result) = nullptr;
  void* user = nullptr;
};

struct ImageOpenOptions {
  std::string filename = {};  // a path, "protocol:...", or "json:{...}"
  std::string format = {};    // "qcow2", "raw", ...; empty: probed
  std::string options =
      {};  // further driver options: "key=value,key.sub=value"; a comma in a value is doubled
  bool writable = false;
  bool direct = false;        // bypass the host's page cache
  bool unmap = false;         // discards and zeroes may give space back
  bool share_writes = false;  // others may write to the image while it is open here
  // Which other files the image may name. By default none: an image with a backing file is refused.
  OpenPolicy policy = {};
};

struct ImageCreateOptions {
  std::string filename = {};
  std::string format = {};
  uint64_t size = 0;  // bytes
  std::string options =
      {};  // of the format and of the file beneath: "cluster_size=64k,preallocation=off"
};

struct WriteOptions {
  bool durable = false;    // on stable storage when it completes
  bool may_unmap = false;  // zero: the range may be deallocated
};

// A run of bytes that share what they are.
struct RunStatus {
  uint64_t length = 0;     // from the offset asked; never 0
  bool data = false;       // some layer of the chain stores data for it
  bool zero = false;       // it reads as zeroes
  bool allocated = false;  // some layer of the chain, rather than none, decides what it reads as
  bool compressed = false;
  unsigned depth = 0;                   // layers below the image at which this was found
  std::optional<uint64_t> host_offset;  // in the file that stores it
};

struct ImageInfo {
  std::string filename;
  std::string format;
  uint64_t size = 0;                       // bytes that a guest sees
  std::optional<uint64_t> allocated_size;  // bytes on the medium
  uint64_t cluster_size = 0;               // 0: the format has none
  bool dirty = false;
  bool encrypted = false;
  std::string backing_filename;  // as the image has it; empty: none
  std::string backing_format;
  std::string format_specific;  // JSON; empty: none
};

class Image {
 public:
  // `runtime` outlives the image.
  static Result<std::unique_ptr<Image>> open(Runtime& runtime, const ImageOpenOptions& options);
  // Makes a new image, closed; an existing file is overwritten, unless somebody uses it.
  static Result<void> create(Runtime& runtime, const ImageCreateOptions& options);
  ~Image();  // closed (asserted)
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  uint64_t size() const;

  void read(uint64_t offset, std::span<uint8_t> into, Completion done);
  void write(uint64_t offset, std::span<const uint8_t> bytes, WriteOptions options,
             Completion done);
  void zero(uint64_t offset, uint64_t length, WriteOptions options, Completion done);
  void discard(uint64_t offset, uint64_t length, Completion done);
  // What had completed before is on stable storage after it.
  void flush(Completion done);

  Result<void> read(uint64_t offset, std::span<uint8_t> into);
  Result<void> write(uint64_t offset, std::span<const uint8_t> bytes, WriteOptions options = {});
  Result<void> zero(uint64_t offset, uint64_t length, WriteOptions options = {});
  Result<void> discard(uint64_t offset, uint64_t length);
  Result<void> flush();

  // Of at most `length` bytes from `offset`, through the backing chain.
  Result<RunStatus> status(uint64_t offset, uint64_t length);
  Result<void> resize(uint64_t size);
  Result<ImageInfo> info();

  // Waits for the requests under way, writes back what is cached, and lets go of every file. An
  // error tells of what could not be written; the image is closed all the same.
  Result<void> close();

 private:
  struct State;
  explicit Image(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace platter
