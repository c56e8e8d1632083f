// Session: one client of a monitor, from its greeting on. Bytes in, bytes out; who holds the
// session moves them (monitor/monitor.h), so that a test or a fuzzer needs no socket.
//
//   session.receive(bytes);                                   // as they come
//   while (session.has_request()) co_await session.run_next();
//   send(session.take_output());
//
// Requests are answered in the order in which they came; one with "exec-oob" is answered at once,
// before all that wait. Until the client has said qmp_capabilities it is refused everything else,
// and told of no event.
//
// One thread; take_output() and receive() may be called while run_next() waits.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "io/task.h"
#include "monitor/failure.h"
#include "monitor/json_splitter.h"
#include "monitor/schema.h"

namespace platter::monitor {

// What runs the commands that are not about the session itself.
class CommandRunner {
 public:
  virtual ~CommandRunner() = default;
  virtual const Schema& schema() const = 0;
  // What query-version answers.
  virtual base::Json version() const = 0;
  // `arguments`: an object that the schema has not been held against yet.
  virtual io::Task<Reply> run(const CommandSchema& command, base::Json arguments) = 0;
};

struct Event {
  std::string_view name;
  base::Json data;            // an object
  uint64_t microseconds = 0;  // since 1970
};

class Session {
 public:
  // Who reads for the session stops at so many requests that wait.
  static constexpr size_t kMaxWaiting = 8;
  // What the client has not taken; events beyond it are lost, and it is not read from.
  static constexpr size_t kMaxOutputBytes = size_t{4} << 20;

  Session(CommandRunner& runner, bool pretty);

  void receive(std::string_view bytes);
  bool wants_input() const {
    return waiting_.size() < kMaxWaiting && output_.size() < kMaxOutputBytes;
  }
  bool has_request() const { return !waiting_.empty(); }
  io::Task<void> run_next();
  void notify(const Event& event);
  std::string take_output() { return std::exchange(output_, {}); }
  bool has_output() const { return !output_.empty(); }

 private:
  struct Request {
    std::string command;
    base::Json arguments;
    bool out_of_band = false;
  };
  void greet();
  Result<Request> parse(const base::Json& value) const;
  io::Task<Reply> execute(const base::Json& value);
  Reply negotiate(const base::Json& arguments);
  void answer_out_of_band(const base::Json& value);
  void answer(const base::Json* value, const Reply& reply);
  void send(const base::Json& message);

  CommandRunner& runner_;
  const bool pretty_;
  bool negotiated_ = false;
  bool out_of_band_ = false;  // the client has asked for it
  JsonSplitter splitter_;
  std::deque<Result<base::Json>> waiting_;
  std::string output_;
};

}  // namespace platter::monitor
