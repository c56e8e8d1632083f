#include "crypto/tls_stream.h"

#include <fmt/format.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/assert.h"
#include "base/try.h"

namespace platter::crypto {
namespace {

constexpr size_t kRecordBytes = size_t{16} << 10;
constexpr size_t kSealedBytes = kRecordBytes + 512;  // with its header, padding and tag
constexpr size_t kWindowBytes = 4 * kSealedBytes;
constexpr int kMaxWarnings = 16;  // of a peer, one after the other

}  // namespace

TlsStream::TlsStream(io::Descriptor socket, std::shared_ptr<const TlsCredentials> credentials)
    : socket_(std::move(socket)),
      readable_(socket_.get()),
      writable_(socket_.get()),
      credentials_(std::move(credentials)),
      gathered_(std::make_unique_for_overwrite<uint8_t[]>(kRecordBytes)) {
  in_.bytes = std::make_unique_for_overwrite<uint8_t[]>(kWindowBytes);
  out_.bytes = std::make_unique_for_overwrite<uint8_t[]>(kWindowBytes);
}

TlsStream::~TlsStream() { gnutls_deinit(session_); }

std::unique_ptr<TlsStream> TlsStream::make(io::Descriptor socket,
                                           std::shared_ptr<const TlsCredentials> credentials) {
  std::unique_ptr<TlsStream> stream(new TlsStream(std::move(socket), std::move(credentials)));
  PLATTER_ASSERT(stream->credentials_->is_server());
  if (gnutls_init(&stream->session_, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS) < 0)
    throw std::bad_alloc();
  stream->credentials_->apply_to(stream->session_);
  gnutls_transport_set_ptr(stream->session_, stream.get());
  gnutls_transport_set_pull_function(stream->session_, pull);
  gnutls_transport_set_push_function(stream->session_, push);
  return stream;
}

// ---- Between GnuTLS and the socket

// Takes in what the socket has. False: nothing came, pull_error_ says why (0: the peer has ended).
bool TlsStream::fill() {
  pull_error_ = 0;
  ssize_t got = -1;
  do {
    got = recv(socket_.get(), in_.bytes.get(), kWindowBytes, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) pull_error_ = errno;
  starved_ = pull_error_ == EAGAIN;
  ended_ = got == 0 || pull_error_ == ECONNRESET;
  in_.begin = 0;
  in_.end = got > 0 ? static_cast<size_t>(got) : 0;
  return got > 0;
}

ssize_t TlsStream::pull(void* self, void* bytes, size_t size) {
  auto& stream = *static_cast<TlsStream*>(self);
  Window& in = stream.in_;
  if (in.empty() && !stream.fill()) {
    if (stream.pull_error_ == 0) return 0;
    gnutls_transport_set_errno(stream.session_, stream.pull_error_);
    return -1;
  }
  const size_t taken = std::min(size, in.size());
  std::memcpy(bytes, in.bytes.get() + in.begin, taken);
  in.begin += taken;
  return static_cast<ssize_t>(taken);
}

// What may be appended to out_.
size_t TlsStream::room() {
  if (out_.begin != 0) {
    std::memmove(out_.bytes.get(), out_.bytes.get() + out_.begin, out_.size());
    out_.end = out_.size();
    out_.begin = 0;
  }
  return kWindowBytes - out_.end;
}

ssize_t TlsStream::push(void* self, const void* bytes, size_t size) {
  auto& stream = *static_cast<TlsStream*>(self);
  const size_t taken = std::min(size, stream.room());
  stream.choked_ = taken == 0;
  if (stream.choked_) {
    gnutls_transport_set_errno(stream.session_, EAGAIN);
    return -1;
  }
  std::memcpy(stream.out_.bytes.get() + stream.out_.end, bytes, taken);
  stream.out_.end += taken;
  return static_cast<ssize_t>(taken);
}

// Sends of out_ what the socket takes. EAGAIN: not all of it.
Result<void> TlsStream::drain() {
  while (!out_.empty()) {
    const ssize_t sent = ::send(socket_.get(), out_.bytes.get() + out_.begin, out_.size(),
                                MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      out_.begin += static_cast<size_t>(sent);
    } else if (errno != EINTR) {
      return std::unexpected(Error::from_errno(errno, "Could not send"));
    }
  }
  return {};
}

io::Task<Result<void>> TlsStream::flush() {
  for (;;) {
    auto drained = drain();
    if (drained || drained.error().code() != EAGAIN) co_return drained;
    PLATTER_CO_TRY(co_await writable_.writable());
  }
}

// ---- The handshake

// Of a code of GnuTLS's below 0: whether to go on.
Result<void> TlsStream::judge(int code) {
  if (code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED) return {};
  const bool is_warning = code == GNUTLS_E_WARNING_ALERT_RECEIVED && ++warnings_ <= kMaxWarnings;
  if (is_warning) return {};
  return std::unexpected(error_of(code));
}

Error TlsStream::error_of(int code) const {
  if (ended_) return {ECONNRESET, "the peer has gone"};
  if (code == GNUTLS_E_PULL_ERROR) return Error::from_errno(pull_error_, "Could not receive");
  if (code == GNUTLS_E_NO_CERTIFICATE_FOUND || code == GNUTLS_E_CERTIFICATE_REQUIRED)
    return {EACCES, "the peer has no certificate"};
  if (code == GNUTLS_E_FATAL_ALERT_RECEIVED || code == GNUTLS_E_WARNING_ALERT_RECEIVED) {
    const char* name = gnutls_alert_get_name(gnutls_alert_get(session_));
    return {EPROTO, fmt::format("the peer says: {}", name != nullptr ? name : "an unknown alert")};
  }
  if (code != GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) return {EPROTO, gnutls_strerror(code)};
  gnutls_datum_t text{};
  const unsigned status = gnutls_session_get_verify_cert_status(session_);
  if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0)
    return {EACCES, gnutls_strerror(code)};
  std::string reason(reinterpret_cast<const char*>(text.data), text.size);
  gnutls_free(text.data);
  while (reason.ends_with(' ') || reason.ends_with('\0')) reason.pop_back();
  return {EACCES, "the peer's certificate is refused: " + reason};
}

io::Task<Result<void>> TlsStream::handshake() {
  for (;;) {
    starved_ = false;
    const int code = gnutls_handshake(session_);
    if (auto good = code < 0 ? judge(code) : Result<void>(); !good) {
      // The peer is told why, if it listens.
      (void)gnutls_alert_send_appropriate(session_, code);
      (void)drain();
      co_return std::unexpected(std::move(good).error().with_context("TLS handshake failed"));
    }
    PLATTER_CO_TRY(co_await flush());
    if (code == GNUTLS_E_SUCCESS) break;
    if (starved_) PLATTER_CO_TRY(co_await readable_.readable());
  }
  established_ = true;
  peer_name_ = find_peer_name();
  co_return Result<void>();
}

std::string TlsStream::find_peer_name() const {
  if (credentials_->kind() == TlsOptions::Kind::kPreSharedKeys) {
    const char* user = gnutls_psk_server_get_username(session_);
    return user != nullptr ? user : "";
  }
  unsigned count = 0;
  const gnutls_datum_t* shown = gnutls_certificate_get_peers(session_, &count);
  if (shown == nullptr || count == 0 || !credentials_->verifies_peer()) return {};
  gnutls_x509_crt_t certificate = nullptr;
  if (gnutls_x509_crt_init(&certificate) < 0) throw std::bad_alloc();
  std::string name;
  gnutls_datum_t text{};
  if (gnutls_x509_crt_import(certificate, &shown[0], GNUTLS_X509_FMT_DER) == 0 &&
      gnutls_x509_crt_get_dn3(certificate, &text, GNUTLS_X509_DN_FLAG_COMPAT) == 0) {
    name.assign(reinterpret_cast<const char*>(text.data), text.size);
    gnutls_free(text.data);
  }
  gnutls_x509_crt_deinit(certificate);
  return name;
}

// ---- After it

// Fills `pieces`, the first of which has `done` bytes, with what needs no waiting and cannot fail.
size_t TlsStream::take_decrypted(std::span<const iovec> pieces, size_t done) {
  size_t total = done;
  for (const iovec& piece : pieces) {
    while (done < piece.iov_len && gnutls_record_check_pending(session_) != 0) {
      const ssize_t got = gnutls_record_recv(session_, static_cast<uint8_t*>(piece.iov_base) + done,
                                             piece.iov_len - done);
      if (got <= 0) return total;
      done += static_cast<size_t>(got);
      total += static_cast<size_t>(got);
    }
    if (done < piece.iov_len) break;
    done = 0;
  }
  return total;
}

io::Task<Result<size_t>> TlsStream::receive(std::span<const iovec> pieces) {
  PLATTER_ASSERT(established_);
  while (!pieces.empty() && pieces.front().iov_len == 0) pieces = pieces.subspan(1);
  PLATTER_ASSERT(!pieces.empty());
  for (;;) {
    starved_ = choked_ = false;
    const ssize_t got =
        gnutls_record_recv(session_, pieces.front().iov_base, pieces.front().iov_len);
    if (got > 0) {
      warnings_ = 0;
      co_return take_decrypted(pieces, static_cast<size_t>(got));
    }
    if (got == 0 || ended_) co_return size_t{0};
    PLATTER_CO_TRY(judge(static_cast<int>(got)));
    if (choked_) co_return fail(EPROTO, "the peer asks for more answers than it takes");
    // A record that was no data also counts as "again".
    if (starved_) PLATTER_CO_TRY(co_await readable_.readable());
  }
}

// As much of `pieces` as goes into one record: a large one is taken from where it is.
std::span<const uint8_t> TlsStream::next_record(std::span<const iovec> pieces) {
  const auto* first = static_cast<const uint8_t*>(pieces.front().iov_base);
  if (pieces.size() == 1 || pieces.front().iov_len >= kRecordBytes)
    return {first, std::min(pieces.front().iov_len, kRecordBytes)};
  size_t size = 0;
  for (const iovec& piece : pieces) {
    const size_t taken = std::min(piece.iov_len, kRecordBytes - size);
    if (size == kRecordBytes) break;
    if (taken != 0) std::memcpy(gathered_.get() + size, piece.iov_base, taken);
    size += taken;
  }
  return {gathered_.get(), size};
}

io::Task<Result<void>> TlsStream::send(std::span<iovec> pieces) {
  PLATTER_ASSERT(established_);
  pieces = io::skip_bytes(pieces, 0);
  while (!pieces.empty()) {
    if (room() < kSealedBytes) PLATTER_CO_TRY(co_await flush());
    const auto record = next_record(pieces);
    ssize_t sent = gnutls_record_send(session_, record.data(), record.size());
    while (sent == GNUTLS_E_AGAIN || sent == GNUTLS_E_INTERRUPTED) {
      PLATTER_CO_TRY(co_await flush());
      sent = gnutls_record_send(session_, nullptr, 0);
    }
    if (sent < 0) co_return std::unexpected(error_of(static_cast<int>(sent)));
    pieces = io::skip_bytes(pieces, static_cast<size_t>(sent));
  }
  co_return co_await flush();
}

void TlsStream::finish() {
  if (established_) (void)gnutls_bye(session_, GNUTLS_SHUT_WR);
  (void)drain();
  shutdown(socket_.get(), SHUT_RDWR);
}

void TlsStream::cancel() {
  readable_.cancel();
  writable_.cancel();
}

}  // namespace platter::crypto
