#include "crypto/tls_stream.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/try.h"
#include "io/reactor_group.h"
#include "io/when_all.h"
#include "support/scratch_directory.h"
#include "support/tls_authority.h"

namespace platter::crypto {
namespace {

using support::TlsAuthority;
using Kind = TlsOptions::Kind;
using Credentials = std::shared_ptr<const TlsCredentials>;

// The other end: GnuTLS over a socket that blocks.
class Client {
 public:
  Client(int socket, Credentials credentials) : credentials_(std::move(credentials)) {
    PLATTER_ASSERT(gnutls_init(&session_, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL) == 0);
    credentials_->apply_to(session_);
    gnutls_transport_set_int(session_, socket);
  }
  ~Client() { gnutls_deinit(session_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  gnutls_session_t session() { return session_; }
  int handshake() {
    int code = 0;
    do {
      code = gnutls_handshake(session_);
    } while (code < 0 && !gnutls_error_is_fatal(code));
    if (code < 0) (void)gnutls_alert_send_appropriate(session_, code);
    return code;
  }
  bool send(std::string_view text) {
    return gnutls_record_send(session_, text.data(), text.size()) ==
           static_cast<ssize_t>(text.size());
  }
  // "<end>": the server has said goodbye. "<error>".
  std::string receive(size_t size) {
    std::string text(size, '\0');
    for (size_t done = 0; done < size;) {
      const ssize_t got = gnutls_record_recv(session_, text.data() + done, size - done);
      if (got == 0) return "<end>";
      if (got < 0) return "<error>";
      done += static_cast<size_t>(got);
    }
    return text;
  }

 private:
  Credentials credentials_;
  gnutls_session_t session_ = nullptr;
};

class TlsStreamTest : public testing::TestWithParam<io::EngineKind> {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 1, .engine = GetParam()});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
    connect();
    authority_.write_server(path("server"));
    authority_.write_client(path("client"), {.name = "CN=Ann\\, Bob,O=Example,C=GB"});
  }
  // Two ends of small buffers.
  void connect() {
    std::array<int, 2> ends;
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    near_.reset(ends[0]);
    far_.reset(ends[1]);
    for (const int end : ends) {
      const int small = 4096;
      ASSERT_EQ(setsockopt(end, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    }
  }
  template <typename T>
  T run(io::Task<T> task) {
    return run_blocking(reactors_->at(0), std::move(task));
  }

  std::string path(const std::string& name) const { return scratch_.path(name); }
  Credentials load(TlsOptions options, const std::string& directory) const {
    options.directory = path(directory);
    auto loaded = TlsCredentials::load(options);
    EXPECT_TRUE(loaded) << loaded.error().message();
    return loaded ? *loaded : nullptr;
  }
  void start(TlsOptions options = {}) {
    options.server = true;
    const std::string directory = options.kind == Kind::kPreSharedKeys ? "keys" : "server";
    stream_ = TlsStream::make(std::move(near_), load(std::move(options), directory));
  }
  // What the server makes of a client that does `work`.
  template <typename Work>
  Result<void> shake_hands(Work work) {
    std::thread client(work);
    auto result = run(stream_->handshake());
    if (!result) stream_->finish();
    client.join();
    return result;
  }
  // Its code and message.
  std::string failure_with(Credentials credentials) {
    auto result = shake_hands([&] {
      Client client(far_.get(), std::move(credentials));
      if (client.handshake() < 0) shutdown(far_.get(), SHUT_WR);
    });
    if (result) return "";
    return std::to_string(result.error().code()) + " " + result.error().message();
  }
  static std::string with_code(int code, const std::string& reason) {
    return std::to_string(code) + " TLS handshake failed: " + reason;
  }

  support::ScratchDirectory scratch_;
  TlsAuthority authority_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  io::Descriptor near_;
  io::Descriptor far_;
  std::unique_ptr<TlsStream> stream_;
};

io::Task<std::string> receive_text(TlsStream& stream, size_t size) {
  std::string text(size, '\0');
  auto got = co_await stream.receive_all({reinterpret_cast<uint8_t*>(text.data()), size});
  if (!got) co_return got.error().message();
  co_return *got ? text : "<end>";
}
io::Task<Result<void>> send_text(TlsStream& stream, std::string_view text) {
  co_return co_await stream.send_all({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

TEST_P(TlsStreamTest, AgreesAndKnowsItsPeer) {
  for (const std::string version :
       {"NORMAL:-VERS-ALL:+VERS-TLS1.3", "NORMAL:-VERS-ALL:+VERS-TLS1.2"}) {
    connect();
    start();
    std::thread peer([&] {
      Client client(far_.get(), load({.priority = version}, "client"));
      EXPECT_EQ(client.handshake(), 0);
      EXPECT_TRUE(client.send("hello"));
      EXPECT_EQ(client.receive(5), "world");
      EXPECT_EQ(client.receive(1), "<end>");
    });
    const auto agreed = run(stream_->handshake());
    EXPECT_TRUE(agreed) << agreed.error().message();
    EXPECT_EQ(stream_->peer_name(), "C=GB,O=Example,CN=Ann\\, Bob");
    EXPECT_EQ(run(receive_text(*stream_, 5)), "hello");
    EXPECT_TRUE(run(send_text(*stream_, "world")));
    stream_->finish();
    peer.join();
  }
}

// ---- Who is let in

TEST_P(TlsStreamTest, APeerNeedsACertificate) {
  start();
  std::filesystem::remove(path("client/client-cert.pem"));
  EXPECT_EQ(failure_with(load({}, "client")), with_code(EACCES, "the peer has no certificate"));
}

TEST_P(TlsStreamTest, APeerNeedsNoCertificateWhereNobodyVerifies) {
  start({.verify_peer = false});
  EXPECT_EQ(failure_with(load({}, "client")), "");
  EXPECT_EQ(stream_->peer_name(), "");
}

// A client shows no certificate of an authority that the server does not name.
TEST_P(TlsStreamTest, AnAuthoritysNameIsNotEnough) {
  start();
  const TlsAuthority other(TlsAuthority::wish());
  other.write_client(path("client"));
  const auto failure = failure_with(load({.verify_peer = false}, "client"));
  EXPECT_EQ(failure, with_code(EACCES,
                               "the peer's certificate is refused: The certificate is NOT "
                               "trusted. The signature in the certificate is invalid."));
}

TEST_P(TlsStreamTest, AnExpiredCertificateIsRefused) {
  start();
  const time_t now = time(nullptr);
  authority_.write_client(
      path("client"),
      {.name = "CN=client", .begin = now - 2 * support::kTlsDay, .end = now - support::kTlsDay});
  const auto failure = failure_with(load({.sanity_check = false}, "client"));
  EXPECT_EQ(failure, with_code(EACCES,
                               "the peer's certificate is refused: The certificate is NOT "
                               "trusted. The certificate chain uses expired certificate."));
}

TEST_P(TlsStreamTest, ARevokedCertificateIsRefused) {
  const support::Certificate client = authority_.issue({.name = "CN=client"});
  authority_.write(path("client"), "client", client);
  std::ofstream(path("server/ca-crl.pem")) << authority_.revoke(client.text);
  start();
  EXPECT_EQ(failure_with(load({}, "client")),
            with_code(EACCES,
                      "the peer's certificate is refused: The certificate is NOT trusted. "
                      "The certificate chain is revoked."));
}

TEST_P(TlsStreamTest, APeerThatRefusesUsSaysSo) {
  const TlsAuthority other({.name = "CN=other", .is_ca = 1});
  other.write_client(path("client"));
  start();
  const std::string failure = failure_with(load({}, "client"));
  EXPECT_TRUE(failure.starts_with(with_code(EPROTO, "the peer says: Certificate"))) << failure;
}

class KeysTest : public TlsStreamTest {
 protected:
  void SetUp() override {
    TlsStreamTest::SetUp();
    for (const std::string end : {"keys", "client-keys"}) {
      std::filesystem::create_directory(path(end));
      std::ofstream(path(end + "/keys.psk")) << "qemu:00112233445566778899aabbccddeeff\n";
    }
  }
};

TEST_P(KeysTest, AUserHasTheKey) {
  start({.kind = Kind::kPreSharedKeys});
  EXPECT_EQ(failure_with(load({.kind = Kind::kPreSharedKeys}, "client-keys")), "");
  EXPECT_EQ(stream_->peer_name(), "qemu");
}

TEST_P(KeysTest, AnotherKeyIsRefused) {
  std::ofstream(path("client-keys/keys.psk")) << "qemu:ff112233445566778899aabbccddeeff\n";
  start({.kind = Kind::kPreSharedKeys});
  EXPECT_NE(failure_with(load({.kind = Kind::kPreSharedKeys}, "client-keys")), "");
  EXPECT_EQ(stream_->peer_name(), "");
}

TEST_P(KeysTest, AnotherUserIsRefused) {
  std::ofstream(path("client-keys/keys.psk")) << "eve:00112233445566778899aabbccddeeff\n";
  start({.kind = Kind::kPreSharedKeys});
  EXPECT_NE(failure_with(load({.kind = Kind::kPreSharedKeys, .username = "eve"}, "client-keys")),
            "");
}

TEST_P(KeysTest, AUserThatWasAddedIsKnown) {
  start({.kind = Kind::kPreSharedKeys});
  for (const std::string end : {"keys", "client-keys"})
    std::ofstream(path(end + "/keys.psk")) << "new:8899aabbccddeeff\n";
  EXPECT_EQ(failure_with(load({.kind = Kind::kPreSharedKeys, .username = "new"}, "client-keys")),
            "");
  EXPECT_EQ(stream_->peer_name(), "new");
}

TEST_P(TlsStreamTest, AnonymousPeersHaveNoName) {
  start({.kind = Kind::kAnonymous});
  EXPECT_EQ(failure_with(load({.kind = Kind::kAnonymous}, "client")), "");
  EXPECT_EQ(stream_->peer_name(), "");
}

TEST_P(TlsStreamTest, KindsThatDoNotFitDoNotAgree) {
  start();
  EXPECT_NE(failure_with(load({.kind = Kind::kAnonymous}, "client")), "");
}

// ---- Peers that are no peers

TEST_P(TlsStreamTest, GarbageIsNoHello) {
  start();
  const auto result = shake_hands([&] {
    const std::string garbage(1 << 16, 'g');
    (void)::send(far_.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL);
  });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), EPROTO);
}

// What a client would say first.
std::string hello_of(const Credentials& credentials) {
  gnutls_session_t session = nullptr;
  PLATTER_ASSERT(gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK) == 0);
  credentials->apply_to(session);
  std::string hello;
  gnutls_transport_set_ptr(session, &hello);
  gnutls_transport_set_push_function(session, [](void* into, const void* bytes, size_t size) {
    static_cast<std::string*>(into)->append(static_cast<const char*>(bytes), size);
    return static_cast<ssize_t>(size);
  });
  gnutls_transport_set_pull_function(session, [](void*, void*, size_t) -> ssize_t {
    errno = EAGAIN;
    return -1;
  });
  (void)gnutls_handshake(session);
  gnutls_deinit(session);
  return hello;
}

TEST_P(TlsStreamTest, APeerMayGoInTheMiddle) {
  const std::string hello = hello_of(load({}, "client"));
  ASSERT_GT(hello.size(), 100u);
  for (const size_t length : {size_t{0}, size_t{3}, size_t{50}, hello.size() - 1, hello.size()}) {
    connect();
    start();
    const auto result = shake_hands([&] {
      EXPECT_EQ(write(far_.get(), hello.data(), length), static_cast<ssize_t>(length));
      shutdown(far_.get(), SHUT_WR);
    });
    ASSERT_FALSE(result) << length;
    EXPECT_EQ(result.error().code(), ECONNRESET) << result.error().message();
  }
}

TEST_P(TlsStreamTest, AHelloMayComeInPiecesAndWithEveryBitWrong) {
  const std::string hello = hello_of(load({}, "client"));
  for (size_t at = 0; at < hello.size(); at += 7) {
    connect();
    start();
    std::string wrong = hello;
    wrong[at] = static_cast<char>(wrong[at] ^ (1 << (at % 8)));
    EXPECT_FALSE(shake_hands([&] {
      EXPECT_EQ(write(far_.get(), wrong.data(), at), static_cast<ssize_t>(at));
      EXPECT_EQ(write(far_.get(), wrong.data() + at, wrong.size() - at),
                static_cast<ssize_t>(wrong.size() - at));
      shutdown(far_.get(), SHUT_WR);
    }));
  }
}

io::Task<int> cancelled(TlsStream& stream, io::Task<Result<void>> task) {
  auto cancel = [](TlsStream& other) -> io::Task<bool> {
    co_await io::Reactor::current()->yield();
    other.cancel();
    co_return true;
  };
  auto [ended, done] = co_await when_all(std::move(task), cancel(stream));
  (void)done;
  co_return ended ? 0 : ended.error().code();
}

io::Task<Result<void>> receive_one(TlsStream& stream) {
  std::array<uint8_t, 1> byte{};
  PLATTER_CO_TRY(co_await stream.receive_all(byte));
  co_return Result<void>();
}

TEST_P(TlsStreamTest, AHandshakeIsCancelled) {
  start();
  const std::string hello = hello_of(load({}, "client"));
  EXPECT_EQ(write(far_.get(), hello.data(), 50), 50);
  EXPECT_EQ(run(cancelled(*stream_, stream_->handshake())), ECANCELED);
}

TEST_P(TlsStreamTest, ReceivingAndSendingAreCancelled) {
  start();
  ASSERT_EQ(failure_with(load({}, "client")), "");
  EXPECT_EQ(run(cancelled(*stream_, receive_one(*stream_))), ECANCELED);
  const std::string large(1 << 20, 'x');
  EXPECT_EQ(run(send_text(*stream_, large)).error().code(), ECANCELED);
}

TEST_P(TlsStreamTest, SendingIsCancelled) {
  start();
  std::thread peer([&] {
    Client client(far_.get(), load({}, "client"));
    EXPECT_EQ(client.handshake(), 0);
  });
  EXPECT_TRUE(run(stream_->handshake()));
  peer.join();
  const std::string large(1 << 20, 'x');  // nobody takes it
  EXPECT_EQ(run(cancelled(*stream_, send_text(*stream_, large))), ECANCELED);
}

// ---- Bytes

constexpr size_t kMuch = size_t{64} << 20;

uint8_t byte_at(size_t offset, uint8_t seed) {
  return static_cast<uint8_t>((offset * 2654435761u >> 13) + seed);
}

// Sends kMuch and receives it at the same time, in one thread, and renews its keys now and then.
void exchange(Client& client, int socket) {
  std::vector<uint8_t> out(50'000), in(70'000);
  size_t sent = 0, received = 0;
  unsigned sends = 0;
  auto wants = [](ssize_t code) { return code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED; };
  bool retries = false;
  while (sent < kMuch || received < kMuch) {
    bool moved = false;
    if (sent < kMuch) {
      const size_t size = std::min(out.size(), kMuch - sent);
      for (size_t i = 0; !retries && i < size; ++i) out[i] = byte_at(sent + i, 1);
      const ssize_t done =
          gnutls_record_send(client.session(), retries ? nullptr : out.data(), retries ? 0 : size);
      ASSERT_TRUE(done > 0 || wants(done)) << gnutls_strerror(static_cast<int>(done));
      retries = wants(done);
      if (!retries) {
        sent += static_cast<size_t>(done);
        moved = true;
        if (++sends % 512 == 0)
          ASSERT_EQ(gnutls_session_key_update(client.session(), GNUTLS_KU_PEER), 0);
      }
    }
    if (received < kMuch) {
      const ssize_t done = gnutls_record_recv(client.session(), in.data(), in.size());
      ASSERT_TRUE(done > 0 || wants(done)) << gnutls_strerror(static_cast<int>(done));
      for (ssize_t i = 0; i < done; ++i)
        ASSERT_EQ(in[static_cast<size_t>(i)], byte_at(received + static_cast<size_t>(i), 2));
      if (done > 0) received += static_cast<size_t>(done);
      moved = moved || done > 0;
    }
    if (moved) continue;
    pollfd wait = {.fd = socket, .events = POLLIN, .revents = 0};
    if (retries) wait.events |= POLLOUT;
    (void)poll(&wait, 1, -1);
  }
}

io::Task<Result<void>> send_much(TlsStream& stream) {
  std::vector<uint8_t> bytes(200'000);
  for (size_t sent = 0; sent < kMuch;) {
    const size_t size = std::min(bytes.size(), kMuch - sent);
    for (size_t i = 0; i < size; ++i) bytes[i] = byte_at(sent + i, 2);
    // A header, a small one, what is empty, and the rest.
    const size_t first = std::min<size_t>(16, size), second = std::min<size_t>(4096, size - first);
    std::array<iovec, 4> pieces = {iovec{bytes.data(), first}, iovec{bytes.data() + first, second},
                                   iovec{nullptr, 0},
                                   iovec{bytes.data() + first + second, size - first - second}};
    PLATTER_CO_TRY(co_await stream.send(pieces));
    sent += size;
  }
  co_return Result<void>();
}

io::Task<Result<void>> receive_much(TlsStream& stream) {
  std::vector<uint8_t> bytes(100'000);
  for (size_t received = 0; received < kMuch;) {
    const size_t size = std::min(bytes.size(), kMuch - received);
    const size_t first = std::min<size_t>(28, size);
    const std::array<iovec, 2> pieces = {iovec{bytes.data(), first},
                                         iovec{bytes.data() + first, size - first}};
    PLATTER_CO_ASSIGN(const size_t got, co_await stream.receive(pieces));
    if (got == 0) co_return fail(EPROTO, "the end came early");
    for (size_t i = 0; i < got; ++i)
      if (bytes[i] != byte_at(received + i, 1)) co_return fail(EIO, "wrong bytes");
    received += got;
  }
  co_return Result<void>();
}

io::Task<bool> both(TlsStream& stream) {
  auto [sent, received] = co_await when_all(send_much(stream), receive_much(stream));
  EXPECT_TRUE(sent) << sent.error().message();
  EXPECT_TRUE(received) << received.error().message();
  co_return sent&& received;
}

TEST_P(TlsStreamTest, MuchGoesBothWaysAtOnceThroughASmallSocket) {
  start();
  std::thread peer([&] {
    Client client(far_.get(), load({}, "client"));
    EXPECT_EQ(client.handshake(), 0);
    ASSERT_EQ(fcntl(far_.get(), F_SETFL, O_NONBLOCK), 0);
    exchange(client, far_.get());
  });
  EXPECT_TRUE(run(stream_->handshake()));
  EXPECT_TRUE(run(both(*stream_)));
  peer.join();
}

// ---- Ends

TEST_P(TlsStreamTest, AnEndIsAnEndWithOrWithoutGoodbye) {
  for (const bool says_goodbye : {true, false}) {
    connect();
    start();
    EXPECT_TRUE(shake_hands([&] {
      Client client(far_.get(), load({}, "client"));
      EXPECT_EQ(client.handshake(), 0);
      EXPECT_TRUE(client.send("abc"));
      if (says_goodbye) gnutls_bye(client.session(), GNUTLS_SHUT_WR);
      shutdown(far_.get(), SHUT_WR);
    }));
    EXPECT_EQ(run(receive_text(*stream_, 3)), "abc");
    EXPECT_EQ(run(receive_text(*stream_, 3)), "<end>");
    EXPECT_EQ(run(receive_text(*stream_, 3)), "<end>");
  }
}

TEST_P(TlsStreamTest, AMessageThatIsCutShortIsAnError) {
  start();
  EXPECT_TRUE(shake_hands([&] {
    Client client(far_.get(), load({}, "client"));
    EXPECT_EQ(client.handshake(), 0);
    EXPECT_TRUE(client.send("abc"));
    far_.reset();
  }));
  EXPECT_EQ(run(receive_text(*stream_, 5)), "the peer has ended in the middle of a message");
  EXPECT_FALSE(run(send_text(*stream_, "x")));
}

TEST_P(TlsStreamTest, ARecordThatWasTamperedWithIsAnError) {
  start();
  EXPECT_TRUE(shake_hands([&] {
    Client client(far_.get(), load({}, "client"));
    EXPECT_EQ(client.handshake(), 0);
    const std::string forged("\x17\x03\x03\x00\x20" + std::string(0x20, 'f'));
    EXPECT_EQ(write(far_.get(), forged.data(), 37), 37);
  }));
  const std::string answer = run(receive_text(*stream_, 5));
  EXPECT_NE(answer, "<end>");
  EXPECT_NE(run(receive_text(*stream_, 5)), "<end>");
}

TEST_P(TlsStreamTest, NobodyBecomesAnotherLater) {
  start();
  std::thread peer([&] {
    Client client(far_.get(), load({.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2"}, "client"));
    EXPECT_EQ(client.handshake(), 0);
    EXPECT_LT(client.handshake(), 0);
  });
  EXPECT_TRUE(run(stream_->handshake()));
  EXPECT_NE(run(receive_text(*stream_, 1)), "<end>");
  stream_->finish();
  peer.join();
}

TEST_P(TlsStreamTest, WarningsAreBorneForAWhile) {
  for (const int count : {5, 50}) {
    connect();
    start();
    std::thread peer([&] {
      Client client(far_.get(), load({.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2"}, "client"));
      EXPECT_EQ(client.handshake(), 0);
      for (int i = 0; i < count; ++i)
        (void)gnutls_alert_send(client.session(), GNUTLS_AL_WARNING, GNUTLS_A_NO_RENEGOTIATION);
      (void)client.send("abc");
    });
    EXPECT_TRUE(run(stream_->handshake()));
    const std::string answer = run(receive_text(*stream_, 3));
    EXPECT_EQ(answer, count == 5 ? "abc" : "the peer says: No renegotiation is allowed");
    stream_->finish();
    peer.join();
  }
}

std::string name_of(io::EngineKind engine) {
  return engine == io::EngineKind::kUring ? "Uring" : "Threads";
}
INSTANTIATE_TEST_SUITE_P(Engines, TlsStreamTest,
                         testing::Values(io::EngineKind::kUring, io::EngineKind::kThreads),
                         [](const auto& parameter) { return name_of(parameter.param); });
INSTANTIATE_TEST_SUITE_P(Engines, KeysTest,
                         testing::Values(io::EngineKind::kUring, io::EngineKind::kThreads),
                         [](const auto& parameter) { return name_of(parameter.param); });

}  // namespace
}  // namespace platter::crypto
