#include "format/qcow2/header_rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "format/qcow2/extensions.h"
#include "format/qcow2/image.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {
namespace {

using base::load_big;

// Where headers take turns: one from the front, the next up to here (or to the cluster's end).
// Larger clusters are not spread over more of the file for it.
constexpr uint64_t kUsualEnd = 8192;

struct Part {
  uint64_t begin;
  uint64_t end;
};

// What the header in `cluster` has, the first sector included. Feature names count for nothing:
// they tell of features that we do not know, and such images are not changed.
std::vector<Part> parts_in_use(std::span<const uint8_t> cluster) {
  const bool version3 = load_big<uint32_t>(cluster, 4) >= 3;
  const uint64_t length =
      version3 ? load_big<uint32_t>(cluster, field::kHeaderLength) : uint64_t{kHeaderBytesV2};
  const uint64_t name = load_big<uint64_t>(cluster, field::kBackingNameOffset);
  std::vector<Part> parts = {{0, std::max<uint64_t>(length, kSectorBytes)}};
  for (const ExtensionPlace& place : extension_places(cluster)) {
    const bool names = place.type == static_cast<uint32_t>(ExtensionType::kFeatureNames);
    parts.push_back({place.offset, place.offset + (names ? kExtensionHeaderBytes : place.length)});
  }
  if (name != 0)
    parts.push_back({name, name + load_big<uint32_t>(cluster, field::kBackingNameBytes)});
  return parts;
}

// A header in two parts: its first sector, and the rest.
struct Layout {
  std::vector<uint8_t> first;
  uint64_t rest_offset = kSectorBytes;
  std::vector<uint8_t> rest = {};
};

Layout usual_layout(std::span<const uint8_t> whole) {
  Layout layout = {.first = {whole.begin(), whole.end()}};
  layout.first.resize(kSectorBytes);
  if (whole.size() > kSectorBytes) {
    const auto rest = whole.subspan(kSectorBytes);
    layout.rest.assign(rest.begin(), rest.end());
  }
  return layout;
}

// With everything that does not stand in the first sector at `offset`. The list of extensions stays
// in that sector where all of it has room; else the first record in it leads there. nullopt: fields
// that we do not know fill the sector.
std::optional<Layout> layout_apart(const Header& next, uint64_t offset) {
  Layout layout = {.first = serialise_fields(next), .rest_offset = offset};
  std::vector<uint8_t>& first = layout.first;
  std::vector<uint8_t> list;
  append_extensions(next, list, FeatureNames::kLeftOut);
  if (!has_feature_names(next) && first.size() + list.size() <= kSectorBytes) {
    first.insert(first.end(), list.begin(), list.end());
  } else {
    append_step(next, first, offset);
    layout.rest = std::move(list);
  }
  if (first.size() > kSectorBytes) return std::nullopt;
  if (!next.backing_file.empty()) {
    place_backing_name(next, offset + layout.rest.size(), first);
    layout.rest.insert(layout.rest.end(), next.backing_file.begin(), next.backing_file.end());
  }
  first.resize(kSectorBytes);
  return layout;
}

class Planner {
 public:
  Planner(std::span<const uint8_t> cluster, const Header& next)
      : cluster_(cluster), next_(next), in_use_(parts_in_use(cluster)) {}

  Result<HeaderRewrite> plan() {
    PLATTER_ASSIGN(const auto whole, serialise_header(next_));
    const Layout usual = usual_layout(whole);
    HeaderRewrite rewrite;
    if (const auto write = within_one_sector(usual)) {
      rewrite.writes = {*write};
      add_clearing(rewrite, usual);
    } else if (is_free(usual.rest_offset, usual.rest)) {
      add_writes(rewrite, usual);
    } else if (const auto apart = find_place()) {
      add_writes(rewrite, *apart);
    } else {
      std::vector<uint8_t> all = usual.first;
      all.insert(all.end(), usual.rest.begin(), usual.rest.end());
      rewrite = {.writes = {{0, std::move(all)}}, .atomic = false};
      add_clearing(rewrite, usual);
    }
    return rewrite;
  }

 private:
  // The cluster with `layout` in it.
  std::vector<uint8_t> with(const Layout& layout, std::span<const uint8_t> cluster) const {
    std::vector<uint8_t> bytes(cluster.begin(), cluster.end());
    std::ranges::copy(layout.first, bytes.begin());
    std::ranges::copy(layout.rest, bytes.begin() + static_cast<ptrdiff_t>(layout.rest_offset));
    return bytes;
  }

  // Whether the present header has nothing there that would change.
  bool is_free(uint64_t offset, std::span<const uint8_t> bytes) const {
    for (const Part& part : in_use_) {
      const uint64_t begin = std::max(part.begin, offset);
      const uint64_t end = std::min(part.end, offset + bytes.size());
      if (begin < end && !std::ranges::equal(cluster_.subspan(begin, end - begin),
                                             bytes.subspan(begin - offset, end - begin))) {
        return false;
      }
    }
    return true;
  }

  std::optional<HeaderWrite> within_one_sector(const Layout& usual) const {
    const std::vector<uint8_t> after = with(usual, cluster_);
    const uint64_t end = kSectorBytes + usual.rest.size();
    std::optional<HeaderWrite> write;
    for (uint64_t begin = 0; begin < end; begin += kSectorBytes) {
      const uint64_t length = std::min(kSectorBytes, end - begin);
      const auto sector = std::span(after).subspan(begin, length);
      if (std::ranges::equal(sector, cluster_.subspan(begin, length))) continue;
      if (write) return std::nullopt;
      write = HeaderWrite{begin, {sector.begin(), sector.end()}};
    }
    if (!write) write = HeaderWrite{0, usual.first};  // as it is: durable at least
    return write;
  }

  // Where the rest of the next header has room beside the present one: as far behind as headers
  // usually go, behind what is there, as early as it may be, or at the very end.
  std::optional<Layout> find_place() const {
    const auto size_of_rest = layout_apart(next_, kSectorBytes);
    if (!size_of_rest) return std::nullopt;
    const uint64_t size = size_of_rest->rest.size();
    const uint64_t phase = serialise_fields(next_).size() % kRecordAlignment;
    const auto ending_at = [&](uint64_t end) -> uint64_t {
      if (end < size + phase) return 0;
      return base::align_down(end - size - phase, kRecordAlignment) + phase;
    };
    std::vector<uint64_t> places = {ending_at(std::min<uint64_t>(kUsualEnd, cluster_.size()))};
    for (const Part& part : in_use_)
      places.push_back(base::align_up(part.end, kRecordAlignment) + phase);
    places.push_back(ending_at(cluster_.size()));
    for (const uint64_t place : places) {
      if (place < kSectorBytes || !base::range_within(place, size, cluster_.size())) continue;
      auto layout = layout_apart(next_, place);
      if (is_free(place, layout->rest)) return layout;
    }
    return std::nullopt;
  }

  void add_writes(HeaderRewrite& rewrite, const Layout& layout) const {
    if (!layout.rest.empty()) rewrite.writes.push_back({layout.rest_offset, layout.rest});
    rewrite.decisive = rewrite.writes.size();
    rewrite.writes.push_back({0, layout.first});
    add_clearing(rewrite, layout);
  }

  // One write from the first byte that is left over to the last; what of the next header lies
  // between is written again as it is.
  void add_clearing(HeaderRewrite& rewrite, const Layout& layout) const {
    std::vector<uint8_t> cleared(cluster_.begin(), cluster_.end());
    for (const Part& part : in_use_) {
      const uint64_t begin = std::max<uint64_t>(part.begin, kSectorBytes);
      for (uint64_t at = begin; at < part.end; ++at) cleared[at] = 0;
    }
    const std::vector<uint8_t> left = with(layout, cluster_);
    cleared = with(layout, cleared);
    const auto first = std::ranges::mismatch(left, cleared).in1 - left.begin();
    if (first == std::ssize(left)) return;
    auto last = std::ssize(left);
    while (left[static_cast<size_t>(last - 1)] == cleared[static_cast<size_t>(last - 1)]) --last;
    rewrite.writes.push_back(
        {static_cast<uint64_t>(first), {cleared.begin() + first, cleared.begin() + last}});
  }

  std::span<const uint8_t> cluster_;
  const Header& next_;
  std::vector<Part> in_use_;
};

io::Task<Result<void>> trust_bitmaps(Image& image, bool on) {
  const uint64_t bits = on ? image.header.autoclear | kBitmapsValid
                           : image.header.autoclear & ~uint64_t{kBitmapsValid};
  if (bits == image.header.autoclear) co_return Result<void>{};
  PLATTER_CO_TRY(co_await image.write_header_u64(field::kAutoclear, bits));
  PLATTER_CO_TRY(co_await image.file->flush());
  image.header.autoclear = bits;
  co_return Result<void>{};
}

io::Task<Result<void>> perform(Image& image, const HeaderRewrite& rewrite,
                               std::span<const uint8_t> cluster) {
  // What the file has already may be there since an attempt that failed.
  if (rewrite.decisive == 0) PLATTER_CO_TRY(co_await image.file->flush());
  for (size_t i = 0; i < rewrite.decisive; ++i) {
    PLATTER_CO_TRY(co_await image.write_file(rewrite.writes[i].offset, rewrite.writes[i].bytes));
    PLATTER_CO_TRY(co_await image.file->flush());
  }
  const HeaderWrite& decisive = rewrite.writes[rewrite.decisive];
  PLATTER_CO_TRY(co_await image.replace_header_fields(
      decisive.offset, cluster.subspan(decisive.offset, decisive.bytes.size()), decisive.bytes));
  for (size_t i = rewrite.decisive + 1; i < rewrite.writes.size(); ++i) {
    // The header is another one already: what is left over harms nobody.
    auto cleared = co_await image.write_file(rewrite.writes[i].offset, rewrite.writes[i].bytes);
    if (!cleared) {
      image.log->warning(
          fmt::format("{}: qcow2: Could not clear what is left of the old header: {}",
                      image.node->filename(), cleared.error().message()));
    }
  }
  co_return Result<void>{};
}

}  // namespace

Result<HeaderRewrite> plan_header_rewrite(std::span<const uint8_t> cluster, const Header& next) {
  return Planner(cluster, next).plan();
}

io::Task<Result<void>> replace_header(Image& image, Header next) {
  std::vector<uint8_t> cluster(image.geometry.cluster_size());
  PLATTER_CO_TRY(co_await read_padded(*image.file, 0, io::BufferList(std::span(cluster))));
  PLATTER_CO_ASSIGN(const HeaderRewrite rewrite, plan_header_rewrite(cluster, next));
  const bool trusted = next.has(kBitmapsValid);
  if (!rewrite.atomic && (trusted || image.header.has(kBitmapsValid))) {
    // Where an extension may be half written it is not trusted meanwhile.
    PLATTER_CO_TRY(co_await trust_bitmaps(image, false));
    next.autoclear &= ~uint64_t{kBitmapsValid};
    PLATTER_CO_TRY(co_await replace_header(image, std::move(next)));
    co_return co_await trust_bitmaps(image, trusted);
  }
  PLATTER_CO_TRY(co_await perform(image, rewrite, cluster));
  image.header = std::move(next);
  co_return Result<void>{};
}

}  // namespace platter::format::qcow2
