#include "format/qcow2/compactor.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "base/try.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {
namespace {

// And clusters to copy.
constexpr uint64_t kMaxBatchBytes = uint64_t{1} << 30;
// Streams that are tied together to more are left to be packed one by one.
constexpr uint64_t kMaxTiedReferences = 2 * Compactor::kMaxReferences;
constexpr unsigned kLevels = 4;
constexpr uint64_t kSteps = kLevels + 1;  // streams are packed after all levels

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
  if (!geometry_.external_data) PLATTER_CO_TRY(co_await pack_streams());
  PLATTER_CO_TRY(co_await drop_blocks());
  progress_(kSteps, kSteps);
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
  return {begin, end, references};
}

io::Task<Result<void>> Compactor::run_level(Level level) {
  const uint64_t first = threshold();
  const uint64_t span = std::max<uint64_t>(file_clusters_ - std::min(first, file_clusters_), 1);
  for (uint64_t begin = first; begin < file_clusters_;) {
    PLATTER_CO_TRY(cancel_.check());
    progress_(static_cast<uint64_t>(level) * span + begin - first, kSteps * span);
    const Window window = next_window(begin);
    if (window.references <= kMaxTiedReferences) {
      PLATTER_CO_ASSIGN(auto references, co_await collect(level, window));
      auto moves = plan(references);
      PLATTER_CO_TRY(co_await relocate(std::move(moves), std::move(references)));
    }
    begin = window.end;
  }
  co_return Result<void>{};
}

io::Task<Result<void>> Compactor::relocate(std::vector<Move> moves,
                                           std::vector<Reference> references) {
  if (moves.empty()) co_return Result<void>{};
  uint64_t bytes = 0;
  for (const Move& move : moves) bytes += move.bytes;
  PLATTER_CO_TRY(co_await relocator_.move(std::move(moves), std::move(references)));
  moved_bytes_ += bytes;
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
      named += (past - first) * reference.weight;
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

// ---- Streams one by one

io::Task<Result<void>> Compactor::pack_streams() {
  for (bool all = true; all;) {
    PLATTER_CO_TRY(cancel_.check());
    const uint64_t behind = relocator_.end_of_used() - std::min(end_, relocator_.end_of_used());
    PLATTER_CO_ASSIGN(auto references, co_await collect_last_streams());
    if (references.empty()) break;
    // Streams leave something of most clusters free.
    const auto holes = take_holes(2 * behind);
    StreamPacker packer(geometry_, holes);
    const size_t wanted = references.size();
    auto moves = packer.pack(references);
    give_back(holes, packer.filled());
    all = references.size() == wanted;
    PLATTER_CO_TRY(co_await relocate(std::move(moves), std::move(references)));
  }
  co_return Result<void>{};
}

std::vector<StreamPacker::Hole> Compactor::take_holes(uint64_t clusters) {
  std::vector<StreamPacker::Hole> holes;
  for (; clusters != 0; --clusters) {
    const auto cluster = relocator_.take_free(1, end_);
    if (!cluster) break;
    const uint64_t offset = *cluster << geometry_.cluster_bits;
    if (!holes.empty() && holes.back().offset + holes.back().bytes == offset) {
      holes.back().bytes += geometry_.cluster_size();
    } else {
      holes.push_back({offset, geometry_.cluster_size()});
    }
  }
  return holes;
}

// `but`: clusters, sorted.
void Compactor::give_back(const std::vector<StreamPacker::Hole>& holes,
                          const std::vector<uint64_t>& but) {
  for (const StreamPacker::Hole& hole : holes) {
    const uint64_t first = hole.offset >> geometry_.cluster_bits;
    const uint64_t end = (hole.offset + hole.bytes) >> geometry_.cluster_bits;
    for (uint64_t cluster = first; cluster < end; ++cluster) {
      if (!std::ranges::binary_search(but, cluster)) relocator_.give_back(cluster);
    }
  }
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
  const uint64_t file_end = relocator_.end_of_used();
  const auto needed = [&](uint64_t block) {
    const uint64_t end = std::min((block + 1) * entries, file_end);
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
