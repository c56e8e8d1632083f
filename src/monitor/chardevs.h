// Character devices: where the bytes of a monitor come from and go to. A socket that listens for
// one client at a time or has been connected, standard input and output, a pipe, a file to write
// to, a buffer of what clients write into it (ringbuf-write), or nothing.
//
// A monitor (monitor/monitor.h) takes one for its own; one that nobody has taken may be removed.
// One thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/descriptor.h"
#include "monitor/control.h"
#include "monitor/ring_buffer.h"
#include "monitor/socket_address.h"

namespace platter::monitor {

struct Chardev {
  enum class Kind { kNull, kStdio, kSocket, kPipe, kFile, kRing };

  std::string id;
  Kind kind = Kind::kNull;
  SocketAddress address;         // kSocket
  io::Descriptor listener;       // kSocket that listens
  io::Descriptor connection;     // kSocket that was connected, or that has a client from the start
  io::Descriptor input, output;  // kPipe, kFile; no input: nothing comes from there
  std::optional<RingBuffer> ring;  // kRing
  std::string type;                // of several names of a kind, the one it was made by
  bool taken = false;              // by a monitor
  bool has_client = false;         // now
  std::string socket_file;         // ours to remove; absolute, or empty: there is none

  ~Chardev();
};

class Chardevs final : public ChardevTable {
 public:
  Chardevs();

  static constexpr uint64_t kMaxRingBytes = uint64_t{64} << 20;

  // "socket,path=p,server=on,wait=off,id=i", "stdio,id=i", "null,id=i". With wait=on, what is so
  // where nothing is said, a listening socket has its first client when this returns. ECANCELED:
  // nobody waits for one any more.
  Result<void> add(std::string_view definition);
  // No client is waited for from now on. Any thread.
  void give_up_waiting();

  // ---- ChardevTable
  Result<void> add(std::string id, base::Json backend) override;
  Result<void> change(std::string id, base::Json backend) override;
  Result<void> remove(std::string id) override;
  base::Json list() const override;
  bool has(std::string_view id) const override;
  std::expected<RingBuffer*, Failure> ring(std::string_view id) override;

  // For a monitor; "chardev "x" not found", "Device 'x' is in use".
  Result<Chardev*> take(std::string_view id);

 private:
  // What a new one is to be, however that was said.
  struct Wish {
    std::string type = "null";  // as the schema's ChardevBackendKind has it
    SocketAddress address;      // of a socket
    bool server = true;
    bool wait = true;
    std::string path;        // of a pipe; of a file that is written
    std::string input_path;  // of a file that is read; empty: none
    bool append = false;
    uint64_t ring_bytes = 0;  // 0: chosen
  };
  static Result<Wish> parse(const base::Json& backend);
  static Result<void> parse_socket(const base::Json& data, Wish& wish);
  Result<void> open_socket(Chardev& chardev, const Wish& wish) const;
  Result<io::Descriptor> wait_for_client(const io::Descriptor& listener) const;
  static Result<void> open_pipe(Chardev& chardev, const Wish& wish);
  static Result<void> open_file(Chardev& chardev, const Wish& wish);
  static Result<void> make_ring(Chardev& chardev, const Wish& wish);
  Result<void> add(std::string id, const Wish& wish);
  bool has_stdio() const;

  std::vector<std::unique_ptr<Chardev>> all_;
  const io::Descriptor given_up_;  // an event, once nobody waits any more
};

// The text that a --chardev asks for ("help"); empty: it asks for none.
std::string chardev_help(std::string_view definition);

}  // namespace platter::monitor
