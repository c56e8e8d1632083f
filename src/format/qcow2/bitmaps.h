// Persistent dirty bitmaps as they lie in the file: the directory, a bitmap's table and its bits.
// What is read is checked: whoever holds a Bitmap may rely on the limits that it states.
// Specification: docs/format/qcow2.md, "Bitmaps".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "format/qcow2/header.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::block {
class DirtyBitmap;
}

namespace platter::format::qcow2 {

inline constexpr uint32_t kBitmapInUse = 1 << 0;
inline constexpr uint32_t kBitmapAuto = 1 << 1;
inline constexpr uint32_t kBitmapExtraDataCompatible = 1 << 2;

// A record of the directory.
struct Bitmap {
  uint64_t table_offset = 0;   // cluster-aligned
  uint32_t table_entries = 0;  // at most kMaxBitmapTableEntries
  uint32_t flags = 0;
  uint8_t granularity_bits = 0;
  std::string name;

  bool has(uint32_t flag) const { return (flags & flag) != 0; }
  uint64_t granularity() const { return uint64_t{1} << granularity_bits; }
  uint64_t table_bytes() const { return table_entries * kTableEntryBytes; }
};

// Every entry of a directory that the header announces. An error names what is wrong with it.
Result<std::vector<Bitmap>> parse_bitmap_directory(std::span<const uint8_t> bytes,
                                                   const Header& header);
// Reads and parses it; empty if the header announces none.
io::Task<Result<std::vector<Bitmap>>> read_bitmap_directory(block::Child& file,
                                                            const Header& header);
std::vector<uint8_t> serialise_bitmap_directory(std::span<const Bitmap> bitmaps);
// How many bytes of a directory it takes.
uint64_t bitmap_record_bytes(const Bitmap& bitmap);

// ---- Bitmap tables

inline constexpr uint64_t kBitmapAllOnes = 1;

// A cluster of bits. 0 or kBitmapAllOnes, or the offset of one within the file.
bool bitmap_entry_is_valid(uint64_t entry, const Geometry& geometry, uint64_t file_size);
// How many clusters of bits a bitmap of the disk has.
uint64_t bitmap_clusters(uint64_t disk_size, uint64_t granularity, const Geometry& geometry);

// The table of a bitmap of a disk of `disk_size` bytes. EINVAL: it is of another length, not in the
// file, or has an entry that is not valid.
io::Task<Result<std::vector<uint64_t>>> read_bitmap_table(block::Child& file,
                                                          const Geometry& geometry,
                                                          const Bitmap& bitmap, uint64_t disk_size);
// Entries [first, first + count) of it, unchecked but for lying in the file.
io::Task<Result<std::vector<uint64_t>>> read_bitmap_table_part(block::Child& file,
                                                               const Bitmap& bitmap, uint64_t first,
                                                               uint64_t count);
// Sets in `bits` what the table's clusters have set. `table` outlives the call.
io::Task<Result<void>> read_bitmap_bits(block::Child& file, const Geometry& geometry,
                                        std::span<const uint64_t> table, block::DirtyBitmap& bits);

}  // namespace platter::format::qcow2
