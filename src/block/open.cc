// How a node comes to be: its options are sorted, its driver chosen or probed, its children and its
// backing chain opened.

#include <algorithm>

#include <fmt/format.h>

#include "base/math.h"
#include "base/try.h"
#include "block/filename.h"
#include "block/graph_state.h"
#include "block/node_options.h"
#include "block/node_state.h"
#include "block/registry.h"

namespace platter::block {

namespace {

constexpr uint64_t kSectorBytes = 512;

bool valid_node_name(std::string_view name) {
  if (name.empty() || name.size() > 31) return false;
  auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (!letter(name.front())) return false;
  return std::ranges::all_of(name, [letter](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

class Opener final : public OpenContext {
 public:
  Opener(Graph::State& graph, NodeRequest request) : state_(graph), request_(std::move(request)) {}

  io::Task<Result<Node*>> run() {
    PLATTER_CO_TRY(expand_json());
    PLATTER_CO_TRY(take_node_options());
    PLATTER_CO_TRY(choose_driver());
    PLATTER_CO_TRY(add_node());
    Result<void> opened = co_await open_all();
    if (opened) co_return node_;
    if (auto closed = co_await abandon(); !closed) {
      state_.environment.log.warning(closed.error().message());
    }
    co_return std::unexpected(std::move(opened).error());
  }

  // ---- OpenContext
  Graph& graph() override { return state_.graph; }
  Node& node() override { return *node_; }
  const base::OptionSet& options() const override { return *driver_options_; }
  const OpenFlags& flags() const override { return request_.flags; }
  const OpenPolicy& policy() const override { return *request_.policy; }
  const std::string& filename() const override { return request_.filename; }
  io::Task<Result<Child*>> open_child(std::string_view name, ChildRoles roles,
                                      std::string filename) override {
    return open_named_child(std::string(name), roles, std::move(filename));
  }
  bool names_child(std::string_view name) const override { return has_child_options(name); }
  base::Options take_options(std::string_view prefix) override {
    return request_.options.take_subtree(prefix);
  }

 private:
  Node::State& node_state() { return node_->state(); }

  Result<void> expand_json() {
    if (!request_.filename.starts_with(kJsonPrefix)) return {};
    PLATTER_ASSIGN(const base::Options described,
                   base::Options::from_json_text(
                       std::string_view(request_.filename).substr(kJsonPrefix.size())));
    request_.options.merge_defaults(described);
    request_.filename.clear();
    return {};
  }

  Result<void> take_node_options() {
    all_options_ = request_.options;
    NodeOptions own{.flags = request_.flags,
                    .no_flush = request_.no_flush,
                    .force_share = request_.force_share};
    PLATTER_TRY(block::take_node_options(request_.options, own));
    request_.flags = own.flags;
    request_.no_flush = own.no_flush;
    request_.force_share = own.force_share;
    detect_zeroes_ = own.detect_zeroes;
    node_name_ = std::move(own.node_name);
    if (own.driver.empty()) return {};
    if (!request_.driver.empty() && request_.driver != own.driver) {
      return fail(EINVAL, "Driver specified twice");
    }
    request_.driver = std::move(own.driver);
    return {};
  }

  // Leaves type_ null where the format is to be probed.
  Result<void> choose_driver() {
    const DriverRegistry& registry = state_.environment.registry;
    if (!request_.driver.empty()) {
      type_ = registry.find(request_.driver);
      if (type_ == nullptr) {
        return fail(EINVAL, fmt::format("Unknown driver '{}'", request_.driver));
      }
    } else if (request_.protocol) {
      auto named = request_.options.find_string("filename");
      if (request_.filename.empty() && !named) {
        return fail(EINVAL, "Must specify either driver or file");
      }
      if (!request_.filename.empty()) {
        PLATTER_ASSIGN(type_, protocol_of(registry, request_.filename));
      } else {
        type_ = registry.find("file");
      }
    }
    if (type_ == nullptr) return {};
    // A filter takes part in names only by its prefix.
    const bool by_prefix = type_->parse_filename != nullptr && request_.driver.empty();
    if (type_->kind != DriverKind::kProtocol && !by_prefix) return {};
    return take_protocol_filename();
  }

  Result<void> take_protocol_filename() {
    const std::string& name = request_.filename;
    if (name.empty()) return {};
    if (request_.options.find("filename") != nullptr) {
      return fail(EINVAL, "Can't specify 'file' and 'filename' options at the same time");
    }
    if (type_->parse_filename != nullptr && !protocol_prefix(name).empty() &&
        protocol_prefix(name) == type_->filename_prefix) {
      PLATTER_ASSIGN(base::Options parsed, type_->parse_filename(name));
      request_.options.merge_defaults(parsed);
      all_options_.merge_defaults(parsed);
    } else {
      request_.options.set("filename", name);
      all_options_.set("filename", name);
    }
    return {};
  }

  Result<void> add_node() {
    if (!node_name_.empty()) {
      if (!valid_node_name(node_name_)) {
        return fail(EINVAL, fmt::format("Invalid node-name: '{}'", node_name_));
      }
      if (state_.graph.find(node_name_) != nullptr) {
        return fail(EINVAL, fmt::format("Duplicate nodes with node-name='{}'", node_name_));
      }
    } else {
      node_name_ = fmt::format("#block{:03}", state_.names_given++);
    }
    auto state = std::make_unique<Node::State>(state_.graph);
    state->name = node_name_;
    state->type = type_;
    state->flags = request_.flags;
    state->no_flush = request_.no_flush;
    state->force_share = request_.force_share;
    state->detect_zeroes = detect_zeroes_;
    auto node = std::make_unique<Node>(std::move(state));
    node_ = node.get();
    std::lock_guard guard(state_.structure);
    state_.nodes.push_back(std::move(node));
    return {};
  }

  io::Task<Result<void>> open_all() {
    if (type_ == nullptr) {
      PLATTER_CO_TRY(co_await probe());
      node_state().type = type_;
      node_state().probed = true;
    }
    PLATTER_CO_ASSIGN(driver_options_, type_->runtime_options.take(request_.options));
    PLATTER_CO_ASSIGN(node_state().driver, co_await type_->open(*this));
    node_state().options = own_options();
    name_node();
    node_state().prepare_requests();
    PLATTER_CO_TRY(co_await open_backing());
    PLATTER_CO_TRY(check_leftovers());
    name_node();
    // The driver may want other permissions on its children than their roles alone suggest.
    PLATTER_CO_TRY(refresh_permissions({node_}));
    co_return Result<void>();
  }

  io::Task<Result<void>> probe() {
    if (!has_child_options("file") && request_.filename.empty()) {
      co_return fail(EINVAL, "Must specify either driver or file");
    }
    PLATTER_CO_ASSIGN(file_, co_await find_or_open("file", kImageRole, true, {}));
    const uint64_t size = file_->size();
    // Up to a whole sector, as if zeroes followed: a cut-off image is told by its first bytes all
    // the same.
    io::AlignedBuffer head(std::min<uint64_t>(base::align_up(size, kSectorBytes), kProbeBytes));
    head.view().fill_zero();
    if (size != 0) {
      Result<void> read =
          co_await file_->read(0, head.view(0, std::min<uint64_t>(size, head.size())));
      if (!read) {
        co_return std::unexpected(std::move(read).error().with_context(
            "Could not read image for determining its format"));
      }
    }
    type_ = size == 0 ? state_.environment.registry.find("raw")
                      : &state_.environment.registry.probe(head.span(), file_->filename());
    co_return Result<void>();
  }

  bool has_child_options(std::string_view name) const {
    return request_.options.find(name) != nullptr || request_.options.has_subtree(name);
  }

  base::Options own_options() const {
    base::Options own;
    for (const auto& [key, value] : all_options_.entries()) {
      const bool of_child = std::ranges::any_of(node_->children(), [&key](const auto& child) {
        return key == child->name() || key.starts_with(child->name() + ".");
      });
      if (!of_child) own.set(key, value);
    }
    return own;
  }

  void name_node() {
    Node::State& s = node_state();
    s.filename = reopening_name(*node_);
    s.directory = absolute_directory(naming_file(*node_));
  }

  Result<void> check_leftovers() {
    if (request_.options.empty()) return {};
    const bool format = type_->kind != DriverKind::kProtocol && type_->filename_prefix.empty();
    return fail(EINVAL,
                fmt::format("Block {} '{}' {} the option '{}'", format ? "format" : "protocol",
                            type_->name, format ? "does not support" : "doesn't support",
                            request_.options.entries().front().first));
  }

  // ---- Children

  // An existing node, or null if the options do not name one.
  Result<Node*> find_reference(std::string_view name) {
    auto reference = request_.options.find_string(name);
    if (!reference) return nullptr;
    request_.options.erase(name);
    if (request_.options.has_subtree(name)) {
      return fail(EINVAL, fmt::format("Cannot reference an existing block device with additional "
                                      "options or a new filename"));
    }
    Node* node = state_.graph.find(*reference);
    if (node == nullptr) {
      return fail(ENOENT, fmt::format("Cannot find device='{0}' nor node-name='{0}'", *reference));
    }
    return node;
  }

  NodeRequest child_request(std::string_view name, ChildRoles roles) {
    NodeRequest child;
    child.options = request_.options.take_subtree(name);
    child.flags = request_.flags;
    child.flags.no_backing = child.flags.check = false;
    child.flags.unmap = true;
    if (roles.has(ChildRole::kMetadata)) child.flags.no_io = false;
    if (roles.has(ChildRole::kCow)) child.flags.read_only = true;
    if (roles.has(ChildRole::kCow)) child.flags.auto_read_only = false;
    child.no_flush = request_.no_flush;
    child.force_share = request_.force_share;
    child.policy = request_.policy;
    child.above = request_.above;
    return child;
  }

  // `of_format`: the child of a format is a protocol unless it is told to be something else.
  io::Task<Result<Node*>> find_or_open(std::string name, ChildRoles roles, bool of_format,
                                       std::string filename) {
    PLATTER_CO_ASSIGN(Node * existing, find_reference(name));
    if (existing != nullptr) co_return existing;
    NodeRequest child = child_request(name, roles);
    if (name == "file") child.filename = request_.filename;
    if (child.filename.empty() && child.options.empty()) child.filename = std::move(filename);
    if (child.filename.empty() && child.options.empty()) {
      co_return fail(EINVAL, fmt::format("A block device must be specified for \"{}\"", name));
    }
    child.protocol = of_format || roles.has(ChildRole::kMetadata);
    co_return co_await open_node(state_, std::move(child));
  }

  io::Task<Result<Child*>> open_named_child(std::string name, ChildRoles roles,
                                            std::string filename) {
    Node* below = nullptr;
    if (name == "file" && file_ != nullptr) {
      below = std::exchange(file_, nullptr);
    } else {
      // Below a format, also through filters, stands a protocol.
      const bool of_format = type_->kind == DriverKind::kFormat ||
                             (type_->kind == DriverKind::kFilter && request_.protocol);
      PLATTER_CO_ASSIGN(below, co_await find_or_open(name, roles, of_format, std::move(filename)));
    }
    co_return co_await add_child(std::move(name), roles, *below);
  }

  io::Task<Result<Child*>> add_child(std::string name, ChildRoles roles, Node& below) {
    auto edge = std::make_unique<Child>();
    Child* child = edge.get();
    ChildAccess::name(*child) = std::move(name);
    ChildAccess::roles(*child) = roles;
    ChildAccess::parent(*child) = node_;
    Driver::ChildPermissions wish = permissions_by_role(*child, {}, kAllPermissions);
    if (request_.force_share) wish.shared = kAllPermissions;
    ChildAccess::set_permissions(*child, wish.needed, wish.shared);
    Result<void> attached = attach_edge(*child, below);
    if (!attached) {
      if (auto closed = co_await close_if_unused(state_, below); !closed) {
        state_.environment.log.warning(closed.error().message());
      }
      co_return std::unexpected(std::move(attached).error());
    }
    if (roles.has(ChildRole::kPrimary)) node_state().primary = child;
    node_state().children.push_back(std::move(edge));
    co_return child;
  }

  // ---- The backing chain

  io::Task<Result<void>> open_backing() {
    if (!type_->supports_backing) co_return Result<void>();
    const base::OptionValue* named = request_.options.find("backing");
    const std::string* text = named != nullptr ? std::get_if<std::string>(named) : nullptr;
    const bool none = named != nullptr && (text == nullptr || text->empty());
    if (none || request_.flags.no_backing) {
      node_state().backing_overridden = none;
      request_.options.erase("backing");
      request_.options.take_subtree("backing");
      co_return Result<void>();
    }
    Result<void> opened = co_await open_backing_node();
    if (!opened) {
      co_return std::unexpected(
          std::move(opened).error().with_context("Could not open backing file"));
    }
    co_return Result<void>();
  }

  io::Task<Result<void>> open_backing_node() {
    PLATTER_CO_ASSIGN(Node * below, find_reference("backing"));
    node_state().backing_overridden = below != nullptr;
    if (below == nullptr) {
      NodeRequest child = child_request("backing", ChildRole::kCow);
      PLATTER_CO_ASSIGN(const bool wanted, describe_backing(child));
      if (!wanted) co_return Result<void>();
      ChainLink link = chain_link();
      PLATTER_CO_TRY(check_chain(link, child));
      child.above = &link;
      PLATTER_CO_ASSIGN(below, co_await open_node(state_, std::move(child)));
    }
    PLATTER_CO_ASSIGN(Child * edge, co_await add_child("backing", ChildRole::kCow, *below));
    node_state().backing = edge;
    co_return Result<void>();
  }

  // Fills in what the image itself says about its backing file. False: it has none.
  Result<bool> describe_backing(NodeRequest& child) {
    const auto reference = node_state().driver->backing_reference();
    node_state().backing_overridden = !child.options.empty();
    const bool named = child.options.find("file.filename") != nullptr ||
                       child.options.find("filename") != nullptr ||
                       child.options.has_subtree("file") || child.options.find("file") != nullptr;
    if (!reference) {
      if (child.options.empty()) return false;
      return true;
    }
    if (named) return true;
    PLATTER_ASSIGN(child.filename, resolve_backing_name(*node_, reference->filename));
    PLATTER_TRY(
        check_reach(*request_.policy, naming_file(*node_), child.filename, reference->filename));
    if (!reference->format.empty() && child.options.find("driver") == nullptr) {
      child.driver = reference->format;
    }
    return true;
  }

  ChainLink chain_link() {
    ChainLink link{request_.above, 0, 0, node_->filename(), 1};
    if (link.above != nullptr) link.depth = link.above->depth + 1;
    if (auto info = state_.environment.files.info(naming_file(*node_))) {
      link.device = info->device;
      link.inode = info->inode;
    }
    return link;
  }

  Result<void> check_chain(const ChainLink& link, const NodeRequest& child) {
    if (link.depth >= request_.policy->max_chain_depth) {
      return fail(ELOOP, fmt::format("The backing chain is longer than {} images",
                                     request_.policy->max_chain_depth));
    }
    if (child.filename.empty() || !protocol_prefix(child.filename).empty()) return {};
    auto info = state_.environment.files.info(child.filename);
    if (!info) return {};  // opening it will say why
    for (const ChainLink* image = &link; image != nullptr; image = image->above) {
      if (image->inode != info->inode || image->device != info->device) continue;
      return fail(ELOOP, fmt::format("Backing file '{}' of '{}' refers back to '{}'",
                                     child.filename, link.filename, image->filename));
    }
    return {};
  }

  io::Task<Result<void>> abandon() {
    Result<void> result;
    if (file_ != nullptr) result = co_await close_if_unused(state_, *file_);
    Result<void> closed = co_await close_if_unused(state_, *node_);
    if (result) result = std::move(closed);
    co_return std::move(result);
  }

  Graph::State& state_;
  NodeRequest request_;
  base::Options all_options_;
  std::optional<base::OptionSet> driver_options_;
  std::string node_name_;
  DetectZeroes detect_zeroes_ = DetectZeroes::kOff;
  const DriverType* type_ = nullptr;
  Node* node_ = nullptr;
  Node* file_ = nullptr;  // opened for probing, not yet a child
};

}  // namespace

io::Task<Result<Node*>> open_node(Graph::State& graph, NodeRequest request) {
  Opener opener(graph, std::move(request));
  co_return co_await opener.run();
}

}  // namespace platter::block
