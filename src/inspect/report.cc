#include "inspect/report.h"

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::inspect {
namespace {

constexpr std::string_view kKindNames[] = {"backing-file", "data-file", "extent", "parent"};
constexpr std::string_view kFormNames[] = {"relative", "absolute", "protocol", "json"};

base::Json list_of(const std::vector<std::string>& texts) {
  auto list = base::Json::array();
  for (const auto& text : texts) list.append(text);
  return list;
}

// ---- Reading what the sandbox wrote

std::unexpected<Error> refuse(std::string_view what) {
  return fail(EPROTO, "The inspecting process gave an invalid report: " + std::string(what));
}

Result<std::string> read_text(const base::Json& value) {
  const auto* text = value.get_if<std::string>();
  // Escapes may have made it longer than it was.
  if (text == nullptr || text->size() > 4 * Report::kMaxTextBytes) return refuse("text expected");
  return *text;
}

Result<uint64_t> read_number(const base::Json& value) {
  if (const auto* number = value.get_if<uint64_t>()) return *number;
  const auto* number = value.get_if<int64_t>();
  if (number == nullptr || *number < 0) return refuse("a number expected");
  return static_cast<uint64_t>(*number);
}

Result<const base::Json::Array*> read_array(const base::Json& value) {
  const auto* items = value.get_if<base::Json::Array>();
  if (items == nullptr || items->size() > Report::kMaxListed)
    return refuse("a short list expected");
  return items;
}

Result<std::vector<std::string>> read_texts(const base::Json& value) {
  PLATTER_ASSIGN(const auto* items, read_array(value));
  std::vector<std::string> texts;
  for (const auto& item : *items) {
    PLATTER_ASSIGN(auto text, read_text(item));
    texts.push_back(std::move(text));
  }
  return texts;
}

Result<Reference> read_reference(const base::Json& value) {
  const auto* members = value.get_if<base::Json::Object>();
  if (members == nullptr || members->size() != 3) return refuse("a reference expected");
  const auto* kind = value.find("kind");
  const auto* name = value.find("name");
  const auto* format = value.find("format");
  if (kind == nullptr || name == nullptr || format == nullptr)
    return refuse("a reference expected");
  PLATTER_ASSIGN(const auto kind_name, read_text(*kind));
  const auto* found = std::ranges::find(kKindNames, kind_name);
  if (found == std::end(kKindNames)) return refuse("unknown kind of reference");
  Reference reference;
  reference.kind = static_cast<ReferenceKind>(found - std::begin(kKindNames));
  PLATTER_ASSIGN(reference.name, read_text(*name));
  PLATTER_ASSIGN(reference.format, read_text(*format));
  return reference;
}

struct TextMember {
  std::string_view name;
  std::string Report::* member;
};
struct NumberMember {
  std::string_view name;
  uint64_t Report::* member;
};
struct ListMember {
  std::string_view name;
  std::vector<std::string> Report::* member;
};
constexpr TextMember kTextMembers[] = {{"format", &Report::format},
                                       {"subformat", &Report::subformat},
                                       {"compression", &Report::compression},
                                       {"encryption", &Report::encryption}};
constexpr NumberMember kNumberMembers[] = {{"file-size", &Report::file_size},
                                           {"cluster-size", &Report::cluster_size},
                                           {"references-total", &Report::references_total},
                                           {"snapshots-total", &Report::snapshots_total},
                                           {"bitmaps-total", &Report::bitmaps_total}};
constexpr ListMember kListMembers[] = {
    {"also", &Report::also},           {"content", &Report::content},
    {"features", &Report::features},   {"unknown-features", &Report::unknown_features},
    {"snapshots", &Report::snapshots}, {"bitmaps", &Report::bitmaps},
    {"damage", &Report::damage},       {"partition-damage", &Report::partition_damage}};

Result<void> read_member(const std::string& name, const base::Json& value, Report& report) {
  for (const auto& known : kTextMembers) {
    if (known.name != name) continue;
    PLATTER_ASSIGN(report.*known.member, read_text(value));
    return {};
  }
  for (const auto& known : kNumberMembers) {
    if (known.name != name) continue;
    PLATTER_ASSIGN(report.*known.member, read_number(value));
    return {};
  }
  for (const auto& known : kListMembers) {
    if (known.name != name) continue;
    PLATTER_ASSIGN(report.*known.member, read_texts(value));
    return {};
  }
  if (name == "virtual-size" || name == "version") {
    PLATTER_ASSIGN((name == "version" ? report.version : report.virtual_size), read_number(value));
    return {};
  }
  if (name == "references") {
    PLATTER_ASSIGN(const auto* items, read_array(value));
    for (const auto& item : *items) {
      PLATTER_ASSIGN(auto reference, read_reference(item));
      report.references.push_back(std::move(reference));
    }
    return {};
  }
  return refuse("unknown member");
}

}  // namespace

std::string_view reference_kind_name(ReferenceKind kind) {
  return kKindNames[static_cast<size_t>(kind)];
}

std::string_view name_form_name(NameForm form) { return kFormNames[static_cast<size_t>(form)]; }

NameForm name_form(std::string_view name) {
  if (name.starts_with("json:")) return NameForm::kJson;
  const size_t colon = name.find(':');
  if (colon != name.npos && name.find('/') > colon) return NameForm::kProtocol;
  // As a Windows program writes it, too: "C:\..." has a colon and is a protocol above.
  return name.starts_with('/') || name.starts_with('\\') ? NameForm::kAbsolutePath
                                                         : NameForm::kRelativePath;
}

void Report::add_reference(ReferenceKind kind, std::string name, std::string reference_format) {
  ++references_total;
  if (references.size() < kMaxListed) {
    references.push_back({kind, bounded_text(name), bounded_text(reference_format)});
  }
}

void Report::add_damage(std::string sentence) {
  if (damage.size() < kMaxListed) damage.push_back(bounded_text(sentence));
}

base::Json report_to_json(const Report& report) {
  auto json = base::Json::object();
  json.add("format", report.format);
  if (!report.subformat.empty()) json.add("subformat", report.subformat);
  if (report.version) json.add("version", *report.version);
  json.add("file-size", report.file_size);
  if (report.virtual_size) json.add("virtual-size", *report.virtual_size);
  if (report.cluster_size != 0) json.add("cluster-size", report.cluster_size);
  for (const auto& known : kListMembers) {
    if (const auto& list = report.*known.member; !list.empty()) {
      json.add(std::string(known.name), list_of(list));
    }
  }
  for (const auto& known : {kTextMembers[2], kTextMembers[3]}) {
    if (const auto& text = report.*known.member; !text.empty()) {
      json.add(std::string(known.name), text);
    }
  }
  for (const auto& known : {kNumberMembers[2], kNumberMembers[3], kNumberMembers[4]}) {
    if (const uint64_t total = report.*known.member; total != 0) {
      json.add(std::string(known.name), total);
    }
  }
  if (!report.references.empty()) {
    auto list = base::Json::array();
    for (const auto& reference : report.references) {
      auto item = base::Json::object();
      item.add("kind", reference_kind_name(reference.kind));
      item.add("name", reference.name);
      item.add("format", reference.format);
      list.append(std::move(item));
    }
    json.add("references", std::move(list));
  }
  return json;
}

Result<Report> report_from_json(const base::Json& json) {
  const auto* members = json.get_if<base::Json::Object>();
  if (members == nullptr) return refuse("an object expected");
  Report report;
  for (const auto& [name, value] : *members) PLATTER_TRY(read_member(name, value, report));
  if (report.format.empty()) return refuse("no format");
  return report;
}

std::string printable(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    size_t length = lead < 0x80                   ? 1
                    : lead >= 0xc2 && lead < 0xe0 ? 2
                    : lead >= 0xe0 && lead < 0xf0 ? 3
                    : lead >= 0xf0 && lead < 0xf5 ? 4
                                                  : 0;
    bool valid = length != 0 && i + length <= text.size();
    for (size_t k = 1; valid && k < length; ++k) {
      valid = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    }
    // C0, DEL, and the C1 controls, which are U+0080 to U+009F.
    const bool control = lead < 0x20 || lead == 0x7f ||
                         (valid && lead == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0);
    if (valid && !control) {
      out.append(text.substr(i, length));
      i += length;
    } else {
      out += fmt::format("\\x{:02x}", lead);
      ++i;
    }
  }
  return out;
}

std::string bounded_text(std::string_view text) {
  text = text.substr(0, std::min(text.find('\0'), text.size()));
  return std::string(text.substr(0, Report::kMaxTextBytes));
}

}  // namespace platter::inspect
