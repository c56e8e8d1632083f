// StateTransfer: a device's state on its way to a front-end or from it, through a pipe of the
// front-end's (the vhost-user protocol, "Migrating back-end state").
//
// It goes on beside the session; how it ended is asked for later. The front-end may do with its end
// what it likes, and need not do anything: nobody waits for it. Who writes to a pipe that nobody
// reads gets SIGPIPE: the program ignores that.
//
// For one reactor.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "io/descriptor.h"
#include "io/gate.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::vhost_user {

class StateTransfer {
 public:
  // Writes the bytes, and closes the pipe. EINVAL: it is neither a pipe nor a socket.
  static Result<std::unique_ptr<StateTransfer>> save(io::Descriptor pipe,
                                                     std::vector<uint8_t> bytes);
  // Reads up to the end, and so many bytes at most.
  static Result<std::unique_ptr<StateTransfer>> load(io::Descriptor pipe, size_t max_bytes);
  ~StateTransfer();  // ended or stopped

  bool loads() const { return loads_; }
  // How it ended, with what was saved or loaded; called once, before it is destroyed. EAGAIN: the
  // other end has not taken all, or not closed; nobody waits for that.
  io::Task<Result<std::vector<uint8_t>>> end();
  // In place of end(), where nobody asks how it ended.
  io::Task<void> stop();

 private:
  StateTransfer(io::Descriptor pipe, std::vector<uint8_t> bytes, bool loads, size_t max_bytes);
  static Result<std::unique_ptr<StateTransfer>> begin(io::Descriptor pipe,
                                                      std::vector<uint8_t> bytes, bool loads,
                                                      size_t max_bytes);

  io::Task<void> run();
  io::Task<Result<void>> write_all();
  io::Task<Result<void>> read_all();
  // A read, or write, has failed so: waits until another may do better. An error: none will.
  io::Task<Result<void>> after(int code);

  io::Descriptor pipe_;
  const bool loads_;
  const size_t max_bytes_;
  std::vector<uint8_t> bytes_;
  io::DescriptorWait wait_;
  Result<void> outcome_;
  io::Gate running_;
};

}  // namespace platter::vhost_user
