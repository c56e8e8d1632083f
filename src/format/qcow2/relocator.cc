#include "format/qcow2/relocator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/encryption.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/stored_counts.h"
#include "io/when_all.h"

namespace platter::format::qcow2 {
namespace {

constexpr size_t kParallelRequests = 16;
constexpr uint64_t kMaxCopyBytes = uint64_t{1} << 20;
// References within such a window are written with one request. No sector lies in two of them.
constexpr uint64_t kNearBytes = uint64_t{64} << 10;

std::unexpected<Error> corrupt(std::string what) {
  return fail(EIO, fmt::format("qcow2: Image is corrupt: {}; a check tells more", what));
}

constexpr uint64_t kMaxTakenBytes = uint64_t{1} << 30;

}  // namespace

Relocator::Relocator(Image& image, Encryption* encryption)
    : image_(image), file_(*image.file), encryption_(encryption), geometry_(image.geometry) {}

io::Task<Result<void>> Relocator::load() {
  PLATTER_CO_TRY(co_await load_table());
  uint64_t blocks = table_.size();
  while (blocks != 0 && table_[blocks - 1] == 0) --blocks;
  const uint64_t clusters =
      std::max(geometry_.clusters_for(file_.size()), blocks << geometry_.refcount_block_bits());
  PLATTER_CO_ASSIGN(auto stored,
                    co_await read_stored_counts(file_, image_.header, table_, clusters, {}));
  if (!stored.unreadable.empty())
    co_return std::unexpected(std::move(stored.unreadable.front().error));
  counts_ = std::move(stored.counts);
  if (counts_.clusters() / 8 > kMaxTakenBytes)
    co_return fail(ENOMEM,
                   "The file has too many clusters for the memory that moving them may use");
  taken_.assign(counts_.clusters(), false);
  co_return Result<void>{};
}

io::Task<Result<void>> Relocator::load_table() {
  PLATTER_CO_ASSIGN(table_, co_await read_refcount_table(file_, image_.header));
  for (size_t i = 0; i < table_.size(); ++i) {
    if ((table_[i] & kRefcountTableReservedMask) != 0 || !geometry_.is_aligned(table_[i]))
      co_return corrupt(fmt::format("refcount table entry {} is {:#x}", i, table_[i]));
  }
  co_return Result<void>{};
}

uint64_t Relocator::used() const {
  const uint64_t end = end_of_used();
  uint64_t used = 0;
  for (uint64_t cluster = 0; cluster < end; ++cluster) used += counts_.get(cluster) != 0;
  return used;
}

std::optional<uint64_t> Relocator::take_free(uint64_t clusters, uint64_t end) {
  end = std::min(end, counts_.clusters());
  uint64_t run = 0;
  bool first_free = true;
  for (uint64_t at = search_from_; at < end; ++at) {
    // A place whose count has nowhere to stand is none.
    const bool free =
        counts_.get(at) == 0 && !taken_[at] && table_[geometry_.refcount_table_index(at)] != 0;
    if (free && first_free) search_from_ = at;
    first_free = first_free && !free;
    run = free ? run + 1 : 0;
    if (run < clusters) continue;
    const uint64_t first = at + 1 - run;
    if (first == search_from_) search_from_ = at + 1;
    for (uint64_t i = first; i <= at; ++i) taken_[i] = true;
    return first;
  }
  if (first_free) search_from_ = std::max(search_from_, end);
  return std::nullopt;
}

void Relocator::give_back(uint64_t cluster) {
  taken_[cluster] = false;
  search_from_ = std::min(search_from_, cluster);
}

Result<void> Relocator::store(uint64_t cluster, uint64_t count) {
  if (!counts_.set(cluster, count))
    return fail(ENOMEM, "qcow2: The reference counts of the image need too much memory");
  dirty_blocks_.insert(geometry_.refcount_table_index(cluster));
  return {};
}

Result<void> Relocator::count_new(const Reference& reference) {
  const uint64_t offset = reference.offset - reference.by;
  const uint64_t last = (offset + reference.bytes - 1) >> geometry_.cluster_bits;
  for (uint64_t cluster = offset >> geometry_.cluster_bits; cluster <= last; ++cluster)
    PLATTER_TRY(store(cluster, counts_.get(cluster) + reference.weight));
  return {};
}

Result<void> Relocator::uncount(const Reference& reference, uint64_t offset) {
  const uint64_t last = (offset + reference.bytes - 1) >> geometry_.cluster_bits;
  for (uint64_t cluster = offset >> geometry_.cluster_bits; cluster <= last; ++cluster) {
    const uint64_t count = counts_.get(cluster);
    if (count < reference.weight)
      return corrupt(fmt::format("cluster {} is counted too low", cluster));
    PLATTER_TRY(store(cluster, count - reference.weight));
  }
  return {};
}

io::Task<Result<void>> Relocator::uncount_new(std::span<const Reference> references) {
  for (const Reference& reference : references)
    PLATTER_CO_TRY(uncount(reference, reference.offset - reference.by));
  co_return co_await write_counts();
}

io::Task<Result<void>> Relocator::move(std::vector<Move> moves, std::vector<Reference> references) {
  for (const Reference& reference : references) PLATTER_CO_TRY(count_new(reference));
  PLATTER_CO_TRY(co_await write_counts());
  Result<void> copied = co_await copy(std::move(moves));
  if (copied) copied = co_await file_.flush();
  if (!copied) {
    // Nothing names the new places yet. Where they cannot be uncounted either, they are leaked.
    (void)co_await uncount_new(references);
    co_return std::move(copied);
  }
  std::ranges::sort(references, {}, &Reference::place);
  co_await file_.pass(block::DebugEvent::kL2Update);
  PLATTER_CO_TRY(co_await write_references(references));
  PLATTER_CO_TRY(co_await file_.flush());
  const bool counts_moved = std::ranges::any_of(references, [&](const Reference& reference) {
    const uint64_t table = image_.header.refcount_table_offset;
    return reference.place == field::kRefcountTableOffset ||
           (reference.place >= table &&
            reference.place - table < image_.header.refcount_table_bytes());
  });
  if (!references.empty() && references.front().place < geometry_.cluster_size())
    PLATTER_CO_TRY(co_await image_.reload_places());
  if (counts_moved) PLATTER_CO_TRY(co_await load_table());
  for (const Reference& reference : references)
    PLATTER_CO_TRY(uncount(reference, reference.offset));
  co_return co_await write_counts();
}

io::Task<Result<void>> Relocator::drop_blocks(std::span<const uint64_t> blocks) {
  std::vector<uint64_t> places;
  for (const uint64_t block : blocks) {
    places.push_back(table_[block] >> geometry_.cluster_bits);
    table_[block] = 0;
    std::vector<uint8_t> none(kTableEntryBytes);
    PLATTER_CO_TRY(co_await image_.write_file(
        image_.header.refcount_table_offset + block * kTableEntryBytes, none));
  }
  PLATTER_CO_TRY(co_await file_.flush());
  for (const uint64_t place : places) PLATTER_CO_TRY(store(place, 0));
  std::erase_if(dirty_blocks_, [&](uint64_t block) { return table_[block] == 0; });
  co_return co_await write_counts();
}

io::Task<Result<void>> Relocator::in_parallel(std::vector<io::Task<Result<void>>>& tasks,
                                              bool all) {
  if (tasks.empty() || (!all && tasks.size() < kParallelRequests)) co_return Result<void>{};
  for (auto& result : co_await io::when_all(std::exchange(tasks, {})))
    PLATTER_CO_TRY(std::move(result));
  co_return Result<void>{};
}

io::Task<Result<void>> Relocator::write_counts() {
  const uint64_t entries = geometry_.refcount_block_entries();
  io::AlignedBuffer content(geometry_.cluster_size());
  co_await file_.pass(block::DebugEvent::kRefblockUpdate);
  for (const uint64_t block : std::exchange(dirty_blocks_, {})) {
    PLATTER_ASSERT(table_[block] != 0);
    for (uint64_t i = 0; i < entries; ++i) {
      store_refcount(content.data(), i, geometry_.refcount_order, count(block * entries + i));
    }
    PLATTER_CO_TRY(co_await file_.write(table_[block], content.view()));
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Relocator::copy(std::vector<Move> moves) {
  std::ranges::sort(moves, {}, &Move::from);
  std::vector<io::Task<Result<void>>> pieces;
  for (size_t i = 0; i < moves.size();) {
    Move run = moves[i];
    for (++i; i < moves.size(); ++i) {
      const Move& next = moves[i];
      if (next.from > run.from + run.bytes || next.from - next.to != run.from - run.to ||
          next.content != run.content) {
        break;
      }
      run.bytes = std::max(run.bytes, next.from - run.from + next.bytes);
    }
    for (uint64_t done = 0; done < run.bytes; done += kMaxCopyBytes) {
      pieces.push_back(copy_piece({run.from + done, run.to + done,
                                   std::min(kMaxCopyBytes, run.bytes - done), run.content}));
      PLATTER_CO_TRY(co_await in_parallel(pieces, false));
    }
  }
  co_return co_await in_parallel(pieces, true);
}

io::Task<Result<void>> Relocator::copy_piece(Move piece) {
  io::AlignedBuffer buffer(piece.bytes);
  if (piece.content == Content::kGuestData && encryption_ != nullptr)
    co_return co_await encryption_->relocate(piece.from, piece.to, buffer.view());
  PLATTER_CO_TRY(co_await read_padded(file_, piece.from, buffer.view()));
  co_return co_await file_.write(piece.to, buffer.view());
}

io::Task<Result<void>> Relocator::write_references(std::span<const Reference> references) {
  std::vector<io::Task<Result<void>>> writes;
  for (size_t first = 0; first < references.size();) {
    size_t end = first + 1;
    const uint64_t window = references[first].place / kNearBytes;
    while (end < references.size() && references[end].place / kNearBytes == window) ++end;
    writes.push_back(write_near(references.subspan(first, end - first)));
    PLATTER_CO_TRY(co_await in_parallel(writes, false));
    first = end;
  }
  co_return co_await in_parallel(writes, true);
}

io::Task<Result<void>> Relocator::write_near(std::span<const Reference> references) {
  const uint64_t begin = base::align_down(references.front().place, image_.metadata_unit);
  const uint64_t end =
      base::align_up(references.back().place + kTableEntryBytes, image_.metadata_unit);
  io::AlignedBuffer buffer(end - begin);
  PLATTER_CO_TRY(co_await read_padded(file_, begin, buffer.view()));
  for (const Reference& reference : references) {
    const uint64_t at = reference.place - begin;
    const uint64_t value = base::load_big<uint64_t>(buffer.span(), at);
    if (value != reference.value)
      co_return corrupt(fmt::format("the tables at {:#x} overlap", reference.place));
    // Downwards: what stands above the offset is not touched.
    base::store_big<uint64_t>(buffer.span(), at, value - reference.by);
  }
  co_return co_await file_.write(begin, buffer.view());
}

}  // namespace platter::format::qcow2
