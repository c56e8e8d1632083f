#include "format/qcow2/compressor.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <new>

#include "base/assert.h"

namespace platter::format::qcow2 {
namespace {

constexpr uint16_t kDeflateWindowBits = 12;
// The strongest one: its streams are 1 to 8 % larger than those of zlib at its default level, at
// seven times the speed or more; the weaker ones are up to 11 % larger.
constexpr uint32_t kDeflateLevel = 3;
constexpr size_t kDeflateLevelBytes = ISAL_DEF_LVL3_DEFAULT;
constexpr int kZstdLevel = ZSTD_CLEVEL_DEFAULT;

struct FreeZstd {
  void operator()(ZSTD_CCtx* state) const { ZSTD_freeCCtx(state); }
};

}  // namespace

class CompressorPool::Compressor {
 public:
  size_t run(CompressionType type, std::span<const uint8_t> in, std::span<uint8_t> out) {
    return type == CompressionType::kDeflate ? deflate(in, out) : zstd(in, out);
  }

 private:
  struct Deflate {
    isal_zstream stream;
    uint8_t level_memory[kDeflateLevelBytes];
  };

  size_t deflate(std::span<const uint8_t> in, std::span<uint8_t> out) {
    if (!deflate_) deflate_ = std::make_unique_for_overwrite<Deflate>();
    isal_zstream& stream = deflate_->stream;
    isal_deflate_init(&stream);
    stream.level = kDeflateLevel;
    stream.level_buf = deflate_->level_memory;
    stream.level_buf_size = kDeflateLevelBytes;
    stream.hist_bits = kDeflateWindowBits;
    stream.gzip_flag = IGZIP_DEFLATE;
    stream.flush = NO_FLUSH;
    stream.end_of_stream = 1;
    stream.next_in = const_cast<uint8_t*>(in.data());
    stream.avail_in = static_cast<uint32_t>(in.size());
    stream.next_out = out.data();
    stream.avail_out = static_cast<uint32_t>(out.size());
    const int status = isal_deflate(&stream);
    PLATTER_ASSERT(status == COMP_OK);
    if (stream.internal_state.state != ZSTATE_END) return 0;
    return out.size() - stream.avail_out;
  }

  size_t zstd(std::span<const uint8_t> in, std::span<uint8_t> out) {
    if (!zstd_) zstd_.reset(ZSTD_createCCtx());
    if (!zstd_) throw std::bad_alloc();
    const size_t length =
        ZSTD_compressCCtx(zstd_.get(), out.data(), out.size(), in.data(), in.size(), kZstdLevel);
    return ZSTD_isError(length) ? 0 : length;
  }

  std::unique_ptr<Deflate> deflate_;
  std::unique_ptr<ZSTD_CCtx, FreeZstd> zstd_;
};

CompressorPool::CompressorPool() = default;
CompressorPool::~CompressorPool() = default;

std::unique_ptr<CompressorPool::Compressor> CompressorPool::take() {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return std::make_unique<Compressor>();
  auto compressor = std::move(idle_.back());
  idle_.pop_back();
  return compressor;
}

size_t CompressorPool::compress(CompressionType type, std::span<const uint8_t> in,
                                std::span<uint8_t> out) {
  auto compressor = take();
  const size_t length = compressor->run(type, in, out);
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(compressor));
  return length;
}

io::AlignedBuffer CompressorPool::take_buffer(size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_buffers_.empty() && idle_buffers_.back().size() >= bytes) {
      auto buffer = std::move(idle_buffers_.back());
      idle_buffers_.pop_back();
      return buffer;
    }
  }
  return io::AlignedBuffer(bytes);
}

void CompressorPool::return_buffer(io::AlignedBuffer buffer) {
  const std::lock_guard lock(mutex_);
  if (idle_buffers_.size() == kMaxIdleBuffers) idle_buffers_.erase(idle_buffers_.begin());
  idle_buffers_.push_back(std::move(buffer));
}

}  // namespace platter::format::qcow2
