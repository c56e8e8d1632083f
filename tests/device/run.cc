#include "device/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/try.h"
#include "virtio/blk/config.h"
#include "virtio/features.h"

namespace platter::device_test {
namespace {

using virtio::test::Buffer;
using virtio::test::Guest;
namespace blk = virtio::blk;

constexpr uint64_t kDiskBytes = 256 << 10;
constexpr uint64_t kDiskSectors = kDiskBytes / blk::kSectorBytes;
constexpr size_t kHeaderBytes = 16;
constexpr uint8_t kUntouched = 0xee;
constexpr size_t kMostPieces = 4;  // of each side of a request
constexpr uint64_t kRegionEnd[] = {Guest::kMiddle, Guest::kEnd};
constexpr uint64_t kRegionBegin[] = {Guest::kData, Guest::kMiddle};
constexpr unsigned kMostFaults = 24;
constexpr uint64_t kNowhere = Guest::kEnd + 0x1000;

std::unexpected<Error> differs(std::string what) { return fail(EIO, std::move(what)); }

}  // namespace

Run::Run(uint64_t seed) : random_(seed), reactors_(*io::ReactorGroup::start({})) {
  block::OpenRequest request;
  on_error_ = random_.pick({blk::OnError::kReport, blk::OnError::kIgnore, blk::OnError::kStop});
  request.options = *base::Options::from_key_values(
      "driver=blkdebug,image.driver=memory,image.size=256k,image.discard=unmap" + draw_faults());
  request.flags.read_only = false;
  request.discard_unmap = true;
  request.policy = OpenPolicy::anything();
  backend_ = *await(graph_.open(std::move(request),
                                block::Permission::kConsistentRead | block::Permission::kWrite,
                                block::kAllPermissions));
  properties_ = draw_properties();
  device_ = *blk::Device::make(*backend_, properties_);
  model_ = std::make_unique<Model>(properties_, kDiskBytes, faults_, on_error_);
}

Run::~Run() {
  if (server_) await(stop(blk::QueueServer::Kept::kLeave));
  PLATTER_ASSERT(await(backend_->close()).has_value());
}

std::string Run::draw_faults() {
  constexpr std::pair<uint32_t, std::string_view> kTypes[] = {
      {kRead, "read"}, {kWrite, "write"}, {kWriteZeroes, "write-zeroes"}, {kDiscard, "discard"}};
  std::string rules;
  const uint64_t count = random_.below(kMostFaults);
  const char* code = random_.pick({"5", "28"});
  for (uint64_t i = 0; i < count; ++i) {
    const auto& [type, name] = kTypes[random_.below(std::size(kTypes))];
    const uint64_t sector = random_.below(kDiskSectors);
    faults_.push_back({type, sector});
    rules += fmt::format(
        ",inject-error.{0}.event=none,inject-error.{0}.once=on,inject-error.{0}.iotype={1},"
        "inject-error.{0}.sector={2},inject-error.{0}.errno={3}",
        i, name, sector, code);
  }
  return rules;
}

blk::Properties Run::draw_properties() {
  blk::Properties drawn;
  drawn.read_error = on_error_;
  drawn.write_error = on_error_;
  drawn.logical_block_bytes = random_.pick({512U, 512U, 1024U, 4096U});
  drawn.physical_block_bytes = drawn.logical_block_bytes;
  drawn.serial = std::string(random_.below(blk::kMaxSerialBytes + 1), 's');
  drawn.write_cache = random_.one_in(3) ? blk::OnOffAuto::kOff : blk::OnOffAuto::kAuto;
  drawn.max_discard_sectors = random_.pick({64U, 256U, 32768U});
  drawn.max_write_zeroes_sectors = random_.pick({64U, 256U, 32768U});
  drawn.read_only = random_.one_in(8);
  drawn.config_wce = !random_.one_in(4);
  // Of requests that are merged one may fail for another: where that is seen, none are.
  const bool shows_errors = on_error_ != blk::OnError::kStop && !faults_.empty();
  drawn.request_merging = !shows_errors && !random_.one_in(3);
  drawn.discard = !random_.one_in(4);
  drawn.write_zeroes = !random_.one_in(4);
  return drawn;
}

uint64_t Run::draw_features() {
  uint64_t features = virtio::kVersion1;
  for (const uint64_t each :
       {virtio::kPackedRing, virtio::kEventIndex, virtio::kIndirectDescriptors, virtio::kInOrder,
        blk::kFlush, blk::kConfigWce, blk::kDiscard, blk::kWriteZeroes}) {
    if (random_.one_in(2)) features |= each;
  }
  return features & device_->offered_features();
}

// ---- The queue

io::Task<void> Run::start() {
  server_ = std::make_unique<blk::QueueServer>(
      reactors_->at(0), *device_, *virtio::Queue::make(options_, guest_.memory()), *this);
  server_->start();
  co_return;
}

io::Task<void> Run::stop(blk::QueueServer::Kept kept) {
  (void)co_await server_->stop(kept);
  server_.reset();
}

io::Task<void> Run::go_on() {
  device_->errors().go_on();
  server_->go_on();
  co_return;
}

io::Task<void> Run::kick() {
  server_->kick();
  co_return;
}

io::Task<Result<void>> Run::set_memory(bool whole) {
  if (whole) co_return server_->set_memory(guest_.memory());
  auto half = virtio::GuestMemory::make(
      {{Guest::kBase, Guest::kRegionBytes, guest_.at(Guest::kBase), nullptr}});
  co_return server_->set_memory(*half);
}

// As a driver does it after a reset, with steps that a device refuses among them.
Result<void> Run::set_up() {
  const uint64_t features = draw_features();
  PLATTER_TRY(device_->set_status(blk::kAcknowledge));
  PLATTER_TRY(device_->set_status(blk::kAcknowledge | blk::kDriver));
  if (device_->set_status(blk::kDriver)) return differs("a bit of the status could be taken back");
  if (device_->set_features(features | virtio::kAccessPlatform))
    return differs("a feature was taken that is not offered");
  PLATTER_TRY(device_->set_features(features));
  PLATTER_TRY(device_->set_status(blk::kAcknowledge | blk::kDriver | blk::kFeaturesOk));
  if ((features & blk::kConfigWce) == 0) write_cache_ = (features & blk::kFlush) != 0;
  constexpr uint8_t kAtWork = blk::kAcknowledge | blk::kDriver | blk::kFeaturesOk | blk::kDriverOk;
  PLATTER_TRY(device_->set_status(kAtWork));
  if (device_->status() != kAtWork) return differs("the status is not what was written");
  place_ring(features);
  whole_memory_ = true;
  await(start());
  return expect_broken(false);
}

void Run::place_ring(uint64_t features) {
  const bool packed = (features & virtio::kPackedRing) != 0;
  const uint32_t size =
      packed ? static_cast<uint32_t>(random_.between(12, 70)) : random_.pick({16U, 32U, 64U});
  options_ = virtio::test::options_of(size, features);
  options_.descriptor_area += random_.below(16) * 64;
  options_.driver_area += random_.below(16) * 64;
  options_.device_area += random_.below(16) * 64;
  std::fill_n(guest_.at(Guest::kBase), Guest::kRegionBytes, uint8_t{0});
  driver_ = virtio::test::make_driver(guest_, options_);
}

// The queue alone; the device keeps its features and its status.
Result<void> Run::reset_ring() {
  const uint8_t status = device_->status();
  await(stop(blk::QueueServer::Kept::kFail));
  place_ring(options_.features);
  whole_memory_ = true;
  await(start());
  if (device_->status() != status) return differs("a queue that is reset changes the status");
  return expect_broken(false);
}

Result<void> Run::reset() {
  await(stop(blk::QueueServer::Kept::kLeave));
  // What was not answered is not answered any more.
  while (const auto used = driver_->collect()) PLATTER_TRY(finish(*used));
  for (const auto& [id, sent] : sent_) model_->forget(sent.asked);
  sent_.clear();
  device_->reset();
  if (device_->errors().is_stopped()) return differs("an error stops the device after a reset");
  why_.clear();
  is_broken_ = false;
  write_cache_ = properties_.write_cache != blk::OnOffAuto::kOff;
  if (device_->status() != 0 || device_->features() != 0)
    return differs("the device is not as new after a reset");
  PLATTER_TRY(write_config());
  return set_up();
}

Result<void> Run::expect_broken(bool expected) {
  is_broken_ = expected;
  if (((device_->status() & blk::kNeedsReset) != 0) == expected) return {};
  return differs(expected ? "the device does not ask for a reset"
                          : fmt::format("the device asks for a reset: {}", why_));
}

Result<void> Run::write_config() {
  const auto value = static_cast<uint8_t>(random_.below(4));
  const uint64_t offset = random_.one_in(4) ? random_.below(64) : blk::kWceOffset;
  const bool may =
      properties_.config_wce && !properties_.read_only && offset == blk::kWceOffset && value <= 1;
  const uint8_t bytes[] = {value};
  if (device_->write_config(offset, bytes).has_value() != may)
    return differs(
        fmt::format("{} at {} of the configuration: may be written: {}", value, offset, !may));
  if (may) write_cache_ = value == 1;
  std::array<uint8_t, 1> found;
  device_->read_config(blk::kWceOffset, found);
  if (found[0] == (write_cache_ ? 1 : 0)) return {};
  return differs(fmt::format("the write cache's mode reads {}", found[0]));
}

// ---- Requests

void Run::put(uint64_t address, std::span<const uint8_t> bytes) {
  for (const uint8_t each : bytes) *guest_.at(address++) = each;
}

uint64_t Run::place(size_t bytes) {
  const bool second = whole_memory_ && random_.one_in(2);
  const uint64_t address = kRegionBegin[second] + next_byte_[second];
  PLATTER_ASSERT(address + bytes <= kRegionEnd[second]);
  next_byte_[second] += bytes + random_.below(9);
  return address;
}

std::vector<Buffer> Run::pieces(size_t bytes, bool writable) {
  std::vector<Buffer> cut;
  while (bytes != 0) {
    const bool last = cut.size() + 1 == kMostPieces || random_.one_in(2);
    const size_t piece = last ? bytes : random_.between(1, bytes);
    cut.push_back({place(piece), static_cast<uint32_t>(piece), writable});
    bytes -= piece;
  }
  return cut;
}

Asked Run::draw_request() {
  const uint64_t block = properties_.logical_block_bytes / blk::kSectorBytes;
  Asked asked = {.type = random_.pick({kRead, kRead, kRead, kWrite, kWrite, kWrite, kFlush, kGetId,
                                       kDiscard, kWriteZeroes, 2U, 10U, 12U, 99U}),
                 .sector = random_.below(kDiskSectors / block) * block,
                 .data = {}};
  // Neighbours may be carried out as one.
  if (random_.one_in(2)) asked.sector = neighbour_;
  if (random_.one_in(20)) asked.type |= UINT32_C(1) << 31;
  if (random_.one_in(12))
    asked.sector = random_.pick(
        {kDiskSectors, kDiskSectors - 1, UINT64_MAX, UINT64_MAX / 512, asked.sector + 1});
  size_t bytes = random_.between(0, 4) * block * blk::kSectorBytes;
  if (random_.one_in(12)) bytes += random_.between(1, 600);
  const uint32_t kind = asked.type & ~(UINT32_C(1) << 31);
  if (kind == kRead || random_.one_in(10)) asked.room = bytes;
  if (kind == kGetId) asked.room = random_.below(30);
  if (kind == kWrite || random_.one_in(10)) asked.data.resize(bytes);
  for (uint8_t& byte : asked.data) byte = static_cast<uint8_t>(random_.next());
  if ((kind == kDiscard || kind == kWriteZeroes)) {
    asked.data.assign(random_.one_in(20) ? 17 + random_.below(30) : 16, 0);
    base::store_little<uint64_t>(asked.data, 0, asked.sector);
    const uint64_t sectors =
        random_.one_in(8) ? random_.log_uniform(UINT32_MAX) : random_.between(0, 16) * block;
    base::store_little<uint32_t>(asked.data, 8, static_cast<uint32_t>(sectors));
    base::store_little<uint32_t>(asked.data, 12, random_.pick({0U, 0U, 0U, 1U, 2U, 0x80000000U}));
    asked.sector = random_.below(kDiskSectors);  // means nothing
  }
  return asked;
}

void Run::add(const std::vector<Buffer>& buffers) {
  const bool may = (options_.features & virtio::kIndirectDescriptors) != 0;
  last_id_ = driver_->add(buffers, may && random_.one_in(2));
}

bool Run::send(Asked asked) {
  const auto [first, count] = model_->touches(asked);
  for (const auto& [other, others] : touched_) {
    if (first < other + others && other < first + count) return false;
  }
  // Of its two sides, and the header.
  if (driver_->free() < 2 * kMostPieces + 1) return false;
  touched_.emplace_back(first, count);
  neighbour_ = first + count < kDiskSectors ? first + count : 0;
  std::vector<uint8_t> out(kHeaderBytes);
  base::store_little<uint32_t>(out, 0, asked.type);
  base::store_little<uint64_t>(out, 8, asked.sector);
  out.insert(out.end(), asked.data.begin(), asked.data.end());
  std::vector<Buffer> buffers = pieces(out.size(), false);
  size_t done = 0;
  for (const Buffer& each : buffers) {
    put(each.address, std::span(out).subspan(done, each.bytes));
    done += each.bytes;
  }
  Sent sent = {.asked = asked, .expected = model_->carry_out(asked), .room = {}};
  for (const Buffer& each : pieces(asked.room + 1, true)) {
    buffers.push_back(each);
    for (uint64_t i = 0; i < each.bytes; ++i) sent.room.push_back(each.address + i);
  }
  for (const uint64_t address : sent.room) *guest_.at(address) = kUntouched;
  add(buffers);
  sent_[last_id_] = std::move(sent);
  return true;
}

Result<void> Run::finish(const virtio::test::Used& used) {
  const auto found = sent_.find(used.id);
  if (found == sent_.end()) return differs(fmt::format("{} comes back, and is not out", used.id));
  const Sent sent = std::move(found->second);
  sent_.erase(found);
  const auto what = [&](std::string_view wrong) {
    return differs(fmt::format("request of type {:#x} at sector {}, {} bytes out, {} in: {}",
                               sent.asked.type, sent.asked.sector, sent.asked.data.size(),
                               sent.asked.room, wrong));
  };
  const Answer& answer = *sent.expected;
  const uint8_t status = *guest_.at(sent.room.back());
  if (status != answer.status) return what(fmt::format("status {}, not {}", status, answer.status));
  if (used.written != answer.data.size() + 1)
    return what(fmt::format("{} bytes are used, not {}", used.written, answer.data.size() + 1));
  for (size_t i = 0; i + 1 < sent.room.size(); ++i) {
    const auto expected = i < answer.data.size() ? answer.data[i] : kUntouched;
    if (expected && *guest_.at(sent.room[i]) != *expected)
      return what(
          fmt::format("byte {} is {:#x}, not {:#x}", i, *guest_.at(sent.room[i]), *expected));
  }
  return {};
}

// Requests that touch different sectors: in which order they are carried out does not matter.
Result<void> Run::batch() {
  touched_.clear();
  std::ranges::fill(next_byte_, 0);
  const bool paused = random_.one_in(10);
  if (paused) device_->errors().stop_by_user();
  for (uint64_t wanted = random_.between(1, 12); wanted > 0; --wanted) send(draw_request());
  if (sent_.empty()) {
    if (paused) await(go_on());
    return {};
  }
  if (driver_->must_notify()) await(kick());
  if (paused && await(collect())) return differs("a device that is stopped answers");
  while (!sent_.empty()) {
    PLATTER_ASSIGN(const bool seen, look());
    if (seen || !await(is_stopped())) continue;
    if (!paused && random_.one_in(6)) return reset();
    await(go_on());
  }
  return expect_broken(false);
}

// On the reactor's thread, between its turns. True: a request has come back.
Result<bool> Run::look() {
  if (const auto used = await(collect())) {
    PLATTER_TRY(finish(*used));
    return true;
  }
  if (await(was_told())) return differs(fmt::format("the device broke: {}", why_));
  return false;
}

// What is no request; nothing comes back any more.
Result<void> Run::break_it() {
  std::ranges::fill(next_byte_, 0);
  const uint64_t header = place(kHeaderBytes);
  const uint64_t status = place(1);
  const std::vector<uint8_t> zeroes(kHeaderBytes);
  put(header, zeroes);
  const Buffer good_header = {header, kHeaderBytes, false};
  const Buffer good_status = {status, 1, true};
  switch (random_.below(5)) {
    case 0: add({{header, kHeaderBytes - 1, false}, good_status}); break;
    case 1: add({good_header}); break;
    case 2: add({good_header, {kNowhere, 512, true}, good_status}); break;
    case 3: add({good_status, good_header}); break;
    default: {
      if (!properties_.discard || properties_.read_only) {
        add({good_status});
        break;
      }
      const uint8_t type[] = {kDiscard};
      put(header, type);
      add({good_header, {place(15), 15, false}, good_status});
    }
  }
  if (driver_->must_notify()) await(kick());
  while (!await(was_told())) {
  }
  PLATTER_TRY(expect_broken(true));
  if (await(collect())) return differs("a device that is broken answers");
  return reset();
}

Result<void> Run::change_memory() {
  whole_memory_ = !whole_memory_;
  return await(set_memory(whole_memory_));
}

Result<void> Run::run(unsigned steps) {
  write_cache_ = properties_.write_cache != blk::OnOffAuto::kOff;
  PLATTER_TRY(set_up());
  for (unsigned step = 0; step < steps; ++step) {
    switch (random_.below(20)) {
      case 0: PLATTER_TRY(break_it()); break;
      case 1: PLATTER_TRY(reset()); break;
      case 2: PLATTER_TRY(write_config()); break;
      case 3: PLATTER_TRY(change_memory()); break;
      case 4: PLATTER_TRY(reset_ring()); break;
      default: PLATTER_TRY(batch());
    }
  }
  return {};
}

}  // namespace platter::device_test
