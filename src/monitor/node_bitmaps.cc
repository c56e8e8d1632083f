#include "monitor/node_bitmaps.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/try.h"
#include "block/node.h"

namespace platter::monitor {
namespace {

using block::BitmapInfo;
using block::BitmapStore;
using block::DirtyBitmap;
using block::Node;

constexpr size_t kMaxNameBytes = 1023;

BitmapStore* store_of(Node& node) { return node.driver().bitmap_store(); }

std::optional<BitmapInfo> stored(Node& node, std::string_view name) {
  if (store_of(node) == nullptr) return std::nullopt;
  for (BitmapInfo& info : store_of(node)->bitmaps()) {
    if (info.name == name) return std::move(info);
  }
  return std::nullopt;
}

Result<uint64_t> granularity_for(const Node& node) {
  PLATTER_ASSIGN(const auto info, node.driver().info());
  return DirtyBitmap::default_granularity(info.cluster_size);
}

std::unexpected<Error> inconsistent(std::string_view name) {
  return std::unexpected(
      Error(EINVAL, fmt::format("Bitmap '{}' is inconsistent and cannot be used", name))
          .with_hint("Try block-dirty-bitmap-remove to delete this bitmap from disk"));
}

}  // namespace

const NodeBitmaps::Temporary* NodeBitmaps::find_temporary(const Node& node,
                                                          std::string_view name) const {
  const auto found = std::ranges::find_if(temporary_, [&](const Temporary& one) {
    return one.node == &node && one.bits->name() == name;
  });
  return found == temporary_.end() ? nullptr : &*found;
}

NodeBitmaps::Temporary* NodeBitmaps::find_temporary(const Node& node, std::string_view name) {
  return const_cast<Temporary*>(std::as_const(*this).find_temporary(node, name));
}

io::Task<Result<std::vector<NodeBitmaps::Listed>>> NodeBitmaps::list(Node& node) {
  std::vector<Listed> all;
  if (BitmapStore* store = store_of(node)) {
    for (BitmapInfo& info : store->bitmaps()) {
      uint64_t bytes = 0;
      if (!info.inconsistent) {
        PLATTER_CO_ASSIGN(const auto bits, co_await store->bitmap_bits(info.name));
        bytes = bits->count() * bits->granularity();
      }
      const bool busy = !check_free(node, info.name);
      all.push_back({std::move(info), true, bytes, busy});
    }
  }
  for (const Temporary& one : temporary_) {
    if (one.node != &node) continue;
    all.push_back(
        {{.name = one.bits->name(), .granularity = one.bits->granularity(), .enabled = one.enabled},
         false,
         one.bits->count() * one.bits->granularity(),
         !check_free(node, one.bits->name())});
  }
  co_return all;
}

Result<void> NodeBitmaps::add(Node& node, Wish wish) {
  if (wish.name.empty()) return fail(EINVAL, "Bitmap name cannot be empty");
  if (wish.granularity != 0 &&
      (wish.granularity < DirtyBitmap::kMinGranularity || !std::has_single_bit(wish.granularity))) {
    return fail(EINVAL, fmt::format("Granularity must be power of 2 and at least {}",
                                    DirtyBitmap::kMinGranularity));
  }
  if (wish.granularity == 0) {
    PLATTER_ASSIGN(wish.granularity, granularity_for(node));
  }
  if (wish.persistent && store_of(node) == nullptr) {
    return fail(
        ENOTSUP,
        fmt::format("Can't store persistent bitmaps to {}: Operation not supported", node.name()));
  }
  if (find_temporary(node, wish.name) != nullptr || stored(node, wish.name))
    return fail(EEXIST, fmt::format("Bitmap already exists: {}", wish.name));
  if (wish.persistent)
    return store_of(node)->add_bitmap(std::move(wish.name), wish.granularity, wish.enabled);
  if (wish.name.size() > kMaxNameBytes) return fail(EINVAL, "Bitmap name too long");
  PLATTER_ASSIGN(auto bits,
                 DirtyBitmap::create(std::move(wish.name), node.size(), wish.granularity));
  if (wish.enabled) node.record_in(bits);
  temporary_.push_back({&node, std::move(bits), wish.enabled});
  return {};
}

Result<BitmapInfo> NodeBitmaps::find(Node& node, std::string_view name) const {
  if (const Temporary* one = find_temporary(node, name))
    return BitmapInfo{.name = one->bits->name(),
                      .granularity = one->bits->granularity(),
                      .enabled = one->enabled};
  if (auto info = stored(node, name)) return std::move(*info);
  return fail(ENOENT, fmt::format("Dirty bitmap '{}' not found", name));
}

Result<void> NodeBitmaps::check_free(const Node& node, std::string_view name) const {
  const bool held = std::ranges::any_of(held_, [&](const Held& one) {
    return one.node == &node && one.name == name && !one.hold.expired();
  });
  if (!held) return {};
  return fail(
      EBUSY,
      fmt::format("Bitmap '{}' is currently in use by another operation and cannot be used", name));
}

Result<NodeBitmaps::Hold> NodeBitmaps::hold(const Node& node, std::string name) {
  PLATTER_TRY(check_free(node, name));
  std::erase_if(held_, [](const Held& one) { return one.hold.expired(); });
  auto hold = std::make_shared<const char>();
  held_.push_back({&node, std::move(name), hold});
  return hold;
}

bool NodeBitmaps::is_persistent(Node& node, std::string_view name) const {
  return find_temporary(node, name) == nullptr;
}

io::Task<Result<std::shared_ptr<DirtyBitmap>>> NodeBitmaps::bits(Node& node, std::string name) {
  PLATTER_CO_ASSIGN(const BitmapInfo info, find(node, name));
  if (const Temporary* one = find_temporary(node, name)) co_return one->bits;
  if (info.inconsistent) co_return inconsistent(name);
  co_return co_await store_of(node)->bitmap_bits(std::move(name));
}

Result<void> NodeBitmaps::remove(Node& node, std::string name) {
  PLATTER_TRY(find(node, name));
  PLATTER_TRY(check_free(node, name));
  const Temporary* one = find_temporary(node, name);
  if (one == nullptr) return store_of(node)->remove_bitmap(std::move(name));
  if (one->enabled) node.stop_recording_in(*one->bits);
  temporary_.erase(temporary_.begin() + (one - temporary_.data()));
  return {};
}

Result<void> NodeBitmaps::clear(Node& node, std::string name) {
  PLATTER_ASSIGN(const BitmapInfo info, find(node, name));
  PLATTER_TRY(check_free(node, name));
  if (info.inconsistent) return inconsistent(name);
  Temporary* one = find_temporary(node, name);
  if (one == nullptr) return store_of(node)->clear_bitmap(std::move(name));
  one->bits->clear_all();
  return {};
}

Result<void> NodeBitmaps::enable(Node& node, std::string name, bool on) {
  PLATTER_ASSIGN(const BitmapInfo info, find(node, name));
  PLATTER_TRY(check_free(node, name));
  if (info.inconsistent) return inconsistent(name);
  Temporary* one = find_temporary(node, name);
  if (one == nullptr) return store_of(node)->enable_bitmap(std::move(name), on);
  if (std::exchange(one->enabled, on) == on) return {};
  if (on) {
    node.record_in(one->bits);
  } else {
    node.stop_recording_in(*one->bits);
  }
  return {};
}

Result<void> NodeBitmaps::merge(Node& node, std::string name, const DirtyBitmap& source) {
  PLATTER_ASSIGN(const BitmapInfo info, find(node, name));
  PLATTER_TRY(check_free(node, name));
  if (info.inconsistent) return inconsistent(name);
  Temporary* one = find_temporary(node, name);
  if (one == nullptr) return store_of(node)->merge_bitmap(std::move(name), source);
  if (one->bits.get() == &source) return {};
  return one->bits->merge(source);
}

Result<void> NodeBitmaps::follow_size(Node& node) {
  for (const Temporary& one : temporary_) {
    if (one.node == &node && one.bits->size() != node.size())
      PLATTER_TRY(one.bits->resize(node.size()));
  }
  return {};
}

void NodeBitmaps::sweep() {
  const auto nodes = graph_.nodes();
  std::erase_if(temporary_, [&](const Temporary& one) {
    return std::ranges::find(nodes, one.node) == nodes.end();
  });
}

void NodeBitmaps::clear() {
  for (const Temporary& one : temporary_) {
    if (one.enabled) one.node->stop_recording_in(*one.bits);
  }
  temporary_.clear();
}

}  // namespace platter::monitor
