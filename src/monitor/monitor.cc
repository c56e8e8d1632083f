#include "monitor/monitor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/try.h"
#include "io/when_all.h"

namespace platter::monitor {
namespace {

constexpr size_t kReadBytes = size_t{16} << 10;
// What a pipe that is writable takes without blocking.
constexpr size_t kWriteBytes = 4096;

// A regular file cannot be waited for: it is always ready.
bool is_ready(const Result<void>& waited) { return waited || waited.error().code() == EPERM; }

}  // namespace

// One client: a task that hears, one that acts and one that speaks.
class Monitor::Conversation {
 public:
  Conversation(Control& control, bool pretty, int input, int output)
      : control_(control),
        session_(control, pretty),
        input_(input),
        output_(output),
        readable_(input),
        writable_(output) {
    control_.add_listener(session_, [this] { to_send_.ring(); });
  }
  ~Conversation() { control_.remove_listener(session_); }

  io::Task<void> run() {
    std::vector<io::Task<void>> tasks;
    tasks.push_back(hear());
    tasks.push_back(act());
    tasks.push_back(speak());
    co_await io::when_all(std::move(tasks));
  }

  void stop() {
    stopping_ = true;
    readable_.cancel();
    writable_.cancel();
    to_hear_.ring();
    to_do_.ring();
  }

 private:
  io::Task<void> hear() {
    std::array<char, kReadBytes> bytes;
    while (!stopping_ && input_ >= 0) {
      while (!session_.wants_input() && !stopping_) co_await to_hear_.wait();
      if (!is_ready(co_await readable_.readable())) break;
      const ssize_t got = read(input_, bytes.data(), bytes.size());
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (got <= 0) break;
      session_.receive({bytes.data(), static_cast<size_t>(got)});
      to_do_.ring();
      to_send_.ring();
    }
    heard_all_ = true;
    to_do_.ring();
  }

  io::Task<void> act() {
    while (true) {
      while (session_.has_request() && !control_.quit().is_set()) {
        co_await session_.run_next();
        to_send_.ring();
        to_hear_.ring();
      }
      if (heard_all_ || control_.quit().is_set()) break;
      co_await to_do_.wait();
    }
    acted_all_ = true;
    to_send_.ring();
    // After `quit` nobody listens any more.
    stopping_ = true;
    readable_.cancel();
    to_hear_.ring();
  }

  // A client that does not read holds up nothing but what is for it: when the end has come, what it
  // does not take at once is dropped.
  io::Task<void> speak() {
    while (true) {
      std::string text = session_.take_output();
      if (text.empty()) {
        if (acted_all_) break;
        co_await to_send_.wait();
        continue;
      }
      to_hear_.ring();
      if (!co_await send(std::move(text))) break;
    }
    // Whoever cannot be spoken to is not heard either.
    stop();
  }

  io::Task<bool> send(std::string text) {
    for (std::string_view rest = text; !rest.empty();) {
      if (!writable_.is_cancelled()) {
        // Where the wait is called off, one try is left.
        auto waited = co_await writable_.writable();
        if (!is_ready(waited) && !writable_.is_cancelled()) co_return false;
      }
      const ssize_t sent = put(rest.substr(0, kWriteBytes));
      if (sent < 0 && (errno == EINTR || (errno == EAGAIN && !writable_.is_cancelled()))) continue;
      if (sent <= 0) co_return false;
      rest.remove_prefix(static_cast<size_t>(sent));
    }
    co_return true;
  }

  // Does not block: EAGAIN.
  ssize_t put(std::string_view text) const {
    const ssize_t sent = ::send(output_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0 || errno != ENOTSOCK) return sent;
    pollfd ready{.fd = output_, .events = POLLOUT, .revents = 0};
    if (poll(&ready, 1, 0) == 1) return write(output_, text.data(), text.size());
    errno = EAGAIN;
    return -1;
  }

  Control& control_;
  Session session_;
  const int input_, output_;
  io::DescriptorWait readable_, writable_;
  Bell to_hear_, to_do_, to_send_;
  bool stopping_ = false;
  bool heard_all_ = false;
  bool acted_all_ = false;
};

io::Task<void> Monitor::serve() {
  switch (chardev_.kind) {
    case Chardev::Kind::kNull:
    case Chardev::Kind::kRing: co_return;
    case Chardev::Kind::kStdio: co_await talk(STDIN_FILENO, STDOUT_FILENO); co_return;
    case Chardev::Kind::kPipe:
    case Chardev::Kind::kFile:
      co_await talk(chardev_.input.get(), chardev_.output.get());
      co_return;
    case Chardev::Kind::kSocket: break;
  }
  while (!stopped_) {
    auto client = co_await next_client();
    if (!client) co_return;
    chardev_.has_client = true;
    co_await talk(client->get(), client->get());
    chardev_.has_client = false;
  }
}

io::Task<Result<io::Descriptor>> Monitor::next_client() {
  if (chardev_.connection) co_return std::move(chardev_.connection);
  if (!chardev_.listener) co_return std::unexpected(Error::from_errno(ENOTCONN));
  while (true) {
    PLATTER_CO_TRY(co_await accepting_.readable());
    io::Descriptor client(
        accept4(chardev_.listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client) co_return std::move(client);
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
      co_return std::unexpected(Error::from_errno(errno, "Failed to accept a connection"));
  }
}

io::Task<void> Monitor::talk(int input, int output) {
  Conversation conversation(control_, pretty_, input, output);
  conversation_ = &conversation;
  if (!stopped_) co_await conversation.run();
  conversation_ = nullptr;
}

void Monitor::stop() {
  stopped_ = true;
  accepting_.cancel();
  if (conversation_ != nullptr) conversation_->stop();
}

}  // namespace platter::monitor
