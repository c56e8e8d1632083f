#include "export/nbd/transmission.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "io/when_all.h"

namespace platter::nbd {
namespace {

// Buffers have whole pages.
constexpr uint64_t kPage = 4096;
// Replies that go out in one message, at most.
constexpr size_t kMaxBatch = 64;
// What a block status request may have behind it: an effect length, and ids.
constexpr uint64_t kMaxStatusPayload = 8 + 4 * 1024;
// Longer than any client means: it is not even skipped.
constexpr uint64_t kMaxSkipped = uint64_t{1} << 32;

struct Allowed {
  uint16_t flags;  // beside FUA, which means nothing where nothing is written
  bool writes;
  bool ranged;
};

std::optional<Allowed> allowed_of(Command command, Framing framing) {
  const bool structured = framing != Framing::kSimple;
  const uint16_t payload = framing == Framing::kExtended ? kPayloadLength : 0;
  switch (command) {
    case Command::kRead: return Allowed{structured ? kDontFragment : uint16_t{0}, false, true};
    case Command::kWrite: return Allowed{payload, true, true};
    case Command::kDisconnect: break;
    case Command::kFlush: return Allowed{0, false, false};
    case Command::kTrim: return Allowed{0, true, true};
    case Command::kCache: return Allowed{0, false, true};
    case Command::kWriteZeroes: return Allowed{kNoHole | kFastZero, true, true};
    case Command::kBlockStatus:
      return Allowed{static_cast<uint16_t>(kRequestOne | payload), false, true};
  }
  return std::nullopt;
}

}  // namespace

Transmission::Transmission(io::Stream& stream, Agreement agreement)
    : stream_(stream),
      agreement_(std::move(agreement)),
      backend_(agreement_.served->backend()),
      intake_(stream) {
  slots_.reserve(kMaxRequests);
  free_.reserve(kMaxRequests);
}

Transmission::~Transmission() { PLATTER_ASSERT(under_way_ == 0); }

io::Task<Result<void>> Transmission::run() {
  auto [read, written] = co_await io::when_all(read_requests(), write_replies());
  // One that cannot write has the other one cancelled.
  const bool caused = !written && (read || read.error().code() == ECANCELED);
  co_return caused ? std::move(written) : std::move(read);
}

// ---- Requests

io::Task<Result<void>> Transmission::read_requests() {
  Result<bool> more = true;
  while (more && *more) more = co_await read_request();
  ended_ = true;
  reply_made_.raise();
  if (!more) co_return std::unexpected(std::move(more).error());
  co_return Result<void>();
}

// False: it was the last one.
io::Task<Result<bool>> Transmission::read_request() {
  const size_t header = request_bytes(agreement_.framing);
  if (!intake_.has(header)) {
    PLATTER_CO_ASSIGN(const bool there, co_await intake_.wait_for(header));
    if (!there) co_return false;
  }
  PLATTER_CO_ASSIGN(const Request request, parse_request(agreement_.framing, intake_.take(header)));
  if (request.command == Command::kDisconnect) co_return false;
  const uint64_t payload = request.payload_bytes(agreement_.framing);
  if (payload > kMaxSkipped)
    co_return fail(EPROTO, fmt::format("a request with {} bytes behind it", payload));
  Result<void> good = check(request, payload);
  const uint64_t bytes = good ? buffer_bytes(request) : 0;
  while (!may_take(bytes)) co_await slot_freed_;
  Slot* slot = take_slot(bytes);
  slot->request = request;
  slot->reply.begin(agreement_.framing, slot->request);
  if (payload != 0) {
    const Result<void> received = good ? co_await intake_.fill(slot->buffer.span().first(payload))
                                       : co_await intake_.skip(payload);
    if (!received) {
      release(slot);
      co_return std::unexpected(received.error());
    }
  }
  if (good) {
    serve(slot).start_here();
  } else {
    finish(slot, std::move(good));
  }
  co_return true;
}

Result<void> Transmission::check(const Request& request, uint64_t payload) const {
  const auto allowed = allowed_of(request.command, agreement_.framing);
  if (!allowed) {
    return fail(EINVAL, fmt::format("unknown command {}", static_cast<unsigned>(request.command)));
  }
  if ((request.flags & ~(allowed->flags | kFua)) != 0)
    return fail(EINVAL, fmt::format("unsupported flags {:#x} of a command", request.flags));
  if (allowed->writes && !agreement_.served->writable())
    return fail(EPERM, "the export is read-only");
  if (request.command == Command::kWrite && agreement_.framing == Framing::kExtended &&
      !request.has(kPayloadLength))
    return fail(EINVAL, "a write that does not say how much follows it");
  if (request.command == Command::kBlockStatus) {
    if (agreement_.contexts.empty()) return fail(EINVAL, "no metadata context was agreed on");
    if (payload > kMaxStatusPayload) return fail(EINVAL, "too many metadata contexts");
    if (payload != 0) return {};  // has the range
  }
  const bool moves = request.command == Command::kRead || request.command == Command::kWrite;
  if (moves && request.length > kMaxPayload) {
    return fail(EINVAL,
                fmt::format("{} bytes at once; {} are the most", request.length, kMaxPayload));
  }
  if (allowed->ranged &&
      !base::range_within(request.offset, request.length, agreement_.served->size())) {
    const bool fills =
        request.command == Command::kWrite || request.command == Command::kWriteZeroes;
    return fail(fills ? ENOSPC : EINVAL, "the request reaches past the end of the export");
  }
  return {};
}

uint64_t Transmission::buffer_bytes(const Request& request) const {
  if (request.command == Command::kRead) return request.length;
  if (request.command == Command::kCache) return std::min(request.length, kCacheBytes);
  return request.payload_bytes(agreement_.framing);
}

// ---- Slots

bool Transmission::may_take(uint64_t bytes) const {
  return under_way_ < kMaxRequests && (bytes_ == 0 || bytes_ + bytes <= kMaxBytes);
}

Transmission::Slot* Transmission::take_slot(uint64_t bytes) {
  if (free_.empty()) {
    slots_.push_back(std::make_unique<Slot>());
    free_.push_back(slots_.back().get());
  }
  Slot* slot = free_.back();
  free_.pop_back();
  kept_bytes_ -= slot->buffer.size();
  if (slot->buffer.size() < bytes) slot->buffer = io::AlignedBuffer(base::align_up(bytes, kPage));
  slot->bytes = bytes;
  bytes_ += bytes;
  ++under_way_;
  return slot;
}

void Transmission::release(Slot* slot) {
  if (kept_bytes_ + slot->buffer.size() > kMaxKeptBytes) slot->buffer = {};
  kept_bytes_ += slot->buffer.size();
  bytes_ -= slot->bytes;
  free_.push_back(slot);
  --under_way_;
  slot_freed_.raise();
}

// ---- What requests ask for

io::SelfOwned Transmission::serve(Slot* slot) {
  Result<void> result = co_await carry_out(*slot);
  finish(slot, std::move(result));
}

io::Task<Result<void>> Transmission::carry_out(Slot& slot) {
  const Request& request = slot.request;
  if (request.command == Command::kFlush) return backend_.flush();
  if (request.command == Command::kBlockStatus) return tell_status(slot);
  if (request.length == 0) return io::Task<Result<void>>::ready();
  const io::BufferList data(slot.buffer.data(), slot.bytes);
  switch (request.command) {
    case Command::kRead:
      if (agreement_.framing != Framing::kSimple && request.length >= kSparseBytes &&
          !request.has(kDontFragment))
        return read_sparse(slot);
      return backend_.read(request.offset, data);
    case Command::kWrite: {
      const block::WriteFlags flags =
          request.has(kFua) ? block::WriteFlags(block::WriteFlag::kFua) : block::WriteFlags();
      return backend_.write(request.offset, data, flags);
    }
    case Command::kTrim: return trim(request);
    case Command::kWriteZeroes: return zero(request);
    default: break;
  }
  PLATTER_ASSERT(request.command == Command::kCache);
  return cache(slot);
}

// What is known to read as zeroes and what is not, in turn; nothing short is told apart.
io::Task<Result<std::vector<Extent>>> Transmission::find_runs(const Request& request) {
  std::vector<Extent> runs;
  uint64_t done = 0;
  while (done < request.length) {
    PLATTER_CO_ASSIGN(
        const block::BlockStatus status,
        co_await backend_.status_above(nullptr, request.offset + done, request.length - done,
                                       block::StatusDetail::kFast));
    const uint64_t length = std::min(status.length, request.length - done);
    const uint32_t flags = status.zero && length >= kMinHole ? kStatusZero : 0;
    if (!runs.empty() && runs.back().flags == flags) {
      runs.back().length += length;
    } else {
      runs.push_back({length, flags});
    }
    done += length;
  }
  co_return runs;
}

io::Task<Result<void>> Transmission::read_sparse(Slot& slot) {
  const Request& request = slot.request;
  PLATTER_CO_ASSIGN(const std::vector<Extent> runs, co_await find_runs(request));
  uint64_t done = 0;
  for (const Extent& run : runs) {
    const uint64_t offset = request.offset + done;
    const bool last = done + run.length == request.length;
    if (run.flags == 0) {
      PLATTER_CO_TRY(co_await backend_.read(offset, slot.buffer.view(done, run.length)));
      base::store_big(slot.reply.chunk(Chunk::kOffsetData, last, 8, run.length), 0, offset);
      slot.reply.attach(slot.buffer.span().subspan(done, run.length));
    } else {
      const std::span<uint8_t> hole = slot.reply.chunk(Chunk::kOffsetHole, last, 12);
      base::store_big(hole, 0, offset);
      base::store_big(hole, 8, static_cast<uint32_t>(run.length));
    }
    done += run.length;
  }
  co_return Result<void>();
}

io::Task<Result<void>> Transmission::zero(const Request& request) {
  block::WriteFlags flags;
  if (request.has(kFua)) flags |= block::WriteFlag::kFua;
  if (!request.has(kNoHole)) flags |= block::WriteFlag::kMayUnmap;
  if (request.has(kFastZero)) flags |= block::WriteFlag::kNoFallback;
  return backend_.zero(request.offset, request.length, flags);
}

io::Task<Result<void>> Transmission::trim(const Request& request) {
  PLATTER_CO_TRY(co_await backend_.discard(request.offset, request.length));
  if (request.has(kFua)) PLATTER_CO_TRY(co_await backend_.flush());
  co_return Result<void>();
}

// Whatever caches there are beneath have it once it has been read.
io::Task<Result<void>> Transmission::cache(Slot& slot) {
  for (uint64_t done = 0; done < slot.request.length;) {
    const uint64_t length = std::min(slot.bytes, slot.request.length - done);
    PLATTER_CO_TRY(co_await backend_.read(slot.request.offset + done, slot.buffer.view(0, length)));
    done += length;
  }
  co_return Result<void>();
}

Result<Transmission::StatusQuestion> Transmission::read_question(const Slot& slot) const {
  StatusQuestion question{slot.request.length, agreement_.contexts};
  if (slot.bytes != 0) {
    const auto payload = slot.buffer.span().first(slot.bytes);
    if (payload.size() < 12 || payload.size() % 4 != 0)
      return fail(EINVAL, "a choice of metadata contexts that makes no sense");
    question = {base::load_big<uint64_t>(payload), {}};
    for (size_t at = 8; at < payload.size(); at += 4) {
      const auto id = base::load_big<uint32_t>(payload, at);
      const auto is_here = [id](const std::vector<uint32_t>& ids) {
        return std::ranges::find(ids, id) != ids.end();
      };
      if (!is_here(agreement_.contexts) || is_here(question.contexts))
        return fail(EINVAL, "a metadata context that was not agreed on");
      question.contexts.push_back(id);
    }
  }
  if (question.length == 0 ||
      !base::range_within(slot.request.offset, question.length, agreement_.served->size()))
    return fail(EINVAL, "the request is empty, or reaches past the end of the export");
  return question;
}

io::Task<Result<void>> Transmission::tell_status(Slot& slot) {
  PLATTER_CO_ASSIGN(const StatusQuestion question, read_question(slot));
  const size_t most = slot.request.has(kRequestOne) ? 1 : kMaxExtents / question.contexts.size();
  for (const uint32_t id : question.contexts) {
    PLATTER_CO_TRY(co_await find_extents(*agreement_.served, agreement_.served->contexts()[id],
                                         slot.request.offset, question.length, most, slot.extents));
    append_extents(slot, id, id == question.contexts.back());
  }
  co_return Result<void>();
}

void Transmission::append_extents(Slot& slot, uint32_t context, bool last) {
  const bool extended = agreement_.framing == Framing::kExtended;
  size_t at = extended ? 8 : 4;
  const std::span<uint8_t> body =
      slot.reply.chunk(extended ? Chunk::kBlockStatusExtended : Chunk::kBlockStatus, last,
                       at + slot.extents.size() * (extended ? 16 : 8));
  base::store_big(body, 0, context);
  if (extended) base::store_big(body, 4, static_cast<uint32_t>(slot.extents.size()));
  for (const Extent& one : slot.extents) {
    if (extended) {
      base::store_big(body, at, one.length);
      base::store_big(body, at + 8, uint64_t{one.flags});
      at += 16;
    } else {
      base::store_big(body, at, static_cast<uint32_t>(one.length));
      base::store_big(body, at + 4, one.flags);
      at += 8;
    }
  }
}

// ---- Replies

void Transmission::answer_read(Slot& slot) {
  if (agreement_.framing == Framing::kSimple) {
    slot.reply.simple(0);
  } else if (slot.bytes == 0) {
    return slot.reply.done();
  } else {
    base::store_big(slot.reply.chunk(Chunk::kOffsetData, true, 8, slot.bytes), 0,
                    slot.request.offset);
  }
  slot.reply.attach(slot.buffer.span().first(slot.bytes));
}

void Transmission::finish(Slot* slot, Result<void> result) {
  if (!result) {
    slot->reply.begin(agreement_.framing, slot->request);
    slot->reply.error(error_number(result.error().code()), result.error().message());
  } else if (slot->reply.empty()) {
    slot->request.command == Command::kRead ? answer_read(*slot) : slot->reply.done();
  }
  slot->next = nullptr;
  *std::exchange(done_end_, &slot->next) = slot;
  reply_made_.raise();
}

io::Task<Result<void>> Transmission::write_replies() {
  Result<void> result;
  std::array<Slot*, kMaxBatch> batch;
  for (;;) {
    while (done_ == nullptr) {
      if (ended_ && under_way_ == 0) co_return std::move(result);
      co_await reply_made_;
    }
    size_t count = 0;
    pieces_.clear();
    while (done_ != nullptr && count < batch.size()) {
      Slot* slot = done_;
      done_ = slot->next;
      slot->reply.append_to(pieces_);
      batch[count++] = slot;
    }
    if (done_ == nullptr) done_end_ = &done_;
    if (result) {
      result = co_await stream_.send(pieces_);
      // Nobody takes replies any more: there is no use in reading on.
      if (!result) stream_.cancel();
    }
    for (Slot* slot : std::span(batch).first(count)) release(slot);
  }
}

}  // namespace platter::nbd
