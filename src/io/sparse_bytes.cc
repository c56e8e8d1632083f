#include "io/sparse_bytes.h"

#include <algorithm>
#include <cstring>

namespace platter::io {
namespace {

constexpr uint64_t kPage = SparseBytes::kPageBytes;

// Calls fn(page index, offset in page, length, position in range) for each page of a range.
template <typename Fn>
void split_by_page(uint64_t offset, uint64_t length, Fn fn) {
  for (uint64_t position = 0; position < length;) {
    uint64_t within = (offset + position) % kPage;
    uint64_t count = std::min(kPage - within, length - position);
    fn((offset + position) / kPage, within, count, position);
    position += count;
  }
}

}  // namespace

SparseBytes::Page& SparseBytes::writable_page(uint64_t index) {
  std::shared_ptr<Page>& page = pages_[index];
  if (page == nullptr) {
    page = std::make_shared<Page>();
    page->fill(0);
  } else if (page.use_count() != 1) {
    page = std::make_shared<Page>(*page);
  }
  return *page;
}

void SparseBytes::read(uint64_t offset, std::span<uint8_t> out) const {
  split_by_page(offset, out.size(),
                [&](uint64_t index, uint64_t within, uint64_t count, uint64_t position) {
                  auto page = pages_.find(index);
                  if (page == pages_.end()) {
                    std::memset(out.data() + position, 0, count);
                  } else {
                    std::memcpy(out.data() + position, page->second->data() + within, count);
                  }
                });
}

void SparseBytes::write(uint64_t offset, std::span<const uint8_t> bytes) {
  split_by_page(offset, bytes.size(),
                [&](uint64_t index, uint64_t within, uint64_t count, uint64_t position) {
                  std::memcpy(writable_page(index).data() + within, bytes.data() + position, count);
                });
}

void SparseBytes::zero(uint64_t offset, uint64_t length) {
  uint64_t end = std::min(offset + length, extent());
  auto page = pages_.lower_bound(offset / kPage);
  while (page != pages_.end() && page->first * kPage < end) {
    uint64_t start = page->first * kPage;
    uint64_t from = std::max(offset, start);
    uint64_t to = std::min(end, start + kPage);
    if (from == start && to == start + kPage) {
      page = pages_.erase(page);
      continue;
    }
    std::memset(writable_page(page->first).data() + (from - start), 0, to - from);
    ++page;
  }
}

size_t SparseBytes::missing_pages(uint64_t offset, uint64_t length) const {
  size_t missing = 0;
  split_by_page(offset, length, [&](uint64_t index, uint64_t, uint64_t, uint64_t) {
    missing += !pages_.contains(index);
  });
  return missing;
}

uint64_t SparseBytes::extent() const {
  return pages_.empty() ? 0 : (pages_.rbegin()->first + 1) * kPage;
}

std::optional<uint64_t> SparseBytes::next_data(uint64_t offset) const {
  auto page = pages_.lower_bound(offset / kPage);
  if (page == pages_.end()) return std::nullopt;
  return std::max(offset, page->first * kPage);
}

uint64_t SparseBytes::next_hole(uint64_t offset) const {
  uint64_t index = offset / kPage;
  for (auto page = pages_.find(index); page != pages_.end() && page->first == index; ++page)
    ++index;
  return std::max(offset, index * kPage);
}

}  // namespace platter::io
