// The formats that an inspection knows: how each is recognised and what is read of it. One file a
// format; each looks only at what a policy may want to judge.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "inspect/report.h"
#include "inspect/source.h"

namespace platter::inspect {

// The parts of a file that signatures stand in; what the file lacks is zero.
struct Samples {
  static constexpr uint64_t kHeadBytes = 4096;
  static constexpr uint64_t kTailBytes = 1024;
  static constexpr uint64_t kVolumeOffset = 32768;  // of ISO 9660's volume descriptors
  std::vector<uint8_t> head;
  std::vector<uint8_t> tail;  // the last bytes of the file
  std::vector<uint8_t> volume;
  uint64_t file_size = 0;
};

// Fills in what it finds. `report` has format and file_size. An error: the image could not be read,
// or its metadata is without end.
using InspectFormat = Result<void> (*)(Source& source, const Samples& samples, Report& report);

Result<void> inspect_qcow2(Source& source, const Samples& samples, Report& report);
Result<void> inspect_qcow(Source& source, const Samples& samples, Report& report);
Result<void> inspect_qed(Source& source, const Samples& samples, Report& report);
Result<void> inspect_vmdk(Source& source, const Samples& samples, Report& report);
Result<void> inspect_vpc(Source& source, const Samples& samples, Report& report);
Result<void> inspect_vhdx(Source& source, const Samples& samples, Report& report);
Result<void> inspect_vdi(Source& source, const Samples& samples, Report& report);
Result<void> inspect_luks(Source& source, const Samples& samples, Report& report);
Result<void> inspect_parallels(Source& source, const Samples& samples, Report& report);
Result<void> inspect_raw(Source& source, const Samples& samples, Report& report);

bool is_vmdk(const Samples& samples);
bool has_vpc_footer(const Samples& samples);
bool has_mbr(const Samples& samples);
bool has_gpt(const Samples& samples);
bool is_iso9660(const Samples& samples);
// What is odd about the partition table of a disk that has one.
void judge_partitions(const Samples& samples, Report& report);

// ---- For parsers

bool starts_with(std::span<const uint8_t> bytes, std::string_view signature, size_t offset = 0);
std::string_view text_at(std::span<const uint8_t> bytes, size_t offset, size_t length);
std::string utf16_text(std::span<const uint8_t> bytes, bool big_endian);
// "00112233-4455-..."; the first three groups are stored little-endian.
std::string guid_text(std::span<const uint8_t> bytes, size_t offset);

}  // namespace platter::inspect
