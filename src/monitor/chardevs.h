// Character devices: where the bytes of a monitor come from and go to. A UNIX socket that listens
// for one client at a time or has been connected, standard input and output, or nothing.
//
// A monitor (monitor/monitor.h) takes one for its own; one that nobody has taken may be removed.
// One thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/descriptor.h"
#include "monitor/control.h"

namespace platter::monitor {

// A socket that somebody else has opened for us, by its number.
Result<io::Descriptor> inherited_socket(const std::string& text);
// What waits for it from now on is told that it would have to.
Result<void> stop_blocking(int descriptor);

struct Chardev {
  enum class Kind { kNull, kStdio, kSocket };

  std::string id;
  Kind kind = Kind::kNull;
  std::string path;            // kSocket
  io::Descriptor listener;     // kSocket that listens
  io::Descriptor connection;   // kSocket that was connected, or that has a client from the start
  bool taken = false;          // by a monitor
  bool has_client = false;     // now
  bool abstract_name = false;  // `path` is no file
  bool unlinks = false;        // the socket's file is ours

  ~Chardev();
};

class Chardevs final : public ChardevTable {
 public:
  // "socket,path=p,server=on,wait=off,id=i", "stdio,id=i", "null,id=i". With wait=on, what is so
  // where nothing is said, a listening socket has its first client when this returns.
  Result<void> add(std::string_view definition);

  // ---- ChardevTable
  Result<void> add(std::string id, base::Json backend) override;
  Result<void> change(std::string id, base::Json backend) override;
  Result<void> remove(std::string id) override;
  base::Json list() const override;

  // For a monitor; "chardev "x" not found", "Device 'x' is in use".
  Result<Chardev*> take(std::string_view id);

 private:
  struct SocketWish {
    std::string path;
    std::string descriptor;  // of an open socket, in place of the path
    bool abstract_name = false;
    bool server = true;
    bool wait = true;
  };
  static Result<SocketWish> parse_socket(const base::Json& data);
  static Result<void> open_socket(Chardev& chardev, const SocketWish& wish);
  Result<void> add(std::string id, Chardev::Kind kind, const SocketWish& wish);
  bool has_stdio() const;

  std::vector<std::unique_ptr<Chardev>> all_;
};

}  // namespace platter::monitor
