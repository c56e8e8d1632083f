// What a raw disk holds: partition tables and ISO 9660, as far as a policy judges them.

#include <algorithm>

#include "base/bytes.h"
#include "fmt/format.h"
#include "inspect/formats.h"

namespace platter::inspect {

using base::load_little;

namespace {

constexpr size_t kSignatureOffset = 510;
constexpr uint16_t kBootSignature = 0xaa55;
constexpr size_t kPartitionTableOffset = 446;
constexpr size_t kPartitionEntryBytes = 16;
constexpr unsigned kPartitions = 4;
constexpr uint8_t kBootable = 0x80;
constexpr uint8_t kProtectiveType = 0xee;
constexpr uint64_t kSectorBytes = 512;
constexpr size_t kMediaDescriptorOffset = 21;
constexpr uint8_t kMinMediaDescriptor = 0xf0;

// A file system without a partition table: its boot sector has the same signature, and code where
// the table would be.
bool is_file_system(std::span<const uint8_t> head) {
  const bool jump = head[0] == 0xeb || head[0] == 0xe9;
  return jump && head[kMediaDescriptorOffset] >= kMinMediaDescriptor;
}

}  // namespace

void judge_partitions(const Samples& samples, Report& report) {
  if (!has_mbr(samples)) return;
  unsigned used = 0;
  bool protective = false;
  const auto odd = [&](std::string text) { report.partition_damage.push_back(std::move(text)); };
  for (unsigned i = 0; i < kPartitions; ++i) {
    const size_t entry = kPartitionTableOffset + i * kPartitionEntryBytes;
    const uint8_t boot = samples.head[entry];
    const uint8_t type = samples.head[entry + 4];
    const uint32_t start = load_little<uint32_t>(samples.head, entry + 8);
    if (boot != 0 && boot != kBootable) {
      odd(fmt::format("partition {} has the boot flag 0x{:02x}", i + 1, boot));
    }
    if (type == 0) continue;
    ++used;
    if (type == kProtectiveType) {
      protective = true;
      if (start != 1)
        odd(fmt::format("the protective partition begins at sector {}, not 1", start));
    } else if (start == 0) {
      odd(fmt::format("partition {} begins at sector 0", i + 1));
    }
  }
  if (used == 0) odd("it has a boot signature and no partition");
  if (has_gpt(samples) && !protective) odd("it has a GPT without a protective partition");
}

bool has_mbr(const Samples& samples) {
  return load_little<uint16_t>(samples.head, kSignatureOffset) == kBootSignature &&
         !is_file_system(samples.head);
}

bool has_gpt(const Samples& samples) { return starts_with(samples.head, "EFI PART", kSectorBytes); }

bool is_iso9660(const Samples& samples) { return starts_with(samples.volume, "CD001", 1); }

Result<void> inspect_raw(Source&, const Samples& samples, Report& report) {
  // A file that ends within a sector is as long as its whole sectors.
  report.virtual_size = (samples.file_size + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  return {};
}

}  // namespace platter::inspect
