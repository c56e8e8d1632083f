#include "io/simulated_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <unordered_map>

#include "base/math.h"
#include "base/try.h"

namespace platter::io {

using base::align_down;
using base::align_up;

// ---- SimulatedDisk

void SimulatedDisk::put(const std::string& name, std::span<const uint8_t> bytes) {
  SimulatedContent& content = files_[name];
  content = {};
  content.bytes.write(0, bytes);
  content.size = bytes.size();
}

std::vector<uint8_t> SimulatedDisk::get(const std::string& name) const {
  auto file = files_.find(name);
  PLATTER_ASSERT(file != files_.end());
  std::vector<uint8_t> bytes(file->second.size);
  file->second.bytes.read(0, bytes);
  return bytes;
}

namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

Result<void> SimulatedDisk::export_file(const std::string& name,
                                        const std::string& host_path) const {
  auto file = files_.find(name);
  if (file == files_.end()) return fail_errno(ENOENT);
  Descriptor out{open(host_path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644)};
  if (out.fd < 0) return std::unexpected(Error::from_errno(errno, host_path));
  const SimulatedContent& content = file->second;
  if (ftruncate(out.fd, static_cast<off_t>(content.size)) != 0)
    return std::unexpected(Error::from_errno(errno, host_path));
  int failed = 0;
  content.bytes.for_each_page(0, content.size, [&](uint64_t offset) {
    uint8_t page[SparseBytes::kPageBytes];
    size_t length = std::min<uint64_t>(sizeof page, content.size - offset);
    content.bytes.read(offset, {page, length});
    if (pwrite(out.fd, page, length, static_cast<off_t>(offset)) != static_cast<ssize_t>(length))
      failed = errno != 0 ? errno : EIO;
  });
  if (failed != 0) return std::unexpected(Error::from_errno(failed, host_path));
  return {};
}

Result<void> SimulatedDisk::import_file(const std::string& host_path, const std::string& name) {
  Descriptor in{open(host_path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat status;
  if (in.fd < 0 || fstat(in.fd, &status) != 0)
    return std::unexpected(Error::from_errno(errno, host_path));
  SimulatedContent content;
  content.size = static_cast<uint64_t>(status.st_size);
  std::vector<uint8_t> piece(1 << 20);
  off_t offset = 0;
  while ((offset = lseek(in.fd, offset, SEEK_DATA)) >= 0 && offset < status.st_size) {
    ssize_t got = pread(in.fd, piece.data(), piece.size(), offset);
    if (got < 0) return std::unexpected(Error::from_errno(errno, host_path));
    if (got == 0) break;
    content.bytes.write(static_cast<uint64_t>(offset), {piece.data(), static_cast<size_t>(got)});
    offset += got;
  }
  files_[name] = std::move(content);
  return {};
}

// ---- SimulatedMedium

SimulatedMedium::Change SimulatedMedium::write_change(uint64_t offset, const BufferList& buffers) {
  Change change{.kind = Change::Kind::kWrite, .offset = offset, .length = buffers.size()};
  change.data.resize(buffers.size());
  buffers.copy_to(change.data);
  return change;
}

void SimulatedMedium::perform(SimulatedContent& content, const Change& change) {
  switch (change.kind) {
    case Change::Kind::kWrite: content.bytes.write(change.offset, change.data); break;
    case Change::Kind::kZero: content.bytes.zero(change.offset, change.length); break;
    case Change::Kind::kSize:
      if (change.offset < content.size)
        content.bytes.zero(change.offset, UINT64_MAX - change.offset);
      content.size = change.offset;
      break;
  }
}

void SimulatedMedium::apply(Change change) {
  perform(current_, change);
  uint64_t end = change.offset + change.length;
  bool grows = change.kind == Change::Kind::kWrite && end > current_.size;
  change.sequence = ++last_sequence_;
  log_.push_back(std::move(change));
  if (grows) resize(end);
}

void SimulatedMedium::resize(uint64_t size) {
  apply({.kind = Change::Kind::kSize, .offset = size});
}

void SimulatedMedium::make_durable(uint64_t up_to_sequence) {
  auto end = log_.begin();
  while (end != log_.end() && end->sequence <= up_to_sequence) ++end;
  if (end == log_.end()) {
    durable_ = current_;
  } else {
    for (auto change = log_.begin(); change != end; ++change) perform(durable_, *change);
  }
  log_.erase(log_.begin(), end);
}

void SimulatedMedium::make_range_durable(uint64_t offset, uint64_t length) {
  // A size that shrank takes data with it: no part of that history may come back beside the new
  // size. Making more durable than was asked is always right.
  uint64_t size = durable_.size;
  for (const Change& change : log_) {
    if (change.kind != Change::Kind::kSize) continue;
    if (change.offset < size) return make_durable(last_sequence_);
    size = change.offset;
  }
  uint64_t from = align_down(offset, kSectorBytes);
  uint64_t to = align_up(offset + length, kSectorBytes);
  std::vector<uint8_t> now(to - from);
  current_.bytes.read(from, now);
  durable_.bytes.write(from, now);
  durable_.size = current_.size;
  // What earlier changes did to these sectors is history too: it is cut out of them.
  std::vector<Change> kept;
  for (Change& change : log_) {
    if (change.kind == Change::Kind::kSize) continue;
    uint64_t end = change.offset + change.length;
    if (change.offset >= to || end <= from) {
      kept.push_back(std::move(change));
      continue;
    }
    auto keep_part = [&](uint64_t start, uint64_t stop) {
      Change part{.kind = change.kind,
                  .offset = start,
                  .length = stop - start,
                  .sequence = change.sequence};
      if (change.kind == Change::Kind::kWrite) {
        auto first = change.data.begin() + static_cast<ptrdiff_t>(start - change.offset);
        part.data.assign(first, first + static_cast<ptrdiff_t>(stop - start));
      }
      kept.push_back(std::move(part));
    };
    if (change.offset < from) keep_part(change.offset, from);
    if (end > to) keep_part(to, end);
  }
  log_ = std::move(kept);
}

namespace {

enum class Temper { kNothing, kEverything, kEachSector, kInOrder };

// How many of the changes to each sector (to the size) survive.
class Survival {
 public:
  Survival(Random& random, Temper temper) : random_(random), temper_(temper) {}
  void touch(uint64_t unit) { ++touched_[unit]; }
  void draw() {
    std::vector<uint64_t> units;  // in an order that does not depend on hashing
    for (auto& [unit, count] : touched_) units.push_back(unit);
    std::sort(units.begin(), units.end());
    for (uint64_t unit : units) {
      uint64_t& count = touched_[unit];
      if (temper_ == Temper::kNothing) count = 0;
      if (temper_ == Temper::kEachSector) count = random_.below(count + 1);
    }
  }
  // Whether the next change to `unit` survives.
  bool take(uint64_t unit) {
    uint64_t& left = touched_[unit];
    if (left == 0) return false;
    --left;
    return true;
  }

 private:
  Random& random_;
  Temper temper_;
  std::unordered_map<uint64_t, uint64_t> touched_;
};

constexpr uint64_t kSizeUnit = UINT64_MAX;

}  // namespace

SimulatedContent SimulatedMedium::survivor(Random& random, Loss loss,
                                           std::vector<Change> in_flight) const {
  auto temper = static_cast<Temper>(random.below(4));
  std::vector<const Change*> changes;
  const SimulatedContent& base = loss == Loss::kOfPower ? durable_ : current_;
  if (loss == Loss::kOfPower) {
    for (const Change& change : log_) changes.push_back(&change);
  }
  for (size_t i = in_flight.size(); i > 1; --i)
    std::swap(in_flight[i - 1], in_flight[random.below(i)]);
  std::vector<Change> growths;
  growths.reserve(in_flight.size());
  for (const Change& change : in_flight) {
    changes.push_back(&change);
    uint64_t end = change.offset + change.length;
    if (change.kind != Change::Kind::kWrite || end <= current_.size) continue;
    growths.push_back({.kind = Change::Kind::kSize, .offset = end});
    changes.push_back(&growths.back());
  }
  if (temper == Temper::kInOrder) changes.resize(random.below(changes.size() + 1));

  // Zeroing matters only where there are pages, now or in between.
  std::set<uint64_t> pages;
  bool zeroes = std::any_of(changes.begin(), changes.end(), [](const Change* change) {
    return change->kind == Change::Kind::kZero;
  });
  if (zeroes)
    base.bytes.for_each_page(0, UINT64_MAX, [&](uint64_t offset) { pages.insert(offset); });
  for (const Change* change : changes) {
    if (!zeroes || change->kind != Change::Kind::kWrite) continue;
    uint64_t end = change->offset + change->length;
    for (uint64_t page = align_down(change->offset, SparseBytes::kPageBytes); page < end;
         page += SparseBytes::kPageBytes)
      pages.insert(page);
  }
  auto for_each_sector = [&](const Change& change, auto fn) {
    uint64_t end = change.offset + change.length;
    if (change.kind == Change::Kind::kSize) return fn(kSizeUnit, uint64_t{0}, uint64_t{0});
    auto visit = [&](uint64_t from, uint64_t to) {
      for (uint64_t sector = align_down(from, kSectorBytes); sector < to; sector += kSectorBytes)
        fn(sector / kSectorBytes, std::max(from, sector), std::min(to, sector + kSectorBytes));
    };
    if (change.kind == Change::Kind::kWrite) return visit(change.offset, end);
    auto page = pages.lower_bound(align_down(change.offset, SparseBytes::kPageBytes));
    for (; page != pages.end() && *page < end; ++page)
      visit(std::max(change.offset, *page), std::min(end, *page + SparseBytes::kPageBytes));
  };

  Survival survival(random, temper);
  for (const Change* change : changes)
    for_each_sector(*change, [&](uint64_t unit, uint64_t, uint64_t) { survival.touch(unit); });
  survival.draw();

  SimulatedContent left = base;
  for (const Change* change : changes) {
    for_each_sector(*change, [&](uint64_t unit, uint64_t from, uint64_t to) {
      if (!survival.take(unit)) return;
      if (change->kind == Change::Kind::kSize) {
        perform(left, *change);
      } else if (change->kind == Change::Kind::kZero) {
        left.bytes.zero(from, to - from);
      } else {
        left.bytes.write(from, {change->data.data() + (from - change->offset), to - from});
      }
    });
  }
  left.bytes.zero(left.size, UINT64_MAX - left.size);
  return left;
}

}  // namespace platter::io
