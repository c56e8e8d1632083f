#include "format/qcow2/bitmap_header.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"
#include "format/qcow2/extensions.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {
namespace {

using base::load_big;

bool in_one_sector(uint64_t offset, uint64_t length) {
  return offset / kSectorBytes == (offset + length - 1) / kSectorBytes;
}

class Publication {
 public:
  Publication(Image& image, std::optional<BitmapsExtension> next) : image_(image), next_(next) {}

  io::Task<Result<void>> run() {
    PLATTER_CO_TRY(co_await look());
    Header header = image_.header;
    header.bitmaps = next_;
    header.autoclear &= ~uint64_t{kBitmapsValid};
    if (next_) header.autoclear |= kBitmapsValid;
    PLATTER_CO_TRY(co_await write(header));
    image_.header.bitmaps = next_;
    if (next_) image_.guard.claim(kBitmapDirectory, next_->directory_offset, next_->directory_size);
    image_.header.bitmaps_out_of_step = false;
    co_return Result<void>{};
  }

 private:
  // Where things are now.
  io::Task<Result<void>> look() {
    cluster_ = std::vector<uint8_t>(image_.geometry.cluster_size());
    PLATTER_CO_TRY(co_await read_padded(*image_.file, 0, io::BufferList(std::span(cluster_))));
    name_offset_ = load_big<uint64_t>(cluster_, field::kBackingNameOffset);
    name_length_ = load_big<uint32_t>(cluster_, field::kBackingNameBytes);
    place_ = find_extension(cluster_, ExtensionType::kBitmaps);
    co_return Result<void>{};
  }

  io::Task<Result<void>> write(const Header& header) {
    if (next_ && place_.record && place_.data_bytes == kBitmapsExtensionBytes)
      co_return co_await update();
    PLATTER_CO_ASSIGN(const auto whole, serialise_header(header));
    if (whole.size() > kSectorBytes || cluster_.size() > kSectorBytes) {
      if (next_ && !place_.record && place_.end_marker && make_room()) co_return co_await append();
      if (!next_ && !place_.record) co_return co_await trust(false);
      if (!next_ && place_.is_last) co_return co_await remove();
    }
    co_return co_await rewrite(header);
  }

  // The fields of the extension that is there.
  io::Task<Result<void>> update() {
    const uint64_t at = *place_.record + kExtensionHeaderBytes;
    const auto fields = serialise_bitmaps_extension(*next_);
    const auto old = std::span(cluster_).subspan(at, fields.size());
    if (image_.header.has(kBitmapsValid) && in_one_sector(at, fields.size()))
      co_return co_await image_.replace_header_fields(at, old, fields);
    PLATTER_CO_TRY(co_await trust(false));
    PLATTER_CO_TRY(co_await image_.write_file(at, fields));
    PLATTER_CO_TRY(co_await image_.file->flush());
    co_return co_await trust(true);
  }

  // The end of the list, 8 bytes, becomes the head of the new extension.
  io::Task<Result<void>> append() {
    const uint64_t at = *place_.end_marker;
    if (new_name_offset_ != name_offset_) {
      PLATTER_CO_TRY(co_await image_.write_file(
          new_name_offset_, std::span(cluster_).subspan(name_offset_, name_length_)));
      PLATTER_CO_TRY(co_await image_.file->flush());
      PLATTER_CO_TRY(co_await image_.write_header_u64(field::kBackingNameOffset, new_name_offset_));
      PLATTER_CO_TRY(co_await image_.file->flush());
    }
    std::vector<uint8_t> rest = serialise_bitmaps_extension(*next_);
    rest.resize(rest.size() + kExtensionHeaderBytes);  // the new end
    PLATTER_CO_TRY(co_await image_.write_file(at + kExtensionHeaderBytes, rest));
    PLATTER_CO_TRY(co_await image_.file->flush());
    const uint64_t head =
        uint64_t{static_cast<uint32_t>(ExtensionType::kBitmaps)} << 32 | kBitmapsExtensionBytes;
    PLATTER_CO_TRY(co_await image_.write_header_u64(at, head));
    PLATTER_CO_TRY(co_await image_.file->flush());
    co_return co_await trust(true);
  }

  // Where the name of the backing file is in the way it goes behind the extension. False: the
  // cluster is too small for that.
  bool make_room() {
    const uint64_t begin = *place_.end_marker;
    const uint64_t end = begin + 2 * kExtensionHeaderBytes + kBitmapsExtensionBytes;
    new_name_offset_ = name_offset_;
    if (name_offset_ != 0 && name_offset_ < end)
      new_name_offset_ = std::max(end, base::align_up(name_offset_ + name_length_, 8));
    return end <= cluster_.size() && new_name_offset_ + name_length_ <= cluster_.size();
  }

  io::Task<Result<void>> remove() {
    PLATTER_CO_TRY(co_await trust(false));
    PLATTER_CO_TRY(co_await image_.write_header_u64(*place_.record, 0));
    co_return co_await image_.file->flush();
  }

  // A list of another form.
  io::Task<Result<void>> rewrite(const Header& header) {
    PLATTER_CO_ASSIGN(auto before, serialise_header(image_.header));
    PLATTER_CO_ASSIGN(auto after, serialise_header(header));
    const size_t length = std::max(before.size(), after.size());
    if (length > kSectorBytes) PLATTER_CO_TRY(co_await trust(false));
    before.resize(length);
    after.resize(length);
    PLATTER_CO_TRY(co_await image_.replace_header_fields(0, before, after));
    image_.header.autoclear = header.autoclear;
    co_return Result<void>{};
  }

  io::Task<Result<void>> trust(bool on) {
    const uint64_t bits = on ? image_.header.autoclear | kBitmapsValid
                             : image_.header.autoclear & ~uint64_t{kBitmapsValid};
    if (bits == image_.header.autoclear) co_return Result<void>{};
    PLATTER_CO_TRY(co_await image_.write_header_u64(field::kAutoclear, bits));
    PLATTER_CO_TRY(co_await image_.file->flush());
    image_.header.autoclear = bits;
    co_return Result<void>{};
  }

  Image& image_;
  const std::optional<BitmapsExtension> next_;
  std::vector<uint8_t> cluster_;
  ExtensionPlace place_;
  uint64_t name_offset_ = 0;  // 0: there is none
  uint64_t name_length_ = 0;
  uint64_t new_name_offset_ = 0;
};

}  // namespace

io::Task<Result<void>> publish_bitmaps(Image& image, std::optional<BitmapsExtension> next) {
  auto features = co_await image.features.lock();
  Publication publication(image, next);
  co_return co_await publication.run();
}

}  // namespace platter::format::qcow2
