#include "monitor/export_types.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/try.h"
#include "block/backend.h"
#include "export/vhost_user/export.h"
#include "io/reactor.h"
#include "monitor/arguments.h"
#include "monitor/socket_address.h"

namespace platter::monitor {
namespace {

class VhostUserExport final : public BlockExport {
 public:
  VhostUserExport(std::unique_ptr<block::Backend> backend,
                  std::unique_ptr<vhost_user::Export> served)
      : backend_(std::move(backend)), served_(std::move(served)), size_(backend_->size()) {}

  const block::Node& node() const override { return backend_->node(); }
  bool in_use() const override { return served_->is_connected(); }
  void size_may_have_changed() override {
    if (std::exchange(size_, backend_->size()) != backend_->size()) served_->config_changed();
  }
  io::Task<Result<void>> close() override {
    co_await served_->stop();
    served_.reset();
    co_return co_await backend_->close();
  }

 private:
  std::unique_ptr<block::Backend> backend_;
  std::unique_ptr<vhost_user::Export> served_;
  uint64_t size_;
};

Result<vhost_user::Options> read_options(const BlockExportOptions& options) {
  const Arguments given(options.all);
  vhost_user::Options made;
  made.properties = vhost_user::default_properties();
  made.properties.read_only = !options.writable;
  if (options.writethrough) made.properties.write_cache = virtio::blk::OnOffAuto::kOff;
  const uint64_t queues = given.natural("num-queues", 1);
  if (queues == 0) return fail(EINVAL, "num-queues must be greater than 0");
  made.properties.queues = static_cast<uint16_t>(queues);
  const uint64_t block = given.natural("logical-block-size", virtio::blk::kSectorBytes);
  if (block < virtio::blk::kSectorBytes || block > virtio::blk::kMaxBlockBytes) {
    return fail(EINVAL, fmt::format("Property {}.logical-block-size doesn't take value {} "
                                    "(minimum: {}, maximum: {})",
                                    options.id, static_cast<int64_t>(block),
                                    virtio::blk::kSectorBytes, virtio::blk::kMaxBlockBytes));
  }
  if (!std::has_single_bit(block)) {
    return fail(EINVAL, fmt::format("Property {}.logical-block-size doesn't take value '{}', it's "
                                    "not a power of 2",
                                    options.id, block));
  }
  made.properties.logical_block_bytes = static_cast<uint32_t>(block);
  made.properties.physical_block_bytes = made.properties.logical_block_bytes;
  made.properties.min_io_bytes = made.properties.logical_block_bytes;
  made.properties.opt_io_bytes = made.properties.logical_block_bytes;
  const Arguments address = given.object("addr");
  if (address.text("type") == "unix") {
    made.path = address.text("path");
    if (!address.flag("abstract")) return made;
    return fail(ENOTSUP, "An export's socket has a path: it cannot be abstract");
  }
  if (address.text("type") == "fd") {
    PLATTER_ASSIGN(made.listening, inherited_socket(address.text("str")));
    PLATTER_TRY(stop_blocking(made.listening.get()));
    return made;
  }
  return fail(EINVAL, "Only socket address types 'unix' and 'fd' are supported");
}

io::Task<void> set_polling(io::Nanoseconds longest) {
  io::Reactor::current()->set_polling(longest);
  co_return;
}

}  // namespace

io::Task<Result<std::vector<io::Reactor*>>> BuiltinExportTypes::reactors_for(std::string iothread) {
  if (iothread.empty()) co_return reactors_;
  const auto thread = objects_.io_thread(iothread);
  if (!thread) co_return fail(ENOENT, fmt::format("iothread \"{}\" not found", iothread));
  size_t index = 0;
  for (const ObjectName& name : objects_.list()) {
    if (name.type != "iothread") continue;
    if (name.id == iothread) break;
    ++index;
  }
  // The last ones first: the first one has the monitors, too.
  io::Reactor* reactor = reactors_[reactors_.size() - 1 - index % reactors_.size()];
  co_await io::run_on(*reactor, set_polling(io::Nanoseconds(thread->poll_max_ns)));
  co_return std::vector<io::Reactor*>{reactor};
}

io::Task<Result<std::unique_ptr<BlockExport>>> BuiltinExportTypes::start(
    BlockExportOptions options) {
  PLATTER_CO_ASSIGN(auto reactors, co_await reactors_for(options.iothread));
  PLATTER_CO_ASSIGN(vhost_user::Options made, read_options(options));
  made.reactors = std::move(reactors);
  made.slow_request = slow_request_;
  block::Permissions needed = block::Permission::kConsistentRead;
  if (options.writable) needed |= block::Permission::kWrite;
  PLATTER_CO_ASSIGN(auto backend, co_await options.node->graph().attach(*options.node, needed,
                                                                        block::kAllPermissions));
  auto served = vhost_user::Export::start(*backend, std::move(made), log_);
  if (!served) {
    if (auto closed = co_await backend->close(); !closed) log_.warning(closed.error().message());
    co_return std::unexpected(std::move(served).error());
  }
  co_return std::make_unique<VhostUserExport>(std::move(backend), std::move(*served));
}

}  // namespace platter::monitor
