#include "export/nbd/connection.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/try.h"
#include "crypto/tls_stream.h"
#include "export/nbd/transmission.h"

namespace platter::nbd {
namespace {

// Clients that go away without a word are no news.
bool is_news(const Error& error) {
  const int code = error.code();
  return code != ECANCELED && code != EPIPE && code != ECONNRESET;
}

}  // namespace

Connection::Connection(io::Descriptor socket, Server& server, const base::Log& log)
    : server_(server), log_(log), reactor_(server.reactor()) {
  auto plain = std::make_unique<io::SocketStream>(std::move(socket));
  plain_ = plain.get();
  stream_ = std::move(plain);
}

Connection::~Connection() { PLATTER_ASSERT(home_ == nullptr); }

io::Task<void> Connection::run() {
  if (server_.options().negotiation_limit != io::Nanoseconds::zero())
    tasks_.spawn(reactor_, limit_negotiation());
  const Result<void> ended = co_await serve();
  negotiated_.cancel();
  if (timed_out_) {
    log_.warning(fmt::format("nbd: a client was left that had not chosen an export in {} s",
                             server_.options().negotiation_limit / std::chrono::seconds(1)));
  } else if (!ended && is_news(ended.error())) {
    log_.warning("nbd: a client was left: " + ended.error().message());
  }
  co_await tasks_.close();
  claim_.leave();
}

io::Task<Result<void>> Connection::serve() {
  Negotiation negotiation(*stream_, *this);
  auto agreed = co_await negotiation.run();
  negotiated_.cancel();
  if (!agreed || !*agreed) {
    stream_->finish();
    if (!agreed) co_return std::unexpected(std::move(agreed).error());
    co_return Result<void>();
  }
  home_ = &served_->next_reactor();
  co_await home_->enter();
  Result<void> result = co_await transmit(std::move(**agreed));
  co_await reactor_.enter();
  home_ = nullptr;
  co_return std::move(result);
}

io::Task<Result<void>> Connection::transmit(Agreement agreement) {
  Transmission transmission(*stream_, std::move(agreement));
  Result<void> result = co_await transmission.run();
  stream_->finish();
  co_return std::move(result);
}

io::Task<void> Connection::limit_negotiation() {
  const bool over =
      co_await io::sleep_for(server_.options().negotiation_limit, negotiated_.token());
  if (!over) co_return;
  timed_out_ = true;
  stream_->cancel();
}

void Connection::cancel() {
  if (std::exchange(cancelled_, true)) return;
  if (home_ == nullptr) return stream_->cancel();
  // What it waits for there can be ended there alone.
  if (!tasks_.is_closed()) tasks_.spawn(*home_, cancel_there());
}

io::Task<void> Connection::cancel_there() {
  stream_->cancel();
  co_return;
}

// ---- What a negotiation asks for

std::vector<Export*> Connection::exports() { return server_.exports(); }

Export* Connection::find(std::string_view name) { return server_.find(name); }

Export* Connection::claim(std::string_view name) {
  served_ = server_.find(name);
  if (served_ != nullptr) claim_ = served_->clients().try_enter();
  return served_;
}

bool Connection::has_tls() const { return server_.options().tls != nullptr; }

io::Task<Result<io::Stream*>> Connection::start_tls() {
  const ServerOptions& options = server_.options();
  auto made = crypto::TlsStream::make(plain_->release(), options.tls);
  crypto::TlsStream& secured = *made;
  plain_ = nullptr;
  stream_ = std::move(made);
  PLATTER_CO_TRY(co_await secured.handshake());
  if (options.authorize) PLATTER_CO_TRY(options.authorize(secured.peer_name()));
  co_return &secured;
}

bool Connection::multi_connection() const { return server_.options().max_connections != 1; }

}  // namespace platter::nbd
