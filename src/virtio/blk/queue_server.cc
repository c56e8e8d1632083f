#include "virtio/blk/queue_server.h"

#include <algorithm>

#include "base/assert.h"
#include "base/probe.h"
#include "io/request_times.h"

namespace platter::virtio::blk {
namespace {

size_t data_bytes(const Request& request) {
  return request.out ? request.from_driver.size() : request.to_driver.size();
}
io::BufferList data_of(const Request& request) {
  return request.out ? request.from_driver : request.to_driver;
}

}  // namespace

QueueServer::QueueServer(io::Reactor& reactor, Device& device, std::unique_ptr<Queue> queue,
                         QueueEvents& events)
    : reactor_(reactor), device_(device), queue_(std::move(queue)), events_(events) {
  slots_.reserve(queue_->size() + 1);
  free_.reserve(queue_->size() + 1);
  kept_.reserve(queue_->size());
  again_.reserve(queue_->size());
}

QueueServer::~QueueServer() { PLATTER_ASSERT(!polled_ && free_.size() == slots_.size()); }

void QueueServer::wake() {
  if (polled_ || !is_served()) return;
  queue_->disable_notifications();
  reactor_.add_poller(*this);
  polled_ = true;
}

io::Task<QueueState> QueueServer::stop(Kept kept) {
  // Nothing stays in flight that is not left on purpose: where to go on says nothing of it.
  const bool leaves = kept == Kept::kLeave && device_.errors().is_stopped();
  while (!leaves && may_take(Take::kResubmitted)) take_batch(Take::kResubmitted);
  has_left_ = queue_->to_resubmit() != 0;
  stopped_ = true;
  if (under_way_ != 0) co_await none_under_way_.wait();
  give_up_kept(kept);
  settle();
  if (std::exchange(polled_, false)) reactor_.remove_poller(*this);
  co_return queue_->state();
}

Result<void> QueueServer::set_memory(std::shared_ptr<const GuestMemory> memory) {
  auto set = queue_->set_memory(std::move(memory));
  if (!set) fail_for_good(set.error());
  return set;
}

void QueueServer::set_log(std::shared_ptr<DirtyLog> log, std::optional<uint64_t> ring) {
  log_ = std::move(log);
  logged_ring_ = ring;
}

bool QueueServer::look() {
  if (!is_served()) return false;
  const bool again = !kept_.empty();
  if (again) carry_out_kept();
  return take_batch() || again;
}

void QueueServer::settle() {
  if (std::exchange(dirty_, false) && !device_.is_broken()) tell_driver();
}

void QueueServer::tell_driver() {
  unshown_ = 0;
  const bool wanted = queue_->publish();
  if (log_ && logged_ring_) {
    log_->mark(*logged_ring_, queue_->answer_bytes());
    // Of a packed ring QEMU names the structure beside it, which holds no answers.
    log_->mark(queue_->answer_address(), queue_->answer_bytes());
  }
  if (wanted) events_.interrupt();
}

// Before the turn ends. A driver that sleeps is woken by the first request that ends: it takes as
// long to wake up as the others take to end.
void QueueServer::show_early() {
  if (queue_->is_awaited()) {
    tell_driver();
  } else if (unshown_ >= kShowAfter) {
    unshown_ = 0;
    queue_->show();
  }
}

bool QueueServer::rest() {
  settle();
  if (is_served()) {
    // It may have been told to go on since the last look.
    if (!kept_.empty() || !events_.can_be_notified()) return false;
    if (queue_->enable_notifications()) {
      queue_->disable_notifications();
      return false;
    }
  }
  polled_ = false;
  return true;
}

QueueServer::Slot* QueueServer::take_slot() {
  if (free_.empty()) {
    slots_.push_back(std::make_unique<Slot>());
    return slots_.back().get();
  }
  Slot* slot = free_.back();
  free_.pop_back();
  return slot;
}

bool QueueServer::may_take(Take what) const {
  if (what == Take::kAll) return is_served();
  return !device_.is_broken() && queue_->to_resubmit() != 0;
}

// True: there was something.
bool QueueServer::take_batch(Take what) {
  size_t taken = 0;
  while (taken < kMaxBatch && may_take(what)) {
    Slot* slot = take_slot();
    auto popped = queue_->pop(slot->chain);
    if (!popped || !*popped) {
      free_.push_back(slot);
      if (!popped) fail_for_good(popped.error());
      break;
    }
    ++taken;
    auto request = parse(slot->chain);
    if (!request) {
      queue_->push(slot->chain, 0);
      free_.push_back(slot);
      fail_for_good(request.error());
      break;
    }
    slot->request = *request;
    if (device_.slow_requests() != nullptr) [[unlikely]]
      slot->taken = reactor_.now();
    PLATTER_PROBE(guest_request_taken, slot, static_cast<uint32_t>(request->kind), request->sector,
                  data_bytes(*request), request->out ? 1 : 0);
    slot->merged = nullptr;
    slot->number = taken_++;
    if (request->kind == Kind::kReadWrite) {
      plan(slot);
    } else {
      carry_out_plan();
      begin(slot);
    }
  }
  carry_out_plan();
  return taken != 0;
}

// ---- Merging

void QueueServer::plan(Slot* slot) {
  if (plan_.count == kMaxMerged || (plan_.count != 0 && !may_belong(*slot))) carry_out_plan();
  plan_.slots[plan_.count++] = slot;
  if (!device_.properties().request_merging) carry_out_plan();
}

// Only what lies near the one before waits for others: what is far from it would wait for nothing.
bool QueueServer::may_belong(const Slot& next) const {
  const Request& one = plan_.slots[plan_.count - 1]->request;
  const Request& other = next.request;
  return one.out == other.out &&
         std::max(one.sector, other.sector) - std::min(one.sector, other.sector) <= kNearSectors;
}

bool QueueServer::may_follow(const Slot& first, uint64_t bytes, size_t pieces,
                             const Slot& next) const {
  const uint64_t end = first.request.sector + bytes / kSectorBytes;
  const uint64_t more = data_bytes(next.request);
  return end == next.request.sector && bytes % kSectorBytes == 0 &&
         bytes + more <= uint64_t{kMaxRequestSectors} * kSectorBytes &&
         pieces + data_of(next.request).piece_count() <= Chain::kMaxPieces &&
         device_.executor().may_merge(first.request.sector, next.request) &&
         device_.executor().in_range(next.request.sector, more);
}

void QueueServer::carry_out_plan() {
  const std::span<Slot*> slots(plan_.slots.data(), plan_.count);
  plan_.count = 0;
  if (slots.size() > 1) {
    std::ranges::sort(slots, {}, [](const Slot* slot) { return slot->request.sector; });
  }
  for (size_t i = 0; i < slots.size();) {
    Slot* first = slots[i];
    Slot* last = first;
    uint64_t bytes = data_bytes(first->request);
    size_t pieces = data_of(first->request).piece_count();
    size_t next = i + 1;
    if (next < slots.size() && device_.executor().in_range(first->request.sector, bytes)) {
      for (; next < slots.size() && may_follow(*first, bytes, pieces, *slots[next]); ++next) {
        bytes += data_bytes(slots[next]->request);
        pieces += data_of(slots[next]->request).piece_count();
        last->merged = slots[next];
        last = slots[next];
      }
    }
    i = next;
    begin(first);
  }
}

// ---- Carrying out

class QueueServer::UnderWay {
 public:
  explicit UnderWay(QueueServer& server) : server_(server) { ++server_.under_way_; }
  ~UnderWay() {
    if (--server_.under_way_ == 0 && server_.stopped_) server_.none_under_way_.set();
  }
  UnderWay(const UnderWay&) = delete;
  UnderWay& operator=(const UnderWay&) = delete;

 private:
  QueueServer& server_;
};

void QueueServer::begin(Slot* slot) { serve(slot).start_here(); }

io::SelfOwned QueueServer::serve(Slot* slot) {
  const UnderWay under_way(*this);
  Request request = slot->request;
  if (slot->merged != nullptr) {
    slot->pieces.clear();
    for (const Slot* each = slot; each != nullptr; each = each->merged) {
      data_of(each->request).for_each([&](std::span<uint8_t> piece) {
        slot->pieces.push_back({.iov_base = piece.data(), .iov_len = piece.size()});
      });
    }
    (request.out ? request.from_driver : request.to_driver) = io::BufferList(slot->pieces);
  }
  io::RequestTimes times;
  SlowRequests* const slow = device_.slow_requests();
  if (slow != nullptr) [[unlikely]] {
    times.waiting = reactor_.now() - slot->taken;
    co_await io::measure_here(times);
  }
  auto outcome = co_await device_.executor().run(request);
  if (slow != nullptr) [[unlikely]] {
    const io::Nanoseconds now = reactor_.now();
    slow->ended(request, {now - slot->taken, times.waiting, times.in_files}, now);
  }
  if (!outcome) {
    queue_->push(slot->chain, 0);
    free_.push_back(slot);
    fail_for_good(outcome.error());
    co_return;
  }
  if (outcome->error != 0) [[unlikely]] {
    const ErrorAction action = device_.errors().judge(request.is_read(), outcome->error);
    if (action == ErrorAction::kStop) {
      keep(slot);
      co_return;
    }
    if (action == ErrorAction::kIgnore) outcome->status = Status::kOk;
  }
  const bool merged_reads = slot->merged != nullptr && !request.out;
  for (Slot* each = slot; each != nullptr;) {
    Slot* next = each->merged;
    if (merged_reads) outcome->written = static_cast<uint32_t>(each->request.to_driver.size());
    finish(each, *outcome);
    each = next;
  }
  // What is finished after the reactor last slept has to be shown by it.
  wake();
  if (!polled_) settle();
}

void QueueServer::finish(Slot* slot, Executor::Outcome outcome) {
  *slot->request.status = static_cast<uint8_t>(outcome.status);
  PLATTER_PROBE(guest_request_completed, slot, static_cast<int>(outcome.status), outcome.written);
  if (log_) [[unlikely]] {
    for (const auto& range : slot->chain.writable_ranges()) log_->mark(range.address, range.bytes);
  }
  queue_->push(slot->chain, outcome.written + 1);
  dirty_ = true;
  ++unshown_;
  if (!device_.is_broken()) show_early();
  free_.push_back(slot);
}

// ---- A stop by an error

void QueueServer::keep(Slot* slot) {
  for (Slot* each = slot; each != nullptr;) {
    Slot* next = std::exchange(each->merged, nullptr);
    kept_.push_back(each);
    each = next;
  }
}

void QueueServer::carry_out_kept() {
  std::ranges::sort(kept_, {}, &Slot::number);
  std::swap(kept_, again_);
  for (Slot* slot : again_) {
    if (device_.slow_requests() != nullptr) [[unlikely]]
      slot->taken = reactor_.now();
    if (slot->request.kind == Kind::kReadWrite) {
      plan(slot);
    } else {
      carry_out_plan();
      begin(slot);
    }
  }
  carry_out_plan();
  again_.clear();
}

void QueueServer::give_up_kept(Kept kept) {
  has_left_ |= kept == Kept::kLeave && !kept_.empty();
  for (Slot* slot : std::exchange(kept_, {})) {
    if (kept == Kept::kFail) {
      finish(slot, {.status = Status::kIoError, .written = 0});
    } else {
      queue_->drop(slot->chain);
      free_.push_back(slot);
    }
  }
}

void QueueServer::fail_for_good(const Error& error) {
  if (device_.is_broken()) return;
  device_.break_down();
  events_.broken(error);
}

}  // namespace platter::virtio::blk
