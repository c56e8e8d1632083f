#include "export/vhost_user/session.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/try.h"
#include "io/shared_mapping.h"
#include "virtio/guest_memory.h"

namespace platter::vhost_user {
namespace {

constexpr uint64_t kOfferedProtocolFeatures =
    kMultiQueue | kLogSharedMemory | kReplyAck | kBackendChannel | kConfig | kInflightSharedMemory |
    kResetDeviceFeature | kMemorySlots | kStatus | kDeviceState;

Result<io::Descriptor> only_descriptor(Message& message) {
  if (message.descriptors.size() != 1) {
    return fail(EINVAL,
                fmt::format("{} descriptors where one is expected", message.descriptors.size()));
  }
  return std::move(message.descriptors.front());
}

// Of SET_VRING_KICK, _CALL and _ERR: none, where the message says so.
Result<io::Descriptor> event_descriptor(const VringDescriptor& vring, Message& message) {
  if (vring.has_descriptor) return only_descriptor(message);
  return io::Descriptor();
}

std::string describe(const Message& message) {
  const char* name = name_of(message.request());
  return name != nullptr ? name : fmt::format("message {}", message.header.request);
}

}  // namespace

Session::Session(io::Descriptor socket, virtio::blk::Device& device,
                 const std::vector<io::Reactor*>& reactors, const base::Log& log)
    : channel_(std::move(socket)), device_(device), log_(log) {
  for (uint32_t i = 0; i < device.properties().queues; ++i) {
    vrings_.push_back(std::make_unique<Vring>(i, *reactors[i % reactors.size()], device, log));
  }
}

io::Task<void> Session::run() {
  auto ended = co_await serve();
  if (!ended && ended.error().code() != ECANCELED)
    log_.warning("vhost-user: The front-end is dropped: " + ended.error().message());
  co_await reset();
  channel_.hang_up();
}

io::Task<Result<void>> Session::serve() {
  for (;;) {
    PLATTER_CO_ASSIGN(auto message, co_await channel_.receive());
    if (!message) co_return Result<void>();
    auto reply = co_await carry_out(*message);
    PLATTER_CO_TRY(co_await answer(*message, std::move(reply)));
  }
}

io::Task<Result<void>> Session::answer(const Message& message, Result<Reply> reply) {
  const bool acknowledges = (protocol_features_ & kReplyAck) != 0 && message.header.wants_reply();
  if (!reply) {
    if (!acknowledges) {
      co_return std::unexpected(std::move(reply).error().with_context(describe(message)));
    }
    warn(message, std::move(reply).error());
  }
  Reply answer;
  if (reply && *reply) {
    answer = std::move(*reply);
  } else if (acknowledges) {
    answer.emplace(encode_number(reply ? 0 : 1));
  } else {
    co_return Result<void>();
  }
  const auto bytes = encode_reply(message.header.request, answer->payload);
  co_return co_await channel_.send(bytes, answer->descriptor.get());
}

uint64_t Session::offered_features() const {
  return device_.offered_features() | kProtocolFeatures | kLogAll;
}

Result<Vring*> Session::vring(uint32_t index) {
  if (index < vrings_.size()) return vrings_[index].get();
  return fail(EINVAL, fmt::format("queue {} of {}", index, vrings_.size()));
}

io::Task<Result<Session::Reply>> Session::carry_out(Message& message) {
  switch (message.request()) {
    case Request::kGetFeatures:
    case Request::kGetProtocolFeatures:
    case Request::kGetQueueCount:
    case Request::kGetMaxMemorySlots:
    case Request::kGetStatus:
    case Request::kGetConfig:
    case Request::kGetInflight: co_return tell(message);
    case Request::kSetProtocolFeatures:
    case Request::kSetOwner:
    case Request::kSetLogEvent:
    case Request::kSetVringSize:
    case Request::kSetVringBase:
    case Request::kSetVringError:
    case Request::kSetBackendChannel:
    case Request::kSetConfig:
    case Request::kSetInflight: {
      PLATTER_CO_TRY(set_up(message));
      co_return Reply();
    }
    default: co_return co_await change(message);
  }
}

// ---- What is only told

Result<Session::Reply> Session::tell(const Message& message) {
  switch (message.request()) {
    case Request::kGetFeatures: return Reply(encode_number(offered_features()));
    case Request::kGetProtocolFeatures: return Reply(encode_number(kOfferedProtocolFeatures));
    case Request::kGetQueueCount: return Reply(encode_number(vrings_.size()));
    case Request::kGetMaxMemorySlots: return Reply(encode_number(virtio::GuestMemory::kMaxRegions));
    case Request::kGetStatus: return Reply(encode_number(device_.status()));
    case Request::kGetInflight: return get_inflight(message);
    default: return get_config(message);
  }
}

// An access that cannot be is answered, with nothing.
Result<Session::Reply> Session::get_config(const Message& message) const {
  auto access = parse_config(message.payload());
  if (!access) {
    log_.warning("vhost-user: GET_CONFIG: " + access.error().message());
    return Reply(std::vector<uint8_t>());
  }
  device_.read_config(access->offset, access->bytes);
  return Reply(encode_config(*access));
}

Result<void> Session::check_inflight(const InflightDescription& description) const {
  if (description.queues == 0 || description.queues > vrings_.size() ||
      description.queue_size == 0 || description.queue_size > virtio::QueueOptions::kMaxSize) {
    return fail(EINVAL, fmt::format("requests in flight of {} queues of {} entries",
                                    description.queues, description.queue_size));
  }
  return {};
}

// The front-end keeps it, and gives it back before the rings start.
Result<Session::Reply> Session::get_inflight(const Message& message) const {
  PLATTER_ASSIGN(InflightDescription description, parse_inflight(message.payload()));
  PLATTER_TRY(check_inflight(description));
  PLATTER_ASSIGN(auto file, InflightArea::make(description));
  return Reply(std::in_place, encode_inflight(description, message.payload().size()),
               std::move(file));
}

// ---- What is set without anything running for it

Result<void> Session::set_up(Message& message) {
  const auto payload = message.payload();
  switch (message.request()) {
    case Request::kSetProtocolFeatures: {
      PLATTER_ASSIGN(const uint64_t features, parse_number(payload));
      if ((features & ~kOfferedProtocolFeatures) != 0) {
        return fail(EINVAL, fmt::format("features {:#x}, which are not offered",
                                        features & ~kOfferedProtocolFeatures));
      }
      protocol_features_ = features;
      return {};
    }
    case Request::kSetVringSize: {
      PLATTER_ASSIGN(const VringState state, parse_vring_state(payload));
      PLATTER_ASSIGN(Vring * ring, vring(state.index));
      return ring->set_size(state.number);
    }
    case Request::kSetVringBase: {
      PLATTER_ASSIGN(const VringState state, parse_vring_state(payload));
      PLATTER_ASSIGN(Vring * ring, vring(state.index));
      return ring->set_base(state.number);
    }
    case Request::kSetVringError: {
      PLATTER_ASSIGN(const VringDescriptor state, parse_vring_descriptor(payload));
      PLATTER_ASSIGN(Vring * ring, vring(state.index));
      PLATTER_ASSIGN(auto descriptor, event_descriptor(state, message));
      ring->set_error(std::move(descriptor));
      return {};
    }
    case Request::kSetBackendChannel: {
      PLATTER_ASSIGN(backend_channel_, only_descriptor(message));
      return {};
    }
    case Request::kSetConfig: {
      PLATTER_ASSIGN(const ConfigAccess access, parse_config(payload));
      return device_.write_config(access.offset, access.bytes);
    }
    case Request::kSetInflight: return set_inflight(message);
    default: return {};
  }
}

Result<void> Session::set_inflight(Message& message) {
  PLATTER_ASSIGN(const InflightDescription description, parse_inflight(message.payload()));
  PLATTER_TRY(check_inflight(description));
  PLATTER_ASSIGN(const auto file, only_descriptor(message));
  for (const auto& each : vrings_) {
    if (each->is_running()) return fail(EBUSY, "requests in flight of a ring that runs");
  }
  PLATTER_ASSIGN(inflight_, InflightArea::map(description, file));
  for (auto& each : vrings_) each->set_inflight(inflight_);
  return {};
}

// ---- What changes something that may run

io::Task<Result<Session::Reply>> Session::change(Message& message) {
  const auto payload = message.payload();
  switch (message.request()) {
    case Request::kSetMemoryTable:
    case Request::kAddMemoryRegion:
    case Request::kRemoveMemoryRegion: {
      PLATTER_CO_TRY(co_await change_memory(message));
      co_return Reply();
    }
    case Request::kSetFeatures: {
      PLATTER_CO_ASSIGN(const uint64_t features, parse_number(payload));
      PLATTER_CO_TRY(device_.set_features(features & ~(kProtocolFeatures | kLogAll)));
      // A front-end that does not know the protocol's features has its rings enabled.
      if ((features & kProtocolFeatures) == 0) {
        for (auto& each : vrings_) each->set_enabled(true);
      }
      logs_ = (features & kLogAll) != 0;
      co_await use_log();
      co_return Reply();
    }
    case Request::kSetLogBase: {
      PLATTER_CO_ASSIGN(const LogArea area, parse_log(payload));
      PLATTER_CO_ASSIGN(const auto descriptor, only_descriptor(message));
      PLATTER_CO_ASSIGN(auto mapping,
                        io::SharedMapping::map(descriptor.get(), area.file_offset, area.bytes));
      const std::span<uint8_t> bits(mapping->data(), mapping->size());
      log_pages_ = std::make_shared<virtio::DirtyLog>(bits, std::move(mapping));
      co_await use_log();
      co_return Reply(encode_number(0));
    }
    case Request::kSetVringAddress: {
      PLATTER_CO_ASSIGN(const VringAddress address, parse_vring_address(payload));
      PLATTER_CO_ASSIGN(Vring * ring, vring(address.index));
      PLATTER_CO_TRY(ring->set_address(address));
      co_await use_log();
      co_return Reply();
    }
    case Request::kSetVringKick: {
      PLATTER_CO_ASSIGN(const VringDescriptor state, parse_vring_descriptor(payload));
      PLATTER_CO_ASSIGN(Vring * ring, vring(state.index));
      PLATTER_CO_ASSIGN(auto descriptor, event_descriptor(state, message));
      co_await ring->set_kick(std::move(descriptor));
      device_.start();
      PLATTER_CO_TRY(co_await ring->start_if_ready(memory_));
      co_return Reply();
    }
    case Request::kSetVringCall: {
      PLATTER_CO_ASSIGN(const VringDescriptor state, parse_vring_descriptor(payload));
      PLATTER_CO_ASSIGN(Vring * ring, vring(state.index));
      PLATTER_CO_ASSIGN(auto descriptor, event_descriptor(state, message));
      co_await ring->set_call(std::move(descriptor));
      co_return Reply();
    }
    case Request::kSetVringEnable: {
      PLATTER_CO_ASSIGN(const VringState state, parse_vring_state(payload));
      PLATTER_CO_ASSIGN(Vring * ring, vring(state.index));
      ring->set_enabled(state.number != 0);
      if (state.number == 0) co_await ring->stop();
      PLATTER_CO_TRY(co_await ring->start_if_ready(memory_));
      co_return Reply();
    }
    case Request::kGetVringBase: {
      PLATTER_CO_ASSIGN(const VringState state, parse_vring_state(payload));
      PLATTER_CO_ASSIGN(Vring * ring, vring(state.index));
      co_await ring->stop();
      const uint32_t base = ring->base();
      ring->forget_events();
      // From here on the answer says where it goes on, if it is this ring that comes back.
      if (inflight_ && ring->has_ended()) inflight_->forget(state.index);
      co_return Reply(encode_vring_state({.index = state.index, .number = base}));
    }
    case Request::kResetOwner: {
      for (auto& each : vrings_) {
        each->set_enabled(false);
        co_await each->stop();
      }
      co_return Reply();
    }
    case Request::kResetDevice: {
      co_await stop_vrings(Kept::kLeave);
      if (inflight_) inflight_->forget();
      co_await reset();
      co_return Reply();
    }
    case Request::kSetStatus: {
      PLATTER_CO_ASSIGN(const uint64_t status, parse_number(payload));
      PLATTER_CO_TRY(co_await set_status(status));
      co_return Reply();
    }
    case Request::kSetDeviceState: {
      auto begun = co_await begin_state_transfer(message);
      if (!begun) warn(message, std::move(begun).error());
      co_return Reply(encode_number(begun ? kOwnDescriptorIsUsed : kStateTransferFailed));
    }
    case Request::kCheckDeviceState: {
      auto ended = co_await end_state_transfer();
      if (!ended) warn(message, std::move(ended).error());
      co_return Reply(encode_number(ended ? 0 : 1));
    }
    default: co_return fail(ENOTSUP, "is not known");
  }
}

io::Task<Result<void>> Session::change_memory(Message& message) {
  const auto payload = message.payload();
  if (message.request() == Request::kSetMemoryTable) {
    PLATTER_CO_ASSIGN(const auto regions, parse_memory_table(payload));
    PLATTER_CO_TRY(memory_.replace(regions, message.descriptors));
  } else {
    PLATTER_CO_ASSIGN(const auto region, parse_memory_region(payload));
    if (message.request() == Request::kAddMemoryRegion) {
      PLATTER_CO_ASSIGN(const auto descriptor, only_descriptor(message));
      PLATTER_CO_TRY(memory_.add(region, descriptor));
    } else {
      PLATTER_CO_TRY(memory_.remove(region));
    }
  }
  for (auto& each : vrings_) PLATTER_CO_TRY(co_await each->set_memory(memory_.memory()));
  co_return Result<void>();
}

io::Task<void> Session::use_log() {
  for (auto& each : vrings_) co_await each->set_log(logs_ ? log_pages_ : nullptr);
}

io::Task<Result<void>> Session::set_status(uint64_t status) {
  if (status > UINT8_MAX) co_return fail(EINVAL, fmt::format("status {:#x}", status));
  if (status == 0) {
    // QEMU before 8.0 pauses its machine so, whose driver waits for answers afterwards.
    co_await stop_vrings(Kept::kFail);
    if (inflight_) inflight_->forget();
    inflight_.reset();
  }
  co_return device_.set_status(static_cast<uint8_t>(status));
}

// ---- The device's state

void Session::warn(const Message& message, Error error) {
  log_.warning("vhost-user: " + std::move(error).with_context(describe(message)).message());
}

Result<void> Session::check_stopped() const {
  for (const auto& each : vrings_) {
    if (each->is_running()) return fail(EBUSY, "a ring runs");
  }
  return {};
}

io::Task<Result<void>> Session::begin_state_transfer(Message& message) {
  co_await drop_state_transfer();
  if ((protocol_features_ & kDeviceState) == 0) co_return fail(EINVAL, "was not negotiated");
  PLATTER_CO_ASSIGN(const bool loads, parse_state_is_loaded(message.payload()));
  PLATTER_CO_ASSIGN(auto pipe, only_descriptor(message));
  PLATTER_CO_TRY(check_stopped());
  if (loads) {
    PLATTER_CO_ASSIGN(state_transfer_,
                      StateTransfer::load(std::move(pipe), virtio::blk::DeviceState::kMaxBytes));
    co_return Result<void>();
  }
  for (const auto& each : vrings_) {
    if (each->has_left()) co_return fail(EBUSY, "requests wait for the disk");
  }
  virtio::blk::DeviceState state = device_.state();
  for (const auto& each : vrings_) state.queues.push_back(each->state());
  PLATTER_CO_ASSIGN(state_transfer_, StateTransfer::save(std::move(pipe), state.encode()));
  co_return Result<void>();
}

io::Task<Result<void>> Session::end_state_transfer() {
  const auto transfer = std::move(state_transfer_);
  if (!transfer) co_return fail(EINVAL, "there is none");
  PLATTER_CO_ASSIGN(const auto bytes, co_await transfer->end());
  if (!transfer->loads()) co_return Result<void>();
  co_return restore(bytes);
}

Result<void> Session::restore(std::span<const uint8_t> bytes) {
  PLATTER_TRY(check_stopped());
  PLATTER_ASSIGN(const auto state, virtio::blk::DeviceState::parse(bytes));
  PLATTER_TRY(device_.restore(state));
  PLATTER_ASSERT(state.queues.size() == vrings_.size());
  for (size_t i = 0; i < vrings_.size(); ++i) vrings_[i]->restore(state.queues[i]);
  return {};
}

io::Task<void> Session::drop_state_transfer() {
  if (const auto transfer = std::move(state_transfer_)) co_await transfer->stop();
}

io::Task<void> Session::stop_vrings(Kept kept) {
  for (auto& each : vrings_) {
    co_await each->stop(kept);
    each->forget();
  }
}

io::Task<void> Session::reset() {
  co_await drop_state_transfer();
  co_await stop_vrings(Kept::kLeave);
  logs_ = false;
  log_pages_.reset();
  inflight_.reset();
  device_.reset();
}

void Session::go_on() {
  for (auto& each : vrings_) each->go_on();
}

void Session::config_changed() {
  if (!backend_channel_) return;
  // A front-end that does not listen misses it, and holds nobody up.
  const auto bytes = encode_request(BackendRequest::kConfigChanged);
  if (send(backend_channel_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    log_.warning("vhost-user: The front-end does not hear that the disk has changed: " +
                 Error::from_errno(errno).message());
  }
}

}  // namespace platter::vhost_user
