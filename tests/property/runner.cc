#include "property/runner.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/try.h"
#include "fmt/format.h"
#include "io/sync.h"

namespace platter::property {

using block::Permission;
using block::StatusDetail;
using workload::BackingKind;
using workload::Random;

namespace {

constexpr unsigned kOperationsPerPhase = 60;
constexpr size_t kMaxKept = 12;  // snapshots
constexpr size_t kPeriod = 192;  // of bytes that are to be compressed

constexpr block::Permissions kNeeded =
    Permission::kConsistentRead | Permission::kWrite | Permission::kResize;
constexpr block::Permissions kShared = Permission::kConsistentRead | Permission::kWriteUnchanged;

Error in_context(Error error, const std::string& context) {
  return std::move(error).with_context(context);
}

}  // namespace

Runner::Runner(workload::World& world, const RunPlan& plan, std::string directory)
    : world_(world),
      plan_(plan),
      directory_(std::move(directory)),
      random_(plan.seed),
      registry_(block::DriverRegistry::builtin()) {
  setup_ = workload::draw_setup(
      random_, plan.seed,
      {.max_size = plan.max_size, .raw = plan.format != "qcow2", .qcow2 = plan.format != "raw"});
  header_.emplace(setup_, "backing", data_path());
}

Runner::~Runner() = default;

Result<void> Runner::run() {
  auto result = world_.run(everything());
  return result;
}

Runner::VoidTask Runner::everything() {
  graph_ = std::make_unique<block::Graph>(
      block::Graph::Environment{registry_, world_.files(), log_, &secrets_});
  PLATTER_CO_TRY(co_await make_backing());
  auto created =
      co_await graph_->create({.filename = image_path(),
                               .format = setup_.format,
                               .options = setup_.create_options("backing", data_path())});
  if (!created) co_return std::unexpected(in_context(std::move(created).error(), "create"));
  expected_.assign(setup_.size, 0);
  bitmaps_.resized(setup_.size);
  std::copy_n(backing_.begin(), std::min(backing_.size(), expected_.size()), expected_.begin());

  PLATTER_CO_TRY(co_await open_image());
  Result<void> result;
  for (unsigned done = 0; result && !is_over(done); done += kOperationsPerPhase) {
    result = co_await concurrent_phase(kOperationsPerPhase);
    if (result) result = co_await between_phases();
  }
  if (result) result = co_await verify_all();
  if (result && setup_.bitmaps) {
    result = co_await close_image();
    if (result) result = co_await open_image();
    if (result) result = co_await bitmaps_.compare(bitmap_store(), true);
  }
  if (backend_) {
    auto closed = co_await close_image();
    if (result) result = std::move(closed);
  }
  graph_.reset();
  co_return result;
}

bool Runner::is_over(unsigned operations_done) const {
  if (plan_.seconds == 0) return operations_done >= plan_.operations;
  return std::chrono::steady_clock::now() - begun_ >= std::chrono::seconds(plan_.seconds);
}

Runner::VoidTask Runner::make_backing() {
  if (setup_.backing == BackingKind::kNone) co_return Result<void>{};
  workload::ImageSetup base;
  base.format = setup_.backing == BackingKind::kRaw ? "raw" : "qcow2";
  base.size = setup_.backing_size;
  base.cluster_size = uint32_t{512} << random_.below(10);
  std::string path = directory_ + "/backing";
  PLATTER_CO_TRY(co_await graph_->create(
      {.filename = path, .format = base.format, .options = base.create_options("")}));
  PLATTER_CO_ASSIGN(auto backend, co_await graph_->open(base.open_request(path), kNeeded, kShared));
  backing_.assign(base.size, 0);
  Result<void> result;
  for (unsigned i = 0; result && i < 12; ++i) {
    uint64_t length = std::min<uint64_t>(1 + random_.log_uniform(base.size / 4), base.size);
    uint64_t offset = random_.below(base.size - length + 1);
    std::span<uint8_t> bytes(backing_.data() + offset, length);
    workload::fill_pattern(bytes, random_.next(), offset);
    result = co_await backend->write(offset, io::BufferList(bytes));
  }
  auto closed = co_await backend->close();
  if (!result) co_return result;
  co_return closed;
}

Runner::VoidTask Runner::open_image() {
  auto opened = co_await graph_->open(setup_.open_request(image_path()), kNeeded, kShared);
  if (!opened) co_return std::unexpected(std::move(opened).error());
  backend_ = std::move(*opened);
  if (backend_->size() != expected_.size()) {
    co_return fail(EIO,
                   fmt::format("size is {}, should be {}", backend_->size(), expected_.size()));
  }
  co_return setup_.is_qcow2() ? header_->settle(backend_->node().driver()) : Result<void>{};
}

Runner::VoidTask Runner::close_image() {
  auto backend = std::move(backend_);
  auto closed = co_await backend->close();
  if (!closed) co_return std::unexpected(in_context(std::move(closed).error(), "close"));
  bitmaps_.closed();
  co_return Result<void>{};
}

Runner::VoidTask Runner::concurrent_phase(unsigned operations) {
  const auto& reactors = world_.reactors();
  unsigned workers = static_cast<unsigned>(reactors.size()) * plan_.workers_per_reactor;
  std::vector<VoidTask> tasks;
  for (unsigned i = 0; i < workers; ++i) {
    unsigned share = (operations + workers - 1 - i) / workers;
    tasks.push_back(io::run_on(*reactors[i % reactors.size()], worker(random_.fork(), share)));
  }
  auto results = co_await io::when_all(std::move(tasks));
  for (Result<void>& result : results) {
    if (!result) co_return std::move(result);
  }
  co_return Result<void>{};
}

Runner::VoidTask Runner::worker(Random random, unsigned operations) {
  for (unsigned i = 0; i < operations; ++i) PLATTER_CO_TRY(co_await one_operation(random));
  co_return Result<void>{};
}

Runner::VoidTask Runner::between_phases() {
  if (setup_.bitmaps && random_.one_in(2)) PLATTER_CO_TRY(co_await bitmaps());
  if (random_.one_in(6)) PLATTER_CO_TRY(co_await vm_state());
  block::Driver& driver = backend_->node().driver();
  if (header_->names_files() && random_.one_in(6)) {
    PLATTER_CO_TRY(
        co_await header_->change(driver, registry_.find("qcow2")->amend_options, random_));
  }
  // Deriving keys takes long.
  if (setup_.encryption == "luks" && random_.one_in(8)) PLATTER_CO_TRY(co_await change_slots());
  switch (random_.below(9)) {
    case 0: co_return co_await backend_->flush();
    case 1: co_return co_await resize();
    case 2: {
      PLATTER_CO_TRY(co_await close_image());
      co_return co_await open_image();
    }
    case 3: co_return co_await verify_all();
    case 4: {
      PLATTER_CO_TRY(co_await verify_status(StatusDetail::kFast));
      co_return co_await verify_status(StatusDetail::kPrecise);
    }
    case 5:
    case 6: co_return co_await snapshot();
    case 7: co_return co_await compact();
    default: co_return Result<void>{};
  }
}

Runner::VoidTask Runner::change_slots() {
  auto changed = co_await slots_.change(backend_->node().driver(),
                                        registry_.find("qcow2")->amend_options, random_);
  setup_.secret = slots_.sure();
  if (!changed) co_return std::unexpected(in_context(std::move(changed).error(), "slots"));
  co_return Result<void>{};
}

Runner::VoidTask Runner::vm_state() {
  auto* store = backend_->node().driver().vm_state_store();
  if (store == nullptr) co_return Result<void>{};
  std::vector<uint8_t> got(vm_state_.size(), 0xa5);
  PLATTER_CO_TRY(co_await store->read_vm_state(0, io::BufferList(got.data(), got.size())));
  if (got != vm_state_) co_return fail(EIO, "the state of the machine is not what was written");
  if (vm_state_.empty()) vm_state_.assign(512 * random_.between(1, 600), 0);
  const uint64_t from = random_.below(vm_state_.size() / 512) * 512;
  const std::span<uint8_t> part = std::span(vm_state_).subspan(from);
  workload::fill_pattern(part, random_.next(), from);
  if (from != 0 && got.empty()) {  // what lies before was never written, or by somebody else
    PLATTER_CO_TRY(co_await store->write_vm_state(0, io::BufferList(vm_state_.data(), from)));
  }
  auto written = co_await store->write_vm_state(from, io::BufferList(part));
  if (!written) co_return std::unexpected(in_context(std::move(written).error(), "vm state"));
  co_return Result<void>{};
}

Runner::VoidTask Runner::compact() {
  auto* compactable = backend_->node().driver().compactable();
  if (compactable == nullptr) co_return Result<void>{};
  auto compacted = co_await compactable->compact({}, [](uint64_t, uint64_t) {});
  if (!compacted) co_return std::unexpected(in_context(std::move(compacted).error(), "compact"));
  if (compacted->bytes_after > compacted->bytes_before)
    co_return fail(EIO, "compacting has made the file larger");
  co_return co_await verify_all();
}

Runner::VoidTask Runner::bitmaps() {
  PLATTER_CO_TRY(co_await bitmaps_.change(bitmap_store(), random_));
  // Asking for the bits has them read into memory: not always.
  if (random_.one_in(3)) co_return co_await bitmaps_.compare(bitmap_store(), true);
  co_return Result<void>{};
}

Runner::VoidTask Runner::snapshot() {
  auto* store = backend_->node().driver().snapshot_store();
  if (store == nullptr || setup_.has_data_file()) co_return Result<void>{};
  if (kept_.size() == kMaxKept || (!kept_.empty() && random_.one_in(2))) {
    PLATTER_CO_TRY(co_await apply_or_delete(*store));
  } else {
    const bool with_state = random_.one_in(2);
    auto taken = co_await store->create_snapshot(
        {.id = {}, .name = "kept", .vm_state_size = with_state ? vm_state_.size() : 0});
    // Streams that share a cluster, and snapshots of them, soon are too many for four bits.
    const bool too_narrow = setup_.refcount_bits <= 4;
    if (!taken && too_narrow && taken.error().code() == EINVAL) co_return Result<void>{};
    if (!taken) co_return std::unexpected(in_context(std::move(taken).error(), "snapshot"));
    kept_.push_back({store->snapshots().back().id, expected_, vm_state_});
    if (with_state && !vm_state_.empty()) std::ranges::fill(vm_state_, 0);
  }
  if (store->snapshots().size() != kept_.size()) {
    co_return fail(EIO, fmt::format("there are {} snapshots, should be {}",
                                    store->snapshots().size(), kept_.size()));
  }
  co_return co_await verify_all();
}

Runner::VoidTask Runner::apply_or_delete(block::SnapshotStore& store) {
  const size_t index = random_.below(kept_.size());
  if (random_.one_in(2)) {
    auto deleted = co_await store.delete_snapshot(kept_[index].id);
    if (!deleted) co_return std::unexpected(in_context(std::move(deleted).error(), "delete"));
    kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(index));
    co_return Result<void>{};
  }
  if (setup_.bitmaps && !bitmap_store().bitmaps().empty()) co_return Result<void>{};  // refused
  auto applied = co_await store.apply_snapshot(kept_[index].id);
  const bool too_narrow = setup_.refcount_bits <= 2;  // the table is used once more
  if (!applied && too_narrow && applied.error().code() == EINVAL) co_return Result<void>{};
  if (!applied) co_return std::unexpected(in_context(std::move(applied).error(), "apply"));
  expected_ = kept_[index].content;
  vm_state_ = kept_[index].vm_state;
  bitmaps_.resized(expected_.size());
  if (backend_->size() != expected_.size()) {
    co_return fail(EIO, fmt::format("a snapshot has {} bytes, should have {}", backend_->size(),
                                    expected_.size()));
  }
  co_return Result<void>{};
}

Runner::VoidTask Runner::resize() {
  uint64_t unit = setup_.is_qcow2() ? 512 : 4096;
  uint64_t size = std::max<uint64_t>(random_.between(1, plan_.max_size / unit) * unit, unit);
  if (random_.one_in(2)) {
    uint64_t change = random_.log_uniform(expected_.size()) / unit * unit;
    bool grow = random_.one_in(2) && expected_.size() + change <= 2 * plan_.max_size;
    size = grow ? expected_.size() + change : std::max(expected_.size() - change, unit);
  }
  if (setup_.is_qcow2()) {
    size = std::clamp<uint64_t>(size, unit, std::max<uint64_t>(setup_.size * 2, unit));
  }
  if (setup_.compat == "0.10" && !kept_.empty()) co_return Result<void>{};  // the format forbids it
  auto resized = co_await backend_->resize(size, block::Preallocation::kOff, true);
  if (!resized) {
    co_return std::unexpected(in_context(std::move(resized).error(),
                                         fmt::format("resize {} to {}", expected_.size(), size)));
  }
  if (backend_->size() != size) {
    co_return fail(EIO, fmt::format("resized to {}, size says {}", size, backend_->size()));
  }
  expected_.resize(size, 0);
  vm_state_.clear();  // its place has moved
  bitmaps_.resized(size);
  co_return Result<void>{};
}

Runner::Range Runner::draw_range(Random& random) const {
  uint64_t size = expected_.size();
  uint64_t unit = random.pick<uint64_t>({1, 512, 4096, setup_.cluster_size});
  uint64_t offset = random.below(size);
  uint64_t length = 1 + random.log_uniform(std::min<uint64_t>(size, uint64_t{4} << 20));
  if (!random.one_in(4)) length = std::min<uint64_t>(length, 4 * uint64_t{setup_.cluster_size});
  if (!random.one_in(4)) {
    offset -= offset % unit;
    length = (length + unit - 1) / unit * unit;
  }
  return {offset, std::min(length, size - offset)};
}

Runner::VoidTask Runner::one_operation(Random& random) {
  uint64_t choice = random.below(100);
  if (choice < 4) co_return co_await backend_->flush();
  bool shared = choice < 35;
  Kind kind = shared ? Kind::kShared : Kind::kExclusive;
  Range range = draw_range(random);
  while (!claims_.try_claim(range.offset, range.length, kind)) {
    co_await io::Reactor::current()->yield();
    range = draw_range(random);
  }
  Result<void> result;
  if (choice < 30) {
    result = co_await read_and_compare(random, range);
  } else if (choice < 35) {
    result = co_await status(random, range);
  } else if (choice < 75) {
    result = co_await write(random, range);
  } else if (choice < 88) {
    result = co_await zero(random, range);
  } else {
    result = co_await discard(range);
  }
  claims_.release(range.offset, range.length, kind);
  co_return result;
}

Runner::VoidTask Runner::read_and_compare(Random& random, Range range) {
  std::vector<uint8_t> got(range.length, 0xa5);
  size_t cut = random.below(range.length + 1);
  iovec pieces[2] = {{got.data(), cut}, {got.data() + cut, range.length - cut}};
  io::BufferList list = random.one_in(2) ? io::BufferList(std::span<const iovec>(pieces))
                                         : io::BufferList(got.data(), got.size());
  PLATTER_CO_TRY(co_await backend_->read(range.offset, list));
  co_return compare("read", range.offset, std::move(got));
}

Result<void> Runner::compare(const char* what, uint64_t offset, std::vector<uint8_t> got) const {
  const uint8_t* want = expected_.data() + offset;
  if (std::memcmp(got.data(), want, got.size()) == 0) return {};
  auto [bad, good] = std::mismatch(got.begin(), got.end(), want);
  uint64_t at = static_cast<uint64_t>(bad - got.begin());
  size_t wrong = 0;
  for (size_t i = 0; i < got.size(); ++i) wrong += got[i] != want[i];
  return fail(EIO, fmt::format("{} [{}, +{}): {} bytes differ, the first at {}: {:#04x} instead of "
                               "{:#04x}",
                               what, offset, got.size(), wrong, offset + at, *bad, *good));
}

Runner::VoidTask Runner::write(Random& random, Range range) {
  std::vector<uint8_t> bytes(range.length);
  if (!random.one_in(8)) workload::fill_pattern(bytes, random.next(), range.offset);
  if (random.one_in(4)) {  // a run of zeroes somewhere inside
    size_t from = random.below(bytes.size());
    std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(from), random.below(bytes.size() - from + 1),
                0);
  }
  const uint64_t cluster = setup_.takes_compressed() ? setup_.cluster_size : 0;
  const bool compressed =
      cluster != 0 && range.offset % cluster == 0 &&
      (range.length % cluster == 0 || range.offset + range.length == backend_->size()) &&
      random.one_in(2);
  if (compressed && random.one_in(2)) {
    for (size_t i = kPeriod; i < bytes.size(); ++i) bytes[i] = bytes[i - kPeriod];
  }
  size_t first = random.below(bytes.size() + 1);
  size_t second = random.between(first, bytes.size());
  iovec pieces[3] = {{bytes.data(), first},
                     {bytes.data() + first, second - first},
                     {bytes.data() + second, bytes.size() - second}};
  io::BufferList list = random.one_in(2) ? io::BufferList(std::span<const iovec>(pieces))
                                         : io::BufferList(bytes.data(), bytes.size());
  block::WriteFlags flags;
  if (random.one_in(10)) flags |= block::WriteFlag::kFua;
  if (compressed) flags |= block::WriteFlag::kCompressed;
  auto written = co_await backend_->write(range.offset, list, flags);
  bitmaps_.written(range.offset, range.length);
  // Refused, as a whole, where something is allocated.
  if (!written && compressed && written.error().code() == EIO) co_return Result<void>{};
  if (!written) {
    co_return std::unexpected(in_context(
        std::move(written).error(), fmt::format("write [{}, +{})", range.offset, range.length)));
  }
  std::memcpy(expected_.data() + range.offset, bytes.data(), bytes.size());
  co_return Result<void>{};
}

Runner::VoidTask Runner::zero(Random& random, Range range) {
  block::WriteFlags flags;
  if (random.one_in(2)) flags |= block::WriteFlag::kMayUnmap;
  if (random.one_in(8)) flags |= block::WriteFlag::kFua;
  bool no_fallback = random.one_in(6);
  if (no_fallback) flags |= block::WriteFlag::kNoFallback;
  auto zeroed = co_await backend_->zero(range.offset, range.length, flags);
  bitmaps_.written(range.offset, range.length);
  if (!zeroed) {
    if (no_fallback && zeroed.error().code() == ENOTSUP) {
      co_return co_await adopt(range, "refused zero", false);
    }
    co_return std::unexpected(in_context(
        std::move(zeroed).error(), fmt::format("zero [{}, +{})", range.offset, range.length)));
  }
  std::memset(expected_.data() + range.offset, 0, range.length);
  co_return Result<void>{};
}

Runner::VoidTask Runner::discard(Range range) {
  auto discarded = co_await backend_->discard(range.offset, range.length);
  // What is not passed on, or is less than a block, changes nothing.
  bitmaps_.written(range.offset, range.length, setup_.unmap && !setup_.direct);
  if (!discarded) {
    co_return std::unexpected(
        in_context(std::move(discarded).error(),
                   fmt::format("discard [{}, +{})", range.offset, range.length)));
  }
  co_return co_await adopt(range, "discard", true);
}

uint8_t Runner::backing_byte(uint64_t offset) const {
  return offset < backing_.size() ? backing_[offset] : 0;
}

Runner::VoidTask Runner::adopt(Range range, const char* after, bool or_backing) {
  std::vector<uint8_t> got(range.length, 0xa5);
  PLATTER_CO_TRY(co_await backend_->read(range.offset, io::BufferList(got.data(), got.size())));
  for (uint64_t i = 0; i < range.length; ++i) {
    uint8_t& want = expected_[range.offset + i];
    bool allowed =
        got[i] == want || got[i] == 0 || (or_backing && got[i] == backing_byte(range.offset + i));
    if (!allowed) {
      co_return fail(EIO, fmt::format("{} [{}, +{}): byte {} became {:#04x}, was {:#04x}", after,
                                      range.offset, range.length, range.offset + i, got[i], want));
    }
    want = got[i];
  }
  co_return Result<void>{};
}

Runner::VoidTask Runner::status(Random& random, Range range) {
  auto detail = random.one_in(2) ? StatusDetail::kFast : StatusDetail::kPrecise;
  uint64_t end = range.offset + range.length;
  for (uint64_t at = range.offset; at < end;) {
    unsigned depth = 0;
    PLATTER_CO_ASSIGN(block::BlockStatus run,
                      co_await backend_->status_above(nullptr, at, end - at, detail, &depth));
    if (run.length == 0 || run.length > end - at) {
      co_return fail(EIO, fmt::format("status of [{}, +{}): length {}", at, end - at, run.length));
    }
    auto first = expected_.begin() + static_cast<ptrdiff_t>(at);
    if (run.zero && std::any_of(first, first + static_cast<ptrdiff_t>(run.length),
                                [](uint8_t byte) { return byte != 0; })) {
      co_return fail(EIO, fmt::format("status says that [{}, +{}) is zero", at, run.length));
    }
    at += run.length;
  }
  co_return Result<void>{};
}

Runner::VoidTask Runner::verify_all() {
  for (uint64_t at = 0; at < expected_.size();) {
    uint64_t length =
        std::min<uint64_t>(1 + random_.below(uint64_t{3} << 20), expected_.size() - at);
    std::vector<uint8_t> got(length, 0xa5);
    PLATTER_CO_TRY(co_await backend_->read(at, io::BufferList(got.data(), got.size())));
    PLATTER_CO_TRY(compare("full read", at, std::move(got)));
    at += length;
  }
  co_return Result<void>{};
}

// No request is in flight: what the status says of the file beneath must hold to the byte.
Runner::VoidTask Runner::verify_status(StatusDetail detail) {
  uint64_t size = expected_.size();
  for (uint64_t at = 0; at < size;) {
    unsigned depth = 0;
    PLATTER_CO_ASSIGN(block::BlockStatus run,
                      co_await backend_->status_above(nullptr, at, size - at, detail, &depth));
    if (run.length == 0 || run.length > size - at) {
      co_return fail(EIO, fmt::format("status at {}: length {} of {}", at, run.length, size - at));
    }
    if (run.eof && at + run.length != size) {
      co_return fail(EIO, fmt::format("status says that {} is the end", at + run.length));
    }
    bool all_zero = std::all_of(expected_.begin() + static_cast<ptrdiff_t>(at),
                                expected_.begin() + static_cast<ptrdiff_t>(at + run.length),
                                [](uint8_t byte) { return byte == 0; });
    if (!all_zero && (run.zero || !run.data)) {
      co_return fail(EIO, fmt::format("status says that [{}, +{}) holds no data", at, run.length));
    }
    if (run.data && !run.zero && run.has_host_offset && !run.compressed && run.host != nullptr) {
      PLATTER_CO_TRY(co_await verify_host_bytes(run, at));
    }
    at += run.length;
  }
  co_return Result<void>{};
}

Runner::VoidTask Runner::verify_host_bytes(block::BlockStatus status, uint64_t offset) {
  uint64_t length = std::min<uint64_t>(status.length, uint64_t{1} << 20);
  if (status.host_offset >= status.host->size()) co_return Result<void>{};
  length = std::min(length, status.host->size() - status.host_offset);
  std::vector<uint8_t> got(length, 0xa5);
  PLATTER_CO_TRY(
      co_await status.host->read(status.host_offset, io::BufferList(got.data(), got.size())));
  co_return compare("bytes at the host offset of", offset, std::move(got));
}

}  // namespace platter::property
