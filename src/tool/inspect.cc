// platter inspect: what an untrusted image is, and whether a policy accepts it. Nothing of the
// image is parsed in this process, and nothing that it names is opened.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "base/size.h"
#include "base/try.h"
#include "fmt/format.h"
#include "inspect/inspect.h"
#include "inspect/isolated.h"
#include "inspect/policy.h"
#include "tool/arguments.h"
#include "tool/command.h"

namespace platter::tool {
namespace {

using inspect::Report;

constexpr unsigned kMaxTimeoutSeconds = 3600;
constexpr size_t kMaxPolicyBytes = 64 << 10;

// A regular file or a block device, open for reading.
class ImageFile {
 public:
  static Result<ImageFile> open(const std::string& path) {
    struct stat status;
    // Looked at first: opening some devices does things.
    if (stat(path.c_str(), &status) != 0) return std::unexpected(could_not_open(path, errno));
    PLATTER_TRY(check_kind(path, status));
    ImageFile file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (file.descriptor_ < 0 || fstat(file.descriptor_, &status) != 0) {
      return std::unexpected(could_not_open(path, errno));
    }
    PLATTER_TRY(check_kind(path, status));
    file.size_ = static_cast<uint64_t>(status.st_size);
    if (S_ISBLK(status.st_mode) && ioctl(file.descriptor_, BLKGETSIZE64, &file.size_) != 0) {
      return std::unexpected(could_not_open(path, errno));
    }
    return file;
  }
  ImageFile(ImageFile&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}
  ~ImageFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int descriptor() const { return descriptor_; }
  uint64_t size() const { return size_; }

 private:
  explicit ImageFile(int descriptor) : descriptor_(descriptor) {}
  static Error could_not_open(const std::string& path, int code) {
    return Error::from_errno(code, "Could not open '" + path + "'");
  }
  static Result<void> check_kind(const std::string& path, const struct stat& status) {
    if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) return {};
    return fail(EINVAL,
                "Could not open '" + path + "': It is neither a regular file nor a block device");
  }

  int descriptor_;
  uint64_t size_ = 0;
};

Result<std::string> read_policy_file(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (descriptor < 0) return std::unexpected(Error::from_errno(errno));
  std::string text(kMaxPolicyBytes + 1, '\0');
  const ssize_t got = read(descriptor, text.data(), text.size());
  const int code = errno;
  close(descriptor);
  if (got < 0) return std::unexpected(Error::from_errno(code));
  if (static_cast<size_t>(got) > kMaxPolicyBytes) return fail(EFBIG, "It is too large");
  text.resize(static_cast<size_t>(got));
  return text;
}

Result<inspect::Policy> find_policy(const std::string& name) {
  if (auto builtin = inspect::builtin_policy(name)) return std::move(*builtin);
  auto text = read_policy_file(name);
  if (!text) {
    return std::unexpected(
        std::move(text).error().with_context("Could not read the policy '" + name + "'"));
  }
  auto policy = inspect::parse_policy(*text);
  if (!policy) {
    return std::unexpected(std::move(policy).error().with_context("Invalid policy '" + name + "'"));
  }
  return policy;
}

struct Verdict {
  std::string filename;
  std::string policy;
  Report report;
  std::vector<inspect::Violation> violations;
};

// ---- JSON

base::Json to_json(const Verdict& verdict) {
  auto json = base::Json::object();
  json.add("filename", verdict.filename);
  const base::Json facts = inspect::report_to_json(verdict.report);
  for (const auto& [key, value] : *facts.get_if<base::Json::Object>()) {
    if (key != "references") json.add(key, value);
  }
  auto references = base::Json::array();
  for (const auto& reference : verdict.report.references) {
    auto item = base::Json::object();
    item.add("kind", inspect::reference_kind_name(reference.kind));
    item.add("name", reference.name);
    item.add("form", inspect::name_form_name(inspect::name_form(reference.name)));
    if (!reference.format.empty()) item.add("format", reference.format);
    references.append(std::move(item));
  }
  json.add("references", std::move(references));
  json.add("policy", verdict.policy);
  json.add("accepted", verdict.violations.empty());
  auto violations = base::Json::array();
  for (const auto& violation : verdict.violations) {
    auto item = base::Json::object();
    item.add("rule", violation.rule);
    item.add("reason", violation.reason);
    violations.append(std::move(item));
  }
  json.add("violations", std::move(violations));
  return json;
}

// ---- For people

void add_list(std::string& out, std::string_view what, const std::vector<std::string>& items,
              uint64_t total) {
  if (total == 0) return;
  std::string line;
  for (const auto& item : items) line += (line.empty() ? "" : ", ") + inspect::printable(item);
  if (total > items.size()) {
    line += fmt::format("{}{} more", items.empty() ? "" : ", and ", total - items.size());
  }
  out += fmt::format("{}: {}\n", what, line);
}

void add_list(std::string& out, std::string_view what, const std::vector<std::string>& items) {
  add_list(out, what, items, items.size());
}

std::string to_text(const Verdict& verdict) {
  const Report& report = verdict.report;
  std::string out = fmt::format("image: {}\nfile format: {}", verdict.filename, report.format);
  if (!report.subformat.empty()) out += ", " + inspect::printable(report.subformat);
  if (report.version) out += fmt::format(", version {}", *report.version);
  out += "\nvirtual size: ";
  out += report.virtual_size ? fmt::format("{} ({} bytes)", base::format_size(*report.virtual_size),
                                           *report.virtual_size)
                             : "unknown";
  out += fmt::format("\nfile size: {} ({} bytes)\n", base::format_size(report.file_size),
                     report.file_size);
  if (report.cluster_size != 0) {
    out += fmt::format("cluster size: {}\n", base::format_size(report.cluster_size));
  }
  add_list(out, "holds", report.content);
  add_list(out, "would be taken for", report.also);
  add_list(out, "features", report.features);
  add_list(out, "unknown features", report.unknown_features);
  if (!report.compression.empty()) out += "compression: " + report.compression + "\n";
  if (!report.encryption.empty()) out += "encrypted: " + report.encryption + "\n";
  for (const auto& reference : report.references) {
    out +=
        fmt::format("refers to: {} '{}' ({}{}{})\n", inspect::reference_kind_name(reference.kind),
                    inspect::printable(reference.name),
                    inspect::name_form_name(inspect::name_form(reference.name)),
                    reference.format.empty() ? "" : ", ", inspect::printable(reference.format));
  }
  add_list(out, "snapshots", report.snapshots, report.snapshots_total);
  add_list(out, "bitmaps", report.bitmaps, report.bitmaps_total);
  out += fmt::format("policy '{}': {}\n", verdict.policy,
                     verdict.violations.empty() ? "accepted" : "refused");
  return out;
}

int show(const Invocation& invocation, const Verdict& verdict, bool json) {
  if (json) {
    invocation.console.print(to_json(verdict).dump_pretty() + "\n");
  } else {
    if (!invocation.has("q")) invocation.console.print(to_text(verdict));
    for (const auto& violation : verdict.violations) {
      invocation.console.error(fmt::format("'{}' is refused: {} ({})", verdict.filename,
                                           violation.reason, violation.rule));
    }
  }
  return verdict.violations.empty() ? 0 : 1;
}

Result<unsigned> parse_timeout(const std::string& text) {
  unsigned seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds == 0 ||
      seconds > kMaxTimeoutSeconds) {
    return fail(EINVAL, fmt::format("--timeout is a number of seconds from 1 to {}, not '{}'",
                                    kMaxTimeoutSeconds, text));
  }
  return seconds;
}

Result<void> check_format(const std::string& format) {
  if (format.empty()) return {};
  for (const auto known : inspect::known_formats()) {
    if (known == format) return {};
  }
  return fail(EINVAL, "Unknown format '" + format + "'");
}

Result<Verdict> inspect_file(const Invocation& invocation) {
  Verdict verdict = {.filename = invocation.operands[0],
                     .policy = invocation.value_or("policy", "default"),
                     .report = {},
                     .violations = {}};
  inspect::IsolatedInspection inspection;
  inspection.format = invocation.value_or("format", "");
  PLATTER_TRY(check_format(inspection.format));
  if (auto text = invocation.value("timeout")) {
    PLATTER_ASSIGN(inspection.timeout_seconds, parse_timeout(*text));
  }
  PLATTER_ASSIGN(const auto policy, find_policy(verdict.policy));
  PLATTER_ASSIGN(const auto file, ImageFile::open(verdict.filename));
  inspection.descriptor = file.descriptor();
  inspection.file_size = file.size();
  auto report = inspect::inspect_isolated(inspection);
  if (!report) {
    return std::unexpected(
        std::move(report).error().with_context("Could not inspect '" + verdict.filename + "'"));
  }
  verdict.report = std::move(*report);
  verdict.violations = inspect::judge(verdict.report, policy);
  return verdict;
}

int run_inspect(Invocation& invocation) {
  auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  const auto verdict = inspect_file(invocation);
  if (!verdict) return invocation.fail(verdict.error());
  return show(invocation, *verdict, *json);
}

constexpr CommandOption kOptions[] = {
    {.letter = 'f',
     .name = "format",
     .argument = "FMT",
     .help = "format that it will be opened as (default: what a probe takes it for)"},
    {.name = "policy",
     .argument = "POLICY",
     .help = "default, openstack, or a JSON file with rules"},
    {.name = "output", .argument = "FORM", .help = "human or json"},
    {.name = "timeout", .argument = "SECONDS", .help = "give up after this long (default: 5)"},
    {.letter = 'q', .help = "say nothing but why it is refused"},
};

constexpr ExitMeaning kExitMeanings[] = {
    {0, "the policy accepts the image"},
    {1, "it is refused, or could not be inspected"},
};

}  // namespace

extern const Command kInspectCommand;
const Command kInspectCommand = {
    .name = "inspect",
    .summary = "Look into an untrusted image, and say whether a policy accepts it.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_inspect,
    .native = true,
    .exit_statuses = kExitMeanings,
};

}  // namespace platter::tool
