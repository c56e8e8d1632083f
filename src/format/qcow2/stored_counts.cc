#include "format/qcow2/stored_counts.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {

namespace {

bool load_block(std::span<const uint8_t> block, uint64_t first, const Geometry& geometry,
                ReferenceCounts& counts) {
  const uint64_t count = std::min(geometry.refcount_block_entries(), counts.clusters() - first);
  if (geometry.refcount_order == 4) {
    for (uint64_t i = 0; i < count; ++i) {
      if (!counts.set(first + i, uint64_t{block[2 * i]} << 8 | block[2 * i + 1])) return false;
    }
    return true;
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (!counts.set(first + i, load_refcount(block.data(), i, geometry.refcount_order)))
      return false;
  }
  return true;
}

}  // namespace

io::Task<Result<std::vector<uint64_t>>> read_refcount_table(block::Child& file,
                                                            const Header& header) {
  std::vector<uint64_t> table(header.refcount_table_entries());
  auto* bytes = reinterpret_cast<uint8_t*>(table.data());
  PLATTER_CO_TRY(co_await read_padded(file, header.refcount_table_offset,
                                      {bytes, table.size() * kTableEntryBytes}));
  for (uint64_t& entry : table) entry = base::from_big_endian(entry);
  co_return table;
}

io::Task<uint64_t> read_stored_count(block::Child& file, const Header& header,
                                     std::span<const uint64_t> refcount_table, uint64_t cluster) {
  const Geometry geometry = header.geometry();
  const uint64_t index = geometry.refcount_table_index(cluster);
  if (index >= refcount_table.size()) co_return 0;
  const uint64_t block = refcount_table[index] & kRefcountTableOffsetMask;
  if (block == 0 || !geometry.is_aligned(block)) co_return 0;
  // Eight bytes around the count hold all of it, whatever its width.
  const uint64_t count_index = geometry.refcount_block_index(cluster);
  const uint64_t word = (count_index << geometry.refcount_order) / 64;
  uint8_t bytes[8];
  if (!co_await read_padded(file, block + word * sizeof bytes, {bytes, sizeof bytes})) co_return 0;
  const uint64_t counts_per_word = uint64_t{64} >> geometry.refcount_order;
  co_return load_refcount(bytes, count_index % counts_per_word, geometry.refcount_order);
}

io::Task<Result<StoredCounts>> read_stored_counts(block::Child& file, const Header& header,
                                                  std::span<const uint64_t> refcount_table,
                                                  uint64_t clusters, CheckOptions options) {
  const Geometry geometry = header.geometry();
  StoredCounts stored;
  PLATTER_CO_ASSIGN(stored.counts, ReferenceCounts::create(clusters, options.max_memory_bytes));
  std::vector<uint64_t> offsets;
  std::vector<uint64_t> indexes;
  const uint64_t blocks = std::min<uint64_t>(
      refcount_table.size(), base::divide_round_up(clusters, geometry.refcount_block_entries()));
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t offset = refcount_table[i] & kRefcountTableOffsetMask;
    if (!geometry.is_aligned(offset)) {
      stored.unreadable.push_back({i, offset, Error::from_errno(EIO), true});
    } else if (offset != 0 && offset < file.size()) {
      offsets.push_back(offset);
      indexes.push_back(i);
    }
  }
  TableReader reader(file, offsets, geometry.cluster_size());
  if (options.meter != nullptr) options.meter->expect(offsets.size() * geometry.cluster_size());
  for (;;) {
    const TableReader::Batch batch = co_await reader.next();
    if (batch.count == 0) break;
    if (options.meter != nullptr) options.meter->add(batch.count * geometry.cluster_size());
    for (size_t i = batch.first; i < batch.first + batch.count; ++i) {
      const auto block = reader.table(i);
      if (!block) {
        stored.unreadable.push_back({indexes[i], offsets[i], block.error(), false});
      } else if (!load_block(*block, indexes[i] * geometry.refcount_block_entries(), geometry,
                             stored.counts)) {
        co_return fail(ENOMEM,
                       "The reference counts of the image need more memory than a check may use");
      }
    }
  }
  std::ranges::sort(stored.unreadable, {}, &StoredCounts::Unreadable::table_index);
  co_return stored;
}

}  // namespace platter::format::qcow2
