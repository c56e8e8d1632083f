// TlsStream: the server's end of a stream under TLS, over a connected socket that does not block.
//
//   auto stream = TlsStream::make(std::move(socket), credentials);
//   PLATTER_CO_TRY(co_await stream->handshake());   // before anything else
//   ... io::Stream
//
// One reactor's. A peer that goes without saying goodbye has ended, as on a plain socket: who must
// not be cut short frames their messages. Keys are renewed as the peer asks (TLS 1.3); nobody is
// who they are but by the one handshake (no renegotiation). In the steady state it takes no heap
// memory of its own; GnuTLS does.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "crypto/tls_credentials.h"
#include "io/descriptor.h"
#include "io/stream.h"

namespace platter::crypto {

class TlsStream final : public io::Stream {
 public:
  // The credentials are a server's (asserted).
  static std::unique_ptr<TlsStream> make(io::Descriptor socket,
                                         std::shared_ptr<const TlsCredentials> credentials);
  ~TlsStream() override;

  // Ends with both ends agreed, and the peer's certificate verified where the credentials say so.
  // EACCES: it is missing or not trusted. EPROTO, ECONNRESET, ECANCELED.
  io::Task<Result<void>> handshake();

  // After the handshake: the distinguished name in the certificate that was verified, written as
  // RFC 4514 does but in the certificate's order, C=GB,O=Example,CN=a, as QEMU's lists have it; or
  // the user of a pre-shared key. Empty: nobody has proved to be anybody.
  const std::string& peer_name() const { return peer_name_; }

  io::Task<Result<size_t>> receive(std::span<const iovec> pieces) override;
  io::Task<Result<void>> send(std::span<iovec> pieces) override;
  void finish() override;
  void cancel() override;

 private:
  // Bytes on their way between GnuTLS and the socket: several records go in one system call.
  struct Window {
    std::unique_ptr<uint8_t[]> bytes;
    size_t begin = 0;
    size_t end = 0;
    bool empty() const { return begin == end; }
    size_t size() const { return end - begin; }
  };

  TlsStream(io::Descriptor socket, std::shared_ptr<const TlsCredentials> credentials);

  static ssize_t pull(void* self, void* bytes, size_t size);
  static ssize_t push(void* self, const void* bytes, size_t size);
  bool fill();
  size_t room();
  Result<void> drain();
  io::Task<Result<void>> flush();
  Result<void> judge(int code);
  Error error_of(int code) const;
  std::string find_peer_name() const;
  std::span<const uint8_t> next_record(std::span<const iovec> pieces);
  size_t take_decrypted(std::span<const iovec> pieces, size_t done);

  io::Descriptor socket_;
  io::DescriptorWait readable_;
  io::DescriptorWait writable_;
  std::shared_ptr<const TlsCredentials> credentials_;
  gnutls_session_int* session_ = nullptr;
  Window in_;
  Window out_;
  std::unique_ptr<uint8_t[]> gathered_;  // a record of many pieces
  int pull_error_ = 0;                   // of the socket, when GnuTLS says that it could not read
  int warnings_ = 0;
  bool starved_ = false;  // the socket had nothing more
  bool ended_ = false;    // and never will have
  bool choked_ = false;   // there was no room in out_
  bool established_ = false;
  std::string peer_name_;
};

}  // namespace platter::crypto
