// VMDK, as far as a policy judges it: the sparse header, its copy at the end of a stream-optimised
// image, and the descriptor, which is text and may name any file.
// Specification: VMware, "Virtual Disk Format 5.0".

#include <algorithm>
#include <charconv>

#include "base/bytes.h"
#include "base/math.h"
#include "base/try.h"
#include "fmt/format.h"
#include "inspect/formats.h"

namespace platter::inspect {

using base::load_little;

namespace {

constexpr uint64_t kSectorBytes = 512;
// QEMU and others read no more of a descriptor.
constexpr uint64_t kMaxDescriptorBytes = uint64_t{1} << 20;
constexpr uint64_t kDirectoryAtEnd = UINT64_MAX;
constexpr uint64_t kFooterBytes = 1024;  // from the end: the footer, then an end-of-stream marker
constexpr uint64_t kMinGrainSectors = 8;
constexpr uint64_t kMaxGrainSectors = uint64_t{1} << 21;
constexpr size_t kCowdParentOffset = 44;
constexpr size_t kCowdParentBytes = 1024;
constexpr uint32_t kCowdRoot = 1;
constexpr std::string_view kNoParent = "ffffffff";

// The fields of a sparse header after its magic.
struct SparseHeader {
  uint32_t version;
  uint32_t flags;
  uint64_t capacity;  // sectors, as all below
  uint64_t grain;
  uint64_t descriptor_offset;
  uint64_t descriptor_sectors;
  uint32_t table_entries;
  uint64_t directory_offset;
  uint16_t compression;
};

SparseHeader load_sparse(std::span<const uint8_t> bytes) {
  return {.version = load_little<uint32_t>(bytes, 4),
          .flags = load_little<uint32_t>(bytes, 8),
          .capacity = load_little<uint64_t>(bytes, 12),
          .grain = load_little<uint64_t>(bytes, 20),
          .descriptor_offset = load_little<uint64_t>(bytes, 28),
          .descriptor_sectors = load_little<uint64_t>(bytes, 36),
          .table_entries = load_little<uint32_t>(bytes, 44),
          .directory_offset = load_little<uint64_t>(bytes, 56),
          .compression = load_little<uint16_t>(bytes, 77)};
}

// ---- The descriptor

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view take_word(std::string_view& line) {
  const size_t end = std::min(line.find_first_of(" \t"), line.size());
  const auto word = line.substr(0, end);
  line = trim(line.substr(end));
  return word;
}

std::string_view unquote(std::string_view text) {
  if (text.size() < 2 || text.front() != '"') return text;
  return text.substr(1, std::min(text.find('"', 1), text.size()) - 1);
}

bool same_word(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return lower(x) == lower(y);
  });
}

struct Extent {
  uint64_t sectors = 0;
  std::string type;
  std::string name;
};

struct Descriptor {
  std::string create_type;
  std::string parent;
  bool has_parent = false;
  uint64_t extents_total = 0;
  std::vector<Extent> extents;
  uint64_t sectors = 0;
  bool has_size = true;
};

// RW 4192256 SPARSE "disk.vmdk"
void parse_extent(std::string_view line, Descriptor& descriptor) {
  const auto access = take_word(line);
  if (!same_word(access, "RW") && !same_word(access, "RDONLY") && !same_word(access, "NOACCESS")) {
    return;
  }
  const auto count = take_word(line);
  Extent extent;
  const auto parsed = std::from_chars(count.data(), count.data() + count.size(), extent.sectors);
  const auto sum = base::checked_add(descriptor.sectors, extent.sectors);
  if (parsed.ec != std::errc() || parsed.ptr != count.data() + count.size() || !sum) {
    descriptor.has_size = false;
  } else {
    descriptor.sectors = *sum;
  }
  extent.type = bounded_text(take_word(line));
  extent.name = bounded_text(unquote(line));
  ++descriptor.extents_total;
  if (descriptor.extents.size() < Report::kMaxListed) descriptor.extents.push_back(extent);
}

Descriptor parse_descriptor(std::string_view text) {
  Descriptor descriptor;
  text = text.substr(0, std::min(text.find('\0'), text.size()));
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const auto line = trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    const size_t equals = line.find('=');
    const auto key = trim(line.substr(0, equals));
    const bool is_pair = equals != line.npos && key.find(' ') == key.npos;
    if (!is_pair) {
      parse_extent(line, descriptor);
      continue;
    }
    const auto value = unquote(trim(line.substr(equals + 1)));
    if (same_word(key, "createType")) {
      // A second one could be what another program goes by.
      if (!descriptor.create_type.empty() && descriptor.create_type != value) {
        descriptor.create_type += "+";
      }
      descriptor.create_type += bounded_text(value).substr(0, 64);
      descriptor.create_type.resize(std::min<size_t>(descriptor.create_type.size(), 256));
    } else if (same_word(key, "parentCID")) {
      descriptor.has_parent = descriptor.has_parent || !same_word(value, kNoParent);
    } else if (same_word(key, "parentFileNameHint")) {
      descriptor.has_parent = true;
      descriptor.parent = bounded_text(value);
    }
  }
  return descriptor;
}

// The one extent that an embedded descriptor names is the file itself.
bool is_own_extent(const Extent& extent) {
  return same_word(extent.type, "SPARSE") && extent.name.find_first_of("/\\:") == std::string::npos;
}

void report_descriptor(const Descriptor& descriptor, bool embedded, Report& report) {
  report.subformat = descriptor.create_type;
  if (descriptor.create_type.empty()) report.add_damage("Its descriptor has no createType");
  if (descriptor.extents_total == 0) report.add_damage("Its descriptor names no extent");
  if (descriptor.has_parent) report.add_reference(ReferenceKind::kParent, descriptor.parent);
  const bool own =
      embedded && descriptor.extents_total == 1 && is_own_extent(descriptor.extents.front());
  if (own) return;
  for (const auto& extent : descriptor.extents) {
    if (!same_word(extent.type, "ZERO")) {
      report.add_reference(ReferenceKind::kExtent, extent.name, extent.type);
    }
  }
  report.references_total += descriptor.extents_total - descriptor.extents.size();
}

// ---- Binary headers

void judge_sparse(const SparseHeader& header, Report& report) {
  if (header.version < 1 || header.version > 3) {
    report.add_damage(fmt::format("Unsupported VMDK version {}", header.version));
  }
  if (!base::is_power_of_two(header.grain) || header.grain < kMinGrainSectors ||
      header.grain > kMaxGrainSectors) {
    report.add_damage(fmt::format("Invalid grain size of {} sectors", header.grain));
  } else {
    report.cluster_size = header.grain * kSectorBytes;
  }
  if (header.table_entries == 0 || header.table_entries > 512) {
    report.add_damage(fmt::format("Invalid grain table of {} entries", header.table_entries));
  }
  if (header.capacity > INT64_MAX / kSectorBytes) {
    report.add_damage(fmt::format("Impossible capacity of {} sectors", header.capacity));
  } else {
    report.virtual_size = header.capacity * kSectorBytes;
  }
  if (header.compression > 1) {
    report.add_damage(fmt::format("Unknown compression method {}", header.compression));
  } else if (header.compression == 1) {
    report.compression = "deflate";
  }
  const uint64_t sectors = report.file_size / kSectorBytes;
  if (header.directory_offset != kDirectoryAtEnd && header.directory_offset > sectors) {
    report.add_damage("The grain directory lies outside the file");
  }
}

void judge_footer(const SparseHeader& header, const Samples& samples, Report& report) {
  const std::span<const uint8_t> tail = samples.tail;
  if (samples.file_size < 2 * kFooterBytes || !starts_with(tail, "KDMV")) {
    report.add_damage("The footer that its header announces is missing");
    return;
  }
  const SparseHeader footer = load_sparse(tail);
  const bool agrees = footer.version == header.version && footer.flags == header.flags &&
                      footer.capacity == header.capacity && footer.grain == header.grain &&
                      footer.descriptor_offset == header.descriptor_offset &&
                      footer.descriptor_sectors == header.descriptor_sectors &&
                      footer.table_entries == header.table_entries &&
                      footer.compression == header.compression;
  if (!agrees) report.add_damage("Its footer does not agree with its header");
  if (footer.directory_offset > report.file_size / kSectorBytes) {
    report.add_damage("The grain directory lies outside the file");
  }
}

Result<void> inspect_sparse(Source& source, const Samples& samples, Report& report) {
  const SparseHeader header = load_sparse(samples.head);
  report.version = header.version;
  judge_sparse(header, report);
  if (header.directory_offset == kDirectoryAtEnd) judge_footer(header, samples, report);
  const uint64_t sectors = report.file_size / kSectorBytes + 1;
  if (header.descriptor_offset == 0) {
    report.add_damage("It has no descriptor of its own: it is an extent of another image");
    return {};
  }
  if (header.descriptor_offset > sectors || header.descriptor_sectors > sectors ||
      header.descriptor_sectors * kSectorBytes > kMaxDescriptorBytes) {
    report.add_damage("Its descriptor lies outside the file or is too large");
    return {};
  }
  PLATTER_ASSIGN(const auto text, source.read(header.descriptor_offset * kSectorBytes,
                                              header.descriptor_sectors * kSectorBytes));
  report_descriptor(parse_descriptor(text_at(text, 0, text.size())), true, report);
  return {};
}

void inspect_cowd(const Samples& samples, Report& report) {
  report.subformat = "vmfsSparse";
  report.version = load_little<uint32_t>(samples.head, 4);
  report.virtual_size = uint64_t{load_little<uint32_t>(samples.head, 12)} * kSectorBytes;
  report.cluster_size = uint64_t{load_little<uint32_t>(samples.head, 16)} * kSectorBytes;
  if ((load_little<uint32_t>(samples.head, 8) & kCowdRoot) == 0) {
    report.add_reference(ReferenceKind::kParent,
                         bounded_text(text_at(samples.head, kCowdParentOffset, kCowdParentBytes)));
  }
}

// A descriptor in a file of its own: comments, then its version.
bool is_descriptor_text(std::string_view text) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const auto line = trim(text.substr(0, end));
    if (!line.empty() && line.front() != '#') return line.starts_with("version=");
    if (line.starts_with("# Disk DescriptorFile")) return true;
    if (end == text.npos) return false;
    text.remove_prefix(end + 1);
  }
  return false;
}

}  // namespace

bool is_vmdk(const Samples& samples) {
  return starts_with(samples.head, "KDMV") || starts_with(samples.head, "COWD") ||
         is_descriptor_text(text_at(samples.head, 0, samples.head.size()));
}

Result<void> inspect_vmdk(Source& source, const Samples& samples, Report& report) {
  if (starts_with(samples.head, "KDMV")) return inspect_sparse(source, samples, report);
  if (starts_with(samples.head, "COWD")) {
    inspect_cowd(samples, report);
    return {};
  }
  if (report.file_size > kMaxDescriptorBytes) {
    report.add_damage("Its descriptor is too large");
  }
  PLATTER_ASSIGN(const auto text, source.read(0, std::min(report.file_size, kMaxDescriptorBytes)));
  const Descriptor descriptor = parse_descriptor(text_at(text, 0, text.size()));
  report_descriptor(descriptor, false, report);
  if (descriptor.has_size && descriptor.sectors <= INT64_MAX / kSectorBytes) {
    report.virtual_size = descriptor.sectors * kSectorBytes;
  } else {
    report.add_damage("The sizes of its extents make no sense");
  }
  return {};
}

}  // namespace platter::inspect
