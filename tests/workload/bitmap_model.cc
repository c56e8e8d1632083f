#include "workload/bitmap_model.h"

#include <algorithm>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::workload {
namespace {

constexpr size_t kMaxBitmaps = 4;

template <typename Set>
std::string pick_name(const Set& set, Random& random) {
  auto chosen = set.begin();
  std::advance(chosen, static_cast<ptrdiff_t>(random.below(set.size())));
  return chosen->first;
}

}  // namespace

void BitmapModel::mark(Entry& entry, uint64_t offset, uint64_t length, bool surely) {
  if (!entry.enabled || entry.inconsistent || length == 0) return;
  const uint64_t last = (offset + length - 1) / entry.granularity;
  for (uint64_t bit = offset / entry.granularity; bit <= last && bit < entry.may.size(); ++bit) {
    entry.may[bit] = true;
    if (surely) entry.must[bit] = true;
  }
}

void BitmapModel::written(uint64_t offset, uint64_t length, bool surely) {
  std::lock_guard lock(mutex_);
  for (auto& [name, entry] : current_) mark(entry, offset, length, surely);
  for (auto& [name, entry] : stored_) mark(entry, offset, length, surely);
}

void BitmapModel::resized(uint64_t size) {
  size_ = size;
  for (auto& [name, entry] : current_) {
    entry.must.resize(bits_of(entry.granularity));
    entry.may.resize(bits_of(entry.granularity));
  }
}

void BitmapModel::closed() { stored_ = current_; }

io::Task<Result<void>> BitmapModel::add(block::BitmapStore& store, Random& random) {
  std::string name;
  for (unsigned number = 0; name.empty() || current_.contains(name); ++number)
    name = fmt::format("b{}{}", number, std::string(random.log_uniform(200), 'x'));
  Entry entry = {.granularity = uint64_t{512} << random.below(14), .enabled = random.one_in(2)};
  entry.must.resize(bits_of(entry.granularity));
  entry.may = entry.must;
  PLATTER_CO_TRY(store.add_bitmap(name, entry.granularity, entry.enabled));
  current_.emplace(std::move(name), std::move(entry));
  co_return Result<void>{};
}

io::Task<Result<void>> BitmapModel::merge(block::BitmapStore& store, Random& random,
                                          std::string name) {
  const std::string other = pick_name(current_, random);
  const Entry& source = current_.at(other);
  if (source.inconsistent) co_return Result<void>{};
  PLATTER_CO_ASSIGN(const auto bits, co_await store.bitmap_bits(other));
  PLATTER_CO_TRY(store.merge_bitmap(name, *bits));
  Entry& target = current_.at(name);
  const Entry copy = source;
  const bool enabled = std::exchange(target.enabled, true);
  for (uint64_t bit = 0; bit < copy.may.size(); ++bit) {
    const uint64_t offset = bit * copy.granularity;
    const uint64_t length = std::min(copy.granularity, size_ - offset);
    if (copy.may[bit]) mark(target, offset, length, copy.must[bit]);
  }
  target.enabled = enabled;
  co_return Result<void>{};
}

io::Task<Result<void>> BitmapModel::change(block::BitmapStore& store, Random& random) {
  if (current_.empty() || (current_.size() < kMaxBitmaps && random.one_in(3)))
    co_return co_await add(store, random);
  const std::string name = pick_name(current_, random);
  Entry& entry = current_.at(name);
  if (entry.inconsistent || random.one_in(5)) {
    PLATTER_CO_TRY(store.remove_bitmap(name));
    current_.erase(name);
    co_return Result<void>{};
  }
  switch (random.below(4)) {
    case 0:
      PLATTER_CO_TRY(store.clear_bitmap(name));
      std::fill(entry.must.begin(), entry.must.end(), false);
      entry.may = entry.must;
      co_return Result<void>{};
    case 1: co_return co_await merge(store, random, name);
    default: entry.enabled = !entry.enabled; co_return store.enable_bitmap(name, entry.enabled);
  }
}

Result<void> BitmapModel::agrees(const std::string& name, const Entry& entry,
                                 const block::BitmapInfo& info, const block::DirtyBitmap& bits,
                                 bool exactly) {
  if (info.granularity != entry.granularity || info.enabled != entry.enabled)
    return fail(EIO, fmt::format("bitmap '{}' is another one", name));
  const uint64_t count = std::min<uint64_t>(entry.must.size(), bits.bits());
  if (exactly && entry.must.size() != bits.bits()) {
    return fail(EIO, fmt::format("bitmap '{}' has {} bits, should have {}", name, bits.bits(),
                                 entry.must.size()));
  }
  for (uint64_t bit = 0; bit < count; ++bit) {
    const bool dirty = bits.is_dirty(bit * entry.granularity);
    if (!dirty && entry.must[bit])
      return fail(EIO, fmt::format("bitmap '{}' lacks a write: bit {}", name, bit));
    if (dirty && exactly && !entry.may[bit])
      return fail(EIO, fmt::format("bitmap '{}' has bit {} and nothing was written", name, bit));
  }
  return {};
}

io::Task<Result<void>> BitmapModel::compare(block::BitmapStore& store, bool exactly) const {
  const auto there = store.bitmaps();
  if (there.size() != current_.size()) {
    co_return fail(
        EIO, fmt::format("there are {} bitmaps, should be {}", there.size(), current_.size()));
  }
  for (const auto& info : there) {
    const auto found = current_.find(info.name);
    if (found == current_.end())
      co_return fail(EIO, fmt::format("there is a bitmap '{}'", info.name));
    if (info.inconsistent != found->second.inconsistent)
      co_return fail(EIO, fmt::format("bitmap '{}' is inconsistent or not", info.name));
    if (info.inconsistent) continue;
    PLATTER_CO_ASSIGN(const auto bits, co_await store.bitmap_bits(info.name));
    PLATTER_CO_TRY(agrees(info.name, found->second, info, *bits, exactly));
  }
  co_return Result<void>{};
}

io::Task<Result<void>> BitmapModel::survive(block::BitmapStore& store) {
  const auto there = store.bitmaps();
  const auto is_of = [&](const Set& set) {
    return there.size() == set.size() &&
           std::ranges::all_of(there, [&](const auto& info) { return set.contains(info.name); });
  };
  const bool may_be_stored = is_of(stored_);
  const bool may_be_current = is_of(current_);
  if (!there.empty() && !may_be_stored && !may_be_current)
    co_return fail(EIO, fmt::format("{} bitmaps are neither the old nor the new", there.size()));
  Set found;
  bool all_stored = may_be_stored, all_current = may_be_current;
  std::string why;
  for (const auto& info : there) {
    Entry entry = {.granularity = info.granularity,
                   .enabled = info.enabled,
                   .inconsistent = info.inconsistent};
    if (!info.inconsistent) {
      PLATTER_CO_ASSIGN(const auto bits, co_await store.bitmap_bits(info.name));
      const auto in = [&](const Set& set) -> Result<void> {
        const Entry& known = set.at(info.name);
        if (known.inconsistent) return fail(EIO, "an inconsistent bitmap is so no longer");
        return agrees(info.name, known, info, *bits, false);
      };
      if (all_stored) {
        if (auto good = in(stored_); !good) all_stored = false, why = good.error().message();
      }
      if (all_current) {
        if (auto good = in(current_); !good) all_current = false, why = good.error().message();
      }
      if (!all_stored && !all_current) co_return fail(EIO, why);
      entry.must.resize(bits->bits());
      for (uint64_t bit = 0; bit < bits->bits(); ++bit)
        entry.must[bit] = bits->is_dirty(bit * info.granularity);
      entry.may = entry.must;
      size_ = bits->size();
    }
    found.emplace(info.name, std::move(entry));
  }
  stored_ = current_ = std::move(found);
  co_return Result<void>{};
}

}  // namespace platter::workload
