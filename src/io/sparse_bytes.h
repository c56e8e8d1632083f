// SparseBytes: the content of a simulated file. Pages that were never written read as zeroes and
// cost nothing; copies share pages until one of them changes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>

namespace platter::io {

class SparseBytes {
 public:
  static constexpr uint64_t kPageBytes = 4096;

  void read(uint64_t offset, std::span<uint8_t> out) const;
  void write(uint64_t offset, std::span<const uint8_t> bytes);
  // Whole pages are given back.
  void zero(uint64_t offset, uint64_t length);

  size_t page_count() const { return pages_.size(); }
  size_t missing_pages(uint64_t offset, uint64_t length) const;
  // The end of the last page.
  uint64_t extent() const;
  // The first byte at or after `offset` in a page that exists, or that does not.
  std::optional<uint64_t> next_data(uint64_t offset) const;
  uint64_t next_hole(uint64_t offset) const;

  // Calls fn(offset) for each page that exists and begins in [from, to).
  template <typename Fn>
  void for_each_page(uint64_t from, uint64_t to, Fn fn) const {
    for (auto page = pages_.lower_bound(from / kPageBytes); page != pages_.end(); ++page) {
      if (page->first * kPageBytes >= to) break;
      fn(page->first * kPageBytes);
    }
  }

 private:
  using Page = std::array<uint8_t, kPageBytes>;
  Page& writable_page(uint64_t index);
  std::map<uint64_t, std::shared_ptr<Page>> pages_;
};

}  // namespace platter::io
