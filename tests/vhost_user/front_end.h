// FrontEnd: the side of a vhost-user connection that has the guest (QEMU's, in real life).
//
// It says what it is asked to say, in whatever order: sequences that make sense are the caller's
// affair (vhost_user/block_device.h has the usual one), and so are ones that make none. Where
// REPLY_ACK was negotiated every message asks for an answer, and a refusal is an error (EPROTO).
//
// What a back-end does not answer within kAnswerLimit is an error (EAGAIN), so that a test ends.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "platter/error.h"
#include "vhost_user/descriptor.h"
#include "vhost_user/guest_ram.h"
#include "vhost_user/messages.h"

namespace platter::front_end {

struct Message {
  uint32_t request = 0;
  uint32_t flags = kVersion;
  std::vector<uint8_t> payload = {};
  std::vector<Descriptor> descriptors = {};  // of a received one
};

// The payload of SET_VRING_ADDR; addresses of this process.
struct VringAddresses {
  uint32_t flags = 0;
  uint64_t descriptors = 0;
  uint64_t used = 0;
  uint64_t available = 0;
  uint64_t log_guest_address = 0;
};

// What tracks requests in flight: the back-end's, kept by the front-end while there is none.
struct Inflight {
  Descriptor file;
  uint64_t bytes = 0;
  uint64_t offset = 0;
  uint16_t queues = 0;
  uint16_t queue_size = 0;
};

class FrontEnd {
 public:
  static constexpr std::chrono::seconds kAnswerLimit{20};
  static constexpr size_t kMaxDescriptors = 64;
  static constexpr size_t kMaxPayload = 64 * 1024;

  static Result<FrontEnd> connect(const std::string& path);
  explicit FrontEnd(Descriptor socket);

  int socket() const { return socket_.get(); }

  // Any message at all. The size in the header is that of the payload, unless it is named.
  Result<void> send(const Message& message, std::span<const int> descriptors = {});
  Result<void> send_with_size(const Message& message, uint32_t size,
                              std::span<const int> descriptors = {});
  // ECONNRESET: the back-end has hung up.
  Result<Message> receive();

  Result<uint64_t> get_features() { return get(Request::kGetFeatures); }
  Result<void> set_features(uint64_t features) { return set(Request::kSetFeatures, features); }
  Result<uint64_t> get_protocol_features() { return get(Request::kGetProtocolFeatures); }
  // From here on answers are asked for, where REPLY_ACK is among them.
  Result<void> set_protocol_features(uint64_t features);
  Result<void> set_owner() { return command(Request::kSetOwner, {}); }
  Result<void> reset_owner() { return command(Request::kResetOwner, {}); }
  Result<uint64_t> get_queue_num() { return get(Request::kGetQueueNum); }
  Result<void> reset_device() { return command(Request::kResetDevice, {}); }
  Result<void> set_status(uint8_t status) { return set(Request::kSetStatus, status); }
  Result<uint64_t> get_status() { return get(Request::kGetStatus); }

  Result<std::vector<uint8_t>> get_config(uint32_t offset, uint32_t bytes);
  Result<void> set_config(uint32_t offset, std::span<const uint8_t> bytes, uint32_t flags = 0);

  // All regions lie in the file.
  Result<void> set_mem_table(int file, std::span<const Region> regions);
  Result<uint64_t> get_max_mem_slots() { return get(Request::kGetMaxMemSlots); }
  Result<void> add_mem_reg(int file, const Region& region);
  Result<void> rem_mem_reg(const Region& region);

  Result<void> set_log_base(int file, uint64_t bytes, uint64_t offset);
  Result<Inflight> get_inflight_fd(uint16_t queues, uint16_t queue_size);
  Result<void> set_inflight_fd(const Inflight& inflight);
  Result<void> set_backend_req_fd(int file);
  // The back-end's end of a pipe, and kSaveState or kLoadState.
  Result<void> set_device_state_fd(uint32_t direction, int pipe);
  // EPROTO: it was not saved, or not loaded.
  Result<void> check_device_state();

  Result<void> set_vring_num(uint32_t queue, uint32_t entries);
  Result<void> set_vring_base(uint32_t queue, uint32_t base);
  Result<void> set_vring_addr(uint32_t queue, const VringAddresses& addresses);
  // Stops the queue; what it would go on with.
  Result<uint32_t> get_vring_base(uint32_t queue);
  Result<void> set_vring_enable(uint32_t queue, bool enable);
  // -1: none, for a side that polls.
  Result<void> set_vring_kick(uint32_t queue, int file);
  Result<void> set_vring_call(uint32_t queue, int file);
  Result<void> set_vring_err(uint32_t queue, int file);

 private:
  Result<void> command(Request request, std::vector<uint8_t> payload,
                       std::span<const int> descriptors = {});
  Result<Message> ask(Request request, std::vector<uint8_t> payload,
                      std::span<const int> descriptors = {});
  Result<uint64_t> get(Request request);
  Result<void> set(Request request, uint64_t value);
  Result<void> set_vring_state(Request request, uint32_t queue, uint32_t value);
  Result<void> set_vring_file(Request request, uint32_t queue, int file);

  Descriptor socket_;
  bool reply_ack_ = false;
};

}  // namespace platter::front_end
