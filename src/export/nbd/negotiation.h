// Negotiation: what client and server agree on before any request (the NBD protocol, "Option
// haggling"): which export, over which stream, in which framing, with which metadata contexts.
//
// A client that asks for what cannot be is answered with an error and may ask for something else;
// one that does not speak the protocol is left. One reactor: the server's.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "export/nbd/export.h"
#include "export/nbd/protocol.h"
#include "io/stream.h"
#include "io/task.h"

namespace platter::nbd {

// What a negotiation asks of the server.
class Host {
 public:
  virtual ~Host() = default;
  // Valid until the next suspension.
  virtual std::vector<Export*> exports() = 0;
  virtual Export* find(std::string_view name) = 0;  // null: there is none
  // The same, and the connection's from now on: it stays until the connection has ended.
  virtual Export* claim(std::string_view name) = 0;
  // The client has been told to go on in TLS: the stream that does. Null: there is no TLS here.
  virtual bool has_tls() const = 0;
  virtual io::Task<Result<io::Stream*>> start_tls() = 0;
  virtual bool multi_connection() const = 0;
};

struct Agreement {
  Export* served;
  Framing framing = Framing::kSimple;
  std::vector<uint32_t> contexts = {};
};

class Negotiation {
 public:
  // What an option may have, in bytes.
  static constexpr uint32_t kMaxOption = uint32_t{64} << 10;

  // Both outlive it.
  Negotiation(io::Stream& stream, Host& host) : stream_(&stream), host_(host) {}

  // Nothing: the client has left. EPROTO: it is none; or the stream's error.
  io::Task<Result<std::optional<Agreement>>> run();

 private:
  struct Asked {
    Option option;
    std::vector<uint8_t> bytes;
    bool too_big = false;
  };
  enum class Next { kAnotherOption, kTransmission, kEnd };

  io::Task<Result<bool>> greet();
  io::Task<Result<std::optional<Asked>>> receive_option();
  io::Task<Result<void>> skip(uint64_t bytes);
  io::Task<Result<Next>> answer(Asked asked);
  Result<Next> choose_export(const Asked& asked);
  Next go(const Asked& asked);
  void list(const Asked& asked);
  void frame(const Asked& asked, Framing framing);
  void meta_contexts(const Asked& asked);
  io::Task<Result<Next>> start_tls(const Asked& asked);

  // Appends to what is sent next.
  void reply(Option option, OptionReply type, std::span<const uint8_t> payload = {});
  void refuse(Option option, OptionReply type, std::string_view why);
  void tell_export(Option option, Export& named, std::span<const uint16_t> wanted);
  void agree(Export& served);

  io::Stream* stream_;
  Host& host_;
  bool no_zeroes_ = false;
  bool secured_ = false;
  Framing framing_ = Framing::kSimple;
  std::string contexts_of_;                 // an export's name
  std::vector<std::string> context_names_;  // that were chosen of it
  std::vector<uint8_t> answer_;
  std::optional<Agreement> agreement_;
};

}  // namespace platter::nbd
