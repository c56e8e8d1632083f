#include "io/simulation.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "io/simulated_files.h"

namespace platter::io {

class Simulation::Engine final : public platter::io::Engine {
 public:
  explicit Engine(Simulation& simulation) : simulation_(simulation) {}
  void submit(IoRequest& request) override { simulation_.submit(request); }
  // There is no peer in this world.
  void submit(ReadinessRequest& request) override {
    request.result = ENOTSUP;
    request.waiter.reactor->resume_later(request.waiter.handle);
  }
  void cancel(ReadinessRequest&) override {}
  // The simulation is the loop of all its reactors.
  void turn(bool, Nanoseconds) override {}
  void wake() override {}
  const char* name() const override { return "simulation"; }

 private:
  Simulation& simulation_;
};

Simulation::Simulation(uint64_t seed) : Simulation(seed, Options{}) {}

Simulation::Simulation(uint64_t seed, Options options, const SimulatedDisk& disk)
    : seed_(seed), options_(options), random_(seed), files_(std::make_unique<Files>(*this)) {
  for (auto& [name, content] : disk.files()) files_->add(name, content);
  for (unsigned index = 0; index < options_.reactors; ++index) {
    reactors_.push_back(std::make_unique<Reactor>(
        index, std::make_unique<Engine>(*this),
        Reactor::Services{
            .now = [this] { return now_; }, .random_seed = seed, .workers = nullptr}));
  }
}

Simulation::~Simulation() {
  run_until_idle();
  PLATTER_ASSERT(open_files_ == 0);
}

FileSystem& Simulation::files() { return *files_; }

// ---- Steps

void Simulation::give_up(const char* why) const {
  std::fprintf(stderr, "simulation: %s (seed %llu, step %llu, %zu operations in flight)\n", why,
               static_cast<unsigned long long>(seed_), static_cast<unsigned long long>(steps_),
               pending_.size());
  std::abort();
}

void Simulation::run_one_step_of(uint64_t limit) {
  if (steps_ >= limit) give_up("the task does not end");
  if (!step()) give_up("deadlock: nothing is ready, nothing is in flight, no timer is set");
}

void Simulation::run_until_idle() {
  uint64_t limit = steps_ + options_.max_steps;
  while (step()) {
    if (steps_ >= limit) give_up("it never becomes idle");
  }
}

bool Simulation::step() {
  if (steps_ >= cut_at_ && !power_is_cut_) cut_power();
  now_ += Nanoseconds(1 + random_.below(1000));
  Nanoseconds deadline = kNever;
  uint64_t candidates = pending_.size();
  for (auto& reactor : reactors_) {
    reactor->expire_timers();
    deadline = std::min(deadline, reactor->next_deadline());
    candidates += reactor->collect_ready();
  }
  if (candidates == 0 && deadline == kNever) return false;
  ++steps_;
  // Now and then everything else is so slow that the next timer comes first.
  if (candidates == 0 || (deadline != kNever && random_.one_in(64))) {
    now_ = std::max(now_, deadline);
    for (auto& reactor : reactors_) reactor->expire_timers();
    return true;
  }
  uint64_t pick = random_.below(candidates);
  if (pick < pending_.size()) {
    complete(pick);
    return true;
  }
  pick -= pending_.size();
  for (auto& reactor : reactors_) {
    size_t ready = reactor->collect_ready();
    if (pick < ready) {
      Reactor::Running running(reactor.get());
      reactor->resume_at(pick);
      return true;
    }
    pick -= ready;
  }
  return true;
}

// ---- Disk operations

int Simulation::draw_error(IoRequest::Kind kind) {
  auto planned = planned_.find(operations_++);
  if (planned != planned_.end()) return planned->second;
  switch (kind) {
    case IoRequest::Kind::kRead: return chance(options_.read_errors_ppm) ? EIO : 0;
    case IoRequest::Kind::kWrite:
    case IoRequest::Kind::kAllocate: return chance(options_.write_errors_ppm) ? EIO : 0;
    case IoRequest::Kind::kSync: return chance(options_.sync_errors_ppm) ? EIO : 0;
  }
  return 0;
}

void Simulation::submit(IoRequest& request) {
  auto* file = dynamic_cast<SimulatedFile*>(request.file);
  PLATTER_ASSERT(file != nullptr && &file->simulation() == this);
  int error = draw_error(request.kind);
  if (power_is_cut_) error = EIO;
  pending_.push_back({&request, file->medium(), file->medium()->completed(), error});
}

void Simulation::complete(size_t position) {
  Pending pending = std::move(pending_[position]);
  pending_[position] = std::move(pending_.back());
  pending_.pop_back();
  now_ += Nanoseconds(1000 + random_.below(200'000));
  IoRequest& request = *pending.request;
  if (pending.error != 0) {
    if (!power_is_cut_) land_partially(pending);
    request.result = -pending.error;
  } else {
    request.result = perform(pending);
  }
  request.waiter.reactor->resume_later(request.waiter.handle);
}

// A write that failed has changed any of its sectors, or none.
void Simulation::land_partially(const Pending& pending) {
  const IoRequest& request = *pending.request;
  if (request.kind != IoRequest::Kind::kWrite || random_.one_in(2)) return;
  constexpr uint64_t kSector = SimulatedMedium::kSectorBytes;
  uint64_t size = pending.medium->size();
  for (uint64_t done = 0; done < request.buffers.size();) {
    uint64_t offset = request.offset + done;
    uint64_t length = std::min(kSector - offset % kSector, request.buffers.size() - done);
    if (offset + length <= size && random_.one_in(2))
      pending.medium->apply(
          SimulatedMedium::write_change(offset, request.buffers.sub(done, length)));
    done += length;
  }
}

bool Simulation::has_room(const SimulatedMedium& medium, uint64_t offset, uint64_t length) const {
  if (options_.capacity == UINT64_MAX) return true;
  uint64_t pages = medium.current().bytes.missing_pages(offset, length);
  for (auto& [name, inode] : files_->inodes()) pages += inode->medium->current().bytes.page_count();
  return pages <= options_.capacity / SparseBytes::kPageBytes;
}

int64_t Simulation::perform(Pending& pending) {
  switch (pending.request->kind) {
    case IoRequest::Kind::kRead:
    case IoRequest::Kind::kWrite: return perform_transfer(pending);
    case IoRequest::Kind::kSync: pending.medium->make_durable(pending.completed_before); return 0;
    case IoRequest::Kind::kAllocate: return perform_allocate(pending);
  }
  return -EINVAL;
}

int64_t Simulation::perform_transfer(Pending& pending) {
  IoRequest& request = *pending.request;
  SimulatedMedium& medium = *pending.medium;
  uint32_t alignment = request.file->io_alignment();
  if (request.offset % alignment != 0 || !request.buffers.is_aligned(alignment)) return -EINVAL;
  uint64_t length = request.buffers.size();
  if (chance(options_.short_transfers_ppm)) {
    uint64_t unit = std::max<uint64_t>(alignment, SimulatedMedium::kSectorBytes);
    if (length > unit) length = unit * (1 + random_.below((length - 1) / unit));
  }
  if (request.kind == IoRequest::Kind::kWrite) {
    if (!static_cast<SimulatedFile*>(request.file)->writable()) return -EBADF;
    if (!has_room(medium, request.offset, length)) return -ENOSPC;
    medium.apply(SimulatedMedium::write_change(request.offset, request.buffers.sub(0, length)));
    if (request.durable) medium.make_range_durable(request.offset, length);
    return static_cast<int64_t>(length);
  }
  if (request.offset >= medium.size()) return 0;
  length = std::min(length, medium.size() - request.offset);
  uint64_t offset = request.offset;
  request.buffers.sub(0, length).for_each([&](std::span<uint8_t> piece) {
    medium.current().bytes.read(offset, piece);
    offset += piece.size();
  });
  return static_cast<int64_t>(length);
}

int64_t Simulation::perform_allocate(Pending& pending) {
  const IoRequest& request = *pending.request;
  SimulatedMedium& medium = *pending.medium;
  if (!static_cast<SimulatedFile*>(request.file)->writable()) return -EBADF;
  uint64_t end = request.offset + request.length;
  if (request.length == 0 || end < request.offset || end > INT64_MAX) return -EINVAL;
  switch (request.mode) {
    case AllocateMode::kPunchHole:
    case AllocateMode::kZeroRange:
    case AllocateMode::kZeroRangeUnmap:
      if (!options_.can_punch) return -EOPNOTSUPP;
      medium.apply({.kind = SimulatedMedium::Change::Kind::kZero,
                    .offset = request.offset,
                    .length = request.length});
      return 0;
    case AllocateMode::kAllocate:
    case AllocateMode::kAllocateKeepSize:
      if (!has_room(medium, request.offset, request.length)) return -ENOSPC;
      if (request.mode == AllocateMode::kAllocate && end > medium.size()) medium.resize(end);
      return 0;
  }
  return -EINVAL;
}

// ---- Power

void Simulation::cut_power() {
  if (power_is_cut_) return;
  power_is_cut_ = true;
  const auto volatility =
      at_end_ ? SimulatedMedium::Loss::kOfProcess : SimulatedMedium::Loss::kOfPower;
  if (at_end_) at_end_();
  std::map<const SimulatedMedium*, std::vector<SimulatedMedium::Change>> in_flight;
  for (Pending& pending : pending_) {
    const IoRequest& request = *pending.request;
    if (pending.error == 0 && request.kind == IoRequest::Kind::kWrite &&
        static_cast<SimulatedFile*>(request.file)->writable()) {
      in_flight[pending.medium.get()].push_back(
          SimulatedMedium::write_change(request.offset, request.buffers));
    } else if (pending.error == 0 && request.kind == IoRequest::Kind::kAllocate &&
               request.mode <= AllocateMode::kZeroRangeUnmap) {
      in_flight[pending.medium.get()].push_back({.kind = SimulatedMedium::Change::Kind::kZero,
                                                 .offset = request.offset,
                                                 .length = request.length});
    }
    pending.error = EIO;
  }
  for (auto& [name, inode] : files_->inodes()) {
    survivor_.files()[name] =
        inode->medium->survivor(random_, volatility, std::move(in_flight[inode->medium.get()]));
  }
}

SimulatedDisk Simulation::disk() const {
  if (power_is_cut_) return survivor_;
  SimulatedDisk disk;
  for (auto& [name, inode] : files_->inodes()) disk.files()[name] = inode->medium->current();
  return disk;
}

}  // namespace platter::io
