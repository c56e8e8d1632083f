#include "workload/header_model.h"

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"

namespace platter::workload {
namespace {

constexpr uint64_t kLongestName = 1023;
constexpr uint64_t kHeaderSpace = 8192;
// Everything in a header but names of files; larger clusters have feature names too.
constexpr uint64_t kOtherBytes = 232;
constexpr uint64_t kFeatureNameBytes = 400;
constexpr uint32_t kMaxClusterWithoutFeatureNames = 4096;

std::string longer(const std::string& path, uint64_t length) {
  std::string name = path;
  const size_t at = path.rfind('/') + 1;
  while (name.size() + 2 <= length) name.insert(at, "./");
  return name;
}

}  // namespace

HeaderModel::HeaderModel(const ImageSetup& setup, std::string backing, std::string data)
    : backing_format_(setup.backing == BackingKind::kRaw ? "raw" : "qcow2") {
  const uint64_t room = std::min<uint64_t>(setup.cluster_size, kHeaderSpace) / 2;
  const uint64_t others = setup.cluster_size > kMaxClusterWithoutFeatureNames
                              ? kOtherBytes + kFeatureNameBytes
                              : kOtherBytes;
  longest_ = std::max(room, others) - others;
  if (setup.backing != BackingKind::kNone) first_.backing = std::move(backing);
  if (setup.has_data_file()) first_.data = std::move(data);
  first_.raw = setup.data_file == DataFile::kRaw;
  now_ = first_;
}

std::string HeaderModel::Names::describe() const {
  return fmt::format("backing file of {} bytes '{}', data file of {} bytes '{}', raw {}",
                     backing.size(), backing.substr(0, 40), data.size(), data.substr(0, 40), raw);
}

HeaderModel::Names HeaderModel::draw(Random& random) const {
  Names names = now_;
  const bool backing = names.data.empty() || (!names.backing.empty() && random.one_in(2));
  if (!backing && names.raw && random.one_in(4)) {
    names.raw = false;
    return names;
  }
  const uint64_t other = backing ? names.data.size() : names.backing.size();
  const uint64_t longest = std::min(kLongestName, std::max(longest_, other) - other);
  // Most of them longer than a sector.
  const uint64_t length = random.one_in(3) ? 0 : random.below(longest + 1);
  (backing ? names.backing : names.data) = longer(backing ? first_.backing : first_.data, length);
  return names;
}

io::Task<Result<void>> HeaderModel::change(block::Driver& driver,
                                           const base::OptionSchema& amendable, Random& random) {
  const Names names = draw(random);
  next_ = names;
  Result<void> done;
  if (names.backing != now_.backing) {
    done = co_await driver.rebasable()->change_backing_reference({names.backing, backing_format_});
  } else {
    base::Options options;
    if (!names.data.empty()) options.set("data_file", names.data);
    if (!names.raw && now_.raw) options.set("data_file_raw", std::string("off"));
    PLATTER_CO_ASSIGN(const auto parsed, amendable.parse(options));
    done = co_await driver.amendable()->amend(parsed, false, [](uint64_t, uint64_t) {});
  }
  // Other than a disk that is full.
  const bool no_room =
      !done && done.error().message().find("do not fit in one cluster") != std::string::npos;
  if (done) now_ = names;
  if (done || no_room) next_.reset();
  if (no_room) co_return settle(driver);
  co_return done;
}

Result<void> HeaderModel::settle(const block::Driver& driver) {
  Names found;
  if (const auto backing = driver.backing_reference()) {
    found.backing = backing->filename;
    if (backing->format != backing_format_)
      return fail(EIO, fmt::format("the backing file's format is '{}'", backing->format));
  }
  PLATTER_ASSIGN(const block::DriverInfo info, driver.info());
  if (const base::Json* data = info.specific.find("data")) {
    const base::Json* name = data->find("data-file");
    const base::Json* raw = data->find("data-file-raw");
    if (name != nullptr) found.data = *name->get_if<std::string>();
    if (raw != nullptr) found.raw = *raw->get_if<bool>();
  }
  if (found != now_ && (!next_ || found != *next_)) {
    return fail(EIO, fmt::format("the header has: {}; should have: {}{}", found.describe(),
                                 now_.describe(), next_ ? " or " + next_->describe() : ""));
  }
  now_ = found;
  next_.reset();
  return {};
}

}  // namespace platter::workload
