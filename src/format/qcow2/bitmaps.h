// The directory of persistent dirty bitmaps: read and validated, for info and for check.
// Specification: docs/format/qcow2.md, "Bitmaps".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "format/qcow2/header.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::format::qcow2 {

inline constexpr uint32_t kBitmapInUse = 1 << 0;
inline constexpr uint32_t kBitmapAuto = 1 << 1;
inline constexpr uint32_t kBitmapExtraDataCompatible = 1 << 2;

struct Bitmap {
  uint64_t table_offset = 0;   // cluster-aligned
  uint32_t table_entries = 0;  // at most kMaxBitmapTableEntries
  uint32_t flags = 0;
  uint8_t granularity_bits = 0;
  std::string name;
};

// Every entry of a directory that the header announces. An error names what is wrong with it.
Result<std::vector<Bitmap>> parse_bitmap_directory(std::span<const uint8_t> bytes,
                                                   const Header& header);
// Reads and parses it; empty if the header announces none.
io::Task<Result<std::vector<Bitmap>>> read_bitmap_directory(block::Child& file,
                                                            const Header& header);

}  // namespace platter::format::qcow2
