#include "format/qcow2/table_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#include "base/try.h"
#include "format/qcow2/layout.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {

void SliceWords::copy_to(std::span<uint8_t> bytes) const {
  PLATTER_ASSERT(bytes.size() == count_ * 8);
  for (size_t i = 0; i < count_; ++i) {
    const uint64_t word = std::atomic_ref<uint64_t>(words_[i]).load(std::memory_order_acquire);
    std::memcpy(bytes.data() + i * 8, &word, 8);
  }
}

void SliceWords::copy_from(std::span<const uint8_t> bytes) const {
  PLATTER_ASSERT(bytes.size() == count_ * 8);
  for (size_t i = 0; i < count_; ++i) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i * 8, 8);
    std::atomic_ref<uint64_t>(words_[i]).store(word, std::memory_order_release);
  }
}

TableCache::TableCache(Config config)
    : slice_bytes_(config.slice_bytes),
      paired_words_(config.paired_words),
      load_event_(config.load_event) {
  PLATTER_ASSERT(slice_bytes_ >= 512 && (slice_bytes_ & (slice_bytes_ - 1)) == 0);
  const uint64_t wanted = std::min(config.budget_bytes / slice_bytes_, config.slice_count);
  const uint64_t slots = std::max<uint64_t>(wanted, 2);
  ways_ = std::min<uint64_t>(slots, kWays);
  sets_ = (slots + ways_ - 1) / ways_;
  direct_ = config.slice_count <= sets_ * ways_;
  const size_t count = sets_ * ways_;

  mapped_bytes_ = count * slice_bytes_;
  void* memory = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  madvise(memory, mapped_bytes_,
          MADV_NOHUGEPAGE);  // best effort: only keeps untouched slots unbacked
  words_ = static_cast<uint64_t*>(memory);
  const auto page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  slots_a_page_ = std::max<uint64_t>(page_bytes / slice_bytes_, 1);

  tags_ = std::make_unique<std::atomic<uint64_t>[]>(count);
  referenced_ = std::make_unique<std::atomic<uint8_t>[]>(count);
  hands_.resize(sets_);
  slots_.resize(count);
  for (size_t i = 0; i < count; ++i) slots_[i].words = words_ + i * slice_words();
}

TableCache::~TableCache() {
  if (state_ == nullptr) munmap(words_, mapped_bytes_);
}

size_t TableCache::state_slots() const {
  return slots_.size() + slots_.size() / 2 + kOverflowSlots;
}

void TableCache::keep_in(SliceState& state) {
  std::lock_guard lock(mutex_);
  PLATTER_ASSERT(state_ == nullptr && state.slots() == state_slots());
  munmap(words_, mapped_bytes_);
  state_ = &state;
  words_ = state.words(0);
  for (size_t i = 0; i < slots_.size(); ++i) {
    PLATTER_ASSERT(!slots_[i].occupied);
    slots_[i].words = state.words(i);
    slots_[i].held = false;
  }
  held_slots_ = 0;
  for (size_t slot = state.slots(); slot-- > slots_.size();) free_overflow_.push_back(slot);
}

// In the state file.
size_t TableCache::index_of(const Slot* slot) const {
  return slot->overflow ? slot->state_slot : static_cast<size_t>(slot - slots_.data());
}

TableCache::Slot* TableCache::find_locked(uint64_t key) const {
  const size_t first = set_of(key) * ways_;
  for (size_t i = first; i < first + ways_; ++i) {
    if (slots_[i].occupied && slots_[i].key == key) return const_cast<Slot*>(&slots_[i]);
  }
  if (overflow_.empty()) return nullptr;
  auto found = overflow_.find(key);
  return found == overflow_.end() ? nullptr : found->second.get();
}

// Second chance: a way whose reference bit is set is passed over once.
TableCache::Slot* TableCache::choose_victim_locked(uint64_t key) {
  const size_t set = set_of(key);
  const size_t first = set * ways_;
  for (size_t i = first; i < first + ways_; ++i) {
    if (!slots_[i].occupied) return &slots_[i];
  }
  for (size_t step = 0; step < 2 * ways_; ++step) {
    const size_t i = first + hands_[set];
    hands_[set] = static_cast<uint8_t>((hands_[set] + 1) % ways_);
    if (!slots_[i].evictable()) continue;
    const uint8_t before = referenced_[i].fetch_and(kSinceCleaning, std::memory_order_relaxed);
    if ((before & kSinceClock) == 0) return &slots_[i];
  }
  return nullptr;
}

bool TableCache::try_pin(uint64_t key, Slot** slot) {
  std::lock_guard lock(mutex_);
  *slot = find_locked(key);
  if (*slot == nullptr) return false;
  if (!(*slot)->overflow) mark_used(static_cast<size_t>(*slot - slots_.data()));
  ++(*slot)->pins;
  return true;
}

Result<TableCache::Pin> TableCache::insert(uint64_t key, std::span<const uint8_t> content) {
  std::lock_guard lock(mutex_);
  PLATTER_ASSERT(find_locked(key) == nullptr && key < kKeyMask);
  if (Slot* slot = choose_victim_locked(key)) {
    const size_t index = static_cast<size_t>(slot - slots_.data());
    if (state_ != nullptr) {
      if (!slot->held) PLATTER_TRY(state_->back(index));
      state_->forget(index);
    }
    const uint64_t generation = next_generation(index);
    tags_[index].store(generation, std::memory_order_release);
    slot->occupied = true;
    slot->key = key;
    slot->pins = 1;
    if (!std::exchange(slot->held, true)) ++held_slots_;
    SliceWords(slot->words, slice_words()).copy_from(content);
    if (state_ != nullptr) state_->hold(index, key, content);
    referenced_[index].store(kUsed, std::memory_order_relaxed);
    tags_[index].store(generation | (key + 1), std::memory_order_release);
    return Pin(this, slot);
  }
  PLATTER_ASSIGN(auto slot, make_overflow_locked());
  slot->occupied = true;
  slot->key = key;
  slot->pins = 1;
  SliceWords(slot->words, slice_words()).copy_from(content);
  if (state_ != nullptr) state_->hold(slot->state_slot, key, content);
  Slot* raw = slot.get();
  overflow_.emplace(key, std::move(slot));
  return Pin(this, raw);
}

Result<std::unique_ptr<TableCache::Slot>> TableCache::make_overflow_locked() {
  auto slot = std::make_unique<Slot>();
  slot->overflow = true;
  if (state_ == nullptr) {
    slot->own_words = std::make_unique<uint64_t[]>(slice_words());
    slot->words = slot->own_words.get();
    return slot;
  }
  if (free_overflow_.empty()) return fail(ENOSPC, "The state file has no room for more tables");
  slot->state_slot = free_overflow_.back();
  PLATTER_TRY(state_->back(slot->state_slot));
  free_overflow_.pop_back();
  slot->words = state_->words(slot->state_slot);
  return slot;
}

void TableCache::drop_overflow_locked(Slot* slot) {
  if (!slot->overflow || !slot->evictable()) return;
  if (state_ != nullptr) {
    state_->forget(slot->state_slot);
    free_overflow_.push_back(slot->state_slot);
  }
  overflow_.erase(slot->key);
}

void TableCache::update_pressure_locked() {
  const bool dirty_overflow = std::any_of(overflow_.begin(), overflow_.end(),
                                          [](const auto& entry) { return entry.second->dirty; });
  // Where each slice has a slot of its own, none has to go for another.
  const bool crowded = !direct_ && dirty_.size() * 2 > slots_.size();
  pressure_.store(dirty_overflow || crowded, std::memory_order_relaxed);
}

uint64_t TableCache::hide_locked(Slot* slot) {
  if (slot->overflow) return 0;  // readers without the lock do not find it
  const size_t index = static_cast<size_t>(slot - slots_.data());
  const uint64_t generation = next_generation(index);
  tags_[index].store(generation, std::memory_order_release);
  return generation | (slot->key + 1);
}

void TableCache::show_locked(Slot* slot, uint64_t tag) {
  if (slot->overflow) return;
  tags_[static_cast<size_t>(slot - slots_.data())].store(tag, std::memory_order_release);
}

void TableCache::unpin(Slot* slot) {
  std::lock_guard lock(mutex_);
  PLATTER_ASSERT(slot->pins > 0);
  --slot->pins;
  drop_overflow_locked(slot);
}

void TableCache::set_dirty(Slot* slot) {
  std::lock_guard lock(mutex_);
  PLATTER_ASSERT(slot->pins > 0);
  if (slot->dirty) return;
  slot->dirty = true;
  if (state_ != nullptr) state_->set_dirty(index_of(slot));
  dirty_.push_back(slot);
  update_pressure_locked();
}

uint64_t TableCache::Place::host_offset() const {
  if (entry == nullptr) return offset;
  return (entry->load(std::memory_order_acquire) & kOffsetMask) + offset;
}

bool TableCache::copy_if_cached(uint64_t key, std::span<uint8_t> bytes) const {
  if (read(key, [bytes](SliceWords words) { words.copy_to(bytes); })) return true;
  std::lock_guard lock(mutex_);
  const Slot* slot = find_locked(key);
  if (slot == nullptr) return false;
  SliceWords(slot->words, slice_words()).copy_to(bytes);
  return true;
}

io::Task<Result<TableCache::Pin>> TableCache::acquire(uint64_t key, block::Child* file,
                                                      Place place) {
  Slot* slot;
  if (try_pin(key, &slot)) co_return Pin(this, slot);
  auto loading = co_await loading_[key % kStripes].lock();
  if (try_pin(key, &slot)) co_return Pin(this, slot);
  io::AlignedBuffer staging(slice_bytes_);
  // Only now: whoever changes the entry then finds the slice here, or waits for it to be.
  const uint64_t host_offset = place.host_offset();
  if (host_offset == kReadsZero) {
    staging.view().fill_zero();
  } else {
    co_await file->pass(load_event_);
    PLATTER_CO_TRY(co_await read_padded(*file, host_offset, staging.view()));
  }
  co_return insert(key, staging.span());
}

size_t TableCache::dirty_count() const {
  std::lock_guard lock(mutex_);
  return dirty_.size();
}

std::vector<TableCache::Staged> TableCache::take_dirty(std::vector<uint8_t>& staging) {
  std::lock_guard lock(mutex_);
  std::vector<Staged> result;
  result.reserve(dirty_.size());
  size_t position = staging.size();
  staging.resize(position + dirty_.size() * slice_bytes_);
  for (Slot* slot : dirty_) {
    PLATTER_ASSERT(slot->dirty && !slot->writing);
    slot->dirty = false;
    slot->writing = true;
    const auto copy = std::span(staging).subspan(position, slice_bytes_);
    SliceWords(slot->words, slice_words()).copy_to(copy);
    result.push_back({slot, slot->key, position});
    if (state_ != nullptr) {
      state_->begin_write(index_of(slot));
      result.back().checksum = piece_checksum(copy);
    }
    position += slice_bytes_;
  }
  dirty_.clear();
  update_pressure_locked();
  return result;
}

void TableCache::end_write(std::span<const Staged> staged, bool written) {
  std::lock_guard lock(mutex_);
  for (const Staged& item : staged) {
    PLATTER_ASSERT(item.slot->writing);
    item.slot->writing = false;
    if (state_ != nullptr) state_->end_write(index_of(item.slot), written, item.checksum);
    if (!written && !item.slot->dirty) {
      item.slot->dirty = true;
      dirty_.push_back(item.slot);
    }
    drop_overflow_locked(item.slot);
  }
  update_pressure_locked();
}

void TableCache::clear() {
  std::lock_guard lock(mutex_);
  PLATTER_ASSERT(dirty_.empty() && overflow_.empty());
  for (size_t i = 0; i < slots_.size(); ++i) {
    PLATTER_ASSERT(slots_[i].evictable());
    slots_[i].occupied = false;
    if (state_ != nullptr) state_->forget(i);
    tags_[i].store(next_generation(i), std::memory_order_release);
  }
}

// ---- Memory

io::Task<void> TableCache::give_back_unused() {
  for (size_t first = 0; first < slots_.size(); first += kCleanedAtOnce) {
    if (first != 0) co_await io::Reactor::current()->yield();
    give_back_unused_among(first, std::min(first + kCleanedAtOnce, slots_.size()));
  }
}

void TableCache::give_back_unused_among(size_t first, size_t end) {
  std::lock_guard lock(mutex_);
  if (held_slots_ == 0) return;
  size_t empty_from = first;  // every page from here on holds nothing
  for (size_t page = first; page < end; page += slots_a_page_) {
    const size_t page_end = std::min(page + slots_a_page_, end);
    if (evict_unused_locked(page, page_end)) continue;
    give_back_locked(empty_from, page);
    empty_from = page_end;
  }
  give_back_locked(empty_from, end);
}

// Whether the slots of one page are empty now: all go, or none.
bool TableCache::evict_unused_locked(size_t first, size_t end) {
  bool unused = true;
  for (size_t i = first; i < end; ++i) {
    const uint8_t before = referenced_[i].fetch_and(kSinceClock, std::memory_order_relaxed);
    if (slots_[i].occupied && ((before & kSinceCleaning) != 0 || !slots_[i].evictable()))
      unused = false;
  }
  if (!unused) return false;
  for (size_t i = first; i < end; ++i) {
    if (!slots_[i].occupied) continue;
    slots_[i].occupied = false;
    if (state_ != nullptr) state_->forget(i);
    // Before the words go: a reader who finds zeroes in their place finds another tag, too.
    tags_[i].store(next_generation(i), std::memory_order_release);
  }
  return true;
}

void TableCache::give_back_locked(size_t first, size_t end) {
  uint64_t held = 0;
  for (size_t i = first; i < end; ++i) held += slots_[i].held;
  if (held == 0) return;
  // Best effort: what the system does not take back is held on.
  const bool gone = state_ != nullptr ? state_->give_back(first, end)
                                      : madvise(slots_[first].words, (end - first) * slice_bytes_,
                                                MADV_DONTNEED) == 0;
  if (!gone) return;
  for (size_t i = first; i < end; ++i) slots_[i].held = false;
  held_slots_ -= held;
}

uint64_t TableCache::held_bytes() const {
  std::lock_guard lock(mutex_);
  return held_slots_ * slice_bytes_;
}

TableCache::Pin& TableCache::Pin::operator=(Pin&& other) noexcept {
  if (this != &other) {
    release();
    cache_ = other.cache_;
    slot_ = std::exchange(other.slot_, nullptr);
  }
  return *this;
}

SliceWords TableCache::Pin::words() const {
  return SliceWords(slot_->words, cache_->slice_words());
}
void TableCache::Pin::mark_dirty() { cache_->set_dirty(slot_); }
void TableCache::Pin::release() {
  if (slot_ != nullptr) cache_->unpin(std::exchange(slot_, nullptr));
}

}  // namespace platter::format::qcow2
