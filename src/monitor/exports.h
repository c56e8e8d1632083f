// The exports of a daemon: what makes a node be served to somebody, and what is known of it.
//
// Another kind of export is added by an ExportTypes that knows it: it turns BlockExportOptions
// into a BlockExport (monitor/export_types.h). The daemon hands it to Control.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "block/graph.h"
#include "io/task.h"
#include "monitor/failure.h"
#include "monitor/node_bitmaps.h"

namespace platter::monitor {

struct BlockExportOptions {
  std::string id;
  std::string type;
  block::Node* node = nullptr;
  bool writable = false;
  bool writethrough = false;
  std::string iothread;  // empty: none
  NodeBitmaps* bitmaps = nullptr;
  // All of what was said, as the schema's BlockExportOptions has it.
  base::Json all;
};

// One export that runs. It has a backend of its own on the node.
class BlockExport {
 public:
  virtual ~BlockExport() = default;
  // What it serves: another one once an overlay was put on it.
  virtual const block::Node& node() const = 0;
  // Somebody is connected to it.
  virtual bool in_use() const = 0;
  // Nodes were resized: whoever is connected hears of it if it was this one.
  virtual void size_may_have_changed() {}
  // Ends it, whoever is connected: no request is in flight afterwards, the backend is closed.
  virtual io::Task<Result<void>> close() = 0;
};

class ExportTypes {
 public:
  virtual ~ExportTypes() = default;
  virtual bool knows(std::string_view type) const = 0;
  virtual io::Task<Result<std::unique_ptr<BlockExport>>> start(BlockExportOptions options) = 0;
};

// One thread; one call at a time.
class Exports {
 public:
  // `types` may be null: there are none.
  Exports(block::Graph& graph, NodeBitmaps& bitmaps, ExportTypes* types)
      : graph_(graph), bitmaps_(bitmaps), types_(types) {}
  Exports(const Exports&) = delete;
  Exports& operator=(const Exports&) = delete;
  ~Exports();  // all are closed (asserted)

  // `options` has passed the schema.
  io::Task<Reply> add(base::Json options);
  enum class Mode { kSafe, kHard };
  io::Task<Reply> remove(std::string id, Mode mode);
  base::Json list() const;
  bool is_of_type(std::string_view id, std::string_view type) const;
  // What the export serves; null: there is none of this id.
  block::Node* node(std::string_view id) const;
  // An export runs on it.
  bool use_io_thread(std::string_view id) const;
  void sizes_may_have_changed();
  // Those of a type, or all.
  io::Task<Result<void>> close_all(std::string type = "");
  // Called with the id of an export that has ended.
  void set_observer(std::function<void(const std::string& id)> observer) {
    observer_ = std::move(observer);
  }

 private:
  struct Entry {
    std::string id, type;
    std::string iothread;  // empty: none
    std::unique_ptr<BlockExport> made;
  };
  block::Graph& graph_;
  NodeBitmaps& bitmaps_;
  ExportTypes* types_;
  std::vector<Entry> entries_;  // the last one that came is the first
  std::function<void(const std::string&)> observer_;
};

}  // namespace platter::monitor
