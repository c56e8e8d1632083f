#include "workload/slot_model.h"

#include <cerrno>
#include <iterator>
#include <utility>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::workload {
namespace {

constexpr size_t kMaxOpen = 3;
constexpr size_t kMaxErased = 2;  // that are remembered: each is tried again and again

}  // namespace

io::Task<Result<void>> SlotModel::change(block::Driver& driver, const base::OptionSchema& amendable,
                                         Random& random) {
  if (unsure_) co_return Result<void>{};
  const bool adds = open_.size() == 1 || (open_.size() < kMaxOpen && random.one_in(2));
  base::Options options;
  std::string id;
  if (adds) {
    id = fmt::format("secret{}", next_++);
    options.set("encrypt.state", std::string("active"));
    options.set("encrypt.new-secret", id);
    options.set("encrypt.iter-time", std::string("1"));
  } else {
    id = *std::next(open_.begin(), static_cast<ptrdiff_t>(random.below(open_.size())));
    open_.erase(id);
    options.set("encrypt.state", std::string("inactive"));
    options.set("encrypt.old-secret", id);
  }
  unsure_ = id;
  PLATTER_CO_ASSIGN(const auto parsed, amendable.parse(options));
  PLATTER_CO_TRY(co_await driver.amendable()->amend(parsed, false, [](uint64_t, uint64_t) {}));
  unsure_.reset();
  (adds ? open_ : erased_).insert(id);
  if (erased_.size() > kMaxErased) erased_.erase(erased_.begin());
  co_return Result<void>{};
}

io::Task<Result<void>> SlotModel::settle(std::function<io::Task<Result<bool>>(std::string)> opens) {
  if (unsure_) {
    const std::string id = *std::exchange(unsure_, std::nullopt);
    PLATTER_CO_ASSIGN(const bool opened, co_await opens(id));
    (opened ? open_ : erased_).insert(id);
  }
  for (const std::string& id : open_) {
    PLATTER_CO_ASSIGN(const bool opened, co_await opens(id));
    if (!opened) co_return fail(EIO, fmt::format("'{}' does not open the image any more", id));
  }
  for (const std::string& id : erased_) {
    PLATTER_CO_ASSIGN(const bool opened, co_await opens(id));
    if (opened) co_return fail(EIO, fmt::format("'{}' was erased and opens the image", id));
  }
  co_return Result<void>{};
}

}  // namespace platter::workload
