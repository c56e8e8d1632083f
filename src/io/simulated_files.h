// The file system of a Simulation. Inside io/ only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/simulation.h"

namespace platter::io {

// A byte-range lock that an open file holds.
struct SimulatedLock {
  const File* holder;
  uint64_t offset;
  uint64_t end;
  bool exclusive;
};

// What the open files of one name share.
struct SimulatedInode {
  std::shared_ptr<SimulatedMedium> medium;
  uint64_t number;
  std::vector<SimulatedLock> locks;
};

class SimulatedFile final : public File {
 public:
  SimulatedFile(Simulation& simulation, std::shared_ptr<SimulatedInode> inode, OpenFlags flags);
  ~SimulatedFile() override;

  Result<FileInfo> info() override;
  Result<void> truncate(uint64_t size) override;
  Result<std::optional<uint64_t>> seek_data(uint64_t offset) override;
  Result<std::optional<uint64_t>> seek_hole(uint64_t offset) override;
  Result<void> lock(uint64_t offset, uint64_t length, LockKind kind) override;
  Result<void> test_lock(uint64_t offset, uint64_t length, LockKind kind) override;
  uint32_t io_alignment() const override;
  int descriptor() const override { return -1; }

  const Simulation& simulation() const { return simulation_; }
  const std::shared_ptr<SimulatedMedium>& medium() const { return inode_->medium; }
  bool writable() const { return flags_.write; }

 private:
  Simulation& simulation_;
  std::shared_ptr<SimulatedInode> inode_;
  OpenFlags flags_;
};

class Simulation::Files final : public FileSystem {
 public:
  explicit Files(Simulation& simulation) : simulation_(simulation) {}
  Result<std::unique_ptr<File>> open(const std::string& path, OpenFlags flags) override;
  Result<FileInfo> info(const std::string& path) override;
  Result<void> remove(const std::string& path) override;

  void add(const std::string& path, SimulatedContent content);
  static FileInfo describe(const SimulatedInode& inode);
  std::map<std::string, std::shared_ptr<SimulatedInode>>& inodes() { return inodes_; }

 private:
  Simulation& simulation_;
  uint64_t next_number_ = 1;
  std::map<std::string, std::shared_ptr<SimulatedInode>> inodes_;
};

}  // namespace platter::io
