#include "io/simulated_files.h"

#include <algorithm>
#include <cerrno>

#include "base/try.h"

namespace platter::io {
namespace {

bool overlaps(const SimulatedLock& lock, uint64_t offset, uint64_t end) {
  return lock.offset < end && offset < lock.end;
}

uint64_t lock_end(uint64_t offset, uint64_t length) {
  return length == 0 ? UINT64_MAX : offset + length;  // as fcntl has it: to the end
}

// As a file system has it, "./" and a second slash mean nothing.
std::string plain_name(const std::string& path) {
  std::string name;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = std::string_view(path).substr(begin, end - begin);
    if (!part.empty() && part != ".") {
      if (!name.empty() || path.front() == '/') name += '/';
      name += part;
    }
    begin = end + 1;
  }
  return name;
}

}  // namespace

SimulatedFile::SimulatedFile(Simulation& simulation, std::shared_ptr<SimulatedInode> inode,
                             OpenFlags flags)
    : simulation_(simulation), inode_(std::move(inode)), flags_(flags) {
  ++simulation_.open_files_;
}

SimulatedFile::~SimulatedFile() {
  --simulation_.open_files_;
  std::erase_if(inode_->locks, [this](const SimulatedLock& lock) { return lock.holder == this; });
}

Result<FileInfo> SimulatedFile::info() {
  if (simulation_.power_is_cut_) return fail_errno(EIO);
  return Simulation::Files::describe(*inode_);
}

Result<void> SimulatedFile::truncate(uint64_t size) {
  if (simulation_.power_is_cut_) return fail_errno(EIO);
  if (!flags_.write) return fail_errno(EINVAL);
  inode_->medium->resize(size);
  return {};
}

Result<std::optional<uint64_t>> SimulatedFile::seek_data(uint64_t offset) {
  if (simulation_.power_is_cut_) return fail_errno(EIO);
  const SimulatedContent& content = inode_->medium->current();
  auto found = content.bytes.next_data(offset);
  if (!found || *found >= content.size) return std::optional<uint64_t>();
  return found;
}

Result<std::optional<uint64_t>> SimulatedFile::seek_hole(uint64_t offset) {
  if (simulation_.power_is_cut_) return fail_errno(EIO);
  const SimulatedContent& content = inode_->medium->current();
  if (offset >= content.size) return std::optional<uint64_t>();
  return std::min(content.bytes.next_hole(offset), content.size);
}

Result<void> SimulatedFile::test_lock(uint64_t offset, uint64_t length, LockKind kind) {
  if (kind == LockKind::kNone) return {};
  for (const SimulatedLock& lock : inode_->locks) {
    if (lock.holder == this || !overlaps(lock, offset, lock_end(offset, length))) continue;
    if (lock.exclusive || kind == LockKind::kExclusive) return fail_errno(EAGAIN);
  }
  return {};
}

Result<void> SimulatedFile::lock(uint64_t offset, uint64_t length, LockKind kind) {
  PLATTER_TRY(test_lock(offset, length, kind));
  uint64_t end = lock_end(offset, length);
  std::vector<SimulatedLock> kept;
  for (const SimulatedLock& lock : inode_->locks) {
    if (lock.holder != this || !overlaps(lock, offset, end)) {
      kept.push_back(lock);
      continue;
    }
    if (lock.offset < offset) kept.push_back({this, lock.offset, offset, lock.exclusive});
    if (lock.end > end) kept.push_back({this, end, lock.end, lock.exclusive});
  }
  if (kind != LockKind::kNone) kept.push_back({this, offset, end, kind == LockKind::kExclusive});
  inode_->locks = std::move(kept);
  return {};
}

uint32_t SimulatedFile::io_alignment() const {
  return flags_.direct ? simulation_.options_.direct_alignment : 1;
}

// ---- The file system

FileInfo Simulation::Files::describe(const SimulatedInode& inode) {
  const SimulatedContent& content = inode.medium->current();
  return {.kind = FileKind::kRegular,
          .size = content.size,
          .allocated = content.bytes.page_count() * SparseBytes::kPageBytes,
          .device = 1,
          .inode = inode.number,
          .logical_block_size = 1};
}

void Simulation::Files::add(const std::string& path, SimulatedContent content) {
  auto inode = std::make_shared<SimulatedInode>();
  inode->medium = std::make_shared<SimulatedMedium>(std::move(content));
  inode->number = next_number_++;
  inodes_[path] = std::move(inode);
}

Result<std::unique_ptr<File>> Simulation::Files::open(const std::string& given, OpenFlags flags) {
  if (simulation_.power_is_cut_) return fail_errno(EIO);
  const std::string path = plain_name(given);
  bool exists = inodes_.contains(path);
  if (!exists && !flags.create) return fail_errno(ENOENT);
  if (exists && flags.create && flags.exclusive) return fail_errno(EEXIST);
  if (!exists) add(path, {});
  auto& inode = inodes_[path];
  if (flags.truncate && inode->medium->size() != 0) inode->medium->resize(0);
  return std::make_unique<SimulatedFile>(simulation_, inode, flags);
}

Result<FileInfo> Simulation::Files::info(const std::string& path) {
  if (simulation_.power_is_cut_) return fail_errno(EIO);
  auto found = inodes_.find(plain_name(path));
  if (found == inodes_.end()) return fail_errno(ENOENT);
  return describe(*found->second);
}

Result<void> Simulation::Files::remove(const std::string& path) {
  if (simulation_.power_is_cut_) return fail_errno(EIO);
  if (inodes_.erase(plain_name(path)) == 0) return fail_errno(ENOENT);
  return {};
}

}  // namespace platter::io
