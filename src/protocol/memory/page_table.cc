#include "protocol/memory/page_table.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace platter::protocol {
namespace {

// Requests that overlap in time and place leave either's bytes, as on a disk. ThreadSanitizer is
// told that this is meant: under it, a page's bytes move as relaxed atomics.
#if defined(__has_feature) && __has_feature(thread_sanitizer)
void load_bytes(uint8_t* to, const uint8_t* page, size_t length) {
  for (size_t i = 0; i < length; ++i) to[i] = __atomic_load_n(page + i, __ATOMIC_RELAXED);
}
void store_bytes(uint8_t* page, const uint8_t* from, size_t length) {
  for (size_t i = 0; i < length; ++i) __atomic_store_n(page + i, from[i], __ATOMIC_RELAXED);
}
void clear_bytes(uint8_t* page, size_t length) {
  for (size_t i = 0; i < length; ++i) __atomic_store_n(page + i, uint8_t{0}, __ATOMIC_RELAXED);
}
#else
void load_bytes(uint8_t* to, const uint8_t* page, size_t length) { std::memcpy(to, page, length); }
void store_bytes(uint8_t* page, const uint8_t* from, size_t length) {
  std::memcpy(page, from, length);
}
void clear_bytes(uint8_t* page, size_t length) { std::memset(page, 0, length); }
#endif

}  // namespace

PageTable::PageTable() : tables_(std::make_unique<std::atomic<Table*>[]>(kTables)) {}

PageTable::~PageTable() {
  for (uint64_t t = 0; t < kTables; ++t) {
    Table* table = tables_[t].load(std::memory_order_relaxed);
    if (table == nullptr) continue;
    for (auto& page : table->pages) delete page.load(std::memory_order_relaxed);
    delete table;
  }
}

PageTable::Page* PageTable::find(uint64_t offset) const {
  const uint64_t page = offset / kPageBytes;
  Table* table = tables_[page / kPagesPerTable].load(std::memory_order_acquire);
  if (table == nullptr) return nullptr;
  return table->pages[page % kPagesPerTable].load(std::memory_order_acquire);
}

// Puts a fresh T where there is none yet; if another thread was first, takes its.
template <typename T>
static T* install(std::atomic<T*>& slot, bool& fresh) {
  T* present = slot.load(std::memory_order_acquire);
  fresh = false;
  if (present != nullptr) return present;
  auto made = std::make_unique<T>();
  if (slot.compare_exchange_strong(present, made.get(), std::memory_order_acq_rel)) {
    fresh = true;
    return made.release();
  }
  return present;
}

PageTable::Page& PageTable::get(uint64_t offset) {
  PLATTER_ASSERT(offset < kCapacity);
  const uint64_t number = offset / kPageBytes;
  bool fresh;
  Table* table = install(tables_[number / kPagesPerTable], fresh);
  Page* page = install(table->pages[number % kPagesPerTable], fresh);
  if (fresh) pages_.fetch_add(1, std::memory_order_relaxed);
  return *page;
}

void PageTable::read(uint64_t offset, std::span<uint8_t> out) const {
  while (!out.empty()) {
    const uint64_t into = offset % kPageBytes;
    const size_t length = std::min<uint64_t>(out.size(), kPageBytes - into);
    const Page* page = find(offset);
    if (page == nullptr || page->zero.load(std::memory_order_acquire)) {
      std::memset(out.data(), 0, length);
    } else {
      load_bytes(out.data(), page->bytes + into, length);
    }
    out = out.subspan(length);
    offset += length;
  }
}

void PageTable::write(uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const uint64_t into = offset % kPageBytes;
    const size_t length = std::min<uint64_t>(bytes.size(), kPageBytes - into);
    Page& page = get(offset);
    store_bytes(page.bytes + into, bytes.data(), length);
    if (page.zero.load(std::memory_order_relaxed))
      page.zero.store(false, std::memory_order_release);
    bytes = bytes.subspan(length);
    offset += length;
  }
}

void PageTable::zero(uint64_t offset, uint64_t length) {
  while (length != 0) {
    const uint64_t into = offset % kPageBytes;
    const uint64_t piece = std::min(length, kPageBytes - into);
    if (Page* page = find(offset)) {
      clear_bytes(page->bytes + into, piece);
      if (piece == kPageBytes) page->zero.store(true, std::memory_order_release);
    }
    offset += piece;
    length -= piece;
  }
}

uint64_t PageTable::run(uint64_t offset, uint64_t length, bool& stored) const {
  auto is_stored = [this](uint64_t at) {
    const Page* page = find(at);
    return page != nullptr && !page->zero.load(std::memory_order_acquire);
  };
  stored = is_stored(offset);
  uint64_t done = 0;
  while (done < length && is_stored(offset + done) == stored) {
    done = std::min(length, done + kPageBytes - (offset + done) % kPageBytes);
  }
  return done;
}

}  // namespace platter::protocol
