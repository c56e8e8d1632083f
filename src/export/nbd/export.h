// Export: a disk that clients of an NBD server may ask for by its name.
//
// The backend is its user's: it is opened before, and closed once the export is gone. Everything
// that is told of an export may be asked from any reactor; it does not change.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "block/backend.h"
#include "block/dirty_bitmap.h"
#include "export/nbd/protocol.h"
#include "io/gate.h"
#include "io/reactor.h"

namespace platter::nbd {

struct ExportOptions {
  std::string name = {};         // at most kMaxString bytes
  std::string description = {};  // the same; empty: none
  bool writable = false;
  bool allocation_depth = false;
  struct Bitmap {
    std::string name;
    std::shared_ptr<const block::DirtyBitmap> bits;
  };
  std::vector<Bitmap> bitmaps = {};
  // Where its clients are served, one after the other in turn; at least one.
  std::vector<io::Reactor*> reactors = {};
};

struct BlockSizes {
  uint32_t least = 1;
  uint32_t preferred = 4096;
  uint32_t most = kMaxPayload;
};

class Export {
 public:
  Export(block::Backend& backend, ExportOptions options);

  const std::string& name() const { return options_.name; }
  const std::string& description() const { return options_.description; }
  bool writable() const { return options_.writable; }
  block::Backend& backend() const { return backend_; }
  // Whole sectors of 512 bytes.
  uint64_t size() const { return size_; }
  uint16_t flags(Framing framing, bool multi_connection) const;
  BlockSizes block_sizes() const;

  // ---- Metadata contexts, by their ids: 0 to context_count() - 1.
  enum class ContextKind { kAllocation, kDepth, kBitmap };
  struct Context {
    std::string name;
    ContextKind kind;
    std::shared_ptr<const block::DirtyBitmap> bits;  // kBitmap
  };
  const std::vector<Context>& contexts() const { return contexts_; }

  // Whose turn it is. One thread: the server's.
  io::Reactor& next_reactor() { return *options_.reactors[next_++ % options_.reactors.size()]; }
  // Connections that it is served to.
  io::Gate& clients() { return clients_; }

 private:
  block::Backend& backend_;
  const ExportOptions options_;
  const uint64_t size_;
  std::vector<Context> contexts_;
  size_t next_ = 0;
  io::Gate clients_;
};

}  // namespace platter::nbd
