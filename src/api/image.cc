#include "platter/image.h"

#include "api/runtime_state.h"
#include "base/try.h"
#include "block/backend.h"
#include "io/gate.h"

namespace platter {

using block::Permission;
using block::Permissions;

struct Image::State {
  Runtime::State& runtime;
  std::unique_ptr<block::Backend> backend;
  io::Gate gate;  // asynchronous requests under way
  bool closed = false;

  void start(io::Task<Result<void>> task, Completion done) {
    gate.spawn(runtime.next_reactor(), complete(std::move(task), done));
  }
  template <typename T>
  T wait(io::Task<T> task) {
    return io::run_blocking(runtime.next_reactor(), std::move(task));
  }

  static io::Task<void> complete(io::Task<Result<void>> task, Completion done) {
    Result<void> result = co_await std::move(task);
    done.done(done.user, std::move(result));
  }
};

namespace {

block::WriteFlags flags_of(WriteOptions options) {
  block::WriteFlags flags;
  if (options.durable) flags |= block::WriteFlag::kFua;
  if (options.may_unmap) flags |= block::WriteFlag::kMayUnmap;
  return flags;
}

io::BufferList source(std::span<const uint8_t> bytes) {
  // A write only takes from its buffers; their type does not tell (io/buffer.h).
  return {const_cast<uint8_t*>(bytes.data()), bytes.size()};
}

Result<block::OpenRequest> open_request(const ImageOpenOptions& options) {
  block::OpenRequest request;
  request.filename = options.filename;
  request.format = options.format;
  if (!options.options.empty()) {
    PLATTER_ASSIGN(request.options, base::Options::from_key_values(options.options));
  }
  request.flags.read_only = !options.writable;
  request.cache.direct = options.direct;
  request.discard_unmap = options.unmap;
  request.policy = options.policy;
  return request;
}

io::Task<Result<ImageInfo>> collect_info(block::Backend& backend) {
  block::Node& node = backend.node();
  PLATTER_CO_ASSIGN(block::DriverInfo driver, node.driver().info());
  ImageInfo info;
  info.filename = node.filename();
  info.format = node.type().name;
  info.size = node.size();
  info.cluster_size = driver.cluster_size;
  info.dirty = driver.dirty;
  info.encrypted = driver.encrypted;
  if (auto allocated = co_await node.driver().allocated_size()) info.allocated_size = *allocated;
  if (auto backing = node.driver().backing_reference()) {
    info.backing_filename = backing->filename;
    info.backing_format = backing->format;
  }
  if (driver.specific.is_object()) info.format_specific = driver.specific.dump();
  co_return info;
}

}  // namespace

Image::Image(std::unique_ptr<State> state) : state_(std::move(state)) {}
Image::~Image() { PLATTER_ASSERT(state_->closed); }

Result<std::unique_ptr<Image>> Image::open(Runtime& runtime, const ImageOpenOptions& options) {
  PLATTER_ASSIGN(block::OpenRequest request, open_request(options));
  Permissions needed = Permission::kConsistentRead;
  if (options.writable) needed |= Permission::kWrite | Permission::kResize;
  Permissions shared = Permission::kConsistentRead | Permission::kWriteUnchanged;
  if (options.share_writes) shared = block::kAllPermissions;
  auto state =
      std::unique_ptr<State>(new State{.runtime = runtime.state(), .backend = {}, .gate = {}});
  PLATTER_ASSIGN(state->backend,
                 state->wait(runtime.state().graph.open(std::move(request), needed, shared)));
  return std::unique_ptr<Image>(new Image(std::move(state)));
}

Result<void> Image::create(Runtime& runtime, const ImageCreateOptions& options) {
  block::CreateRequest request;
  request.filename = options.filename;
  request.format = options.format;
  if (!options.options.empty()) {
    PLATTER_ASSIGN(request.options, base::Options::from_key_values(options.options));
  }
  request.options.set("size", options.size);
  Runtime::State& state = runtime.state();
  return io::run_blocking(state.next_reactor(), state.graph.create(std::move(request)));
}

uint64_t Image::size() const { return state_->backend->size(); }

void Image::read(uint64_t offset, std::span<uint8_t> into, Completion done) {
  state_->start(state_->backend->read(offset, io::BufferList(into)), done);
}
void Image::write(uint64_t offset, std::span<const uint8_t> bytes, WriteOptions options,
                  Completion done) {
  state_->start(state_->backend->write(offset, source(bytes), flags_of(options)), done);
}
void Image::zero(uint64_t offset, uint64_t length, WriteOptions options, Completion done) {
  state_->start(state_->backend->zero(offset, length, flags_of(options)), done);
}
void Image::discard(uint64_t offset, uint64_t length, Completion done) {
  state_->start(state_->backend->discard(offset, length), done);
}
void Image::flush(Completion done) { state_->start(state_->backend->flush(), done); }

Result<void> Image::read(uint64_t offset, std::span<uint8_t> into) {
  return state_->wait(state_->backend->read(offset, io::BufferList(into)));
}
Result<void> Image::write(uint64_t offset, std::span<const uint8_t> bytes, WriteOptions options) {
  return state_->wait(state_->backend->write(offset, source(bytes), flags_of(options)));
}
Result<void> Image::zero(uint64_t offset, uint64_t length, WriteOptions options) {
  return state_->wait(state_->backend->zero(offset, length, flags_of(options)));
}
Result<void> Image::discard(uint64_t offset, uint64_t length) {
  return state_->wait(state_->backend->discard(offset, length));
}
Result<void> Image::flush() { return state_->wait(state_->backend->flush()); }

Result<RunStatus> Image::status(uint64_t offset, uint64_t length) {
  if (length == 0 || offset >= size()) {
    return fail(EINVAL,
                "The status of an empty range, or past the end of the image, was asked for");
  }
  unsigned depth = 0;
  PLATTER_ASSIGN(block::BlockStatus status,
                 state_->wait(state_->backend->status_above(
                     nullptr, offset, length, block::StatusDetail::kPrecise, &depth)));
  RunStatus run;
  run.length = status.length;
  run.data = status.data;
  run.zero = status.zero;
  run.allocated = status.allocated;
  run.compressed = status.compressed;
  run.depth = depth;
  if (status.has_host_offset) run.host_offset = status.host_offset;
  return run;
}

Result<void> Image::resize(uint64_t size) {
  return state_->wait(state_->backend->resize(size, block::Preallocation::kOff, true));
}

Result<ImageInfo> Image::info() { return state_->wait(collect_info(*state_->backend)); }

static io::Task<Result<void>> close_gate_and_backend(io::Gate& gate, block::Backend& backend) {
  co_await gate.close();
  co_return co_await backend.close();
}

Result<void> Image::close() {
  PLATTER_ASSERT(!state_->closed);
  Result<void> closed = state_->wait(close_gate_and_backend(state_->gate, *state_->backend));
  state_->closed = true;
  return closed;
}

}  // namespace platter
