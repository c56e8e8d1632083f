#include "monitor/nbd_server.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/absolute_path.h"
#include "base/assert.h"
#include "base/try.h"
#include "block/backend.h"
#include "monitor/authorization.h"
#include "monitor/tls_objects.h"

namespace platter::monitor {
namespace {

// Clients that connect at the same time, and have not been seen yet.
constexpr int kBacklog = 128;

class NbdExport final : public BlockExport {
 public:
  NbdExport(nbd::Server& server, std::unique_ptr<block::Backend> backend,
            std::unique_ptr<nbd::Export> served, std::vector<NodeBitmaps::Hold> holds)
      : server_(server),
        backend_(std::move(backend)),
        served_(std::move(served)),
        holds_(std::move(holds)) {}

  const block::Node& node() const override { return backend_->node(); }
  bool in_use() const override { return served_->clients().inside() != 0; }
  io::Task<Result<void>> close() override {
    co_await server_.remove(*served_);
    served_.reset();
    holds_.clear();
    co_return co_await backend_->close();
  }

 private:
  nbd::Server& server_;
  std::unique_ptr<block::Backend> backend_;
  std::unique_ptr<nbd::Export> served_;
  std::vector<NodeBitmaps::Hold> holds_;
};

// ---- Bitmaps that clients may ask for

struct FoundBitmap {
  block::Node* node;
  std::string name;
};

// By its name alone it may be of any image of the chain.
Result<FoundBitmap> find_bitmap(const NodeBitmaps& bitmaps, block::Node& top,
                                const base::Json& wanted) {
  if (const auto* name = wanted.get_if<std::string>()) {
    for (block::Node* node = &top; node != nullptr;) {
      if (bitmaps.find(*node, *name)) return FoundBitmap{node, *name};
      const block::Child* next = node->backing();
      node = next == nullptr ? nullptr : &next->node();
    }
    return fail(ENOENT, fmt::format("Bitmap '{}' is not found", *name));
  }
  const Arguments given(wanted);
  const std::string& node_name = given.text("node");
  block::Node* node = top.graph().find(node_name);
  if (node == nullptr) return fail(ENOENT, fmt::format("Node '{}' not found", node_name));
  PLATTER_TRY(bitmaps.find(*node, given.text("name")));
  PLATTER_TRY(bitmaps.check_free(*node, given.text("name")));
  return FoundBitmap{node, given.text("name")};
}

io::Task<Result<void>> add_bitmap(const BlockExportOptions& options, const base::Json& wanted,
                                  nbd::ExportOptions& made, std::vector<NodeBitmaps::Hold>& holds) {
  NodeBitmaps& bitmaps = *options.bitmaps;
  PLATTER_CO_ASSIGN(const FoundBitmap found, find_bitmap(bitmaps, *options.node, wanted));
  PLATTER_CO_ASSIGN(auto bits, co_await bitmaps.bits(*found.node, found.name));
  PLATTER_CO_ASSIGN(const block::BitmapInfo info, bitmaps.find(*found.node, found.name));
  // It would change under who reads it, by what somebody else writes.
  if (!options.writable && !options.node->read_only() && info.enabled) {
    co_return fail(
        EINVAL, fmt::format("Enabled bitmap '{}' incompatible with readonly export", found.name));
  }
  PLATTER_CO_TRY(bits->check_size(options.node->size()));
  PLATTER_CO_ASSIGN(auto hold, bitmaps.hold(*found.node, found.name));
  holds.push_back(std::move(hold));
  made.bitmaps.push_back({found.name, std::move(bits)});
  co_return Result<void>();
}

// ---- Options

Result<nbd::ExportOptions> read_options(const BlockExportOptions& options) {
  const Arguments given(options.all);
  nbd::ExportOptions made;
  made.name = given.has("name") ? given.text("name") : options.node->name();
  made.description = given.text_or_empty("description");
  made.writable = options.writable;
  made.allocation_depth = given.flag("allocation-depth");
  if (made.name.size() > nbd::kMaxString)
    return fail(EINVAL, fmt::format("export name '{}' too long", made.name));
  if (made.description.size() > nbd::kMaxString)
    return fail(EINVAL, fmt::format("description '{}' too long", made.description));
  return made;
}

}  // namespace

NbdServer::~NbdServer() { PLATTER_ASSERT(server_ == nullptr); }

Result<void> NbdServer::check_running() const {
  if (server_ == nullptr) return fail(EINVAL, "NBD server not running");
  return {};
}

Result<void> NbdServer::check_stopped() const {
  if (server_ != nullptr) return fail(EBUSY, "NBD server already running");
  return {};
}

Result<void> NbdServer::start(const SocketAddress& address, Arguments options) {
  PLATTER_TRY(check_stopped());
  nbd::ServerOptions made;
  if (const std::string id = options.text_or_empty("tls-creds"); !id.empty()) {
    PLATTER_ASSIGN(made.tls, tls_credentials(objects_, id));
  }
  if (const std::string id = options.text_or_empty("tls-authz"); !id.empty()) {
    if (made.tls == nullptr)
      log_.warning("nbd: without TLS nobody has a name that an authorization could know");
    made.authorize = [authorization = Authorization(objects_, id)](std::string_view name) {
      return authorization.allows(name);
    };
  }
  made.max_connections =
      static_cast<uint32_t>(options.natural("max-connections", made.max_connections));
  if (options.has("handshake-max-seconds"))
    made.negotiation_limit = std::chrono::seconds(options.natural("handshake-max-seconds", 0));
  const bool has_file = address.kind == SocketAddress::Kind::kUnix && !address.abstract_name;
  if (has_file) {
    PLATTER_ASSIGN(made.path, base::absolute_path(address.path));
  }
  PLATTER_ASSIGN(made.listening, listen_at(address, kBacklog));
  PLATTER_TRY(stop_blocking(made.listening.get()));
  server_ = nbd::Server::start(std::move(made), log_);
  return {};
}

io::Task<void> NbdServer::stop() {
  if (server_ == nullptr) co_return;
  co_await server_->stop();
  server_.reset();
}

io::Task<Result<std::unique_ptr<BlockExport>>> NbdServer::serve(
    BlockExportOptions options, std::vector<io::Reactor*> reactors) {
  PLATTER_CO_TRY(check_running());
  PLATTER_CO_ASSIGN(nbd::ExportOptions made, read_options(options));
  PLATTER_CO_TRY(server_->check_free(made.name));
  std::vector<NodeBitmaps::Hold> holds;
  const Arguments given(options.all);
  if (given.has("bitmaps")) {
    for (const base::Json& wanted : given.array("bitmaps"))
      PLATTER_CO_TRY(co_await add_bitmap(options, wanted, made, holds));
  }
  made.reactors = std::move(reactors);
  block::Permissions needed = block::Permission::kConsistentRead;
  if (options.writable) needed |= block::Permission::kWrite;
  // Clients are told the size once.
  const block::Permissions shared = block::kAllPermissions.without(block::Permission::kResize);
  PLATTER_CO_ASSIGN(auto backend,
                    co_await options.node->graph().attach(*options.node, needed, shared));
  if (options.writethrough) backend->set_write_cache(false);
  auto served = std::make_unique<nbd::Export>(*backend, std::move(made));
  server_->add(*served);
  co_return std::make_unique<NbdExport>(*server_, std::move(backend), std::move(served),
                                        std::move(holds));
}

}  // namespace platter::monitor
