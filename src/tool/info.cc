// platter info: what an image says about itself, and the images it stands on.
#include <cerrno>
#include <ctime>
#include <set>

#include "base/size.h"
#include "base/try.h"
#include "block/filename.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/json_text.h"
#include "tool/session.h"
#include "tool/snapshot_table.h"

namespace platter::tool {
namespace {

struct ImageInfo {
  std::string filename;
  std::string format;
  uint64_t virtual_size = 0;
  std::optional<uint64_t> actual_size;
  block::DriverInfo driver;
  std::optional<block::BackingReference> backing;
  std::string full_backing_filename;  // empty: cannot be told
};

io::Task<Result<ImageInfo>> collect(block::Node& node) {
  ImageInfo info;
  info.filename = node.filename();
  info.format = node.type().name;
  info.virtual_size = node.size();
  if (auto allocated = co_await node.driver().allocated_size()) info.actual_size = *allocated;
  PLATTER_CO_ASSIGN(info.driver, node.driver().info());
  info.backing = node.driver().backing_reference();
  if (info.backing) {
    if (auto full = block::resolve_backing_name(node, info.backing->filename)) {
      info.full_backing_filename = *full;
    }
  }
  co_return info;
}

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

// ---- JSON. The order of the members is the one that qemu-img prints.

base::Json to_json(const block::SnapshotInfo& snapshot) {
  auto json = base::Json::object();
  if (snapshot.icount) json.add("icount", *snapshot.icount);
  json.add("vm-clock-nsec", snapshot.vm_clock_nanoseconds % kNanosecondsPerSecond);
  json.add("name", snapshot.name);
  json.add("date-sec", snapshot.date_seconds);
  json.add("date-nsec", snapshot.date_nanoseconds);
  json.add("vm-clock-sec", snapshot.vm_clock_nanoseconds / kNanosecondsPerSecond);
  json.add("id", snapshot.id);
  json.add("vm-state-size", snapshot.vm_state_size);
  return json;
}

base::Json to_json(const ImageInfo& info) {
  auto json = base::Json::object();
  if (!info.driver.snapshots.empty()) {
    auto list = base::Json::array();
    for (const auto& snapshot : info.driver.snapshots) list.append(to_json(snapshot));
    json.add("snapshots", std::move(list));
  }
  const bool has_format = info.backing && !info.backing->format.empty();
  if (has_format) json.add("backing-filename-format", info.backing->format);
  json.add("virtual-size", info.virtual_size);
  json.add("filename", info.filename);
  if (info.driver.cluster_size != 0) json.add("cluster-size", info.driver.cluster_size);
  json.add("format", info.format);
  if (info.actual_size) json.add("actual-size", *info.actual_size);
  if (info.driver.specific.is_object()) json.add("format-specific", info.driver.specific);
  if (!info.full_backing_filename.empty())
    json.add("full-backing-filename", info.full_backing_filename);
  if (info.backing) json.add("backing-filename", info.backing->filename);
  if (info.driver.compressed) json.add("compressed", true);
  if (info.driver.encrypted) json.add("encrypted", true);
  json.add("dirty-flag", info.driver.dirty);
  return json;
}

// ---- For people

void print_backing(std::string& out, const ImageInfo& info) {
  if (!info.backing) return;
  out += "backing file: " + info.backing->filename;
  if (info.full_backing_filename.empty()) {
    out += " (cannot determine actual path)";
  } else if (info.full_backing_filename != info.backing->filename) {
    out += " (actual path: " + info.full_backing_filename + ")";
  }
  out += "\n";
  if (!info.backing->format.empty()) out += "backing file format: " + info.backing->format + "\n";
}

std::string to_text(const ImageInfo& info) {
  std::string out =
      fmt::format("image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\n", info.filename,
                  info.format, base::format_size(info.virtual_size), info.virtual_size);
  out += "disk size: " + (info.actual_size ? base::format_size(*info.actual_size) : "unavailable") +
         "\n";
  if (info.driver.encrypted) out += "encrypted: yes\n";
  if (info.driver.cluster_size != 0)
    out += fmt::format("cluster_size: {}\n", info.driver.cluster_size);
  if (info.driver.dirty) out += "cleanly shut down: no\n";
  print_backing(out, info);
  if (!info.driver.snapshots.empty()) out += snapshot_table(info.driver.snapshots);
  const auto* data = info.driver.specific.is_object() ? info.driver.specific.find("data") : nullptr;
  if (data != nullptr && data->is_object() && !data->get_if<base::Json::Object>()->empty()) {
    out += "Format specific information:\n";
    print_json_text(out, *data, 1);
  }
  return out;
}

// ---- The walk

io::Task<Result<ImageInfo>> collect_one(Session& session, ImageArgument argument) {
  PLATTER_CO_ASSIGN(auto backend, co_await open_image(session, std::move(argument)));
  auto info = co_await collect(backend->node());
  auto closed = co_await backend->close();
  if (info && !closed) co_return std::unexpected(std::move(closed).error());
  co_return info;
}

io::Task<Result<std::vector<ImageInfo>>> collect_images(Session& session, ImageArgument first,
                                                        bool chain) {
  std::vector<ImageInfo> images;
  std::set<std::string> seen;
  ImageArgument next = std::move(first);
  for (;;) {
    if (!seen.insert(next.name).second) {
      co_return fail(ELOOP, "Backing file '" + next.name + "' creates an infinite loop.");
    }
    ImageArgument following = next;
    PLATTER_CO_ASSIGN(auto info, co_await collect_one(session, std::move(next)));
    const auto backing = info.backing;
    const std::string full = info.full_backing_filename;
    images.push_back(std::move(info));
    if (!chain || !backing) break;
    if (full.empty()) {
      co_return fail(
          ENOTSUP, "Could not determine the backing file name of '" + images.back().filename + "'");
    }
    PLATTER_CO_TRY(
        block::check_reach(session.policy(), images.back().filename, full, backing->filename));
    following.name = full;
    following.image_opts = false;
    following.format = backing->format;
    next = std::move(following);
  }
  co_return images;
}

io::Task<int> run_in(Session& session, const Invocation& invocation, ImageArgument image,
                     bool json) {
  const bool chain = invocation.has("backing-chain");
  auto images = co_await collect_images(session, std::move(image), chain);
  if (!images) co_return invocation.fail(images.error());
  if (json && chain) {
    auto list = base::Json::array();
    for (const auto& info : *images) list.append(to_json(info));
    invocation.console.print(list.dump_pretty() + "\n");
  } else if (json) {
    invocation.console.print(to_json(images->front()).dump_pretty() + "\n");
  } else {
    for (size_t i = 0; i < images->size(); ++i) {
      if (i != 0) invocation.console.print("\n");
      invocation.console.print(to_text((*images)[i]));
    }
  }
  co_return 0;
}

int run_info(Invocation& invocation) {
  auto json = json_output(invocation);
  if (!json) return invocation.fail(json.error());
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  ImageArgument image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = invocation.value_or("format", ""),
      .force_share = invocation.has("force-share"),
      .flags = {.read_only = true, .no_io = true, .no_backing = true},
      .cache = {},
  };
  return run_session(invocation,
                     [&](Session& session) { return run_in(session, invocation, image, *json); });
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'f',
     .name = "format",
     .argument = "FMT",
     .help = "format of the image (default: found out)"},
    {.name = "output", .argument = "FORM", .help = "human or json"},
    {.name = "backing-chain", .help = "also show the images it is based on"},
    {.letter = 'U', .name = "force-share", .help = "open it even while somebody writes to it"},
};

}  // namespace

extern const Command kInfoCommand;
const Command kInfoCommand = {
    .name = "info",
    .summary = "Show what an image is.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_info,
};

}  // namespace platter::tool
