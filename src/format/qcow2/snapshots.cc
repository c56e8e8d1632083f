#include "format/qcow2/snapshots.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/extensions.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {

using base::load_big;
using base::store_big;

namespace {

constexpr uint32_t kExtraVmStateSize = 8;  // extra data up to here has the 64-bit VM state size
constexpr uint32_t kExtraDiskSize = 16;    // ... and the disk size
constexpr uint32_t kExtraIcount = 24;      // ... and the instruction count
constexpr uint64_t kFirstReadPerEntry = 256;
constexpr uint64_t kMinFirstRead = 4096;

void parse_extra(std::span<const uint8_t> extra, const Header& header, Snapshot& snapshot) {
  if (extra.size() >= kExtraVmStateSize) snapshot.vm_state_size = load_big<uint64_t>(extra, 0);
  snapshot.disk_size =
      extra.size() >= kExtraDiskSize ? load_big<uint64_t>(extra, 8) : header.virtual_size();
  if (extra.size() >= kExtraIcount) {
    snapshot.icount = load_big<uint64_t>(extra, 16);
    snapshot.unknown_extra.assign(extra.begin() + kExtraIcount, extra.end());
  }
  snapshot.incomplete = header.version >= 3 && extra.size() < kExtraDiskSize;
}

// The table in `bytes`, or nullopt if it goes on past their end.
Result<std::optional<SnapshotTable>> parse_table(std::span<const uint8_t> bytes,
                                                 const Header& header) {
  SnapshotTable table;
  uint64_t offset = 0;
  for (uint32_t i = 0; i < header.snapshot_count; ++i) {
    offset = base::align_up(offset, 8);
    if (!base::range_within(offset, kSnapshotEntryBytes, bytes.size())) return std::nullopt;
    const auto entry = bytes.subspan(offset);
    const uint64_t id_length = load_big<uint16_t>(entry, 12);
    const uint64_t name_length = load_big<uint16_t>(entry, 14);
    const uint64_t extra_length = load_big<uint32_t>(entry, 36);
    if (extra_length > kMaxSnapshotExtraBytes) {
      return std::unexpected(
          Error(EFBIG, fmt::format("Too much extra metadata in snapshot table entry {}", i))
              .with_hint("You can force-remove this extra metadata with qemu-img check -r all"));
    }
    const uint64_t length = kSnapshotEntryBytes + extra_length + id_length + name_length;
    if (length > entry.size()) return std::nullopt;

    Snapshot snapshot;
    snapshot.table_position = offset;
    snapshot.l1_table_offset = load_big<uint64_t>(entry, 0);
    snapshot.l1_entries = load_big<uint32_t>(entry, 8);
    snapshot.date_seconds = load_big<uint32_t>(entry, 16);
    snapshot.date_nanoseconds = load_big<uint32_t>(entry, 20);
    snapshot.vm_clock_nanoseconds = load_big<uint64_t>(entry, 24);
    snapshot.vm_state_size = load_big<uint32_t>(entry, 32);
    parse_extra(entry.subspan(kSnapshotEntryBytes, extra_length), header, snapshot);
    snapshot.id = text_of(entry.subspan(kSnapshotEntryBytes + extra_length, id_length));
    snapshot.name = text_of(entry.subspan(length - name_length, name_length));
    table.snapshots.push_back(std::move(snapshot));
    offset += length;
  }
  table.bytes = offset;
  return table;
}

}  // namespace

io::Task<Result<SnapshotTable>> read_snapshot_table(block::Child& file, const Header& header) {
  if (header.snapshot_count == 0) co_return SnapshotTable{};
  // A tolerantly parsed header may ask for anything.
  if (header.snapshot_count > kMaxSnapshots) {
    co_return std::unexpected(Error(EFBIG, "Snapshot table too large"));
  }
  // Entries vary in length: read what is likely to be enough, and more if it is not.
  uint64_t wanted = std::max(header.snapshot_count * kFirstReadPerEntry, kMinFirstRead);
  for (;;) {
    io::AlignedBuffer buffer(std::min(wanted, kMaxSnapshotTableBytes));
    PLATTER_CO_TRY(co_await read_padded(file, header.snapshots_offset, buffer.view()));
    PLATTER_CO_ASSIGN(auto table, parse_table(buffer.span(), header));
    if (table) co_return std::move(*table);
    if (wanted >= kMaxSnapshotTableBytes) {
      co_return std::unexpected(Error(EFBIG, "Snapshot table is too big"));
    }
    wanted *= 4;
  }
}

Result<std::vector<uint8_t>> serialise_snapshot_table(std::span<const Snapshot> snapshots) {
  std::vector<uint8_t> table;
  if (snapshots.size() > kMaxSnapshots) return fail(EFBIG, "Too many snapshots");
  for (const Snapshot& snapshot : snapshots) {
    if (snapshot.id.size() > UINT16_MAX || snapshot.name.size() > UINT16_MAX)
      return fail(EINVAL, "The name of a snapshot is too long");
    std::array<uint8_t, kSnapshotEntryBytes + kExtraIcount> fixed = {};
    const std::span<uint8_t> out(fixed);
    const auto extra = static_cast<uint32_t>(kExtraIcount + snapshot.unknown_extra.size());
    store_big(out, 0, snapshot.l1_table_offset);
    store_big(out, 8, snapshot.l1_entries);
    store_big(out, 12, static_cast<uint16_t>(snapshot.id.size()));
    store_big(out, 14, static_cast<uint16_t>(snapshot.name.size()));
    store_big(out, 16, snapshot.date_seconds);
    store_big(out, 20, snapshot.date_nanoseconds);
    store_big(out, 24, snapshot.vm_clock_nanoseconds);
    // A reader that knows no extra data would take a part of it for all.
    const bool fits = snapshot.vm_state_size <= UINT32_MAX;
    store_big(out, 32, fits ? static_cast<uint32_t>(snapshot.vm_state_size) : 0u);
    store_big(out, 36, extra);
    store_big(out, 40, snapshot.vm_state_size);
    store_big(out, 48, snapshot.disk_size);
    store_big(out, 56, snapshot.icount);
    table.insert(table.end(), fixed.begin(), fixed.end());
    table.insert(table.end(), snapshot.unknown_extra.begin(), snapshot.unknown_extra.end());
    table.insert(table.end(), snapshot.id.begin(), snapshot.id.end());
    table.insert(table.end(), snapshot.name.begin(), snapshot.name.end());
    table.resize(base::align_up(table.size(), 8));
    if (table.size() > kMaxSnapshotTableBytes) return fail(EFBIG, "Snapshot table is too big");
  }
  return table;
}

Result<void> check_snapshot_l1(const Snapshot& snapshot, const Geometry& geometry) {
  if (!geometry.is_aligned(snapshot.l1_table_offset) || snapshot.l1_table_offset > kMaxHostOffset) {
    return fail(EINVAL,
                fmt::format("snapshot {} ({}) l1_offset={:#x}: L1 table is not cluster aligned; "
                            "snapshot table entry corrupted",
                            snapshot.id, snapshot.name, snapshot.l1_table_offset));
  }
  if (snapshot.l1_entries > kMaxL1TableBytes / kTableEntryBytes) {
    return fail(EINVAL, fmt::format("snapshot {} ({}) l1_size={:#x}: L1 table is too large; "
                                    "snapshot table entry corrupted",
                                    snapshot.id, snapshot.name, snapshot.l1_entries));
  }
  return {};
}

}  // namespace platter::format::qcow2
