// Making new images: a format's driver lays it out over the file that a protocol's driver makes.

#include <fmt/format.h>

#include "base/try.h"
#include "block/filename.h"
#include "block/graph.h"
#include "block/graph_state.h"
#include "block/registry.h"

namespace platter::block {

namespace {

// What the driver and, for a format, the protocol beneath it make of the options.
struct CreatePlan {
  const DriverType* type;
  base::OptionSet options;
  base::Options protocol_options;
};

Result<CreatePlan> plan_creation(const DriverRegistry& registry, const CreateRequest& request) {
  const DriverType* type = nullptr;
  if (!request.format.empty()) {
    type = registry.find(request.format);
    if (type == nullptr) {
      return fail(EINVAL, fmt::format("Unknown file format '{}'", request.format));
    }
  }
  const DriverType* protocol = type;
  if (type == nullptr || type->kind != DriverKind::kProtocol) {
    PLATTER_ASSIGN(protocol, protocol_of(registry, request.filename));
  }
  if (type == nullptr) type = protocol;
  if (type->create == nullptr) {
    return fail(ENOTSUP, fmt::format("{} driver '{}' does not support image creation",
                                     type == protocol ? "Protocol" : "Format", type->name));
  }
  if (protocol->create == nullptr) {
    return fail(ENOTSUP, fmt::format("Protocol driver '{}' does not support image creation",
                                     protocol->name));
  }
  base::Options rest = request.options;
  PLATTER_ASSIGN(base::OptionSet options, type->create_options.take(rest));
  base::Options unknown = rest;
  if (type != protocol) {
    PLATTER_TRY(protocol->create_options.take(unknown));
  }
  if (!unknown.empty()) {
    return fail(EINVAL, fmt::format("Invalid parameter '{}'", unknown.entries().front().first));
  }
  return CreatePlan{type, std::move(options), std::move(rest)};
}

}  // namespace

io::Task<Result<void>> Graph::create(CreateRequest request) {
  PLATTER_CO_ASSIGN(CreatePlan plan, plan_creation(state_->environment.registry, request));
  CreateContext context{*this, request.filename, plan.options, plan.protocol_options};
  Result<void> created = co_await plan.type->create(context);
  if (!created) context.remove_file();
  co_return std::move(created);
}

void CreateContext::remove_file() const {
  if (!begun) return;
  std::string path = filename;
  if (path.starts_with("file:")) path.erase(0, 5);
  const Graph::Environment& environment = graph.environment();
  auto info = environment.files.info(path);
  if (!info || info->kind != io::FileKind::kRegular) return;
  if (auto removed = environment.files.remove(path); !removed) {
    environment.log.warning(removed.error().message());
  }
}

io::Task<Result<std::unique_ptr<Backend>>> CreateContext::create_file() {
  const DriverRegistry& registry = graph.environment().registry;
  PLATTER_CO_ASSIGN(const DriverType* protocol, protocol_of(registry, filename));
  PLATTER_CO_ASSIGN(base::OptionSet set, protocol->create_options.parse(protocol_options));
  const base::Options nothing;
  CreateContext beneath{graph, filename, set, nothing};
  Result<void> created = co_await protocol->create(beneath);
  begun = beneath.begun;
  if (!created) co_return std::unexpected(std::move(created).error());
  OpenRequest request;
  request.filename = filename;
  request.format = protocol->name;
  request.flags.read_only = false;
  request.discard_unmap = true;
  co_return co_await graph.open(
      std::move(request), Permission::kConsistentRead | Permission::kWrite | Permission::kResize,
      Permission::kConsistentRead | Permission::kWriteUnchanged);
}

}  // namespace platter::block
