#include "crypto/encrypted_io.h"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/try.h"
#include "io/reactor.h"
#include "io/when_all.h"

namespace platter::crypto {
namespace {

// Windows of one request that are under way at the same time.
constexpr size_t kParallelWindows = 8;
constexpr std::align_val_t kAlignment{io::AlignedBuffer::kAlignment};

bool is_small(uint64_t bytes) { return bytes <= kInlineBytes; }

}  // namespace

class BouncePool::Lease {
 public:
  Lease(BouncePool& pool, size_t bytes)
      : places_(is_small(bytes) ? pool.small_ : pool.large_), size_(bytes) {
    PLATTER_ASSERT(bytes <= kWindowBytes);
    for (auto& place : places_.idle) {
      if (place.load(std::memory_order_relaxed) == nullptr) continue;
      data_ = place.exchange(nullptr, std::memory_order_acquire);
      if (data_ != nullptr) return;
    }
    data_ = static_cast<uint8_t*>(
        ::operator new(is_small(bytes) ? kInlineBytes : kWindowBytes, kAlignment));
  }
  ~Lease() {
    for (auto& place : places_.idle) {
      uint8_t* expected = nullptr;
      if (place.compare_exchange_strong(expected, data_, std::memory_order_release,
                                        std::memory_order_relaxed)) {
        return;
      }
    }
    ::operator delete(data_, kAlignment);
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  std::span<uint8_t> span() const { return {data_, size_}; }
  io::BufferList view() const { return {data_, size_}; }

 private:
  Places& places_;
  uint8_t* data_ = nullptr;
  size_t size_;
};

BouncePool::~BouncePool() {
  for (auto& place : small_.idle) ::operator delete(place.load(), kAlignment);
  for (auto& place : large_.idle) ::operator delete(place.load(), kAlignment);
}

io::Task<Result<void>> EncryptedIo::read(Medium& medium, uint64_t offset, uint64_t sector,
                                         io::BufferList buffers) {
  if (buffers.size() <= kWindowBytes)
    co_return co_await read_window(medium, offset, sector, buffers);
  for (size_t done = 0; done < buffers.size();) {
    std::vector<io::Task<Result<void>>> windows;
    while (windows.size() < kParallelWindows && done < buffers.size()) {
      const size_t length = std::min<size_t>(kWindowBytes, buffers.size() - done);
      windows.push_back(read_window(medium, offset + done, sector + done / kSectorBytes,
                                    buffers.sub(done, length)));
      done += length;
    }
    for (auto& result : co_await io::when_all(std::move(windows)))
      PLATTER_CO_TRY(std::move(result));
  }
  co_return Result<void>{};
}

io::Task<Result<void>> EncryptedIo::write(Medium& medium, uint64_t offset, uint64_t sector,
                                          io::BufferList buffers) {
  if (buffers.size() <= kWindowBytes)
    co_return co_await write_window(medium, offset, sector, buffers);
  for (size_t done = 0; done < buffers.size();) {
    std::vector<io::Task<Result<void>>> windows;
    while (windows.size() < kParallelWindows && done < buffers.size()) {
      const size_t length = std::min<size_t>(kWindowBytes, buffers.size() - done);
      windows.push_back(write_window(medium, offset + done, sector + done / kSectorBytes,
                                     buffers.sub(done, length)));
      done += length;
    }
    for (auto& result : co_await io::when_all(std::move(windows)))
      PLATTER_CO_TRY(std::move(result));
  }
  co_return Result<void>{};
}

io::Task<Result<void>> EncryptedIo::read_window(Medium& medium, uint64_t offset, uint64_t sector,
                                                io::BufferList buffers) {
  PLATTER_CO_TRY(co_await medium.read(offset, buffers));
  if (is_small(buffers.size())) {
    cipher_.decrypt(sector, buffers);
    co_return Result<void>{};
  }
  const auto decrypt = [this, sector, buffers] { cipher_.decrypt(sector, buffers); };
  co_await io::Reactor::current()->call(decrypt);
  co_return Result<void>{};
}

io::Task<Result<void>> EncryptedIo::write_window(Medium& medium, uint64_t offset, uint64_t sector,
                                                 io::BufferList buffers) {
  const BouncePool::Lease bounce(bounce_, buffers.size());
  if (is_small(buffers.size())) {
    cipher_.encrypt(sector, buffers, bounce.span());
  } else {
    const std::span<uint8_t> to = bounce.span();
    const auto encrypt = [this, sector, buffers, to] { cipher_.encrypt(sector, buffers, to); };
    co_await io::Reactor::current()->call(encrypt);
  }
  co_return co_await medium.write(offset, bounce.view());
}

}  // namespace platter::crypto
