#include "block/filename.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "base/try.h"
#include "block/graph.h"
#include "block/node_state.h"

namespace platter::block {

namespace fs = std::filesystem;

std::string_view protocol_prefix(std::string_view filename) {
  const size_t end = filename.find_first_of(":/");
  if (end == std::string_view::npos || filename[end] != ':') return {};
  return filename.substr(0, end);
}

Result<const DriverType*> protocol_of(const DriverRegistry& registry, std::string_view filename) {
  const std::string_view prefix = protocol_prefix(filename);
  if (prefix.empty()) {
    const DriverType* file = registry.find("file");
    if (file == nullptr) return fail(ENOTSUP, "This build knows no files");
    return file;
  }
  if (const DriverType* type = registry.find_by_prefix(prefix)) return type;
  return fail(EINVAL, fmt::format("Unknown protocol '{}'", prefix));
}

std::string combine_paths(std::string_view base, std::string_view name) {
  if (name.starts_with('/')) return std::string(name);
  const size_t slash = base.rfind('/');
  if (slash == std::string_view::npos) return std::string(name);
  return fmt::format("{}{}", base.substr(0, slash + 1), name);
}

std::string absolute_directory(std::string_view filename) {
  if (filename.empty() || !protocol_prefix(filename).empty()) return {};
  std::error_code error;
  const fs::path path = fs::absolute(fs::path(filename), error);
  return error ? std::string() : path.parent_path().string();
}

const std::string& naming_file(const Node& node) {
  const Node* image = &node;
  while (image->filename().starts_with(kJsonPrefix) && image->primary() != nullptr)
    image = &image->primary()->node();
  return image->filename();
}

Result<std::string> resolve_backing_name(const Node& node, std::string_view backing_filename) {
  if (backing_filename.starts_with('/') || !protocol_prefix(backing_filename).empty()) {
    return std::string(backing_filename);
  }
  const std::string& base = naming_file(node);
  if (base.starts_with(kJsonPrefix)) {
    return fail(EINVAL, fmt::format("Cannot use relative backing file names for '{}'", base));
  }
  if (!protocol_prefix(base).empty()) {
    return fail(EINVAL, fmt::format("Cannot generate a base directory for {} nodes",
                                    node.primary() != nullptr ? node.primary()->node().type().name
                                                              : node.type().name));
  }
  return combine_paths(base, backing_filename);
}

// ---- The name of a node

static base::Json describe(const Node& node) {
  base::Options own;
  own.set("driver", std::string(node.type().name));
  if (node.type().kind == DriverKind::kProtocol) {
    for (const auto& [key, value] : node.options().entries()) {
      if (key == "filename" || std::ranges::find(node.type().identity_options, key) !=
                                   node.type().identity_options.end()) {
        own.set(key, value);
      }
    }
    return own.to_json();
  }
  for (const std::string_view key : node.type().identity_options) {
    if (const base::OptionValue* value = node.options().find(key)) own.set(key, *value);
  }
  base::Json json = own.to_json();
  for (const auto& child : node.children()) {
    if (child.get() == node.backing() && !node.state().backing_overridden) continue;
    json.add(child->name(), describe(child->node()));
  }
  return json;
}

std::string reopening_name(const Node& node) {
  bool plain = !node.state().backing_overridden;
  for (const std::string_view key : node.type().identity_options) {
    plain = plain && node.options().find(key) == nullptr;
  }
  if (plain && node.primary() != nullptr) {
    const std::string& below = node.primary()->node().filename();
    if (!below.starts_with(kJsonPrefix)) return below;
  }
  if (plain && node.type().kind == DriverKind::kProtocol) {
    if (auto path = node.options().find_string("filename")) {
      // What looks like a protocol is no path until it says so.
      return protocol_prefix(*path).empty() ? *path : "./" + *path;
    }
    if (!node.type().filename_prefix.empty())
      return fmt::format("{}://", node.type().filename_prefix);
  }
  return std::string(kJsonPrefix) + describe(node).dump();
}

// ---- Reach

static bool lies_in(const fs::path& file, const fs::path& directory) {
  auto [end, unused] = std::mismatch(directory.begin(), directory.end(), file.begin(), file.end());
  return end == directory.end() || (std::next(end) == directory.end() && end->empty());
}

// Absolute, and without symbolic links as far as the path exists.
static fs::path resolved(const fs::path& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path);
  fs::path real = fs::weakly_canonical(absolute, error);
  return error ? absolute.lexically_normal() : real;
}

Result<void> check_reach(const OpenPolicy& policy, const std::string& image,
                         const std::string& target, const std::string& written,
                         std::string_view what) {
  const auto refused = [&](std::string_view why) {
    return fail(EACCES,
                fmt::format("{} '{}' of '{}' is not opened: {}", what, written, image, why));
  };
  switch (policy.reach) {
    case OpenPolicy::Reach::kAnything: return {};
    case OpenPolicy::Reach::kNothing:
      if (policy.allowed_directories.empty()) {
        return refused("the open policy follows no names in images");
      }
      break;
    case OpenPolicy::Reach::kOwnDirectory: break;
  }
  if (!protocol_prefix(target).empty()) {
    return refused("the open policy only allows names of files in images");
  }
  const fs::path file = resolved(target);
  if (policy.reach == OpenPolicy::Reach::kOwnDirectory && protocol_prefix(image).empty() &&
      lies_in(file, resolved(image).parent_path())) {
    return {};
  }
  for (const std::string& directory : policy.allowed_directories) {
    if (lies_in(file, resolved(directory))) return {};
  }
  return refused("it lies outside the directories that the open policy allows");
}

}  // namespace platter::block
