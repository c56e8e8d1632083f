#include "inspect/policy.h"

#include <algorithm>

#include "base/size.h"
#include "base/try.h"
#include "fmt/format.h"
#include "inspect/inspect.h"

namespace platter::inspect {
namespace {

using Texts = std::vector<std::string>;

Policy default_policy() {
  Policy policy;
  policy.formats = {"raw", "qcow2", "qcow", "qed",  "vmdk",
                    "vpc", "vhdx",  "vdi",  "luks", "parallels"};
  policy.subformats = {{"vmdk", {"monolithicSparse", "streamOptimized"}},
                       {"vpc", {"fixed", "dynamic"}},
                       {"vdi", {"fixed", "dynamic"}}};
  policy.refused_features = {"corrupt"};
  return policy;
}

// What OpenStack's format inspector accepts: of qcow2 the incompatible features 0 to 3, without a
// data file, of LUKS version 1, and a partition table that makes sense.
Policy openstack_policy() {
  Policy policy = default_policy();
  policy.formats = {"raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi", "luks"};
  policy.refused_features = {"corrupt", "external-data-file", "extended-l2"};
  policy.encryption = Texts{"aes", "luks", "luks1"};
  policy.odd_partition_table = false;
  return policy;
}

// ---- The JSON form

std::unexpected<Error> refuse(std::string_view key, std::string_view what) {
  return fail(EINVAL, fmt::format("'{}' must be {}", key, what));
}

Result<Texts> read_texts(std::string_view key, const base::Json& value) {
  const auto* items = value.get_if<base::Json::Array>();
  if (items == nullptr) return refuse(key, "a list of strings");
  Texts texts;
  for (const auto& item : *items) {
    const auto* text = item.get_if<std::string>();
    if (text == nullptr) return refuse(key, "a list of strings");
    texts.push_back(*text);
  }
  return texts;
}

Result<bool> read_flag(std::string_view key, const base::Json& value) {
  const auto* flag = value.get_if<bool>();
  if (flag == nullptr) return refuse(key, "true or false");
  return *flag;
}

Result<uint64_t> read_count(std::string_view key, const base::Json& value) {
  if (const auto* number = value.get_if<uint64_t>()) return *number;
  const auto* number = value.get_if<int64_t>();
  if (number == nullptr || *number < 0) return refuse(key, "a whole number");
  return static_cast<uint64_t>(*number);
}

Result<uint64_t> read_size(std::string_view key, const base::Json& value) {
  const auto* text = value.get_if<std::string>();
  auto size = text == nullptr ? read_count(key, value) : base::parse_size(*text);
  if (!size) return refuse(key, "a size: a number of bytes, or text such as \"20G\"");
  return *size;
}

Result<NamesAllowed> read_names(std::string_view key, const base::Json& value) {
  const auto* text = value.get_if<std::string>();
  if (text != nullptr && *text == "none") return NamesAllowed::kNone;
  if (text != nullptr && *text == "relative") return NamesAllowed::kRelative;
  if (text != nullptr && *text == "any") return NamesAllowed::kAny;
  return refuse(key, "\"none\", \"relative\" or \"any\"");
}

Result<void> check_formats(std::string_view key, const Texts& formats) {
  const auto known = known_formats();
  for (const auto& format : formats) {
    if (std::ranges::find(known, format) == known.end()) {
      return fail(EINVAL, fmt::format("'{}' has the unknown format '{}'", key, format));
    }
  }
  return {};
}

Result<void> read_subformats(std::string_view key, const base::Json& value, Policy& policy) {
  const auto* members = value.get_if<base::Json::Object>();
  if (members == nullptr) return refuse(key, "an object of lists of strings, by format");
  policy.subformats.clear();
  for (const auto& [format, list] : *members) {
    PLATTER_TRY(check_formats(key, {format}));
    PLATTER_ASSIGN(auto texts, read_texts(key, list));
    policy.subformats.emplace_back(format, std::move(texts));
  }
  return {};
}

Result<void> read_encryption(std::string_view key, const base::Json& value, Policy& policy) {
  const auto* flag = value.get_if<bool>();
  if (flag != nullptr) {
    policy.encryption = *flag ? std::nullopt : std::optional(Texts{});
    return {};
  }
  PLATTER_ASSIGN(policy.encryption, read_texts(key, value));
  return {};
}

struct FlagRule {
  std::string_view key;
  bool Policy::* member;
};
struct LimitRule {
  std::string_view key;
  uint64_t Policy::* member;
  Result<uint64_t> (*read)(std::string_view key, const base::Json& value);
};
constexpr FlagRule kFlags[] = {{"unknown-features", &Policy::unknown_features},
                               {"several-formats", &Policy::several_formats},
                               {"odd-partition-table", &Policy::odd_partition_table}};
constexpr LimitRule kLimits[] = {{"max-virtual-size", &Policy::max_virtual_size, read_size},
                                 {"max-file-size", &Policy::max_file_size, read_size},
                                 {"max-snapshots", &Policy::max_snapshots, read_count},
                                 {"max-bitmaps", &Policy::max_bitmaps, read_count}};

Result<void> read_rule(std::string_view key, const base::Json& value, Policy& policy) {
  for (const auto& rule : kFlags) {
    if (rule.key != key) continue;
    PLATTER_ASSIGN(policy.*rule.member, read_flag(key, value));
    return {};
  }
  for (const auto& rule : kLimits) {
    if (rule.key != key) continue;
    PLATTER_ASSIGN(policy.*rule.member, rule.read(key, value));
    return {};
  }
  for (size_t kind = 0; kind < std::size(policy.names); ++kind) {
    if (reference_kind_name(static_cast<ReferenceKind>(kind)) != key) continue;
    PLATTER_ASSIGN(policy.names[kind], read_names(key, value));
    return {};
  }
  if (key == "formats") {
    PLATTER_ASSIGN(policy.formats, read_texts(key, value));
    return check_formats(key, policy.formats);
  }
  if (key == "refused-features") {
    PLATTER_ASSIGN(policy.refused_features, read_texts(key, value));
    return {};
  }
  if (key == "subformats") return read_subformats(key, value, policy);
  if (key == "encryption") return read_encryption(key, value, policy);
  return fail(EINVAL, fmt::format("'{}' is not a rule", key));
}

// ---- Judging

bool has(const Texts& list, std::string_view text) {
  return std::ranges::find(list, text) != list.end();
}

bool climbs(std::string_view path) {
  while (!path.empty()) {
    const size_t end = std::min(path.find_first_of("/\\"), path.size());
    if (path.substr(0, end) == "..") return true;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return false;
}

bool is_allowed(NamesAllowed allowed, const std::string& name) {
  if (allowed != NamesAllowed::kRelative) return allowed == NamesAllowed::kAny;
  return !name.empty() && name_form(name) == NameForm::kRelativePath && !climbs(name);
}

class Judge {
 public:
  Judge(const Report& report, const Policy& policy) : report_(report), policy_(policy) {}

  std::vector<Violation> run() {
    judge_format();
    judge_references();
    judge_features();
    judge_limits();
    for (const auto& sentence : report_.damage) add("damage", printable(sentence));
    if (!policy_.odd_partition_table) {
      for (const auto& text : report_.partition_damage) {
        add("odd-partition-table", "Its partition table is odd: " + text);
      }
    }
    return std::move(violations_);
  }

 private:
  void add(std::string_view rule, std::string reason) {
    violations_.push_back({std::string(rule), std::move(reason)});
  }

  void judge_format() {
    if (!policy_.formats.empty() && !has(policy_.formats, report_.format)) {
      add("formats", fmt::format("Its format is '{}'", report_.format));
    }
    for (const auto& [format, accepted] : policy_.subformats) {
      if (format != report_.format || has(accepted, report_.subformat)) continue;
      add("subformats", fmt::format("It is a '{}' image of type '{}'", report_.format,
                                    printable(report_.subformat)));
    }
    if (policy_.several_formats) return;
    for (const auto& format : report_.also) {
      add("several-formats",
          fmt::format("It is '{}' and would be taken for '{}' too", report_.format, format));
    }
  }

  void judge_references() {
    constexpr std::string_view kWhat[] = {"a backing file", "an external data file",
                                          "another file as an extent", "a parent image"};
    for (const auto& reference : report_.references) {
      const auto kind = static_cast<size_t>(reference.kind);
      if (is_allowed(policy_.names[kind], reference.name)) continue;
      add(reference_kind_name(reference.kind),
          reference.name.empty()
              ? fmt::format("It names {}", kWhat[kind])
              : fmt::format("It names {}: '{}' ({})", kWhat[kind], printable(reference.name),
                            name_form_name(name_form(reference.name))));
    }
    // Those that are not listed cannot be judged.
    if (report_.references_total > report_.references.size()) {
      add("extent", fmt::format("It names {} other files", report_.references_total));
    }
  }

  void judge_features() {
    for (const auto& feature : report_.features) {
      if (has(policy_.refused_features, feature)) {
        add("refused-features", fmt::format("It uses the feature '{}'", printable(feature)));
      }
    }
    if (!policy_.unknown_features) {
      for (const auto& feature : report_.unknown_features) {
        // Unknown compatible and autoclear bits may be ignored: that is what they are for.
        if (feature.starts_with("compatible") || feature.starts_with("autoclear")) continue;
        add("unknown-features", fmt::format("It uses an unknown feature: {}", printable(feature)));
      }
    }
    if (policy_.encryption && !report_.encryption.empty() &&
        !has(*policy_.encryption, report_.encryption)) {
      add("encryption", fmt::format("It is encrypted ('{}')", report_.encryption));
    }
  }

  void judge_limits() {
    const auto limit = [&](std::string_view rule, std::string_view what, uint64_t value,
                           uint64_t most) {
      if (value > most) add(rule, fmt::format("{} {}, more than {}", what, value, most));
    };
    if (report_.virtual_size) {
      limit("max-virtual-size", "Its virtual size in bytes is", *report_.virtual_size,
            policy_.max_virtual_size);
    } else if (policy_.max_virtual_size != UINT64_MAX) {
      add("max-virtual-size", "Its virtual size could not be told");
    }
    limit("max-file-size", "The bytes of its file are", report_.file_size, policy_.max_file_size);
    limit("max-snapshots", "Its snapshots are", report_.snapshots_total, policy_.max_snapshots);
    limit("max-bitmaps", "Its bitmaps are", report_.bitmaps_total, policy_.max_bitmaps);
  }

  const Report& report_;
  const Policy& policy_;
  std::vector<Violation> violations_;
};

}  // namespace

std::optional<Policy> builtin_policy(std::string_view name) {
  if (name == "default") return default_policy();
  if (name == "openstack") return openstack_policy();
  return std::nullopt;
}

Result<Policy> parse_policy(std::string_view json_text) {
  PLATTER_ASSIGN(const auto json, base::Json::parse(json_text));
  const auto* members = json.get_if<base::Json::Object>();
  if (members == nullptr) return fail(EINVAL, "A policy is a JSON object");
  Policy policy = default_policy();
  if (const auto* base_name = json.find("extends")) {
    const auto* name = base_name->get_if<std::string>();
    const auto extended = name != nullptr ? builtin_policy(*name) : std::nullopt;
    if (!extended) return refuse("extends", "\"default\" or \"openstack\"");
    policy = *extended;
  }
  for (const auto& [key, value] : *members) {
    if (key != "extends") PLATTER_TRY(read_rule(key, value, policy));
  }
  return policy;
}

std::vector<Violation> judge(const Report& report, const Policy& policy) {
  return Judge(report, policy).run();
}

}  // namespace platter::inspect
