#include "export/nbd/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <thread>

#include "block/test_disk.h"
#include "export/nbd/test_client.h"

namespace platter::nbd::test {
namespace {

// A blocking client.
class Client {
 public:
  explicit Client(const sockaddr_un& name, socklen_t bytes)
      : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(connect(socket_.get(), reinterpret_cast<const sockaddr*>(&name), bytes), 0);
  }

  void say(const Words& words) {
    EXPECT_EQ(send(socket_.get(), words.bytes().data(), words.bytes().size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(words.bytes().size()));
  }
  Bytes hear(size_t count) {
    Bytes bytes(count);
    EXPECT_EQ(recv(socket_.get(), bytes.data(), count, MSG_WAITALL), static_cast<ssize_t>(count));
    return bytes;
  }
  // The server has left.
  bool hears_the_end() {
    char byte;
    return recv(socket_.get(), &byte, 1, 0) <= 0;
  }
  bool hears_nothing_yet() {
    pollfd wait = {.fd = socket_.get(), .events = POLLIN, .revents = 0};
    return poll(&wait, 1, 20) == 0;
  }
  // Into the transmission phase of an export.
  void choose(std::string_view name) {
    say(Words().hello().option(Option::kExportName, Words().raw(name)));
    hear(18 + 10);
  }
  // One request that works.
  void check() {
    say(Words().request(Command::kRead, 1, 0, 512));
    const Bytes answer = hear(16 + 512);
    EXPECT_EQ(base::load_big<uint32_t>(answer, 4), 0u);
  }

 private:
  io::Descriptor socket_;
};

class NbdServerTest : public block::DiskTest {
 protected:
  NbdServerTest() : DiskTest(2) {}

  void start(ServerOptions options = {}) {
    options.listening =
        io::Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    name_.sun_family = AF_UNIX;
    bytes_ = sizeof name_.sun_family;
    // A name that the system chooses.
    ASSERT_EQ(bind(options.listening.get(), reinterpret_cast<sockaddr*>(&name_), bytes_), 0);
    bytes_ = sizeof name_;
    ASSERT_EQ(getsockname(options.listening.get(), reinterpret_cast<sockaddr*>(&name_), &bytes_),
              0);
    ASSERT_EQ(listen(options.listening.get(), 16), 0);
    open("driver=memory,size=1048576");
    server_ = run(make(std::move(options)));
    add("disk");
  }
  io::Task<std::unique_ptr<Server>> make(ServerOptions options) {
    co_return Server::start(std::move(options), log_);
  }
  void add(std::string name) {
    ExportOptions options{.name = std::move(name), .writable = true};
    options.reactors = {&reactors_->at(1), &reactors_->at(0)};
    exports_.push_back(std::make_unique<Export>(*backend_, std::move(options)));
    run(add_there());
  }
  io::Task<bool> add_there() {
    server_->add(*exports_.back());
    co_return true;
  }
  template <typename T>
  T run(io::Task<T> task) {
    return DiskTest::run(std::move(task));
  }
  bool run(io::Task<void> task) { return run(ended(std::move(task))); }
  static io::Task<bool> ended(io::Task<void> task) {
    co_await std::move(task);
    co_return true;
  }
  io::Task<size_t> clients_of(Export& served) { co_return served.clients().inside(); }

  void stop() {
    if (server_ == nullptr) return;
    while (!exports_.empty()) {
      run(server_->remove(*exports_.back()));
      exports_.pop_back();
    }
    run(server_->stop());
    server_.reset();
  }
  void TearDown() override {
    stop();
    DiskTest::TearDown();
  }
  Client connect() { return Client(name_, bytes_); }

  sockaddr_un name_{};
  socklen_t bytes_ = 0;
  std::atomic<int> warnings_{0};
  base::Log log_{[this](base::LogLevel level, std::string_view) {
    if (level >= base::LogLevel::kWarning) ++warnings_;
  }};
  std::unique_ptr<Server> server_;
  std::vector<std::unique_ptr<Export>> exports_;
};

TEST_F(NbdServerTest, ManyClientsAreServedSideBySide) {
  start();
  std::vector<Client> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(connect());
  for (Client& client : clients) client.choose("disk");
  for (Client& client : clients) client.check();
  EXPECT_EQ(run(clients_of(*exports_[0])), 20u);
  EXPECT_EQ(warnings_, 0);
}

TEST_F(NbdServerTest, OneMoreThanAreAllowedWaitsUntilOneHasGone) {
  start({.max_connections = 2});
  auto first = std::make_unique<Client>(connect());
  Client second = connect();
  first->choose("disk");
  second.choose("disk");
  Client third = connect();
  EXPECT_TRUE(third.hears_nothing_yet());
  first.reset();
  third.choose("disk");
  third.check();
}

TEST_F(NbdServerTest, AClientThatDoesNotChooseIsLeftInTime) {
  start({.max_connections = 1, .negotiation_limit = std::chrono::milliseconds(30)});
  Client silent = connect();
  EXPECT_EQ(silent.hear(18).size(), 18u);
  EXPECT_TRUE(silent.hears_the_end());
  Client other = connect();
  other.choose("disk");
  // What has been chosen has no limit.
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  other.check();
  EXPECT_EQ(warnings_, 1);
}

TEST_F(NbdServerTest, ARemovedExportLeavesItsClientsAndNoOthers) {
  start();
  add("other");
  Client one = connect(), two = connect(), choosing = connect();
  one.choose("disk");
  two.choose("other");
  choosing.hear(18);
  run(server_->remove(*exports_[0]));
  EXPECT_TRUE(one.hears_the_end());
  two.check();
  choosing.say(Words().hello().option(Option::kExportName, Words().raw("disk")));
  EXPECT_TRUE(choosing.hears_the_end());
  exports_.erase(exports_.begin());
}

TEST_F(NbdServerTest, AClientThatTakesNoRepliesIsLeftToo) {
  start();
  Client greedy = connect();
  greedy.choose("disk");
  for (int i = 0; i < 40; ++i) greedy.say(Words().request(Command::kRead, 1, 0, 65536));
  Client other = connect();
  other.choose("disk");
  other.check();
  stop();
}

TEST_F(NbdServerTest, TheServerStopsWhateverItsClientsDo) {
  start();
  Client greeting = connect(), halfway = connect(), serving = connect(), writing = connect();
  halfway.say(Words().hello().number(kOptionMagic));
  serving.choose("disk");
  writing.choose("disk");
  writing.say(Words().request(Command::kWrite, 1, 0, 65536).raw("the beginning"));
  stop();
  EXPECT_TRUE(serving.hears_the_end());
}

TEST_F(NbdServerTest, ClientsComeAndGoWhileExportsDo) {
  start({.max_connections = 0});
  std::atomic<bool> enough{false};
  std::vector<std::thread> crowd;
  for (int i = 0; i < 3; ++i) {
    crowd.emplace_back([&] {
      while (!enough) {
        Client client = connect();
        client.say(Words()
                       .hello()
                       .option(Option::kExportName, Words().raw("passing"))
                       .request(Command::kRead, 1, 0, 4096));
        client.hear(18);
        client.hears_the_end();  // or some of the answer
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    add("passing");
    run(server_->remove(*exports_.back()));
    exports_.pop_back();
  }
  enough = true;
  for (std::thread& one : crowd) one.join();
}

}  // namespace
}  // namespace platter::nbd::test
