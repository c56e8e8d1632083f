#include "format/qcow2/state_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <isa-l/crc64.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "format/qcow2/layout.h"

namespace platter::format::qcow2 {
namespace {

constexpr char kMagic[8] = {'P', 'l', 't', 'S', 't', 'a', 't', 'e'};
constexpr uint64_t kVersion = 1;
constexpr uint64_t kPage = 4096;
constexpr size_t kBootBytes = 48;
constexpr size_t kIdentityBytes = 256;
// No cache has more (kMaxUsedCacheBytes in the smallest slices, and as many beside them).
constexpr uint64_t kMaxSlots = uint64_t{1} << 24;
constexpr uint64_t kMinPieceBytes = 512;
constexpr uint64_t kMaxPieceBytes = uint64_t{1} << kMaxClusterBits;

std::string boot_id() {
  const io::Descriptor file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  char text[kBootBytes - 1];
  const ssize_t got = file ? read(file.get(), text, sizeof text) : 0;
  return std::string(text, got > 0 ? static_cast<size_t>(got) : 0);
}

template <size_t N>
void put_text(char (&to)[N], const std::string& text) {
  std::memset(to, 0, N);
  std::memcpy(to, text.data(), std::min(text.size(), N - 1));
}

Result<void> allocate(int descriptor, uint64_t offset, uint64_t bytes) {
  while (fallocate(descriptor, 0, static_cast<off_t>(offset), static_cast<off_t>(bytes)) != 0) {
    if (errno != EINTR) return fail_errno(errno);
  }
  return {};
}

// All of it; false if it is not there.
bool read_all(int descriptor, uint64_t offset, void* to, size_t bytes) {
  auto* place = static_cast<uint8_t*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(descriptor, place, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    place += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

uint64_t piece_checksum(std::span<const uint8_t> bytes) {
  return crc64_ecma_refl(0, bytes.data(), bytes.size());
}

// As it begins the file. Numbers are the machine's own: no other one reads it.
struct StateFile::Header {
  char magic[sizeof kMagic];
  uint64_t version;
  char boot[kBootBytes];
  char file[kIdentityBytes];
  uint64_t cluster_bits, refcount_order, l2_entry_bytes;
  Layout layout;
  uint64_t checksum;  // of all before
  // Memory for a piece was not to be had: what is left behind is not all there was.
  std::atomic<uint64_t> incomplete;
  std::atomic<WriteBack> write_back;
  TableState::Place refcount_table, l1;

  uint64_t compute_checksum() const {
    return crc64_ecma_refl(0, reinterpret_cast<const uint8_t*>(this), offsetof(Header, checksum));
  }
};

namespace {

// Where in the file everything is.
struct Places {
  uint64_t refcount_entries, l2_entries, refcount_units, l1_units;
  uint64_t refcount_words, l1_words, refcount_slices, l2_slices;
  uint64_t end;
  uint64_t refcount_table_units, l1_table_units;  // at most

  explicit Places(const StateFile::Layout& layout) {
    refcount_table_units = base::divide_round_up(kMaxRefcountTableBytes, layout.unit_bytes);
    l1_table_units = base::divide_round_up(kMaxL1TableBytes, layout.unit_bytes);
    uint64_t at = kPage;
    const auto take = [&at](uint64_t bytes) {
      const uint64_t place = at;
      at += base::align_up(bytes, kPage);
      return place;
    };
    refcount_entries = take(layout.refcount_slots * sizeof(SliceState::Entry));
    l2_entries = take(layout.l2_slots * sizeof(SliceState::Entry));
    refcount_units = take(refcount_table_units * sizeof(TableState::Unit));
    l1_units = take(l1_table_units * sizeof(TableState::Unit));
    refcount_words = take(refcount_table_units * layout.unit_bytes);
    l1_words = take(l1_table_units * layout.unit_bytes);
    refcount_slices = take(layout.refcount_slots * layout.refcount_slice_bytes);
    l2_slices = take(layout.l2_slots * layout.l2_slice_bytes);
    end = at;
  }
};

bool is_possible(const StateFile::Layout& layout) {
  const auto is_piece = [](uint64_t bytes) {
    return base::is_power_of_two(bytes) && bytes >= kMinPieceBytes && bytes <= kMaxPieceBytes;
  };
  return layout.refcount_slots <= kMaxSlots && layout.l2_slots <= kMaxSlots &&
         is_piece(layout.refcount_slice_bytes) && is_piece(layout.l2_slice_bytes) &&
         is_piece(layout.unit_bytes);
}

}  // namespace

// ---- Slices

Result<void> SliceState::back(size_t slot) {
  return allocate(descriptor_, words_offset_ + slot * slice_bytes_, slice_bytes_);
}

bool SliceState::give_back(size_t first, size_t end) {
  return fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                   static_cast<off_t>(words_offset_ + first * slice_bytes_),
                   static_cast<off_t>((end - first) * slice_bytes_)) == 0;
}

void SliceState::hold(size_t slot, uint64_t key, std::span<const uint8_t> on_disk) {
  entries_[slot].checksum.store(piece_checksum(on_disk), std::memory_order_release);
  entries_[slot].word.store(key + 1, std::memory_order_release);
}

void SliceState::set_dirty(size_t slot) {
  entries_[slot].word.fetch_or(kPieceDirty, std::memory_order_acq_rel);
}

void SliceState::begin_write(size_t slot) {
  std::atomic<uint64_t>& word = entries_[slot].word;
  word.store((word.load(std::memory_order_relaxed) & kKeyMask) | kPieceWriting,
             std::memory_order_release);
}

void SliceState::end_write(size_t slot, bool written, uint64_t on_disk) {
  std::atomic<uint64_t>& word = entries_[slot].word;
  if (written) {
    entries_[slot].checksum.store(on_disk, std::memory_order_release);
    word.fetch_and(~kPieceWriting, std::memory_order_acq_rel);
  } else {
    // Some of it may be on disk: it stays one that is being written.
    word.fetch_or(kPieceDirty, std::memory_order_acq_rel);
  }
}

// ---- Tables

Result<void> TableState::moved(uint64_t host_offset, uint64_t units, const Content& content) {
  PLATTER_ASSERT(units <= capacity_);
  // All of the new table is on disk.
  const uint64_t old_units = place_.units.exchange(0, std::memory_order_acq_rel);
  for (uint64_t unit = 0; unit < std::max(units, old_units); ++unit)
    units_[unit].state.store(0, std::memory_order_release);
  auto backed =
      units == 0 ? Result<void>() : allocate(descriptor_, words_offset_, units * unit_bytes_);
  if (!backed) {
    incomplete_.store(1, std::memory_order_release);
    return backed;
  }
  const uint64_t words = unit_bytes_ / kTableEntryBytes;
  std::vector<uint8_t> bytes(unit_bytes_);
  for (uint64_t unit = 0; unit < units; ++unit) {
    for (uint64_t i = 0; i < words; ++i)
      base::store_big<uint64_t>(bytes, i * kTableEntryBytes, content(unit * words + i));
    units_[unit].checksum.store(piece_checksum(bytes), std::memory_order_release);
  }
  place_.host_offset.store(host_offset, std::memory_order_release);
  place_.units.store(units, std::memory_order_release);
  return {};
}

void TableState::mark(uint64_t unit, const Content& content) {
  if (unit >= place_.units.load(std::memory_order_relaxed)) return;
  const uint64_t count = unit_bytes_ / kTableEntryBytes;
  for (uint64_t i = 0; i < count; ++i) {
    std::atomic_ref<uint64_t>(words_[unit * count + i])
        .store(content(unit * count + i), std::memory_order_release);
  }
  units_[unit].state.fetch_or(kPieceDirty, std::memory_order_acq_rel);
}

void TableState::begin_write(uint64_t unit) {
  if (unit >= place_.units.load(std::memory_order_relaxed)) return;
  units_[unit].state.store(kPieceWriting, std::memory_order_release);
}

void TableState::end_write(uint64_t unit, bool written, const uint8_t* bytes) {
  if (unit >= place_.units.load(std::memory_order_relaxed)) return;
  if (written) {
    units_[unit].checksum.store(piece_checksum({bytes, unit_bytes_}), std::memory_order_release);
    units_[unit].state.fetch_and(~kPieceWriting, std::memory_order_acq_rel);
  } else {
    units_[unit].state.fetch_or(kPieceDirty, std::memory_order_acq_rel);
  }
}

// ---- The file

StateFile::StateFile(std::string path, io::Descriptor descriptor, ImageIdentity image)
    : path_(std::move(path)), descriptor_(std::move(descriptor)), image_(std::move(image)) {}

StateFile::~StateFile() { unmap(); }

Result<std::unique_ptr<StateFile>> StateFile::open(const std::string& path,
                                                   const ImageIdentity& image) {
  const auto failed = [&path](int code, std::string_view why = {}) {
    const std::string what = fmt::format("Could not open state file '{}'", path);
    return std::unexpected(why.empty() ? Error::from_errno(code, what)
                                       : Error(code, fmt::format("{}: {}", what, why)));
  };
  for (;;) {
    io::Descriptor descriptor(
        ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
    if (!descriptor) return failed(errno);
    struct stat status;
    if (fstat(descriptor.get(), &status) != 0) return failed(errno);
    if (!S_ISREG(status.st_mode)) return failed(EINVAL, "it is no regular file");
    if (status.st_uid != geteuid() || (status.st_mode & 077) != 0)
      return failed(EPERM, "it is not for this user alone");
    if (flock(descriptor.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      return failed(EBUSY, errno == EWOULDBLOCK ? "another process uses it" : "");
    }
    // Whoever had it locked may have removed it meanwhile.
    if (fstat(descriptor.get(), &status) != 0) return failed(errno);
    if (status.st_nlink == 0) continue;
    std::unique_ptr<StateFile> file(new StateFile(path, std::move(descriptor), image));
    file->read_left();
    return file;
  }
}

void StateFile::read_left() {
  const int file = descriptor_.get();
  struct stat status;
  // One whose making was not finished has no magic.
  alignas(Header) uint8_t bytes[sizeof(Header)];
  const auto* header = reinterpret_cast<const Header*>(bytes);
  if (!read_all(file, 0, bytes, sizeof bytes) ||
      std::memcmp(header->magic, kMagic, sizeof kMagic) != 0)
    return;
  left_ = Left::kUnreadable;
  if (header->version != kVersion || header->compute_checksum() != header->checksum) return;
  char boot[kBootBytes], identity[kIdentityBytes];
  put_text(boot, boot_id());
  put_text(identity, image_.file);
  if (std::memcmp(boot, header->boot, sizeof boot) != 0) {
    left_ = Left::kOfOtherBoot;
    return;
  }
  if (std::memcmp(identity, header->file, sizeof identity) != 0 ||
      header->cluster_bits != image_.cluster_bits ||
      header->refcount_order != image_.refcount_order ||
      header->l2_entry_bytes != image_.l2_entry_bytes) {
    left_ = Left::kOfOtherImage;
    return;
  }
  const Layout& layout = header->layout;
  if (!is_possible(layout) || header->incomplete != 0) return;
  const Places places(layout);
  if (fstat(file, &status) != 0 || static_cast<uint64_t>(status.st_size) < places.end) return;

  const auto read_slices = [&](uint64_t entries, uint64_t words, uint64_t slots,
                               uint64_t slice_bytes, std::vector<LeftPiece>& pieces) {
    std::vector<uint64_t> directory(slots * 2);
    if (!read_all(file, entries, directory.data(), directory.size() * 8)) return false;
    for (uint64_t slot = 0; slot < slots; ++slot) {
      const uint64_t word = directory[slot * 2];
      const uint64_t key = word & SliceState::kKeyMask;
      if ((word & (kPieceDirty | kPieceWriting)) == 0 || key == 0) continue;
      LeftPiece& piece = pieces.emplace_back();
      piece.number = key - 1;
      piece.was_written = (word & kPieceWriting) != 0;
      piece.checksum = directory[slot * 2 + 1];
      piece.bytes.resize(slice_bytes);
      if (!read_all(file, words + slot * slice_bytes, piece.bytes.data(), slice_bytes))
        return false;
    }
    return true;
  };
  const auto read_table = [&](const TableState::Place& place, uint64_t unit_places, uint64_t words,
                              uint64_t capacity, LeftTable& table) {
    table.host_offset = place.host_offset;
    table.unit_bytes = layout.unit_bytes;
    const uint64_t units = place.units;
    if (units > capacity) return false;
    std::vector<uint64_t> directory(units * 2);
    if (!read_all(file, unit_places, directory.data(), directory.size() * 8)) return false;
    for (uint64_t unit = 0; unit < units; ++unit) {
      const uint64_t state = directory[unit * 2];
      if ((state & (kPieceDirty | kPieceWriting)) == 0) continue;
      std::vector<uint64_t> content(layout.unit_bytes / kTableEntryBytes);
      if (!read_all(file, words + unit * layout.unit_bytes, content.data(), layout.unit_bytes))
        return false;
      LeftPiece& piece = table.units.emplace_back();
      piece.number = unit;
      piece.was_written = (state & kPieceWriting) != 0;
      piece.checksum = directory[unit * 2 + 1];
      piece.bytes.resize(layout.unit_bytes);
      for (size_t i = 0; i < content.size(); ++i)
        base::store_big<uint64_t>(piece.bytes, i * kTableEntryBytes, content[i]);
    }
    return true;
  };
  left_ = Left::kState;
  const WriteBack write_back = header->write_back;
  if (write_back == WriteBack::kEnded) return;
  LeftState state;
  state.refcount_slice_bytes = layout.refcount_slice_bytes;
  state.l2_slice_bytes = layout.l2_slice_bytes;
  if (!read_slices(places.refcount_entries, places.refcount_slices, layout.refcount_slots,
                   layout.refcount_slice_bytes, state.refcount_slices) ||
      !read_slices(places.l2_entries, places.l2_slices, layout.l2_slots, layout.l2_slice_bytes,
                   state.l2_slices) ||
      !read_table(header->refcount_table, places.refcount_units, places.refcount_words,
                  places.refcount_table_units, state.refcount_table) ||
      !read_table(header->l1, places.l1_units, places.l1_words, places.l1_table_units, state.l1)) {
    left_ = Left::kUnreadable;
    return;
  }
  if (write_back == WriteBack::kBegun) {
    for (auto* pieces :
         {&state.refcount_slices, &state.l2_slices, &state.refcount_table.units, &state.l1.units}) {
      for (LeftPiece& piece : *pieces) piece.was_written = true;
    }
  }
  left_state_ = std::move(state);
}

Result<void> StateFile::set_write_back(WriteBack progress) {
  if (pwrite(descriptor_.get(), &progress, sizeof progress, offsetof(Header, write_back)) !=
      sizeof progress)
    return fail_errno(errno);
  return {};
}
Result<void> StateFile::begin_write_back() { return set_write_back(WriteBack::kBegun); }
Result<void> StateFile::end_write_back() { return set_write_back(WriteBack::kEnded); }

Result<void> StateFile::map(uint64_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                      descriptor_.get(), 0);
  if (memory == MAP_FAILED) return fail_errno(errno);
  memory_ = static_cast<uint8_t*>(memory);
  mapped_ = bytes;
  // Best effort: only keeps untouched slots unbacked.
  madvise(memory_, mapped_, MADV_NOHUGEPAGE);
  return {};
}

void StateFile::unmap() {
  if (memory_ != nullptr) munmap(memory_, mapped_);
  memory_ = nullptr;
}

Result<void> StateFile::begin(const Layout& layout) {
  PLATTER_ASSERT(is_possible(layout) && memory_ == nullptr);
  const auto failed = [this](Error error) {
    return std::unexpected(
        std::move(error).with_context(fmt::format("Could not make state file '{}'", path_)));
  };
  const int file = descriptor_.get();
  const Places places(layout);
  if (ftruncate(file, 0) != 0 || ftruncate(file, static_cast<off_t>(places.end)) != 0)
    return failed(Error::from_errno(errno));
  // What is written to without asking has its memory from here on; the rest when it is used.
  auto made = allocate(file, 0, places.refcount_words);
  if (made) made = map(places.end);
  if (!made) return failed(std::move(made).error());

  auto* header = new (memory_) Header();
  header->version = kVersion;
  put_text(header->boot, boot_id());
  put_text(header->file, image_.file);
  header->cluster_bits = image_.cluster_bits;
  header->refcount_order = image_.refcount_order;
  header->l2_entry_bytes = image_.l2_entry_bytes;
  header->layout = layout;
  const auto slices = [&](uint64_t entries, uint64_t words, uint64_t slots, uint64_t slice_bytes) {
    return std::make_unique<SliceState>(
        file, words, reinterpret_cast<SliceState::Entry*>(memory_ + entries),
        reinterpret_cast<uint64_t*>(memory_ + words), slots, slice_bytes);
  };
  refcount_slices_ = slices(places.refcount_entries, places.refcount_slices, layout.refcount_slots,
                            layout.refcount_slice_bytes);
  l2_slices_ = slices(places.l2_entries, places.l2_slices, layout.l2_slots, layout.l2_slice_bytes);
  const auto table = [&](TableState::Place& place, uint64_t units, uint64_t words,
                         uint64_t capacity) {
    return std::make_unique<TableState>(file, words, header->incomplete, place,
                                        reinterpret_cast<TableState::Unit*>(memory_ + units),
                                        reinterpret_cast<uint64_t*>(memory_ + words), capacity,
                                        layout.unit_bytes);
  };
  refcount_table_ = table(header->refcount_table, places.refcount_units, places.refcount_words,
                          places.refcount_table_units);
  l1_ = table(header->l1, places.l1_units, places.l1_words, places.l1_table_units);
  // Last: before, there was nothing to leave behind.
  std::memcpy(header->magic, kMagic, sizeof kMagic);
  header->checksum = header->compute_checksum();
  return {};
}

void StateFile::end() { unlink(path_.c_str()); }

}  // namespace platter::format::qcow2
