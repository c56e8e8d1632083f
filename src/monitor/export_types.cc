#include "monitor/export_types.h"

#include <fmt/format.h>

#include <bit>

#include "base/try.h"
#include "block/backend.h"
#include "export/vhost_user/export.h"
#include "io/reactor.h"
#include "monitor/arguments.h"
#include "monitor/export_address.h"
#include "monitor/iothreads.h"

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
  PLATTER_TRY(read_address(given.object("addr"), made));
  return made;
}

}  // namespace

io::Task<Result<std::vector<io::Reactor*>>> BuiltinExportTypes::reactors_for(std::string iothread) {
  if (iothread.empty()) co_return reactors_;
  PLATTER_CO_ASSIGN(io::Reactor * reactor,
                    co_await reactor_of(objects_, reactors_, std::move(iothread)));
  co_return std::vector<io::Reactor*>{reactor};
}

io::Task<Result<std::unique_ptr<BlockExport>>> BuiltinExportTypes::start(
    BlockExportOptions options) {
  PLATTER_CO_ASSIGN(auto reactors, co_await reactors_for(options.iothread));
  if (options.type == "nbd") co_return co_await nbd_.serve(std::move(options), std::move(reactors));
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
