#include "inspect/inspect.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/try.h"
#include "fmt/format.h"
#include "inspect/formats.h"

namespace platter::inspect {
namespace {

using base::load_big;
using base::load_little;

constexpr uint32_t kQcowMagic = 0x514649fb;
constexpr uint32_t kVdiSignature = 0xbeda107f;
constexpr size_t kVdiSignatureOffset = 64;
constexpr size_t kDmgTrailerBytes = 512;

bool is_qcow2(const Samples& s) {
  return load_big<uint32_t>(s.head, 0) == kQcowMagic && load_big<uint32_t>(s.head, 4) != 1;
}
bool is_qcow(const Samples& s) {
  return load_big<uint32_t>(s.head, 0) == kQcowMagic && load_big<uint32_t>(s.head, 4) == 1;
}
bool is_qed(const Samples& s) { return starts_with(s.head, std::string_view("QED\0", 4)); }
bool is_vpc(const Samples& s) { return starts_with(s.head, "conectix"); }
bool is_vhdx(const Samples& s) { return starts_with(s.head, "vhdxfile"); }
bool is_vdi(const Samples& s) {
  return load_little<uint32_t>(s.head, kVdiSignatureOffset) == kVdiSignature;
}
bool is_luks(const Samples& s) { return starts_with(s.head, "LUKS\xba\xbe"); }
bool is_parallels(const Samples& s) {
  return starts_with(s.head, "WithoutFreeSpace") || starts_with(s.head, "WithouFreSpacExt");
}
bool is_bochs(const Samples& s) { return starts_with(s.head, "Bochs Virtual HD Image"); }
bool is_cloop(const Samples& s) { return starts_with(s.head, "#!/bin/sh\n#V2.0 Format\n"); }
bool is_dmg(const Samples& s) {
  return starts_with(s.tail, "koly", s.tail.size() - kDmgTrailerBytes);
}
bool has_only_vpc_footer(const Samples& s) { return !is_vpc(s) && has_vpc_footer(s); }

Result<void> inspect_nothing(Source&, const Samples&, Report&) { return {}; }

// `trailing`: recognised by how the file ends, so that a probe of its beginning sees a raw disk.
struct KnownFormat {
  std::string_view name;
  bool (*recognise)(const Samples& samples);
  InspectFormat inspect;
  bool trailing = false;
};
constexpr KnownFormat kFormats[] = {
    {"qcow2", is_qcow2, inspect_qcow2},     {"qcow", is_qcow, inspect_qcow},
    {"qed", is_qed, inspect_qed},           {"vmdk", is_vmdk, inspect_vmdk},
    {"vpc", is_vpc, inspect_vpc},           {"vpc", has_only_vpc_footer, inspect_vpc, true},
    {"vhdx", is_vhdx, inspect_vhdx},        {"vdi", is_vdi, inspect_vdi},
    {"luks", is_luks, inspect_luks},        {"parallels", is_parallels, inspect_parallels},
    {"bochs", is_bochs, inspect_nothing},   {"cloop", is_cloop, inspect_nothing},
    {"dmg", is_dmg, inspect_nothing, true},
};
constexpr std::string_view kRaw = "raw";

struct KnownContent {
  std::string_view name;
  bool (*recognise)(const Samples& samples);
};
constexpr KnownContent kContents[] = {{"mbr", has_mbr}, {"gpt", has_gpt}, {"iso9660", is_iso9660}};

Result<Samples> take_samples(Source& source) {
  Samples samples;
  samples.file_size = source.size();
  PLATTER_ASSIGN(samples.head, source.read(0, Samples::kHeadBytes));
  const uint64_t tail = std::max(source.size(), Samples::kTailBytes) - Samples::kTailBytes;
  PLATTER_ASSIGN(samples.tail, source.read(tail, Samples::kTailBytes));
  PLATTER_ASSIGN(samples.volume, source.read(Samples::kVolumeOffset, Samples::kHeadBytes));
  return samples;
}

// The format that it is opened as: the one asked for, the one that a probe finds, or raw.
const KnownFormat* choose(const Samples& samples, std::string_view asked) {
  for (const auto& known : kFormats) {
    const bool wanted = asked.empty() ? !known.trailing : known.name == asked;
    if (wanted && known.recognise(samples)) return &known;
  }
  return nullptr;
}

// A disk without metadata of its own in front holds what its first bytes say.
bool may_have_content(const KnownFormat* format) { return format == nullptr || format->trailing; }

}  // namespace

std::vector<std::string_view> known_formats() {
  std::vector<std::string_view> names = {kRaw};
  for (const auto& known : kFormats) {
    if (names.back() != known.name) names.push_back(known.name);
  }
  return names;
}

Result<Report> inspect_image(Source& source, std::string_view format) {
  PLATTER_ASSIGN(const Samples samples, take_samples(source));
  Report report;
  report.file_size = source.size();
  const KnownFormat* chosen = choose(samples, format);
  report.format = chosen != nullptr ? chosen->name : kRaw;
  for (const auto& known : kFormats) {
    if (&known != chosen && known.recognise(samples)) report.also.emplace_back(known.name);
  }
  for (const auto& known : kContents) {
    if (!known.recognise(samples)) continue;
    (may_have_content(chosen) ? report.content : report.also).emplace_back(known.name);
  }
  if (may_have_content(chosen)) judge_partitions(samples, report);
  if (!format.empty() && format != report.format) {
    report.add_damage(fmt::format("It is not a '{}' image", format));
  }
  auto inspected = (chosen != nullptr ? chosen->inspect : inspect_raw)(source, samples, report);
  if (!inspected) {
    if (inspected.error().code() != EFBIG) return std::unexpected(std::move(inspected).error());
    report.add_damage(inspected.error().message());
  }
  return report;
}

// ---- For parsers

bool starts_with(std::span<const uint8_t> bytes, std::string_view signature, size_t offset) {
  return offset <= bytes.size() && signature.size() <= bytes.size() - offset &&
         std::equal(signature.begin(), signature.end(),
                    bytes.begin() + static_cast<ptrdiff_t>(offset),
                    [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; });
}

std::string_view text_at(std::span<const uint8_t> bytes, size_t offset, size_t length) {
  offset = std::min(offset, bytes.size());
  const auto part = bytes.subspan(offset, std::min(length, bytes.size() - offset));
  return {reinterpret_cast<const char*>(part.data()), part.size()};
}

std::string utf16_text(std::span<const uint8_t> bytes, bool big_endian) {
  std::string out;
  for (size_t i = 0; i + 2 <= bytes.size(); i += 2) {
    const unsigned unit =
        big_endian ? load_big<uint16_t>(bytes, i) : load_little<uint16_t>(bytes, i);
    if (unit == 0) break;
    const bool surrogate = unit >= 0xd800 && unit < 0xe000;
    if (surrogate) {
      out += "\xef\xbf\xbd";
    } else if (unit < 0x80) {
      out += static_cast<char>(unit);
    } else if (unit < 0x800) {
      out += static_cast<char>(0xc0 | unit >> 6);
      out += static_cast<char>(0x80 | (unit & 0x3f));
    } else {
      out += static_cast<char>(0xe0 | unit >> 12);
      out += static_cast<char>(0x80 | (unit >> 6 & 0x3f));
      out += static_cast<char>(0x80 | (unit & 0x3f));
    }
  }
  return out;
}

std::string guid_text(std::span<const uint8_t> bytes, size_t offset) {
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:04x}{:08x}",
                     load_little<uint32_t>(bytes, offset), load_little<uint16_t>(bytes, offset + 4),
                     load_little<uint16_t>(bytes, offset + 6),
                     load_big<uint16_t>(bytes, offset + 8), load_big<uint16_t>(bytes, offset + 10),
                     load_big<uint32_t>(bytes, offset + 12));
}

}  // namespace platter::inspect
