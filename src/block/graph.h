// Graph: the nodes of one runtime, how they come to be, and how they are changed.
//
// Opening, closing and changing are serialised (one at a time, on an async mutex); requests run
// beside them except in the drained part of a change.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/options.h"
#include "block/backend.h"
#include "block/driver.h"
#include "block/node.h"
#include "io/file.h"
#include "platter/open_policy.h"

namespace platter::block {

class DriverRegistry;  // block/registry.h
class SecretSource;    // block/secret_source.h

struct CacheMode {
  bool direct = false;
  bool no_flush = false;
  bool writeback = true;
  // none|off, writeback, writethrough, directsync, unsafe.
  static Result<CacheMode> parse(std::string_view name);
};

struct OpenRequest {
  std::string filename;     // a path, "proto:...", "json:{...}", or empty where options say it all
  std::string description;  // names the image in errors where `filename` is empty
  std::string format;       // empty: probe
  base::Options options;    // runtime options, dotted
  OpenFlags flags;
  CacheMode cache;
  bool force_share = false;
  bool discard_unmap = false;
  OpenPolicy policy;
};

struct CreateRequest {
  std::string filename;
  std::string format;     // driver name; empty: the protocol that `filename` is of
  base::Options options;  // create options of the format, and of the protocol beneath
};

class Graph {
 public:
  struct Environment {
    const DriverRegistry& registry;
    io::FileSystem& files;
    base::Log& log;
    const SecretSource* secrets = nullptr;  // null: there are none
    // Where drivers keep what has to outlive this process (qcow2/state_file.h). Empty: nothing has.
    std::string state_directory = {};
  };
  explicit Graph(Environment environment);
  ~Graph();  // every backend is closed (asserted)

  const Environment& environment() const;

  // Opens the image and everything it needs, and returns a backend with the permissions. On failure
  // nothing stays open. "Could not open 'F': ..." is the error's form.
  io::Task<Result<std::unique_ptr<Backend>>> open(OpenRequest request, Permissions needed,
                                                  Permissions shared);
  // A further backend on an open node.
  io::Task<Result<std::unique_ptr<Backend>>> attach(Node& node, Permissions needed,
                                                    Permissions shared);

  // Makes a new image. Unknown options are refused before anything is touched; on failure what it
  // had begun is removed. The backing file is not looked at.
  io::Task<Result<void>> create(CreateRequest request);

  Node* find(std::string_view node_name) const;
  std::vector<Node*> nodes() const;

  // Stops new requests at every backend above `node` and waits until none is in flight. Nests.
  io::Task<void> drained_begin(Node& node);
  void drained_end(Node& node);

  // In a drained section: points `child` at `replacement`. Refused if permissions conflict or a
  // cycle would arise ("Making 'A' a C child of 'B' would create a cycle").
  io::Task<Result<void>> replace_child(Child& child, Node& replacement);

  // For this room alone (block/graph_state.h).
  struct State;
  State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

// Where a relative backing file name of `node` points.
Result<std::string> resolve_backing_name(const Node& node, std::string_view backing_filename);

}  // namespace platter::block
