// The dirty bitmaps of nodes by name: those that live as long as their node is open, kept here, and
// those that its image keeps (block::BitmapStore), behind one face.
//
// Changes are made while no request is in flight on the node. One thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "block/graph.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::monitor {

class NodeBitmaps {
 public:
  // Keeps others from changing a bitmap, or removing it, until all copies are gone.
  using Hold = std::shared_ptr<const void>;

  explicit NodeBitmaps(block::Graph& graph) : graph_(graph) {}
  NodeBitmaps(const NodeBitmaps&) = delete;
  NodeBitmaps& operator=(const NodeBitmaps&) = delete;

  struct Listed {
    block::BitmapInfo info;
    bool persistent = false;
    uint64_t dirty_bytes = 0;
    bool busy = false;  // held
  };
  io::Task<Result<std::vector<Listed>>> list(block::Node& node);

  struct Wish {
    std::string name;
    uint64_t granularity = 0;  // 0: what suits the node
    bool persistent = false;
    bool enabled = true;
  };
  Result<void> add(block::Node& node, Wish wish);
  // "Dirty bitmap 'x' not found" is the error of all that follow.
  Result<block::BitmapInfo> find(block::Node& node, std::string_view name) const;
  // EBUSY: it is held.
  Result<void> check_free(const block::Node& node, std::string_view name) const;
  Result<Hold> hold(const block::Node& node, std::string name);
  bool is_persistent(block::Node& node, std::string_view name) const;
  io::Task<Result<std::shared_ptr<block::DirtyBitmap>>> bits(block::Node& node, std::string name);
  Result<void> remove(block::Node& node, std::string name);
  Result<void> clear(block::Node& node, std::string name);
  Result<void> enable(block::Node& node, std::string name, bool on);
  Result<void> merge(block::Node& node, std::string name, const block::DirtyBitmap& source);

  // The node has another size. What records has it already.
  Result<void> follow_size(block::Node& node);
  // Lets go of what belonged to nodes that are gone.
  void sweep();
  void clear();

 private:
  struct Temporary {
    block::Node* node;
    std::shared_ptr<block::DirtyBitmap> bits;
    bool enabled;
  };
  const Temporary* find_temporary(const block::Node& node, std::string_view name) const;
  Temporary* find_temporary(const block::Node& node, std::string_view name);

  block::Graph& graph_;
  std::vector<Temporary> temporary_;
  struct Held {
    const block::Node* node;
    std::string name;
    std::weak_ptr<const void> hold;
  };
  std::vector<Held> held_;
};

}  // namespace platter::monitor
