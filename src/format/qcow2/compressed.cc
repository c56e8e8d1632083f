#include "format/qcow2/compressed.h"

#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <new>

namespace platter::format::qcow2 {

namespace {

// Frames written in one call (a cluster is at most 2 MiB) never need more than this for streaming;
// it bounds what a crafted frame can make us allocate.
constexpr int kMaxZstdWindowLog = 23;
constexpr int kRawDeflateMaxWindow = -15;

struct FreeDeflate {
  void operator()(libdeflate_decompressor* state) const { libdeflate_free_decompressor(state); }
};
struct FreeZstd {
  void operator()(ZSTD_DCtx* state) const { ZSTD_freeDCtx(state); }
};

std::unexpected<Error> corrupt() {
  return std::unexpected(Error(EIO, "Compressed cluster data is corrupt"));
}

// Zlib stops when the output is full, which libdeflate cannot: for streams that hold more than one
// cluster or lack their end.
Result<void> inflate_prefix(std::span<const uint8_t> in, std::span<uint8_t> out) {
  z_stream stream{};
  if (inflateInit2(&stream, kRawDeflateMaxWindow) != Z_OK) throw std::bad_alloc();
  stream.next_in = const_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  const int status = inflate(&stream, Z_FINISH);
  const bool full = stream.avail_out == 0;
  inflateEnd(&stream);
  if (full && (status == Z_STREAM_END || status == Z_BUF_ERROR || status == Z_OK)) return {};
  return corrupt();
}

}  // namespace

class DecompressorPool::Decompressor {
 public:
  Result<void> run(CompressionType type, std::span<const uint8_t> in, std::span<uint8_t> out) {
    return type == CompressionType::kDeflate ? deflate(in, out) : zstd(in, out);
  }

 private:
  Result<void> deflate(std::span<const uint8_t> in, std::span<uint8_t> out) {
    if (!deflate_) deflate_.reset(libdeflate_alloc_decompressor());
    if (!deflate_) throw std::bad_alloc();
    size_t consumed = 0;
    const auto status = libdeflate_deflate_decompress_ex(
        deflate_.get(), in.data(), in.size(), out.data(), out.size(), &consumed, nullptr);
    if (status == LIBDEFLATE_SUCCESS) return {};
    if (status == LIBDEFLATE_SHORT_OUTPUT) return corrupt();
    return inflate_prefix(in, out);
  }

  Result<void> zstd(std::span<const uint8_t> in, std::span<uint8_t> out) {
    if (!zstd_) zstd_.reset(ZSTD_createDCtx());
    if (!zstd_) throw std::bad_alloc();
    const size_t frame = ZSTD_findFrameCompressedSize(in.data(), in.size());
    if (!ZSTD_isError(frame) &&
        ZSTD_decompressDCtx(zstd_.get(), out.data(), out.size(), in.data(), frame) == out.size()) {
      return {};
    }
    return zstd_prefix(in, out);
  }

  Result<void> zstd_prefix(std::span<const uint8_t> in, std::span<uint8_t> out) {
    ZSTD_DCtx_reset(zstd_.get(), ZSTD_reset_session_and_parameters);
    ZSTD_DCtx_setParameter(zstd_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
    ZSTD_inBuffer input{in.data(), in.size(), 0};
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos < output.size) {
      const size_t before = output.pos + input.pos;
      const size_t status = ZSTD_decompressStream(zstd_.get(), &output, &input);
      if (ZSTD_isError(status) || output.pos + input.pos == before) return corrupt();
    }
    return {};
  }

  std::unique_ptr<libdeflate_decompressor, FreeDeflate> deflate_;
  std::unique_ptr<ZSTD_DCtx, FreeZstd> zstd_;
};

DecompressorPool::DecompressorPool() = default;
DecompressorPool::~DecompressorPool() = default;

std::unique_ptr<DecompressorPool::Decompressor> DecompressorPool::take() {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return std::make_unique<Decompressor>();
  auto decompressor = std::move(idle_.back());
  idle_.pop_back();
  return decompressor;
}

Result<void> DecompressorPool::decompress(CompressionType type, std::span<const uint8_t> in,
                                          std::span<uint8_t> out) {
  auto decompressor = take();
  auto result = decompressor->run(type, in, out);
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(decompressor));
  return result;
}

}  // namespace platter::format::qcow2
