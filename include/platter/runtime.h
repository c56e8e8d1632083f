// Runtime: the threads, drivers and open images of one user of the library. There is no global
// state: a process may have several, and each test a fresh one.
//
// A Runtime owns its reactors: threads that each run an event loop over their own io_uring (or,
// where that is not permitted, over epoll and worker threads). Requests on images run on them.
//
// Thread-safety: every call may be made from any thread that is not one of the reactors.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "platter/error.h"

namespace platter {

enum class Engine { kAuto, kUring, kThreads };
enum class Severity { kDebug, kInfo, kWarning, kError };

struct RuntimeOptions {
  unsigned reactors = 0;  // threads that run requests; 0: one a processor, at most 8
  Engine engine = Engine::kAuto;
  // Gets each line of the log, from whatever thread it arises on. Empty: the log is dropped.
  std::function<void(Severity, std::string_view line)> log;
};

class Runtime {
 public:
  static Result<std::unique_ptr<Runtime>> create(const RuntimeOptions& options = {});
  // Every image has been closed (asserted). Stops and joins the reactors.
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Keeps a copy of a passphrase or a key under `id`, for images whose options name it
  // ("encrypt.key-secret=ID", "key-secret=ID"); one that is there already is replaced. It is
  // overwritten in memory when it is removed, or with the runtime. What was opened with it stays
  // open.
  void set_secret(std::string_view id, std::span<const uint8_t> bytes);
  // False: there is none.
  bool remove_secret(std::string_view id);

  unsigned reactors() const;
  // "io_uring" or "threads".
  std::string_view engine() const;

  // For the library alone.
  struct State;
  State& state() const { return *state_; }

 private:
  explicit Runtime(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace platter
