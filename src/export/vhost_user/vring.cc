#include "export/vhost_user/vring.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"
#include "virtio/features.h"

namespace platter::vhost_user {
namespace {

constexpr size_t kUsedIndexOffset = 2;
constexpr uint16_t kPackedWrap = 0x8000;

// The other side may have made it so that a read, or a write, waits: a reactor must not.
void make_nonblocking(const io::Descriptor& descriptor) {
  const int flags = fcntl(descriptor.get(), F_GETFL);
  if (flags >= 0) fcntl(descriptor.get(), F_SETFL, flags | O_NONBLOCK);
}

void signal_event(const std::shared_ptr<io::Descriptor>& event) {
  if (event == nullptr || !*event) return;
  // A counter that is full wakes whoever waits for it as well as one more would.
  const uint64_t one = 1;
  while (write(event->get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
}

}  // namespace

// A ring in service; everything here happens on its reactor.
class Vring::Running final : public virtio::blk::QueueEvents {
 public:
  Running(Vring& vring, std::unique_ptr<virtio::Queue> queue)
      : vring_(vring),
        kick_(vring.kick_),
        call_(vring.call_),
        error_(vring.error_),
        wait_(kick_->get()),
        server_(vring.reactor_, vring.device_, std::move(queue), *this) {}

  io::Task<void> start() {
    server_.set_log(vring_.log_pages_, vring_.logged_ring());
    if (*kick_) watching_.spawn(vring_.reactor_, watch());
    server_.start();
    started_ = true;
    // Somebody may have shown the driver what it has not been told of, and been killed.
    interrupt();
    co_return;
  }
  io::Task<virtio::QueueState> stop(virtio::blk::QueueServer::Kept kept) {
    wait_.cancel();
    co_await watching_.close();
    co_return co_await server_.stop(kept);
  }
  bool has_left() const { return server_.has_left(); }
  // On the session's reactor; not once it is being stopped.
  void go_on() { watching_.spawn(vring_.reactor_, go_on_here()); }
  io::Task<void> set_call(std::shared_ptr<io::Descriptor> call) {
    call_ = std::move(call);
    // The driver may be waiting for what the old one was told.
    interrupt();
    co_return;
  }
  io::Task<void> set_log(std::shared_ptr<virtio::DirtyLog> log, std::optional<uint64_t> ring) {
    server_.set_log(std::move(log), ring);
    co_return;
  }
  io::Task<Result<void>> set_memory(std::shared_ptr<const virtio::GuestMemory> memory) {
    co_return server_.set_memory(std::move(memory));
  }

  void interrupt() override { signal_event(call_); }
  bool can_be_notified() const override { return static_cast<bool>(*kick_); }
  void broken(const Error& error) override {
    vring_.log_.warning(fmt::format("vhost-user: queue {}: {}", vring_.index_, error.message()));
    signal_event(error_);
  }

 private:
  // What has yet to start finds the device going on.
  io::Task<void> go_on_here() {
    if (started_) server_.go_on();
    co_return;
  }
  io::Task<void> watch() {
    while (co_await wait_.readable()) {
      uint64_t count;
      const ssize_t got = read(kick_->get(), &count, sizeof count);
      // What is no counter, or is at its end, would be readable for ever.
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) break;
      server_.kick();
    }
  }

  Vring& vring_;
  const std::shared_ptr<io::Descriptor> kick_;
  std::shared_ptr<io::Descriptor> call_;
  const std::shared_ptr<io::Descriptor> error_;
  io::DescriptorWait wait_;
  io::Gate watching_;
  bool started_ = false;
  virtio::blk::QueueServer server_;
};

Vring::Vring(uint32_t index, io::Reactor& reactor, virtio::blk::Device& device,
             const base::Log& log)
    : index_(index), reactor_(reactor), device_(device), log_(log) {}

Vring::~Vring() { PLATTER_ASSERT(running_ == nullptr); }

bool Vring::is_packed() const { return (device_.features() & virtio::kPackedRing) != 0; }

Result<void> Vring::set_size(uint32_t size) {
  if (size == size_) return {};
  if (running_) return fail(EBUSY, "the size of a ring that runs");
  if (size == 0 || size > virtio::QueueOptions::kMaxSize)
    return fail(EINVAL, fmt::format("a ring of {} entries", size));
  size_ = size;
  return {};
}

Result<void> Vring::set_address(const VringAddress& address) {
  const bool same = address_ && address_->descriptor_area == address.descriptor_area &&
                    address_->driver_area == address.driver_area &&
                    address_->device_area == address.device_area;
  if (running_ && !same) return fail(EBUSY, "the addresses of a ring that runs");
  address_ = address;
  return {};
}

Result<void> Vring::set_base(uint32_t base) {
  if (running_) return fail(EBUSY, "the base of a ring that runs");
  base_ = base;
  has_base_ = true;
  stopped_at_.reset();
  return {};
}

io::Task<void> Vring::set_kick(io::Descriptor kick) {
  if (running_) co_await stop();
  if (kick) make_nonblocking(kick);
  kick_ = std::make_shared<io::Descriptor>(std::move(kick));
}

io::Task<void> Vring::set_call(io::Descriptor call) {
  if (call) make_nonblocking(call);
  call_ = std::make_shared<io::Descriptor>(std::move(call));
  if (running_) co_await io::run_on(reactor_, running_->set_call(call_));
}

void Vring::set_error(io::Descriptor error) {
  if (error) make_nonblocking(error);
  error_ = std::make_shared<io::Descriptor>(std::move(error));
}

std::optional<uint64_t> Vring::logged_ring() const {
  if (!address_ || (address_->flags & VringAddress::kLogs) == 0) return std::nullopt;
  return address_->log;
}

io::Task<void> Vring::set_log(std::shared_ptr<virtio::DirtyLog> log) {
  log_pages_ = std::move(log);
  if (running_) co_await io::run_on(reactor_, running_->set_log(log_pages_, logged_ring()));
}

io::Task<Result<void>> Vring::set_memory(std::shared_ptr<const virtio::GuestMemory> memory) {
  if (!running_) co_return Result<void>();
  co_return co_await io::run_on(reactor_, running_->set_memory(std::move(memory)));
}

Result<std::unique_ptr<virtio::Queue>> Vring::make_queue(const MemoryTable& memory) const {
  const uint64_t user[] = {address_->descriptor_area, address_->driver_area, address_->device_area};
  uint64_t guest[3];
  for (size_t i = 0; i < std::size(user); ++i) {
    const auto found = memory.guest_address(user[i]);
    if (!found)
      return fail(EINVAL, fmt::format("a ring at {:#x}, which is not shared memory", user[i]));
    guest[i] = *found;
  }
  virtio::QueueOptions options = {.size = size_,
                                  .descriptor_area = guest[0],
                                  .driver_area = guest[1],
                                  .device_area = guest[2],
                                  .features = device_.features(),
                                  .state = {}};
  if (inflight_) {
    PLATTER_ASSIGN(options.inflight, inflight_->queue(index_, is_packed()));
  }
  const auto available = static_cast<uint16_t>(base_);
  if (is_packed()) {
    options.state = has_base_ ? virtio::QueueState{available, static_cast<uint16_t>(base_ >> 16)}
                              : virtio::QueueOptions::kFreshPacked;
  } else {
    const uint8_t* used = memory.memory()->contiguous(guest[2], sizeof(uint32_t));
    if (used == nullptr) return fail(EINVAL, "a used ring that is not shared memory");
    const auto index = base::load_little<uint16_t>({used, sizeof(uint32_t)}, kUsedIndexOffset);
    options.state = {.available = available, .used = index};
  }
  PLATTER_ASSIGN(auto queue, virtio::Queue::make(options, memory.memory()));
  // What was read of it then may have been zeroes.
  if (inflight_ && inflight_->was_lost())
    return fail(EIO, "the file of requests in flight was cut short");
  if (queue->to_resubmit() != 0) {
    log_.info(fmt::format("vhost-user: queue {}: {} requests that were in flight are resubmitted",
                          index_, queue->to_resubmit()));
  }
  return queue;
}

io::Task<Result<void>> Vring::start_if_ready(const MemoryTable& memory) {
  if (running_ || size_ == 0 || !address_ || !kick_ || !enabled_) co_return Result<void>();
  PLATTER_CO_ASSIGN(auto queue, make_queue(memory));
  has_left_ = has_ended_ = false;
  running_ = std::make_unique<Running>(*this, std::move(queue));
  co_await io::run_on(reactor_, running_->start());
  co_return Result<void>();
}

io::Task<void> Vring::stop(virtio::blk::QueueServer::Kept kept) {
  if (!running_) co_return;
  stopping_ = true;
  const virtio::QueueState state = co_await io::run_on(reactor_, running_->stop(kept));
  has_left_ = running_->has_left();
  has_ended_ = !has_left_ && !device_.is_broken();
  running_.reset();
  stopping_ = false;
  base_ = is_packed() ? uint32_t{state.used} << 16 | state.available : state.available;
  has_base_ = true;
  stopped_at_ = base_;
}

void Vring::go_on() {
  if (running_ && !stopping_) running_->go_on();
}

io::Task<void> Vring::stop() {
  using Kept = virtio::blk::QueueServer::Kept;
  const bool notes_last = inflight_ && !log_pages_ && device_.status() == 0;
  co_await stop(notes_last ? Kept::kLeave : Kept::kFail);
}

uint32_t Vring::base() const {
  PLATTER_ASSERT(running_ == nullptr);
  if (has_base_) return base_;
  if (stopped_at_) return *stopped_at_;
  return is_packed() ? uint32_t{kPackedWrap} << 16 | kPackedWrap : base_;
}

virtio::blk::DeviceState::Queue Vring::state() const {
  PLATTER_ASSERT(running_ == nullptr);
  virtio::blk::DeviceState::Queue state = {.size = static_cast<uint16_t>(size_)};
  const std::optional<uint32_t> base = has_base_ ? base_ : stopped_at_;
  if (base) state.position = {static_cast<uint16_t>(*base), static_cast<uint16_t>(*base >> 16)};
  return state;
}

void Vring::restore(const virtio::blk::DeviceState::Queue& state) {
  PLATTER_ASSERT(running_ == nullptr);
  size_ = state.size;
  has_base_ = state.position.has_value();
  base_ = has_base_ ? uint32_t{state.position->used} << 16 | state.position->available : 0;
  stopped_at_.reset();
}

void Vring::forget_events() {
  PLATTER_ASSERT(running_ == nullptr);
  kick_.reset();
  call_.reset();
  error_.reset();
}

void Vring::forget() {
  forget_events();
  size_ = 0;
  address_.reset();
  log_pages_.reset();
  inflight_.reset();
  base_ = 0;
  has_base_ = false;
  enabled_ = false;
  has_left_ = has_ended_ = false;
}

}  // namespace platter::vhost_user
