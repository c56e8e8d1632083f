// platter snapshot: lists, takes, applies and deletes the snapshots inside an image.

#include <cerrno>
#include <ctime>

#include "base/try.h"
#include "fmt/format.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/session.h"
#include "tool/snapshot_selector.h"
#include "tool/snapshot_table.h"

namespace platter::tool {
namespace {

constexpr size_t kMaxNameBytes = 255;

struct SnapshotRequest {
  char action = 0;  // -l, -c, -a, -d; 0: none was given
  std::string name;
};

block::SnapshotInfo new_snapshot(std::string name) {
  name.resize(std::min(name.size(), kMaxNameBytes));
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return {.id = {},
          .name = std::move(name),
          .date_seconds = static_cast<uint64_t>(now.tv_sec),
          .date_nanoseconds = static_cast<uint32_t>(now.tv_nsec)};
}

// To be deleted: by name or, where none has it, by id. qemu-img knows names only.
const block::SnapshotInfo* find_to_delete(Dialect dialect,
                                          std::span<const block::SnapshotInfo> snapshots,
                                          const std::string& text) {
  const auto* named = find_snapshot(snapshots, {.id = {}, .name = text, .id_or_name = {}});
  if (named != nullptr || dialect == Dialect::kQemuImg) return named;
  return find_snapshot(snapshots, {.id = text, .name = {}, .id_or_name = {}});
}

// Under the name qemu-img: the number and the system's word for it.
std::string reason(const Invocation& invocation, const Error& error) {
  if (invocation.dialect != Dialect::kQemuImg) return error.message();
  return fmt::format("{} ({})", -error.code(), Error::from_errno(error.code()).message());
}

io::Task<int> create(const Invocation& invocation, block::SnapshotStore* store, std::string name) {
  Result<void> created = fail_errno(ENOTSUP);
  if (store != nullptr) created = co_await store->create_snapshot(new_snapshot(name));
  if (created) co_return 0;
  co_return invocation.fail(
      fmt::format("Could not create snapshot '{}': {}", name, reason(invocation, created.error())));
}

io::Task<int> remove(const Invocation& invocation, block::SnapshotStore* store, std::string name) {
  const auto snapshots = store != nullptr ? store->snapshots() : std::vector<block::SnapshotInfo>{};
  const auto* found = find_to_delete(invocation.dialect, snapshots, name);
  if (found == nullptr)
    co_return invocation.fail(
        fmt::format("Could not delete snapshot '{}': snapshot not found", name));
  if (auto deleted = co_await store->delete_snapshot(found->id); !deleted) {
    co_return invocation.fail(std::move(deleted).error().with_context(
        fmt::format("Could not delete snapshot '{}'", name)));
  }
  co_return 0;
}

io::Task<int> apply(const Invocation& invocation, block::Node& node, std::string name) {
  const std::string failed = fmt::format("Could not apply snapshot '{}'", name);
  auto* store = node.driver().snapshot_store();
  if (store == nullptr) {
    co_return invocation.fail(
        fmt::format("{}: Block format '{}' has no snapshots", failed, node.type().name));
  }
  const auto snapshots = store->snapshots();
  const auto* found = find_snapshot(snapshots, {.id = {}, .name = {}, .id_or_name = name});
  if (found == nullptr)
    co_return invocation.fail(
        fmt::format("{}: Failed to load snapshot: No such file or directory", failed));
  if (auto applied = co_await store->apply_snapshot(found->id); !applied)
    co_return invocation.fail(std::move(applied).error().with_context(failed));
  co_return 0;
}

io::Task<int> act(const Invocation& invocation, block::Backend& backend,
                  const SnapshotRequest& request) {
  block::Node& node = backend.node().skip_filters();
  auto* store = node.driver().snapshot_store();
  switch (request.action) {
    case 'c': co_return co_await create(invocation, store, request.name);
    case 'd': co_return co_await remove(invocation, store, request.name);
    case 'a': co_return co_await apply(invocation, node, request.name);
    case 'l': break;
    default: co_return 0;
  }
  const auto snapshots = store != nullptr ? store->snapshots() : std::vector<block::SnapshotInfo>{};
  if (!snapshots.empty()) invocation.console.print(snapshot_table(snapshots));
  co_return 0;
}

io::Task<int> run_in(Session& session, const Invocation& invocation, ImageArgument image,
                     const SnapshotRequest& request) {
  auto backend = co_await open_image(session, std::move(image));
  if (!backend) co_return invocation.fail(backend.error());
  const int status = co_await act(invocation, **backend, request);
  co_return co_await close_image(invocation, **backend, status);
}

int run_snapshot(Invocation& invocation) {
  SnapshotRequest request;
  unsigned actions = 0;
  for (const auto& given : invocation.options) {
    const char letter = given.option->letter;
    if (letter != 'l' && letter != 'c' && letter != 'a' && letter != 'd') continue;
    ++actions;
    request = {letter, given.value};
  }
  if (actions > 1) return invocation.usage_error("Cannot mix '-l', '-a', '-c', '-d'");
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  if (auto checked = check_common_options(invocation); !checked)
    return invocation.fail(checked.error());
  // Nothing asked: platter lists, qemu-img says nothing.
  if (actions == 0 && invocation.dialect == Dialect::kPlatter) request.action = 'l';
  const bool write = request.action != 'l' && request.action != 0;
  ImageArgument image = {
      .name = invocation.operands[0],
      .image_opts = invocation.has("image-opts"),
      .format = {},
      .force_share = invocation.has("force-share"),
      .flags = {.read_only = !write},
      .cache = {},
  };
  if (write) {
    image.needed =
        block::Permission::kConsistentRead | block::Permission::kWrite | block::Permission::kResize;
  }
  return run_session(invocation,
                     [&](Session& session) { return run_in(session, invocation, image, request); });
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'U', .name = "force-share", .help = "open it even while somebody writes to it"},
    {.letter = 'q', .help = "say nothing but errors"},
    {.letter = 'l', .help = "list the snapshots (without another action, too)"},
    {.letter = 'c', .argument = "NAME", .help = "take a snapshot of the disk as it is"},
    {.letter = 'a', .argument = "SNAPSHOT", .help = "make the disk again what it was then"},
    {.letter = 'd', .argument = "SNAPSHOT", .help = "delete a snapshot"},
};

}  // namespace

extern const Command kSnapshotCommand;
const Command kSnapshotCommand = {
    .name = "snapshot",
    .summary = "List, take, apply or delete the snapshots inside an image.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_snapshot,
};

}  // namespace platter::tool
