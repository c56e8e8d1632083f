// Export: a disk as a vhost-user-blk device on a UNIX socket. One front-end at a time is served;
// the next one waits until it has gone, and finds the device as new.
//
// The backend is its user's: it is opened before start() and closed after stop().
//
// Threads: start(), stop(), config_changed() and go_on() on one reactor, which also listens.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "export/limited_log.h"
#include "export/vhost_user/session.h"
#include "io/descriptor.h"
#include "io/gate.h"
#include "virtio/blk/device.h"

namespace platter::vhost_user {

struct Options {
  // How many queues the protocol can name.
  static constexpr uint16_t kMaxQueues = 256;

  std::string path;            // of the socket, which is made here and removed at the end; or
  io::Descriptor listening{};  // a socket that listens already
  unsigned socket_mode = 0600;
  virtio::blk::Properties properties;
  // Requests that take so long, or longer, are told of in the log; 0: none are.
  io::Nanoseconds slow_request{};
  std::vector<io::Reactor*> reactors;  // where queues run: queue i on reactors[i % size]
  // Hears of requests that the disk fails, on the reactors of their queues; may be empty.
  virtio::blk::ErrorPolicy::Observer on_failure = {};
};

// The properties of a disk that is exported, where its user says nothing else. Every error is
// reported: it would stop the disk of a guest whose keeper does not know how to have it go on.
virtio::blk::Properties default_properties();

class Export {
 public:
  // EADDRINUSE: somebody listens there. EINVAL: properties that cannot be.
  static Result<std::unique_ptr<Export>> start(block::Backend& backend, Options options,
                                               const base::Log& log);
  ~Export();  // stopped
  Export(const Export&) = delete;
  Export& operator=(const Export&) = delete;

  // Ends the session, with what is under way, and takes no other.
  io::Task<void> stop();
  // The size of the disk has changed.
  void config_changed();
  // Ends a stop of the device (virtio/blk/error_policy.h).
  void go_on();

  // A front-end is connected.
  bool is_connected() const { return session_ != nullptr; }
  virtio::blk::Device& device() { return *device_; }

 private:
  Export(std::unique_ptr<virtio::blk::Device> device, Options options, const base::Log& log);
  io::Task<void> serve();

  std::unique_ptr<virtio::blk::Device> device_;
  const Options options_;
  const exports::LimitedLog log_;
  io::DescriptorWait waiting_;
  std::unique_ptr<Session> session_;
  bool stopping_ = false;
  io::Gate serving_;
};

}  // namespace platter::vhost_user
