// PageTable: sparse memory that many threads read and write without a lock.
//
// A two-level table of 64 KiB pages; a page appears by compare-and-swap when it is first written
// and stays until the table goes. A page that was zeroed as a whole is marked so and reads as
// zeroes. Accesses that overlap in time and place are the callers' own race, as on a disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

namespace platter::protocol {

class PageTable {
 public:
  static constexpr uint64_t kPageBytes = uint64_t{64} << 10;
  static constexpr uint64_t kCapacity = uint64_t{16} << 40;

  PageTable();
  ~PageTable();
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;

  void read(uint64_t offset, std::span<uint8_t> out) const;
  void write(uint64_t offset, std::span<const uint8_t> bytes);
  void zero(uint64_t offset, uint64_t length);
  // How many of the `length` bytes from `offset` are alike: stored, or reading as zeroes for want
  // of a page.
  uint64_t run(uint64_t offset, uint64_t length, bool& stored) const;
  uint64_t stored_bytes() const { return pages_.load(std::memory_order_relaxed) * kPageBytes; }

 private:
  static constexpr uint64_t kPagesPerTable = 8192;
  static constexpr uint64_t kTables = kCapacity / (kPageBytes * kPagesPerTable);
  struct Page {
    std::atomic<bool> zero{false};
    alignas(64) uint8_t bytes[kPageBytes];
  };
  struct Table {
    std::atomic<Page*> pages[kPagesPerTable];
  };

  Page* find(uint64_t offset) const;
  Page& get(uint64_t offset);

  std::unique_ptr<std::atomic<Table*>[]> tables_;
  std::atomic<uint64_t> pages_{0};
};

}  // namespace platter::protocol
