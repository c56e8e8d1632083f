#include "format/qcow2/state_recovery.h"

#include <fmt/format.h>
#include <isa-l/crc64.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/metadata_io.h"
#include "format/qcow2/repair.h"
#include "format/qcow2/stored_counts.h"

namespace platter::format::qcow2 {
namespace {

constexpr size_t kNameBytes = 48;

// A file name for people, which no other image has.
std::string state_name(const std::string& filename, const std::string& identity) {
  std::string name = filename.substr(filename.rfind('/') + 1).substr(0, kNameBytes);
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '-') c = '_';
  }
  const uint64_t number =
      crc64_ecma_refl(0, reinterpret_cast<const unsigned char*>(identity.data()), identity.size());
  return fmt::format("{}-{:016x}.state", name, number);
}

// For this user alone: who may put files there may have others of them overwritten.
Result<void> make_directory(const std::string& directory) {
  struct stat status;
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Could not make directory '{}'", directory)));
  }
  if (lstat(directory.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) ||
      status.st_uid != geteuid() || (status.st_mode & 022) != 0) {
    return fail(EPERM,
                fmt::format("'{}' is no directory that this user alone writes to", directory));
  }
  return {};
}

// A piece with its place in the image.
struct PlacedPiece {
  uint64_t host_offset;
  const LeftPiece* piece;
};

class Recovery {
 public:
  Recovery(Image& image, const LeftState& left) : image_(image), left_(left) {}

  // Finds where everything goes, and that the disk has there what it should. Writes nothing.
  io::Task<Result<void>> plan() {
    const Header& header = image_.header;
    PLATTER_CO_ASSIGN(auto table, co_await read_refcount_table(*image_.file, header));
    std::vector<uint64_t> l1(header.l1_entries);
    io::AlignedBuffer bytes(std::max<uint64_t>(header.l1_bytes(), kTableEntryBytes));
    PLATTER_CO_TRY(co_await read_padded(*image_.file, header.l1_table_offset,
                                        bytes.view(0, header.l1_bytes())));
    for (size_t i = 0; i < l1.size(); ++i)
      l1[i] = base::load_big<uint64_t>(bytes.span(), i * kTableEntryBytes);

    PLATTER_CO_TRY(
        plan_table(left_.refcount_table, header.refcount_table_offset, table, refcount_table_));
    PLATTER_CO_TRY(plan_table(left_.l1, header.l1_table_offset, l1, mappings_));
    PLATTER_CO_TRY(co_await plan_slices(left_.refcount_slices, table, kRefcountTableOffsetMask,
                                        refcount_slices_));
    co_return co_await plan_slices(left_.l2_slices, l1, kOffsetMask, mappings_);
  }

  // Behind the last cluster that has a reference in what was left.
  uint64_t end_of_counted() const {
    const unsigned order = image_.geometry.refcount_order;
    uint64_t end = 0;
    for (const PlacedPiece& place : refcount_slices_) {
      const LeftPiece& slice = *place.piece;
      const uint64_t entries = slice.bytes.size() * 8 >> order;
      for (uint64_t i = entries; i-- > 0;) {
        if (qcow2::load_refcount(slice.bytes.data(), i, order) == 0) continue;
        end = std::max(end, slice.number * entries + i + 1);
        break;
      }
    }
    return end << image_.geometry.cluster_bits;
  }

  // In the order of order.h.
  io::Task<Result<void>> write() {
    PLATTER_CO_TRY(co_await write_pieces(refcount_slices_));
    PLATTER_CO_TRY(co_await image_.flush());
    PLATTER_CO_TRY(co_await write_pieces(refcount_table_));
    PLATTER_CO_TRY(co_await image_.flush());
    PLATTER_CO_TRY(co_await write_pieces(mappings_));
    co_return co_await image_.flush();
  }

  size_t pieces() const {
    return refcount_slices_.size() + refcount_table_.size() + mappings_.size();
  }

 private:
  static std::unexpected<Error> changed() {
    return fail(EIO, "the image has been changed by somebody else since");
  }

  // `entries` are those on disk, and then those that count. A table that has moved since was
  // written whole before it did.
  Result<void> plan_table(const LeftTable& left, uint64_t host_offset,
                          std::vector<uint64_t>& entries, std::vector<PlacedPiece>& places) {
    if (left.units.empty() || left.host_offset != host_offset) return {};
    const uint64_t per_unit = left.unit_bytes / kTableEntryBytes;
    std::vector<uint8_t> on_disk(left.unit_bytes);
    for (const LeftPiece& unit : left.units) {
      const uint64_t first = unit.number * per_unit;
      if (first >= entries.size()) return fail(EIO, "it has more tables than the image");
      for (uint64_t i = 0; i < per_unit; ++i) {
        const uint64_t entry = first + i < entries.size() ? entries[first + i] : 0;
        base::store_big<uint64_t>(on_disk, i * kTableEntryBytes, entry);
      }
      if (!unit.was_written && piece_checksum(on_disk) != unit.checksum) return changed();
      for (uint64_t i = 0; i < per_unit && first + i < entries.size(); ++i)
        entries[first + i] = base::load_big<uint64_t>(unit.bytes, i * kTableEntryBytes);
      places.push_back({host_offset + unit.number * left.unit_bytes, &unit});
    }
    return {};
  }

  // `tables` names those that the slices are parts of.
  io::Task<Result<void>> plan_slices(const std::vector<LeftPiece>& slices,
                                     const std::vector<uint64_t>& tables, uint64_t offset_mask,
                                     std::vector<PlacedPiece>& places) {
    if (slices.empty()) co_return Result<void>();
    io::AlignedBuffer on_disk(slices.front().bytes.size());
    const uint64_t slices_each = image_.geometry.cluster_size() / on_disk.size();
    if (slices_each == 0) co_return fail(EIO, "its tables are larger than the image's");
    for (const LeftPiece& slice : slices) {
      const uint64_t index = slice.number / slices_each;
      const uint64_t entry = index < tables.size() ? tables[index] : 0;
      const uint64_t table = entry & offset_mask;
      // Of a table that was being made, and never came to count.
      if (table == 0) continue;
      if (!image_.geometry.is_aligned(table) || table > kMaxHostOffset)
        co_return fail(EIO, fmt::format("it has a table at {:#x}", table));
      const uint64_t host_offset = table + slice.number % slices_each * slice.bytes.size();
      PLATTER_CO_TRY(co_await read_padded(*image_.file, host_offset, on_disk.view()));
      if (!slice.was_written && piece_checksum(on_disk.span()) != slice.checksum)
        co_return changed();
      places.push_back({host_offset, &slice});
    }
    co_return Result<void>();
  }

  io::Task<Result<void>> write_pieces(const std::vector<PlacedPiece>& places) {
    for (const PlacedPiece& place : places)
      PLATTER_CO_TRY(co_await image_.write_file(place.host_offset, place.piece->bytes));
    co_return Result<void>();
  }

  Image& image_;
  const LeftState& left_;
  std::vector<PlacedPiece> refcount_slices_, refcount_table_, mappings_;
};

// Clusters that were counted for what had not come to use them.
io::Task<Result<void>> give_back_leaks(Image& image) {
  // What was under way when the process died is no damage: nobody is told.
  block::FirstLine found;
  PLATTER_CO_ASSIGN(const auto result, co_await repair_image(image, found, block::Repair::kLeaks));
  if (result.corruptions != 0 || result.check_errors != 0) co_return fail(EIO, found.line());
  co_return Result<void>();
}

io::Task<Result<void>> write_back_left(Image& image, StateFile& state) {
  Recovery recovery(image, state.left_state());
  PLATTER_CO_TRY(co_await recovery.plan());
  PLATTER_CO_TRY(state.begin_write_back());
  PLATTER_CO_TRY(co_await recovery.write());
  // Before anything is moved: it is not to be written a second time.
  PLATTER_CO_TRY(state.end_write_back());
  // A check looks as far as the file goes. What was counted for data that never came lies behind.
  if (recovery.end_of_counted() > image.file->size()) {
    PLATTER_CO_TRY(
        co_await image.file->resize(recovery.end_of_counted(), block::Preallocation::kOff, false));
  }
  // With lazy refcounts counts may lag, and are made right as the image is opened.
  if (!image.header.has(kDirty)) PLATTER_CO_TRY(co_await give_back_leaks(image));
  if (recovery.pieces() == 0) co_return Result<void>();
  image.log->info(
      fmt::format("{}: qcow2: What an earlier process had not written back is on disk "
                  "now ({} pieces of tables)",
                  image.node->filename(), recovery.pieces()));
  co_return Result<void>();
}

}  // namespace

Result<std::unique_ptr<StateFile>> open_state_file(const Image& image,
                                                   const std::string& directory) {
  const std::string& filename = image.file->node().filename();
  std::string identity = image.file->node().driver().file_identity();
  if (identity.empty()) identity = filename;
  PLATTER_TRY(make_directory(directory));
  return StateFile::open(directory + "/" + state_name(filename, identity),
                         {.file = identity,
                          .cluster_bits = image.geometry.cluster_bits,
                          .refcount_order = image.geometry.refcount_order,
                          .l2_entry_bytes = image.geometry.l2_entry_bytes()});
}

io::Task<Result<void>> take_up_left_state(Image& image, StateFile& state) {
  Result<void> taken;
  switch (state.left()) {
    case StateFile::Left::kNothing:
    case StateFile::Left::kOfOtherBoot: co_return Result<void>();
    case StateFile::Left::kOfOtherImage: taken = fail(EIO, "it belongs to another image"); break;
    case StateFile::Left::kUnreadable: taken = fail(EIO, "it is damaged"); break;
    case StateFile::Left::kState: taken = co_await write_back_left(image, state); break;
  }
  if (!taken) {
    taken.error().add_context(fmt::format(
        "Could not take up what an earlier process left in '{}' (remove it to do without)",
        state.path()));
  }
  co_return taken;
}

}  // namespace platter::format::qcow2
