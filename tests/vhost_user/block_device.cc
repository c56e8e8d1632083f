#include "vhost_user/block_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/try.h"

namespace platter::front_end {
namespace {

constexpr uint64_t kRamAddress = 0x1'0000'0000;
// Of the configuration space: what every back-end has.
constexpr uint32_t kConfigBytes = 60;
constexpr uint64_t kHeaderBytes = 16;
constexpr uint64_t kStatusOffset = 32;
constexpr uint32_t kAppendSectorBytes = 8;  // before the status
constexpr std::chrono::milliseconds kRequestLimit{20000};

constexpr uint64_t kWantedFeatures = virtio::kVersion1 | kFeatureFlush | kFeatureReadOnly |
                                     kFeatureConfigWce | kFeatureDiscard | kFeatureWriteZeroes;

uint64_t wanted(const DeviceOptions& options) {
  return kWantedFeatures | options.features | (options.queues > 1 ? kFeatureMultiQueue : 0) |
         (options.ring.packed ? virtio::kPackedRing : 0) |
         (options.ring.event_index ? virtio::kEventIndex : 0) |
         (options.ring.indirect ? virtio::kIndirectDescriptors : 0);
}

}  // namespace

BlockQueue::BlockQueue(GuestRam& ram, const DeviceOptions& options)
    : ram_(ram),
      ring_(DriverRing::make(ram, options.ring)),
      slots_(options.ring.indirect ? options.ring.size : options.ring.size / 3),
      buffer_bytes_(options.buffer_bytes),
      headers_(ram.take(uint64_t{slots_} * 64)),
      buffers_(ram.take(uint64_t{slots_} * buffer_bytes_, 4096)),
      slot_of_(options.ring.size),
      kick_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      call_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      error_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  for (uint32_t slot = slots_; slot > 0; --slot) free_slots_.push_back(slot - 1);
  ring_->want_interrupt(!options.polling);
}

uint64_t BlockQueue::status_address(uint32_t slot) const { return header(slot) + kStatusOffset; }

uint64_t BlockQueue::append_sector(uint32_t slot) const {
  return base::load_little<uint64_t>(
      ram_.bytes(status_address(slot) - kAppendSectorBytes, kAppendSectorBytes), 0);
}

std::optional<uint32_t> BlockQueue::add(uint32_t type, uint64_t sector, uint32_t bytes) {
  PLATTER_ASSERT(bytes <= buffer_bytes_);
  if (free_slots_.empty()) return std::nullopt;
  const uint32_t slot = free_slots_.back();
  const std::span<uint8_t> head = ram_.bytes(header(slot), 64);
  base::store_little<uint32_t>(head, 0, type);
  base::store_little<uint32_t>(head, 4, 0);
  base::store_little<uint64_t>(head, 8, sector);
  head[kStatusOffset] = kNoStatus;
  Piece pieces[3] = {{header(slot), kHeaderBytes, false}};
  size_t count = 1;
  if (bytes != 0) {
    const bool from_device = type == kRead || type == kGetId || type == kZoneReport;
    pieces[count++] = {buffer_address(slot), bytes, from_device};
  }
  const uint32_t before_status = type == kZoneAppend ? kAppendSectorBytes : 0;
  pieces[count++] = {status_address(slot) - before_status, 1 + before_status, true};
  const auto id = ring_->add({pieces, count});
  if (!id) return std::nullopt;
  slot_of_[*id] = slot;
  free_slots_.pop_back();
  return slot;
}

void BlockQueue::kick() {
  const uint64_t one = 1;
  // Nonblocking: a counter that is full has been told, too.
  if (::write(kick_.get(), &one, sizeof one) < 0) PLATTER_ASSERT(errno == EAGAIN);
}

void BlockQueue::publish() {
  if (ring_->publish()) kick();
}

std::optional<Done> BlockQueue::collect() {
  const auto used = ring_->collect();
  if (!used) return std::nullopt;
  PLATTER_ASSERT(used->id < slot_of_.size());
  const uint32_t slot = slot_of_[used->id];
  free_slots_.push_back(slot);
  return Done{slot, *ram_.at(status_address(slot)), used->written};
}

bool BlockQueue::wait(std::chrono::milliseconds limit) {
  ring_->want_interrupt(true);
  if (ring_->any_used()) return true;
  pollfd awaited = {call_.get(), POLLIN, 0};
  if (poll(&awaited, 1, static_cast<int>(limit.count())) <= 0) return false;
  uint64_t count = 0;
  return ::read(call_.get(), &count, sizeof count) == sizeof count;
}

Result<std::unique_ptr<BlockDevice>> BlockDevice::connect(const std::string& path,
                                                          const DeviceOptions& options) {
  PLATTER_ASSIGN(GuestRam ram, GuestRam::make(kRamAddress, options.ram_bytes));
  std::unique_ptr<BlockDevice> device(new BlockDevice(std::move(ram), options));
  PLATTER_TRY(device->negotiate(path));
  RingOptions& ring = device->options_.ring;
  ring.packed = (device->features_ & virtio::kPackedRing) != 0;
  ring.event_index = (device->features_ & virtio::kEventIndex) != 0;
  ring.indirect = (device->features_ & virtio::kIndirectDescriptors) != 0;
  for (uint32_t i = 0; i < options.queues; ++i)
    device->queues_.push_back(std::make_unique<BlockQueue>(device->ram_, device->options_));
  PLATTER_TRY(device->start());
  return device;
}

Result<void> BlockDevice::negotiate(const std::string& path) {
  PLATTER_ASSIGN(FrontEnd front_end, FrontEnd::connect(path));
  front_end_ = std::make_unique<FrontEnd>(std::move(front_end));
  PLATTER_ASSIGN(const uint64_t offered, front_end_->get_features());
  features_ = offered & (wanted(options_) | kProtocolFeatures);
  protocol_features_ = 0;
  if ((offered & kProtocolFeatures) != 0) {
    PLATTER_ASSIGN(const uint64_t protocol_offered, front_end_->get_protocol_features());
    protocol_features_ =
        protocol_offered &
        (options_.protocol_features | protocol_feature::kConfig | protocol_feature::kMultiQueue);
    PLATTER_TRY(front_end_->set_protocol_features(protocol_features_));
  }
  PLATTER_TRY(front_end_->set_owner());
  if ((protocol_features_ & protocol_feature::kMultiQueue) != 0) {
    PLATTER_ASSIGN(const uint64_t queues, front_end_->get_queue_num());
    if (queues < options_.queues)
      return fail(EINVAL,
                  fmt::format("The back-end has {} queues, not {}", queues, options_.queues));
  }
  if ((protocol_features_ & protocol_feature::kConfig) != 0) {
    PLATTER_ASSIGN(config_, front_end_->get_config(0, kConfigBytes));
  }
  return front_end_->set_features(features_);
}

Result<void> BlockDevice::give_memory() {
  if (options_.memory_slots == 0) {
    const Region all[] = {ram_.region()};
    return front_end_->set_mem_table(ram_.file(), all);
  }
  const uint64_t bytes = options_.ram_bytes / options_.memory_slots;
  for (uint32_t i = 0; i < options_.memory_slots; ++i)
    PLATTER_TRY(front_end_->add_mem_reg(ram_.file(), ram_.region(i * bytes, bytes)));
  return {};
}

Result<void> BlockDevice::give_addresses(uint32_t index, uint32_t flags) {
  const DriverRing& ring = queues_[index]->ring();
  return front_end_->set_vring_addr(index,
                                    {.flags = flags,
                                     .descriptors = ram_.user_address(ring.descriptor_area()),
                                     .used = ram_.user_address(ring.device_area()),
                                     .available = ram_.user_address(ring.driver_area()),
                                     .log_guest_address = ring.device_area()});
}

Result<void> BlockDevice::give_queue(uint32_t index) {
  BlockQueue& queue = *queues_[index];
  DriverRing& ring = queue.ring();
  PLATTER_TRY(front_end_->set_vring_num(index, ring.options().size));
  if (!has_positions_) PLATTER_TRY(front_end_->set_vring_base(index, ring.base()));
  PLATTER_TRY(give_addresses(index, 0));
  PLATTER_TRY(front_end_->set_vring_call(index, queue.call_file()));
  PLATTER_TRY(front_end_->set_vring_err(index, queue.error_file()));
  PLATTER_TRY(front_end_->set_vring_kick(index, queue.kick_file()));
  if ((features_ & kProtocolFeatures) != 0) PLATTER_TRY(front_end_->set_vring_enable(index, true));
  return {};
}

Result<void> BlockDevice::start() {
  if ((protocol_features_ & protocol_feature::kInflight) != 0) {
    if (!inflight_) {
      const auto queues = static_cast<uint16_t>(queues_.size());
      const auto size = static_cast<uint16_t>(options_.ring.size);
      PLATTER_ASSIGN(inflight_, front_end_->get_inflight_fd(queues, size));
    }
    PLATTER_TRY(front_end_->set_inflight_fd(*inflight_));
  }
  PLATTER_TRY(give_memory());
  for (uint32_t i = 0; i < queues_.size(); ++i) PLATTER_TRY(give_queue(i));
  // A ring starts at a kick; what was made available before is found then.
  for (const auto& queue : queues_) queue->kick();
  return {};
}

Result<void> BlockDevice::stop() {
  for (uint32_t i = 0; i < queues_.size(); ++i) {
    auto base = front_end_->get_vring_base(i);
    if (!base) return std::unexpected(std::move(base).error());
  }
  return {};
}

Result<void> BlockDevice::replace_queue(uint32_t index, uint32_t size) {
  DeviceOptions options = options_;
  options.ring.size = size;
  queues_[index] = std::make_unique<BlockQueue>(ram_, options);
  PLATTER_TRY(give_queue(index));
  queues_[index]->kick();
  return {};
}

uint64_t BlockDevice::log_bytes() const {
  return (kRamAddress + options_.ram_bytes) / kLogPage / 8;
}

// As QEMU does it, when it begins to migrate a machine, whose requests go on meanwhile.
Result<void> BlockDevice::start_log(int file) {
  PLATTER_TRY(front_end_->set_log_base(file, log_bytes(), 0));
  PLATTER_TRY(front_end_->set_features(features_ | kLogAll));
  for (uint32_t i = 0; i < queues_.size(); ++i) PLATTER_TRY(give_addresses(i, kVringLog));
  return {};
}

Result<void> BlockDevice::reconnect(const std::string& path) {
  PLATTER_TRY(negotiate(path));
  return start();
}

Result<std::vector<uint8_t>> BlockDevice::save_state() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::unexpected(Error::from_errno(errno));
  const Descriptor from(ends[0]);
  Descriptor to(ends[1]);
  PLATTER_TRY(front_end_->set_device_state_fd(kSaveState, to.get()));
  to = Descriptor();
  std::vector<uint8_t> state;
  std::array<uint8_t, 64> piece;
  for (;;) {
    const ssize_t got = ::read(from.get(), piece.data(), piece.size());
    if (got < 0) return std::unexpected(Error::from_errno(errno));
    if (got == 0) break;
    state.insert(state.end(), piece.begin(), piece.begin() + got);
  }
  PLATTER_TRY(front_end_->check_device_state());
  return state;
}

Result<void> BlockDevice::load_state(std::span<const uint8_t> state) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::unexpected(Error::from_errno(errno));
  Descriptor from(ends[0]);
  Descriptor to(ends[1]);
  PLATTER_TRY(front_end_->set_device_state_fd(kLoadState, from.get()));
  if (::write(to.get(), state.data(), state.size()) != static_cast<ssize_t>(state.size()))
    return std::unexpected(Error::from_errno(errno));
  to = Descriptor();
  return front_end_->check_device_state();
}

Result<void> BlockDevice::reconnect(const std::string& path, std::span<const uint8_t> state) {
  PLATTER_TRY(negotiate(path));
  PLATTER_TRY(load_state(state));
  has_positions_ = true;
  auto started = start();
  has_positions_ = false;
  return started;
}

uint64_t BlockDevice::sectors() const { return base::load_little<uint64_t>(config_); }

Result<uint8_t> BlockDevice::run(uint32_t type, uint64_t sector, uint32_t bytes) {
  BlockQueue& first = queue(0);
  if (!first.add(type, sector, bytes)) return fail(EBUSY, "The queue is full");
  first.publish();
  const auto limit = std::chrono::steady_clock::now() + kRequestLimit;
  while (true) {
    if (const auto done = first.collect()) return done->status;
    if (std::chrono::steady_clock::now() > limit)
      return fail(ETIMEDOUT, fmt::format("A request of type {} did not end", type));
    if (!options_.polling && !first.wait(kRequestLimit))
      return fail(ETIMEDOUT, fmt::format("No interrupt came for a request of type {}", type));
  }
}

Result<uint8_t> BlockDevice::read(uint64_t sector, std::span<uint8_t> data) {
  const std::span<uint8_t> buffer = queue(0).buffer(queue(0).next_slot());
  std::ranges::fill(buffer, uint8_t{0xee});
  PLATTER_ASSIGN(const uint8_t status, run(kRead, sector, static_cast<uint32_t>(data.size())));
  std::ranges::copy(buffer.first(data.size()), data.begin());
  return status;
}

Result<uint8_t> BlockDevice::write(uint64_t sector, std::span<const uint8_t> data) {
  std::ranges::copy(data, queue(0).buffer(queue(0).next_slot()).begin());
  return run(kWrite, sector, static_cast<uint32_t>(data.size()));
}

Result<uint8_t> BlockDevice::clear(uint32_t type, uint64_t sector, uint32_t sectors,
                                   uint32_t flags) {
  const std::span<uint8_t> range = queue(0).buffer(queue(0).next_slot());
  base::store_little<uint64_t>(range, 0, sector);
  base::store_little<uint32_t>(range, 8, sectors);
  base::store_little<uint32_t>(range, 12, flags);
  return run(type, 0, 16);
}

Result<std::string> BlockDevice::serial() {
  constexpr uint32_t kSerialBytes = 20;
  const std::span<uint8_t> buffer = queue(0).buffer(queue(0).next_slot());
  PLATTER_ASSIGN(const uint8_t status, run(kGetId, 0, kSerialBytes));
  if (status != kOk) return fail(EIO, fmt::format("The serial number came with status {}", status));
  const auto* text = reinterpret_cast<const char*>(buffer.data());
  return std::string(text, strnlen(text, kSerialBytes));
}

}  // namespace platter::front_end
