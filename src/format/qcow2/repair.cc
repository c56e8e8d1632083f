#include "format/qcow2/repair.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/check.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/table_switch.h"

namespace platter::format::qcow2 {
namespace {

class SilentReporter final : public block::CheckReporter {
 public:
  void report(std::string) override {}
};

// The active L1 table. Entries that name no table that can be read are kept apart, as they are.
struct ActiveL1 {
  std::vector<uint64_t> tables;  // offsets; 0 where there is none
  std::vector<std::pair<size_t, uint64_t>> damaged;
};

io::Task<Result<ActiveL1>> read_active_l1(const Image& image) {
  const Header& header = image.header;
  ActiveL1 l1;
  l1.tables.resize(header.l1_entries);
  if (header.l1_entries == 0) co_return l1;
  io::AlignedBuffer bytes(header.l1_bytes());
  PLATTER_CO_TRY(co_await read_padded(*image.file, header.l1_table_offset, bytes.view()));
  for (size_t i = 0; i < l1.tables.size(); ++i) {
    const uint64_t entry = base::load_big<uint64_t>(bytes.span(), i * kTableEntryBytes);
    const uint64_t offset = entry & kOffsetMask;
    if ((entry & kL1ReservedMask) != 0 || !image.geometry.is_aligned(offset) ||
        offset >= image.file->size()) {
      if (entry != 0) l1.damaged.emplace_back(i, entry);
    } else {
      l1.tables[i] = offset;
    }
  }
  co_return l1;
}

// Holds back what is said about copied flags: they are repaired together with counts that they
// disagree with, and are then nothing of their own.
class FlagsLast final : public block::CheckReporter {
 public:
  explicit FlagsLast(block::CheckReporter& reporter) : reporter_(reporter) {}
  void report(std::string line) override {
    if (line.starts_with("ERROR OFLAG_COPIED")) {
      held_.push_back(std::move(line));
    } else {
      reporter_.report(std::move(line));
    }
  }
  uint64_t held() const { return held_.size(); }
  void release() {
    for (auto& line : held_) reporter_.report(std::move(line));
    held_.clear();
  }

 private:
  block::CheckReporter& reporter_;
  std::vector<std::string> held_;
};

io::Task<Result<void>> rewrite(Image& image, const ReferenceCounts& counts, block::Repair what,
                               block::CheckReporter& reporter) {
  const Header& header = image.header;
  PLATTER_CO_ASSIGN(auto snapshots, co_await read_snapshot_table(*image.file, header));
  PLATTER_CO_ASSIGN(auto l1, co_await read_active_l1(image));
  TableSwitch tables(image);
  const uint64_t new_bytes = (uint64_t{header.l1_entries} << header.cluster_bits) +
                             header.l1_bytes() + kMaxSnapshotTableBytes;
  PLATTER_CO_TRY(
      co_await tables.load_counted(counts, what == block::Repair::kLeaks, new_bytes, reporter));
  PLATTER_CO_TRY(co_await tables.settle_flags(l1.tables, 1));
  tables.settle_l1_flags(l1.tables);
  for (const auto& [index, entry] : l1.damaged) l1.tables[index] = entry;
  co_return co_await tables.commit(l1.tables, snapshots.snapshots, header.size);
}

// Whether there was something to repair, and it has been.
io::Task<Result<bool>> repair_found(Image& image, const block::CheckResult& found,
                                    block::Repair what, FlagsLast& reporter) {
  const bool leaks_only = what == block::Repair::kLeaks;
  if (found.leaks == 0 && (leaks_only || (found.corruptions == 0 && found.check_errors == 0)))
    co_return false;
  SilentReporter silent;
  block::CheckResult tables;
  PLATTER_CO_ASSIGN(const auto counts,
                    co_await count_reachable(*image.file, image.header, silent, tables));
  if (leaks_only && tables.corruptions != 0) co_return false;
  // Where flags are all that is wrong they are told of.
  if (found.leaks == 0 && found.check_errors == 0 && found.corruptions == reporter.held())
    reporter.release();
  PLATTER_CO_TRY(co_await rewrite(image, counts, what, reporter));
  co_return true;
}

}  // namespace

io::Task<Result<block::CheckResult>> repair_image(Image& image, block::CheckReporter& reporter,
                                                  block::Repair what) {
  FlagsLast lines(reporter);
  PLATTER_CO_ASSIGN(auto result, co_await check_image(*image.file, image.header, lines));
  PLATTER_CO_ASSIGN(const bool repaired, co_await repair_found(image, result, what, lines));
  if (repaired) {
    const uint64_t corruptions = result.corruptions - lines.held();
    const uint64_t leaks = result.leaks;
    SilentReporter silent;
    PLATTER_CO_ASSIGN(result, co_await check_image(*image.file, image.header, silent));
    result.corruptions_fixed = corruptions - std::min(corruptions, result.corruptions);
    result.leaks_fixed = leaks - std::min(leaks, result.leaks);
  } else {
    lines.release();
  }
  if (result.corruptions == 0 && result.check_errors == 0) {
    PLATTER_CO_TRY(co_await image.change_incompatible(0, kDirty | kCorrupt));
    PLATTER_CO_TRY(co_await image.file->flush());
  }
  co_return result;
}

}  // namespace platter::format::qcow2
