// platter info: what an image says about itself, and the images it stands on.
#include <cerrno>
#include <ctime>
#include <set>

#include "base/size.h"
#include "base/try.h"
#include "block/filename.h"
#include "fmt/format.h"
#include "monitor/image_info.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/json_text.h"
#include "tool/session.h"
#include "tool/snapshot_table.h"

namespace platter::tool {
namespace {

using monitor::ImageInfo;

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
  auto info = co_await monitor::collect_image_info(backend->node());
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
