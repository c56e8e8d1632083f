#include "format/qcow2/compactor.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/bitmaps.h"
#include "format/qcow2/extensions.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {
namespace {

// References of one batch, about: 48 MiB of them.
constexpr uint64_t kMaxReferences = uint64_t{1} << 20;
// And clusters to copy.
constexpr uint64_t kMaxBatchBytes = uint64_t{1} << 30;
constexpr unsigned kLevels = 4;
constexpr uint64_t kBitmapTablePart = 65536;  // entries that are looked at together

}  // namespace

Compactor::Compactor(Image& image, Encryption* encryption, io::CancelToken cancel,
                     std::function<void(uint64_t, uint64_t)> progress)
    : image_(image),
      geometry_(image.geometry),
      cancel_(cancel),
      progress_(std::move(progress)),
      relocator_(image, encryption) {}

io::Task<Result<void>> Compactor::run() {
  PLATTER_CO_TRY(co_await relocator_.load());
  file_clusters_ = relocator_.end_of_used();
  choose_end();
  if (!geometry_.external_data) PLATTER_CO_TRY(co_await find_ties());
  PLATTER_CO_TRY(co_await reserve_for_tables());
  for (const Level level : {Level::kData, Level::kL2Tables, Level::kUpperTables, Level::kRoots}) {
    if (level == Level::kUpperTables) PLATTER_CO_TRY(co_await drop_blocks());
    PLATTER_CO_TRY(co_await run_level(level));
  }
  PLATTER_CO_TRY(co_await drop_blocks());
  co_return co_await image_.file->flush();
}

// As many clusters as are in use, but for refcount blocks that count only what lies behind them.
void Compactor::choose_end() {
  const uint64_t used = relocator_.used();
  const auto& table = relocator_.table();
  end_ = used;
  for (uint64_t previous = 0; previous != end_;) {
    previous = end_;
    const uint64_t first = base::divide_round_up(end_, geometry_.refcount_block_entries());
    uint64_t needless = 0;
    for (uint64_t block = first; block < table.size(); ++block) needless += table[block] != 0;
    end_ = used - std::min(used, needless);
  }
}

// What moves begins here: clusters that hang together move together.
uint64_t Compactor::threshold() const {
  uint64_t begin = end_;
  while (begin > 1 && begin <= tied_.size() && tied_[begin - 1]) --begin;
  return begin;
}

// As many clusters as one batch may have references to, cut where nothing hangs together.
Compactor::Window Compactor::next_window(uint64_t begin) const {
  uint64_t end = begin, references = 0;
  const uint64_t most = std::max<uint64_t>(kMaxBatchBytes >> geometry_.cluster_bits, 1);
  while (end < file_clusters_) {
    references += relocator_.count(end);
    ++end;
    const bool tied = end - 1 < tied_.size() && tied_[end - 1];
    if (!tied && (references >= kMaxReferences || end - begin >= most)) break;
  }
  return {begin, end};
}

io::Task<Result<void>> Compactor::run_level(Level level) {
  const uint64_t first = threshold();
  const uint64_t span = std::max<uint64_t>(file_clusters_ - std::min(first, file_clusters_), 1);
  for (uint64_t begin = first; begin < file_clusters_;) {
    PLATTER_CO_TRY(cancel_.check());
    progress_(static_cast<uint64_t>(level) * span + begin - first, kLevels * span);
    const Window window = next_window(begin);
    PLATTER_CO_ASSIGN(auto references, co_await collect(level, window));
    const std::vector<Move> moves = plan(references);
    if (!moves.empty()) {
      PLATTER_CO_TRY(co_await relocator_.move(moves, std::move(references)));
      for (const Move& move : moves) moved_bytes_ += move.bytes;
    }
    begin = window.end;
  }
  progress_((static_cast<uint64_t>(level) + 1) * span, kLevels * span);
  co_return Result<void>{};
}

// Data would take the long holes piece by piece.
io::Task<Result<void>> Compactor::reserve_for_tables() {
  const Window window = {threshold(), file_clusters_};
  for (const Level level : {Level::kUpperTables, Level::kRoots}) {
    PLATTER_CO_ASSIGN(auto references, co_await collect(level, window));
    for (const Move& move : plan(references)) {
      if (move.bytes > geometry_.cluster_size()) {
        reserved_[move.from] = move.to;
      } else {
        relocator_.give_back(move.to >> geometry_.cluster_bits);
      }
    }
  }
  co_return Result<void>{};
}

// What hangs together of what `references`, which are sorted, name. Left out is what is counted
// more often than they name it, and what guest data shares with something else.
std::vector<Move> Compactor::group(std::span<const Reference> references) const {
  const unsigned bits = geometry_.cluster_bits;
  std::vector<Move> moves;
  for (size_t i = 0; i < references.size();) {
    const Content content = references[i].content;
    const uint64_t begin = references[i].offset >> bits;
    uint64_t end = begin, named = 0, counted = 0;
    bool alike = true;
    do {
      const Reference& reference = references[i];
      const uint64_t first = reference.offset >> bits;
      const uint64_t past = ((reference.offset + reference.bytes - 1) >> bits) + 1;
      named += past - first;
      end = std::max(end, past);
      alike = alike && reference.content == content;
    } while (++i < references.size() && references[i].offset >> bits < end);
    for (uint64_t cluster = begin; cluster < end; ++cluster) counted += relocator_.count(cluster);
    if (alike && named == counted)
      moves.push_back({begin << bits, 0, (end - begin) << bits, content});
  }
  return moves;
}

// Where what hangs together goes, the largest first. References to what finds no place are taken
// out.
std::vector<Move> Compactor::plan(std::vector<Reference>& references) {
  const unsigned bits = geometry_.cluster_bits;
  std::ranges::sort(references, {}, &Reference::offset);
  std::vector<Move> moves = group(references);
  std::ranges::sort(moves, [](const Move& a, const Move& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.from < b.from;
  });
  for (Move& move : moves) {
    const auto kept = reserved_.find(move.from);
    if (kept != reserved_.end()) {
      move.to = kept->second;
    } else {
      const uint64_t before = std::min(end_, move.from >> bits);
      move.to = relocator_.take_free(move.bytes >> bits, before).value_or(0) << bits;
    }
  }
  std::erase_if(moves, [](const Move& move) { return move.to == 0; });
  std::ranges::sort(moves, {}, &Move::from);
  auto move = moves.begin();
  size_t kept = 0;
  for (const Reference& reference : references) {
    while (move != moves.end() && reference.offset >= move->from + move->bytes) ++move;
    if (move == moves.end()) break;
    if (reference.offset < move->from) continue;
    references[kept] = reference;
    references[kept++].by = move->from - move->to;
  }
  references.resize(kept);
  return moves;
}

// ---- Where the references are

io::Task<Result<std::vector<Reference>>> Compactor::collect(Level level, Window window) {
  switch (level) {
    case Level::kData: return collect_data(window);
    case Level::kL2Tables: return collect_l2_tables(window);
    case Level::kUpperTables: return collect_upper_tables(window);
    case Level::kRoots: return collect_roots(window);
  }
  return collect_roots(window);
}

io::Task<Result<uint64_t>> Compactor::read_u64(uint64_t place) {
  std::vector<uint8_t> bytes(kTableEntryBytes);
  PLATTER_CO_TRY(co_await read_padded(*image_.file, place, io::BufferList(std::span(bytes))));
  co_return base::load_big<uint64_t>(bytes);
}

io::Task<Result<Compactor::Tables>> Compactor::list_tables() {
  PLATTER_CO_ASSIGN(const auto snapshots,
                    co_await read_snapshot_table(*image_.file, image_.header));
  std::vector<std::pair<uint64_t, uint64_t>> l1_tables;
  l1_tables.emplace_back(image_.header.l1_table_offset, image_.header.l1_entries);
  for (const Snapshot& snapshot : snapshots.snapshots)
    l1_tables.emplace_back(snapshot.l1_table_offset, snapshot.l1_entries);
  std::erase_if(l1_tables, [](const auto& table) { return table.second == 0; });
  // Of tables at one place the longest has them all.
  std::ranges::sort(l1_tables, [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  });
  const auto rest =
      std::ranges::unique(l1_tables, {}, [](const auto& table) { return table.first; });
  l1_tables.erase(rest.begin(), rest.end());
  Tables tables;
  for (const auto& [offset, entries] : l1_tables) {
    tables.l1_offsets.push_back(offset);
    tables.l1_entries.push_back(entries);
    io::AlignedBuffer l1(entries * kTableEntryBytes);
    PLATTER_CO_TRY(co_await read_padded(*image_.file, offset, l1.view()));
    for (uint64_t i = 0; i < entries; ++i) {
      const uint64_t entry = base::load_big<uint64_t>(l1.span(), i * kTableEntryBytes);
      if ((entry & kOffsetMask) != 0) tables.l2_offsets.push_back(entry & kOffsetMask);
    }
  }
  std::ranges::sort(tables.l2_offsets);
  const auto again = std::ranges::unique(tables.l2_offsets);
  tables.l2_offsets.erase(again.begin(), again.end());
  co_return tables;
}

io::Task<Result<void>> Compactor::for_each_l2(
    std::span<const uint64_t> offsets,
    std::function<void(uint64_t, std::span<const uint8_t>)> visit) {
  TableReader reader(*image_.file, offsets, geometry_.cluster_size());
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) co_return Result<void>{};
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      const auto table = reader.table(i);
      if (!table) co_return std::unexpected(table.error());
      visit(offsets[i], *table);
    }
  }
}

io::Task<Result<void>> Compactor::find_ties() {
  PLATTER_CO_ASSIGN(const Tables tables, co_await list_tables());
  const uint64_t stride = geometry_.l2_entry_bytes();
  co_return co_await for_each_l2(tables.l2_offsets, [&](uint64_t, std::span<const uint8_t> table) {
    for (uint64_t at = 0; at < table.size(); at += stride) {
      const uint64_t entry = base::load_big<uint64_t>(table, at);
      if ((entry & kCompressedFlag) == 0) continue;
      const CompressedSpan span = decode_compressed(entry, geometry_.cluster_bits);
      const uint64_t first = span.host_offset >> geometry_.cluster_bits;
      const uint64_t last = (span.host_offset + span.length - 1) >> geometry_.cluster_bits;
      if (tied_.size() < last) tied_.resize(last);
      for (uint64_t cluster = first; cluster < last; ++cluster) tied_[cluster] = true;
    }
  });
}

// If it names anything that begins there.
void Compactor::add_if_within(Window window, const Reference& reference,
                              std::vector<Reference>& references) const {
  if (reference.offset != 0 && reference.bytes != 0 &&
      window.contains(reference.offset >> geometry_.cluster_bits)) {
    references.push_back(reference);
  }
}

io::Task<Result<std::vector<Reference>>> Compactor::collect_data(Window window) {
  std::vector<Reference> references;
  if (!geometry_.external_data) PLATTER_CO_TRY(co_await collect_guest_data(window, references));
  PLATTER_CO_TRY(co_await collect_bitmap_bits(window, references));
  co_return references;
}

io::Task<Result<void>> Compactor::collect_guest_data(Window window,
                                                     std::vector<Reference>& references) {
  PLATTER_CO_ASSIGN(const Tables tables, co_await list_tables());
  const uint64_t stride = geometry_.l2_entry_bytes();
  co_return co_await for_each_l2(
      tables.l2_offsets, [&](uint64_t offset, std::span<const uint8_t> table) {
        for (uint64_t at = 0; at < table.size(); at += stride) {
          const uint64_t entry = base::load_big<uint64_t>(table, at);
          if ((entry & kCompressedFlag) != 0) {
            const CompressedSpan span = decode_compressed(entry, geometry_.cluster_bits);
            add_if_within(window, {offset + at, entry, span.host_offset, span.length}, references);
          } else {
            add_if_within(window,
                          {offset + at, entry, entry & kOffsetMask, geometry_.cluster_size(),
                           Content::kGuestData},
                          references);
          }
        }
      });
}

io::Task<Result<void>> Compactor::collect_bitmap_bits(Window window,
                                                      std::vector<Reference>& references) {
  block::Child& file = *image_.file;
  PLATTER_CO_ASSIGN(const auto bitmaps, co_await read_bitmap_directory(file, image_.header));
  for (const Bitmap& bitmap : bitmaps) {
    // A table that the file does not have whole is nobody's to read.
    if (!base::range_within(bitmap.table_offset, bitmap.table_bytes(), file.size())) continue;
    for (uint64_t first = 0; first < bitmap.table_entries; first += kBitmapTablePart) {
      const uint64_t count = std::min(kBitmapTablePart, bitmap.table_entries - first);
      PLATTER_CO_ASSIGN(const auto part,
                        co_await read_bitmap_table_part(file, bitmap, first, count));
      uint64_t place = bitmap.table_offset + first * kTableEntryBytes;
      for (const uint64_t entry : part) {
        add_if_within(window, {place, entry, entry & kOffsetMask, geometry_.cluster_size()},
                      references);
        place += kTableEntryBytes;
      }
    }
  }
  co_return Result<void>{};
}

io::Task<Result<std::vector<Reference>>> Compactor::collect_l2_tables(Window window) {
  PLATTER_CO_ASSIGN(const Tables tables, co_await list_tables());
  std::vector<Reference> references;
  for (size_t i = 0; i < tables.l1_offsets.size(); ++i) {
    io::AlignedBuffer l1(tables.l1_entries[i] * kTableEntryBytes);
    PLATTER_CO_TRY(co_await read_padded(*image_.file, tables.l1_offsets[i], l1.view()));
    for (uint64_t at = 0; at < l1.size(); at += kTableEntryBytes) {
      const uint64_t entry = base::load_big<uint64_t>(l1.span(), at);
      add_if_within(
          window, {tables.l1_offsets[i] + at, entry, entry & kOffsetMask, geometry_.cluster_size()},
          references);
    }
  }
  co_return references;
}

io::Task<Result<std::vector<Reference>>> Compactor::collect_upper_tables(Window window) {
  const Header& header = image_.header;
  std::vector<Reference> references;
  const auto add_l1 = [&](uint64_t place, uint64_t offset, uint64_t entries) {
    add_if_within(window, {place, offset, offset, entries * kTableEntryBytes}, references);
  };
  add_l1(field::kL1TableOffset, header.l1_table_offset, header.l1_entries);
  PLATTER_CO_ASSIGN(const auto snapshots, co_await read_snapshot_table(*image_.file, header));
  for (const Snapshot& snapshot : snapshots.snapshots) {
    add_l1(header.snapshots_offset + snapshot.table_position, snapshot.l1_table_offset,
           snapshot.l1_entries);
  }
  uint64_t place = header.refcount_table_offset;
  for (const uint64_t block : relocator_.table()) {
    add_if_within(window, {place, block, block, geometry_.cluster_size()}, references);
    place += kTableEntryBytes;
  }
  PLATTER_CO_TRY(co_await collect_bitmap_tables(window, references));
  co_return references;
}

io::Task<Result<void>> Compactor::collect_bitmap_tables(Window window,
                                                        std::vector<Reference>& references) {
  PLATTER_CO_ASSIGN(const auto bitmaps,
                    co_await read_bitmap_directory(*image_.file, image_.header));
  uint64_t place = bitmaps.empty() ? 0 : image_.header.bitmaps->directory_offset;
  for (const Bitmap& bitmap : bitmaps) {
    add_if_within(window, {place, bitmap.table_offset, bitmap.table_offset, bitmap.table_bytes()},
                  references);
    place += bitmap_record_bytes(bitmap);
  }
  co_return Result<void>{};
}

io::Task<Result<std::vector<Reference>>> Compactor::collect_roots(Window window) {
  const Header& header = image_.header;
  std::vector<Reference> references;
  const auto add = [&](uint64_t place, uint64_t offset, uint64_t bytes) {
    add_if_within(window, {place, offset, offset, bytes}, references);
  };
  PLATTER_CO_ASSIGN(const auto snapshots, co_await read_snapshot_table(*image_.file, header));
  add(field::kSnapshotsOffset, header.snapshots_offset, snapshots.bytes);
  add(field::kRefcountTableOffset, header.refcount_table_offset, header.refcount_table_bytes());
  if (!header.bitmaps && !header.crypto_header) co_return references;
  std::vector<uint8_t> first_cluster(geometry_.cluster_size());
  PLATTER_CO_TRY(co_await read_padded(*image_.file, 0, io::BufferList(std::span(first_cluster))));
  const auto add_extension = [&](ExtensionType type, size_t in_data, uint64_t offset,
                                 uint64_t bytes) {
    const auto record = find_extension(first_cluster, type).record;
    if (!record) return;
    const uint64_t place = *record + kExtensionHeaderBytes + in_data;
    // A header of an odd length has fields that a power cut may leave half written.
    if (place % kSectorBytes <= kSectorBytes - kTableEntryBytes) add(place, offset, bytes);
  };
  if (header.bitmaps) {
    add_extension(ExtensionType::kBitmaps, kBitmapDirectoryOffsetField,
                  header.bitmaps->directory_offset, header.bitmaps->directory_size);
  }
  if (header.crypto_header) {
    add_extension(ExtensionType::kCryptoHeader, kCryptoHeaderOffsetField,
                  header.crypto_header->offset, header.crypto_header->length);
  }
  co_return references;
}

// ---- Refcount blocks that are no longer needed

// Blocks may count each other. All that lie behind the end are candidates; one that counts anything
// but candidates is none, until none is left to find.
io::Task<Result<void>> Compactor::drop_blocks() {
  const auto& table = relocator_.table();
  const uint64_t entries = geometry_.refcount_block_entries();
  std::vector<uint64_t> needless;
  std::unordered_set<uint64_t> places;  // their clusters
  for (uint64_t block = std::max<uint64_t>(base::divide_round_up(end_, entries), 1);
       block < table.size(); ++block) {
    if (table[block] == 0) continue;
    needless.push_back(block);
    places.insert(table[block] >> geometry_.cluster_bits);
  }
  const auto needed = [&](uint64_t block) {
    const uint64_t end = std::min((block + 1) * entries, relocator_.end_of_used());
    for (uint64_t cluster = block * entries; cluster < end; ++cluster) {
      if (relocator_.count(cluster) != 0 && !places.contains(cluster)) return true;
    }
    return false;
  };
  for (bool changed = true; changed;) {
    const size_t before = needless.size();
    std::erase_if(needless, [&](uint64_t block) {
      if (!needed(block)) return false;
      places.erase(table[block] >> geometry_.cluster_bits);
      return true;
    });
    changed = needless.size() != before;
  }
  if (needless.empty()) co_return Result<void>{};
  co_return co_await relocator_.drop_blocks(needless);
}

}  // namespace platter::format::qcow2
