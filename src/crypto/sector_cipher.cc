#include "crypto/sector_cipher.h"

#include <cstring>
#include <functional>
#include <thread>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "crypto/digest.h"

namespace platter::crypto {

class SectorCipher::Context {
 public:
  static Result<std::unique_ptr<Context>> create(const CipherSpec& spec,
                                                 std::span<const uint8_t> key) {
    auto context = std::make_unique<Context>();
    context->generator_ = spec.iv_generator;
    context->block_bytes_ = block_bytes(spec.algorithm);
    PLATTER_ASSIGN(context->data_, make_block_cipher(spec.algorithm, spec.mode, key));
    if (spec.iv_generator != IvGenerator::kEssiv) return context;
    PLATTER_ASSIGN(const CipherAlgorithm algorithm, essiv_algorithm(spec));
    base::SecretBytes salt(digest_bytes(*spec.iv_hash));
    const std::array<std::span<const uint8_t>, 1> whole = {key};
    hash(*spec.iv_hash, whole, salt.span());
    PLATTER_ASSIGN(context->essiv_, make_block_cipher(algorithm, CipherMode::kEcb, salt.span()));
    return context;
  }

  std::unique_ptr<Context> clone() const {
    auto copy = std::make_unique<Context>();
    copy->generator_ = generator_;
    copy->block_bytes_ = block_bytes_;
    copy->data_ = data_->clone();
    if (essiv_) copy->essiv_ = essiv_->clone();
    return copy;
  }

  void encrypt(uint64_t sector, const uint8_t* in, uint8_t* out, size_t length) {
    uint8_t iv[kMaxBlockBytes];
    for (size_t at = 0; at < length; at += kSectorBytes) {
      make_iv(sector++, iv);
      data_->encrypt(iv, in + at, out + at, kSectorBytes);
    }
  }
  void decrypt(uint64_t sector, uint8_t* bytes, size_t length) {
    uint8_t iv[kMaxBlockBytes];
    for (size_t at = 0; at < length; at += kSectorBytes) {
      make_iv(sector++, iv);
      data_->decrypt(iv, bytes + at, bytes + at, kSectorBytes);
    }
  }

 private:
  void make_iv(uint64_t sector, uint8_t (&iv)[kMaxBlockBytes]) {
    std::memset(iv, 0, sizeof iv);
    if (generator_ == IvGenerator::kPlain) {
      base::store_little(std::span<uint8_t>(iv), 0, static_cast<uint32_t>(sector));
      return;
    }
    base::store_little(std::span<uint8_t>(iv), 0, sector);
    if (essiv_) essiv_->encrypt(iv, iv, iv, block_bytes_);
  }

  IvGenerator generator_ = IvGenerator::kPlain64;
  size_t block_bytes_ = 0;
  std::unique_ptr<BlockCipher> data_;
  std::unique_ptr<BlockCipher> essiv_;
};

// A context for the length of one call.
class SectorCipher::Lease {
 public:
  explicit Lease(const SectorCipher& cipher) : cipher_(cipher), context_(cipher.take()) {}
  ~Lease() { cipher_.give_back(std::move(context_)); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Context* operator->() { return context_.get(); }

 private:
  const SectorCipher& cipher_;
  std::unique_ptr<Context> context_;
};

namespace {

// Threads begin to look at different places.
size_t first_place(size_t places) {
  return std::hash<std::thread::id>()(std::this_thread::get_id()) % places;
}

}  // namespace

SectorCipher::SectorCipher(const CipherSpec& spec, std::unique_ptr<Context> context)
    : spec_(spec), original_(std::move(context)) {}

SectorCipher::~SectorCipher() {
  for (auto& place : idle_) delete place.load();
}

Result<std::unique_ptr<SectorCipher>> SectorCipher::create(const CipherSpec& spec,
                                                           std::span<const uint8_t> key) {
  PLATTER_ASSERT(key.size() == key_bytes(spec));
  PLATTER_ASSIGN(auto context, Context::create(spec, key));
  return std::unique_ptr<SectorCipher>(new SectorCipher(spec, std::move(context)));
}

std::unique_ptr<SectorCipher::Context> SectorCipher::take() const {
  const size_t first = first_place(kIdleContexts);
  for (size_t i = 0; i < kIdleContexts; ++i) {
    auto& place = idle_[(first + i) % kIdleContexts];
    if (place.load(std::memory_order_relaxed) == nullptr) continue;
    if (Context* context = place.exchange(nullptr, std::memory_order_acquire))
      return std::unique_ptr<Context>(context);
  }
  return original_->clone();
}

void SectorCipher::give_back(std::unique_ptr<Context> context) const {
  const size_t first = first_place(kIdleContexts);
  for (size_t i = 0; i < kIdleContexts; ++i) {
    auto& place = idle_[(first + i) % kIdleContexts];
    Context* expected = nullptr;
    if (place.compare_exchange_strong(expected, context.get(), std::memory_order_release,
                                      std::memory_order_relaxed)) {
      static_cast<void>(context.release());
      return;
    }
  }
}

void SectorCipher::encrypt(uint64_t sector, const io::BufferList& from,
                           std::span<uint8_t> to) const {
  PLATTER_ASSERT(from.size() == to.size() && base::is_aligned(to.size(), kSectorBytes));
  Lease context(*this);
  size_t gathered = 0;  // bytes of a sector that lies in several pieces, already in `to`
  size_t done = 0;
  from.for_each([&](std::span<uint8_t> piece) {
    while (!piece.empty()) {
      if (gathered == 0 && piece.size() >= kSectorBytes) {
        const size_t whole = base::align_down(piece.size(), kSectorBytes);
        context->encrypt(sector + done / kSectorBytes, piece.data(), to.data() + done, whole);
        done += whole;
        piece = piece.subspan(whole);
        continue;
      }
      const size_t part = std::min<size_t>(piece.size(), kSectorBytes - gathered);
      std::memcpy(to.data() + done + gathered, piece.data(), part);
      gathered += part;
      piece = piece.subspan(part);
      if (gathered < kSectorBytes) continue;
      context->encrypt(sector + done / kSectorBytes, to.data() + done, to.data() + done,
                       kSectorBytes);
      done += kSectorBytes;
      gathered = 0;
    }
  });
}

void SectorCipher::encrypt(uint64_t sector, std::span<uint8_t> in_place) const {
  PLATTER_ASSERT(base::is_aligned(in_place.size(), kSectorBytes));
  Lease context(*this);
  context->encrypt(sector, in_place.data(), in_place.data(), in_place.size());
}

void SectorCipher::decrypt(uint64_t sector, const io::BufferList& in_place) const {
  PLATTER_ASSERT(base::is_aligned(in_place.size(), kSectorBytes));
  Lease context(*this);
  size_t position = 0;
  in_place.for_each([&](std::span<uint8_t> piece) {
    const size_t begin = position;
    position += piece.size();
    // A sector that lies in several pieces is done where its last byte is.
    const size_t first = base::align_up(begin, kSectorBytes);
    if (const size_t end = base::align_down(begin, kSectorBytes) + kSectorBytes;
        first != begin && end <= position) {
      uint8_t whole[kSectorBytes];
      const io::BufferList parts = in_place.sub(end - kSectorBytes, kSectorBytes);
      parts.copy_to(whole);
      context->decrypt(sector + end / kSectorBytes - 1, whole, kSectorBytes);
      parts.copy_from(whole);
    }
    const size_t last = base::align_down(position, kSectorBytes);
    if (first < last)
      context->decrypt(sector + first / kSectorBytes, piece.data() + (first - begin), last - first);
  });
}

}  // namespace platter::crypto
