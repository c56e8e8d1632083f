#include "powercut/image_session.h"

#include <algorithm>
#include <utility>

#include "base/try.h"
#include "fmt/format.h"
#include "io/sync.h"

namespace platter::powercut {

using block::Permission;
using workload::BackingKind;
using workload::ImageSetup;
using workload::Random;

namespace {

constexpr block::Permissions kWriter =
    Permission::kConsistentRead | Permission::kWrite | Permission::kResize;
constexpr block::Permissions kWriterShares =
    Permission::kConsistentRead | Permission::kWriteUnchanged;
constexpr Stamp kBackingSeed = 0xbac;
constexpr uint64_t kVmSectors = 160;  // of the state of a machine

block::DriverRegistry with_aimed(const block::DriverRegistry& registry) {
  std::vector<const block::DriverType*> types(registry.types().begin(), registry.types().end());
  types.push_back(&kAimed);
  return block::DriverRegistry(std::move(types));
}

Error in_context(Error error, const std::string& context) {
  return std::move(error).with_context(context);
}

uint64_t backing_sectors(const ImageSetup& setup) {
  return setup.backing == BackingKind::kNone ? 0 : setup.backing_size / kSectorSize;
}

}  // namespace

ImageSession::ImageSession(const ImageSetup& setup, Random random)
    : setup_(setup),
      random_(random),
      model_(2 * setup.size / kSectorSize, setup.size / kSectorSize, backing_sectors(setup),
             kBackingSeed),
      bitmaps_(setup.size),
      header_(setup, "backing", kDataPath),
      vm_(kVmSectors, kVmSectors, 0, 0),
      registry_(with_aimed(block::DriverRegistry::builtin())) {}

ImageSession::~ImageSession() = default;

void ImageSession::enter(io::FileSystem& files, std::vector<io::Reactor*> reactors,
                         AfterError after_error, std::string state_directory) {
  graph_ = std::make_unique<block::Graph>(
      block::Graph::Environment{registry_, files, log_, &secrets_, std::move(state_directory)});
  reactors_ = std::move(reactors);
  after_error_ = after_error;
}

VoidTask ImageSession::create() {
  if (setup_.backing != BackingKind::kNone) PLATTER_CO_TRY(co_await make_backing());
  PLATTER_CO_TRY(co_await graph_->create({.filename = kImagePath,
                                          .format = setup_.format,
                                          .options = setup_.create_options("backing", kDataPath)}));
  PLATTER_CO_TRY(co_await open());
  PLATTER_CO_TRY(co_await backend_->flush());
  co_return co_await close();
}

VoidTask ImageSession::make_backing() {
  ImageSetup base;
  base.format = setup_.backing == BackingKind::kRaw ? "raw" : "qcow2";
  base.size = setup_.backing_size;
  base.cluster_size = 4096;
  PLATTER_CO_TRY(co_await graph_->create(
      {.filename = kBackingPath, .format = base.format, .options = base.create_options("")}));
  PLATTER_CO_ASSIGN(auto backend,
                    co_await graph_->open(base.open_request(kBackingPath), kWriter, kWriterShares));
  std::vector<uint8_t> bytes(base.size);
  for (uint64_t sector = 0; sector < base.size / kSectorSize; ++sector) {
    model_.fill(std::span(bytes).subspan(sector * kSectorSize, kSectorSize), sector, kBackingStamp);
  }
  auto result = co_await backend->write(0, io::BufferList(std::span(bytes)));
  if (result) result = co_await backend->flush();
  auto closed = co_await backend->close();
  if (!result) co_return result;
  co_return closed;
}

VoidTask ImageSession::open() {
  block::OpenRequest request = setup_.open_request(kImagePath);
  if (aim_ != nullptr) {
    request.filename.clear();
    request.format.clear();
    request.options.set("driver", setup_.format);
    request.options.set("file.driver", std::string(kAimed.name));
    request.options.set("file.file.driver", std::string("file"));
    request.options.set("file.file.filename", std::string(kImagePath));
  }
  PLATTER_CO_ASSIGN(backend_, co_await graph_->open(std::move(request), kWriter, kWriterShares));
  PLATTER_CO_TRY(header_.settle(backend_->node().driver()));
  find_kept();
  if (!setup_.bitmaps || after_error_ != AfterError::kStop || !random_.one_in(4))
    co_return Result<void>{};
  co_return co_await bitmaps_.compare(*backend_->node().driver().bitmap_store(), false);
}

VoidTask ImageSession::close() {
  auto backend = std::move(backend_);
  const auto* bitmaps = backend->node().driver().bitmap_store();
  if (aim_ != nullptr && bitmaps != nullptr && !bitmaps->bitmaps().empty())
    aim_->pass(Moment::kClose);
  auto closed = co_await backend->close();
  if (!closed) co_return std::unexpected(in_context(std::move(closed).error(), "close"));
  // Closing has flushed: what it reports as done must survive.
  end_flush(begin_flush());
  bitmaps_.closed();
  co_return Result<void>{};
}

VoidTask ImageSession::guarded(VoidTask task) {
  VoidTask own = std::move(task);
  Result<void> result = co_await std::move(own);
  if (!result && backend_) (void)co_await close();
  co_return result;
}

VoidTask ImageSession::phase(unsigned operations) {
  std::vector<VoidTask> tasks;
  for (io::Reactor* reactor : reactors_) {
    for (unsigned i = 0; i < 2; ++i) {
      tasks.push_back(io::run_on(*reactor, worker(random_.fork(), operations)));
    }
  }
  auto results = co_await io::when_all(std::move(tasks));
  for (Result<void>& result : results) {
    if (!result) co_return std::move(result);
  }
  if (setup_.bitmaps && random_.one_in(2)) PLATTER_CO_TRY(co_await change_bitmaps());
  if (header_.names_files() && is_time_for(Moment::kRewrite, 4))
    PLATTER_CO_TRY(co_await change_names());
  // Deriving keys takes long.
  if (setup_.encryption == "luks" && is_time_for(Moment::kSlots, 8))
    PLATTER_CO_TRY(co_await change_slots());
  if (!setup_.has_data_file() && is_time_for(Moment::kVmState, 3))
    PLATTER_CO_TRY(co_await vm_state());
  if (random_.one_in(4)) PLATTER_CO_TRY(co_await resize());
  if (random_.one_in(8)) PLATTER_CO_TRY(co_await make_empty());
  if (random_.one_in(6)) PLATTER_CO_TRY(co_await compact());
  if (!setup_.has_data_file() && random_.one_in(3)) co_return co_await snapshot();
  co_return Result<void>{};
}

VoidTask ImageSession::change_bitmaps() {
  auto& store = *backend_->node().driver().bitmap_store();
  trace("change bitmaps", {store.bitmaps().size(), 0}, 0);
  // Merging reads what the image has stored of one.
  auto changed = co_await bitmaps_.change(store, random_);
  if (!changed) co_return co_await after_failure(std::move(changed).error(), {0, 0});
  co_return Result<void>{};
}

bool ImageSession::is_time_for(Moment moment, uint64_t n) {
  return random_.one_in(aim_ != nullptr && aim_->moment == moment ? 2 : n);
}

void ImageSession::end_flush(Ticket ticket) {
  model_.end_flush(ticket.disk);
  vm_.end_flush(ticket.vm);
}

VoidTask ImageSession::change_names() {
  block::Driver& driver = backend_->node().driver();
  trace("change names", {0, 0}, 0);
  if (aim_ != nullptr) aim_->pass(Moment::kRewrite);
  auto changed = co_await header_.change(driver, amendable(), random_);
  if (changed) co_return Result<void>{};
  PLATTER_CO_TRY(co_await after_failure(std::move(changed).error(), {0, 0}));
  co_return header_.settle(driver);
}

VoidTask ImageSession::change_slots() {
  trace("change slots", {0, 0}, 0);
  if (aim_ != nullptr) aim_->pass(Moment::kSlots);
  auto changed = co_await slots_.change(backend_->node().driver(), amendable(), random_);
  setup_.secret = slots_.sure();
  if (!changed) co_return co_await after_failure(std::move(changed).error(), {0, 0});
  co_return Result<void>{};
}

io::Task<Result<bool>> ImageSession::secret_opens(std::string id) {
  ImageSetup setup = setup_;
  setup.secret = std::move(id);
  block::OpenRequest request = setup.open_request(kImagePath);
  request.flags.read_only = true;
  auto opened = co_await graph_->open(std::move(request), Permission::kConsistentRead,
                                      block::kAllPermissions);
  if (!opened) {
    if (opened.error().message().find("Invalid password") != std::string::npos) co_return false;
    co_return std::unexpected(std::move(opened).error());
  }
  PLATTER_CO_TRY(co_await (*opened)->close());
  co_return true;
}

// The first time all of it is written, durably: what its place held before nobody knows.
VoidTask ImageSession::vm_state() {
  auto& store = *backend_->node().driver().vm_state_store();
  if (aim_ != nullptr) aim_->pass(Moment::kVmState);
  if (vm_known_ && random_.one_in(3)) co_return co_await verify_vm_state(*backend_, false);
  if (!vm_known_) {
    const uint64_t failed = failed_requests_;
    PLATTER_CO_TRY(co_await write_vm_state(store, {0, kVmSectors}));
    PLATTER_CO_TRY(co_await flush());
    vm_known_ = failed == failed_requests_;
    co_return Result<void>{};
  }
  const uint64_t first = random_.below(kVmSectors);
  co_return co_await write_vm_state(store, {first, 1 + random_.below(kVmSectors - first)});
}

VoidTask ImageSession::write_vm_state(block::VmStateStore& store, Range range) {
  const Stamp stamp = next_stamp_++;
  std::vector<uint8_t> bytes(range.length());
  for (uint64_t i = 0; i < range.count; ++i)
    vm_.fill(std::span(bytes).subspan(i * kSectorSize, kSectorSize), range.first + i, stamp);
  vm_.begin_write(range.first, range.count, stamp);
  trace("write vm state", range, stamp);
  auto done = co_await store.write_vm_state(range.offset(), io::BufferList(std::span(bytes)));
  if (!done) {
    if (after_error_ == AfterError::kGoOn) vm_known_ = false;
    co_return co_await after_failure(std::move(done).error(), {0, 0});
  }
  vm_.end_write(range.first, range.count, stamp, false);
  co_return Result<void>{};
}

VoidTask ImageSession::verify_vm_state(block::Backend& backend, bool settle) {
  if (!vm_known_) co_return Result<void>{};
  std::vector<uint8_t> bytes(kVmSectors * kSectorSize, 0xa5);
  auto& store = *backend.node().driver().vm_state_store();
  trace("read vm state", {0, kVmSectors}, 0);
  auto got = co_await store.read_vm_state(0, io::BufferList(std::span(bytes)));
  if (!got) co_return co_await after_failure(std::move(got).error(), {0, 0});
  auto result = settle ? vm_.settle(0, bytes) : vm_.expect_current(0, bytes);
  if (!result) co_return std::unexpected(in_context(std::move(result).error(), "vm state"));
  co_return result;
}

// One that was being taken when power failed is there and nobody knows what it holds: it is left
// alone. One that was being deleted may be there or not.
void ImageSession::find_kept() {
  auto* store = backend_->node().driver().snapshot_store();
  const auto there = store->snapshots();
  std::erase_if(kept_, [&](const Kept& kept) {
    return std::ranges::find(there, kept.id, &block::SnapshotInfo::id) == there.end();
  });
}

VoidTask ImageSession::snapshot() {
  auto& store = *backend_->node().driver().snapshot_store();
  const bool narrow = setup_.refcount_bits <= 4;  // too many references are refused
  if (!kept_.empty() && random_.one_in(3)) co_return co_await apply(store);
  const Ticket ticket = begin_flush();
  Result<void> done;
  if (!kept_.empty() && random_.one_in(2)) {
    const size_t index = random_.below(kept_.size());
    trace("delete snapshot", {index, 0}, 0);
    done = co_await store.delete_snapshot(kept_[index].id);
    if (done) kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(index));
  } else {
    done = co_await take_snapshot(store);
    if (!done && narrow && done.error().code() == EINVAL) co_return Result<void>{};
  }
  // What the image held before is durable with it.
  if (done) end_flush(ticket);
  if (!done) PLATTER_CO_TRY(co_await after_failure(std::move(done).error(), {0, 0}));
  co_return Result<void>{};
}

// A snapshot that is said to have a state takes it along, and leaves none behind.
VoidTask ImageSession::take_snapshot(block::SnapshotStore& store) {
  const bool with_state = vm_known_ && random_.one_in(2);
  std::vector<Stamp> vm_state;
  if (vm_known_) vm_state = vm_.content();
  if (with_state) {
    if (aim_ != nullptr) aim_->pass(Moment::kVmState);
    vm_.begin_write(0, kVmSectors, kZeroStamp);
  }
  trace(with_state ? "keep vm state" : "take snapshot", {kept_.size(), 0}, 0);
  auto done = co_await store.create_snapshot(
      {.id = {}, .name = "kept", .vm_state_size = with_state ? kVmSectors * kSectorSize : 0});
  if (done) {
    kept_.push_back({store.snapshots().back().id, model_.content(), std::move(vm_state)});
    if (with_state) vm_.end_write(0, kVmSectors, kZeroStamp, true);
  } else if (with_state && (after_error_ == AfterError::kGoOn || done.error().code() == EINVAL)) {
    vm_known_ = false;
  }
  co_return done;
}

VoidTask ImageSession::apply(block::SnapshotStore& store) {
  if (setup_.bitmaps && !backend_->node().driver().bitmap_store()->bitmaps().empty())
    co_return Result<void>{};  // refused
  const Kept& kept = kept_[random_.below(kept_.size())];
  const uint64_t before = model_.sectors();
  const uint64_t after = kept.content.size();
  trace("apply snapshot", {before, after}, 0);
  model_.begin_replace(kept.content, after);
  const bool brings_state = !kept.vm_state.empty();
  // The place of the state is where it was for the size that comes back.
  vm_known_ = vm_known_ && brings_state;
  if (brings_state) vm_.begin_replace(kept.vm_state, kVmSectors);
  auto done = co_await store.apply_snapshot(kept.id);
  if (done) {
    unsure_sizes_.clear();
    model_.end_replace(kept.content, after);
    if (brings_state) vm_.end_replace(kept.vm_state, kVmSectors);
    vm_known_ = brings_state;
    bitmaps_.resized(after * kSectorSize);
    end_flush(begin_flush());
    co_return Result<void>{};
  }
  ++failed_requests_;
  const bool refused = setup_.refcount_bits <= 4 && done.error().code() == EINVAL;
  if (refused || after_error_ == AfterError::kGoOn) vm_known_ = false;
  if (refused) {
    PLATTER_CO_TRY(model_.adopt_size(before));
    co_return co_await adopt({0, before});
  }
  if (after_error_ == AfterError::kStop) co_return done;
  unsure_sizes_ = {before, after};
  PLATTER_CO_TRY(model_.adopt_size(backend_->size() / kSectorSize));
  co_return co_await adopt({0, model_.sectors()});
}

VoidTask ImageSession::worker(Random random, unsigned operations) {
  for (unsigned i = 0; i < operations; ++i) PLATTER_CO_TRY(co_await operation(random));
  co_return Result<void>{};
}

VoidTask ImageSession::lives(const std::function<bool()>& over) {
  Result<void> result;
  while (result && !over()) {
    result = co_await open();
    unsigned phases = static_cast<unsigned>(random_.between(1, 4));
    for (unsigned i = 0; result && i < phases; ++i) result = co_await phase(4);
    if (backend_) {
      auto closed = co_await close();
      if (result) result = std::move(closed);
    }
  }
  co_return result;
}

ImageSession::Range ImageSession::draw_range(Random& random) const {
  uint64_t sectors = model_.sectors();
  uint64_t cluster = std::max<uint64_t>(setup_.cluster_size / kSectorSize, 1);
  uint64_t first = random.below(sectors);
  uint64_t count = 1 + random.log_uniform(std::min<uint64_t>(sectors, 4 * cluster + 64));
  if (random.one_in(2)) {
    first -= first % cluster;
    count = (count + cluster - 1) / cluster * cluster;
  }
  return {first, std::min(count, sectors - first)};
}

VoidTask ImageSession::operation(Random& random) {
  uint64_t choice = random.below(100);
  if (choice < 12) co_return co_await flush();
  Range range = draw_range(random);
  Kind kind = choice < 24 ? Kind::kShared : Kind::kExclusive;
  while (!claims_.try_claim(range.first, range.count, kind)) {
    co_await io::Reactor::current()->yield();
    range = draw_range(random);
  }
  Result<void> result;
  if (choice < 24) {
    result = co_await read(range);
  } else if (choice < 72) {
    result = co_await write(random, range);
  } else if (choice < 85) {
    result = co_await zero(random, range);
  } else {
    result = co_await discard(range);
  }
  claims_.release(range.first, range.count, kind);
  co_return result;
}

void ImageSession::trace(const char* what, Range range, Stamp stamp) const {
  if (!trace_) return;
  fmt::print("{:>16} [{}, +{}) #{}\n", what, range.first, range.count, stamp);
}

VoidTask ImageSession::after_failure(Error error, Range range) {
  ++failed_requests_;
  if (after_error_ == AfterError::kStop) co_return std::unexpected(std::move(error));
  if (range.count == 0) co_return Result<void>{};
  co_return co_await adopt(range);
}

VoidTask ImageSession::adopt(Range range) {
  std::vector<uint8_t> bytes(range.length());
  auto got = co_await backend_->read(range.offset(), io::BufferList(std::span(bytes)));
  // The fault that is being injected may hit this read: it must not hit twice.
  if (!got && after_error_ == AfterError::kGoOn) {
    got = co_await backend_->read(range.offset(), io::BufferList(std::span(bytes)));
  }
  if (!got) co_return got;
  co_return model_.adopt(range.first, bytes, {});
}

VoidTask ImageSession::read(Range range) {
  std::vector<uint8_t> bytes(range.length(), 0xa5);
  trace("read", range, 0);
  auto got = co_await backend_->read(range.offset(), io::BufferList(std::span(bytes)));
  if (!got) co_return co_await after_failure(std::move(got).error(), {range.first, 0});
  co_return model_.expect_current(range.first, bytes);
}

VoidTask ImageSession::write(Random& random, Range range) {
  Stamp stamp = next_stamp_++;
  std::vector<uint8_t> bytes(range.length());
  for (uint64_t i = 0; i < range.count; ++i) {
    model_.fill(std::span(bytes).subspan(i * kSectorSize, kSectorSize), range.first + i, stamp);
  }
  bool durable = random.one_in(8);
  block::WriteFlags flags;
  if (durable) flags |= block::WriteFlag::kFua;
  const uint64_t cluster = setup_.takes_compressed() ? setup_.cluster_size / kSectorSize : 0;
  const bool compressed =
      cluster != 0 && range.first % cluster == 0 && range.count % cluster == 0 && random.one_in(2);
  if (compressed) flags |= block::WriteFlag::kCompressed;
  model_.begin_write(range.first, range.count, stamp);
  trace("write", range, stamp);
  auto done = co_await backend_->write(range.offset(), io::BufferList(std::span(bytes)), flags);
  // Refused where something is allocated; or power has failed, which the next request tells.
  if (!done && compressed && done.error().code() == EIO) co_return co_await adopt(range);
  if (!done) co_return co_await after_failure(std::move(done).error(), range);
  written(range);
  trace(durable ? "written FUA" : "written", range, stamp);
  model_.end_write(range.first, range.count, stamp, durable);
  co_return Result<void>{};
}

VoidTask ImageSession::zero(Random& random, Range range) {
  bool durable = random.one_in(8);
  block::WriteFlags flags;
  if (durable) flags |= block::WriteFlag::kFua;
  if (random.one_in(2)) flags |= block::WriteFlag::kMayUnmap;
  model_.begin_write(range.first, range.count, kZeroStamp);
  trace(flags.has(block::WriteFlag::kMayUnmap) ? "zero unmap" : "zero", range, 0);
  auto done = co_await backend_->zero(range.offset(), range.length(), flags);
  if (!done) co_return co_await after_failure(std::move(done).error(), range);
  written(range);
  trace(durable ? "zeroed FUA" : "zeroed", range, 0);
  model_.end_write(range.first, range.count, kZeroStamp, durable);
  co_return Result<void>{};
}

// A discarded sector keeps its content, becomes zero, or shows the backing file; what it then is,
// it stays.
VoidTask ImageSession::discard(Range range) {
  if (model_.has_backing()) model_.begin_write(range.first, range.count, kBackingStamp);
  model_.begin_write(range.first, range.count, kZeroStamp);
  trace("discard", range, 0);
  auto done = co_await backend_->discard(range.offset(), range.length());
  if (!done) co_return co_await after_failure(std::move(done).error(), range);
  if (setup_.unmap) written(range);
  trace("discarded", range, 0);
  co_return co_await adopt(range);
}

VoidTask ImageSession::flush() {
  const Ticket ticket = begin_flush();
  trace("flush", {0, 0}, ticket.disk);
  auto done = co_await backend_->flush();
  if (!done) co_return co_await after_failure(std::move(done).error(), {0, 0});
  trace("flushed", {0, 0}, ticket.disk);
  end_flush(ticket);
  co_return Result<void>{};
}

VoidTask ImageSession::resize() {
  const auto* bitmaps = backend_->node().driver().bitmap_store();
  if (bitmaps != nullptr &&
      std::ranges::any_of(bitmaps->bitmaps(), &block::BitmapInfo::inconsistent)) {
    co_return Result<void>{};  // refused
  }
  if (setup_.compat == "0.10" && !backend_->node().driver().snapshot_store()->snapshots().empty())
    co_return Result<void>{};  // the format forbids it
  const uint64_t capacity = model_.capacity();
  uint64_t after = random_.between(std::max<uint64_t>(capacity / 8, 1), capacity);
  if (random_.one_in(2)) after = std::min(model_.sectors() + 1 + random_.below(64), capacity);
  const bool may_preallocate = !model_.has_backing() && setup_.encryption.empty();
  co_return co_await resize_to(after, may_preallocate && random_.one_in(2));
}

VoidTask ImageSession::grow_preallocated() {
  PLATTER_CO_TRY(co_await open());
  PLATTER_CO_TRY(co_await resize_to(model_.capacity(), true));
  co_return co_await close();
}

VoidTask ImageSession::resize_to(uint64_t after, bool preallocate) {
  const uint64_t before = model_.sectors();
  if (after == before) co_return Result<void>{};
  Range changed = {std::min(before, after), std::max(before, after) - std::min(before, after)};
  // What comes into sight is zeroes from the first moment.
  model_.begin_write(changed.first, changed.count, kZeroStamp);
  model_.begin_resize(after);
  trace("resize", {before, after}, 0);
  vm_known_ = false;
  if (aim_ != nullptr) aim_->pass(Moment::kResize);
  auto done = co_await backend_->resize(
      after * kSectorSize,
      preallocate && after > before ? block::Preallocation::kMetadata : block::Preallocation::kOff,
      true);
  bitmaps_.resized(backend_->size());
  if (done) {
    unsure_sizes_.clear();
    model_.end_resize(after);
    model_.end_write(changed.first, changed.count, kZeroStamp, false);
    co_return Result<void>{};
  }
  ++failed_requests_;
  if (after_error_ == AfterError::kStop) co_return done;
  // The write of the size may have reached the disk although it failed.
  unsure_sizes_ = {before, after};
  PLATTER_CO_TRY(model_.adopt_size(backend_->size() / kSectorSize));
  uint64_t end = std::min(changed.first + changed.count, model_.sectors());
  if (end <= changed.first) co_return Result<void>{};
  co_return co_await adopt({changed.first, end - changed.first});
}

VoidTask ImageSession::make_empty() {
  const Range all = {0, model_.sectors()};
  const Stamp shown = model_.has_backing() ? kBackingStamp : kZeroStamp;
  model_.begin_write(all.first, all.count, shown);
  vm_known_ = false;
  trace("make empty", all, 0);
  auto done = co_await backend_->node().driver().emptiable()->make_empty();
  if (!done) co_return co_await after_failure(std::move(done).error(), all);
  trace("emptied", all, 0);
  model_.end_write(all.first, all.count, shown, true);
  co_return Result<void>{};
}

VoidTask ImageSession::compact() {
  auto* compactable = backend_->node().driver().compactable();
  if (compactable == nullptr) co_return Result<void>{};
  const Ticket ticket = begin_flush();
  trace("compact", {0, 0}, ticket.disk);
  if (aim_ != nullptr) aim_->pass(Moment::kCompaction);
  auto done = co_await compactable->compact({}, [](uint64_t, uint64_t) {});
  if (!done) co_return co_await after_failure(std::move(done).error(), {0, 0});
  trace("compacted", {0, 0}, ticket.disk);
  end_flush(ticket);
  co_return Result<void>{};
}

VoidTask ImageSession::verify() {
  if (backend_->size() != model_.sectors() * kSectorSize) {
    co_return fail(EIO, fmt::format("size is {}, should be {}", backend_->size(),
                                    model_.sectors() * kSectorSize));
  }
  PLATTER_CO_TRY(co_await verify_vm_state(*backend_, false));
  co_return co_await verify_content(*backend_, false);
}

VoidTask ImageSession::verify_content(block::Backend& backend, bool settle) {
  constexpr uint64_t kChunk = 512;
  std::vector<uint8_t> bytes(kChunk * kSectorSize);
  for (uint64_t first = 0; first < model_.sectors(); first += kChunk) {
    uint64_t count = std::min(kChunk, model_.sectors() - first);
    auto piece = std::span(bytes).first(count * kSectorSize);
    PLATTER_CO_TRY(co_await backend.read(first * kSectorSize, io::BufferList(piece)));
    PLATTER_CO_TRY(settle ? model_.settle(first, piece) : model_.expect_current(first, piece));
  }
  co_return Result<void>{};
}

VoidTask ImageSession::verify_survivor(bool writable) {
  block::OpenRequest request = setup_.open_request(kImagePath);
  request.flags.read_only = !writable;
  block::Permissions needed = Permission::kConsistentRead;
  if (writable) needed = kWriter;
  PLATTER_CO_ASSIGN(auto backend,
                    co_await graph_->open(std::move(request), needed, block::kAllPermissions));
  Result<void> result;
  if (backend->size() % kSectorSize != 0) result = fail(EIO, "the size is no multiple of 512");
  uint64_t sectors = backend->size() / kSectorSize;
  if (std::find(unsure_sizes_.begin(), unsure_sizes_.end(), sectors) != unsure_sizes_.end()) {
    model_.begin_resize(sectors);
    model_.end_resize(sectors);
  }
  if (result) result = model_.settle_size(sectors);
  if (result) result = co_await verify_content(*backend, true);
  if (result) result = co_await verify_vm_state(*backend, true);
  if (result) result = header_.settle(backend->node().driver());
  if (result && setup_.bitmaps)
    result = co_await bitmaps_.survive(*backend->node().driver().bitmap_store());
  bitmaps_.resized(backend->size());
  auto closed = co_await backend->close();
  if (!result) co_return result;
  PLATTER_CO_TRY(std::move(closed));
  if (setup_.encryption != "luks") co_return Result<void>{};
  result = co_await slots_.settle([this](std::string id) { return secret_opens(std::move(id)); });
  setup_.secret = slots_.sure();
  co_return result;
}

io::Task<Result<CheckOutcome>> ImageSession::check() {
  block::OpenRequest request = setup_.open_request(kImagePath);
  request.flags.read_only = true;
  request.flags.check = true;
  PLATTER_CO_ASSIGN(auto backend,
                    co_await graph_->open(std::move(request), Permission::kConsistentRead,
                                          block::kAllPermissions));
  CheckOutcome outcome;
  block::FirstLine lines;
  Result<void> result;
  auto info = backend->node().driver().info();
  if (info) {
    outcome.dirty = info->dirty;
    auto counts = co_await backend->node().driver().checkable()->check(lines);
    if (counts) {
      outcome.counts = *counts;
      outcome.first_line = lines.line();
    } else {
      result = std::unexpected(std::move(counts).error());
    }
  } else {
    result = std::unexpected(std::move(info).error());
  }
  auto closed = co_await backend->close();
  if (result) result = std::move(closed);
  if (!result) co_return std::unexpected(std::move(result).error());
  co_return outcome;
}

VoidTask ImageSession::repair(block::Repair what) {
  block::OpenRequest request = setup_.open_request(kImagePath);
  request.flags.check = true;
  PLATTER_CO_ASSIGN(auto backend,
                    co_await graph_->open(std::move(request), kWriter, kWriterShares));
  block::FirstLine lines;
  auto repaired = co_await backend->node().driver().checkable()->repair(lines, what);
  auto closed = co_await backend->close();
  if (!repaired) co_return std::unexpected(in_context(std::move(repaired).error(), "repair"));
  PLATTER_CO_TRY(std::move(closed));
  PLATTER_CO_TRY(co_await expect_sound(false));
  co_return co_await verify_survivor();
}

VoidTask ImageSession::expect_sound(bool leaks_allowed) {
  PLATTER_CO_ASSIGN(CheckOutcome outcome, co_await check());
  if (outcome.dirty) co_return Result<void>{};
  const block::CheckResult& counts = outcome.counts;
  if (counts.corruptions != 0 || counts.check_errors != 0 ||
      (counts.leaks != 0 && !leaks_allowed)) {
    co_return fail(EIO,
                   fmt::format("check: {} corruptions, {} errors, {} leaks; {}", counts.corruptions,
                               counts.check_errors, counts.leaks, outcome.first_line));
  }
  co_return Result<void>{};
}

}  // namespace platter::powercut
