// Control: what the monitors of one daemon have power over, and the commands by which they use it.
//
// Commands of all sessions run one after the other, on one reactor, in whole: what a command has
// looked up stays as it is until it ends. Requests of guests run meanwhile, on any reactor.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/graph.h"
#include "io/event.h"
#include "io/gate.h"
#include "io/sync.h"
#include "monitor/arguments.h"
#include "monitor/exports.h"
#include "monitor/failure.h"
#include "monitor/node_bitmaps.h"
#include "monitor/objects.h"
#include "monitor/ring_buffer.h"
#include "monitor/session.h"
#include "platter/open_policy.h"

namespace platter::monitor {

class Devices;    // monitor/devices.h
class NbdServer;  // monitor/nbd_server.h

// What of character devices a client may ask for. monitor/chardevs.h has the real ones.
class ChardevTable {
 public:
  virtual ~ChardevTable() = default;
  // `backend`: as the schema's ChardevBackend has it.
  virtual Result<void> add(std::string id, base::Json backend) = 0;
  // Another backend for one that nobody uses. On an error it has the one from before.
  virtual Result<void> change(std::string id, base::Json backend) = 0;
  virtual Result<void> remove(std::string id) = 0;
  virtual base::Json list() const = 0;
  virtual bool has(std::string_view id) const = 0;
  // What clients write into and read from: DeviceNotFound, or it is of another kind.
  virtual std::expected<RingBuffer*, Failure> ring(std::string_view id) = 0;
};

class Control final : public CommandRunner {
 public:
  struct Parts {
    block::Graph& graph;
    Objects& objects;
    OpenPolicy policy;
    ExportTypes* exports = nullptr;    // null: there are none
    ChardevTable* chardevs = nullptr;  // null: none can be made
    Devices* devices = nullptr;        // null: none can be added, nor asked about
    NbdServer* nbd = nullptr;          // null: there is none to be started
    // Since 1970. Empty: the system's clock.
    std::function<uint64_t()> microseconds = {};
  };
  explicit Control(Parts parts);
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // ---- CommandRunner
  const Schema& schema() const override { return schema_; }
  base::Json version() const override;
  io::Task<Reply> run(const CommandSchema& command, base::Json arguments) override;
  // Of a command that stands in the schema.
  io::Task<Reply> run(std::string_view name, base::Json arguments);

  // Set by `quit`, or by whoever else wants the daemon to end.
  io::Event& quit() { return quit_; }
  // Devices, exports, then nodes: everything flushed and closed. The first thing that went wrong.
  io::Task<Result<void>> close();

  // Sessions that hear of events.
  void add_listener(Session& session, std::function<void()> wake);
  void remove_listener(const Session& session);
  void notify(std::string_view event, base::Json data);
  // From any thread; the sessions hear of it on `reactor`, which is theirs. Not after close().
  void notify_on(io::Reactor& reactor, std::string_view event, base::Json data);

  // ---- For the commands
  block::Graph& graph() { return parts_.graph; }
  Objects& objects() { return parts_.objects; }
  const OpenPolicy& policy() const { return parts_.policy; }
  ChardevTable* chardevs() { return parts_.chardevs; }
  // Not null in the commands of device_commands().
  Devices* devices() { return parts_.devices; }
  NbdServer* nbd() { return parts_.nbd; }
  Exports& exports() { return exports_; }
  NodeBitmaps& bitmaps() { return bitmaps_; }
  uint64_t microseconds() const { return parts_.microseconds(); }

 private:
  struct Listener {
    Session* session;
    std::function<void()> wake;  // it has something to send
  };
  Parts parts_;
  const Schema schema_;
  NodeBitmaps bitmaps_;
  Exports exports_;
  io::AsyncMutex running_;
  io::Event quit_;
  io::Gate notices_;
  std::vector<Listener> listeners_;
};

}  // namespace platter::monitor
