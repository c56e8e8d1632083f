// The live luks driver: a payload that is encrypted sector by sector, behind its header or beside
// it (detached). A sector's number counts from the beginning of the payload.
#pragma once

#include <atomic>
#include <memory>

#include "block/driver.h"
#include "block/node.h"
#include "crypto/encrypted_io.h"
#include "crypto/luks_keys.h"

namespace platter::format::luks {

class LuksDriver final : public block::Driver,
                         public block::Resizable,
                         public block::Amendable,
                         public block::Reopenable {
 public:
  static io::Task<Result<std::unique_ptr<block::Driver>>> open(block::OpenContext& context);

  uint64_t size() const override;
  block::Limits limits() const override;
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override;
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers,
                               block::WriteFlags flags) override;
  io::Task<Result<void>> flush() override { return file_.flush(); }
  io::Task<Result<block::BlockStatus>> status(uint64_t offset, uint64_t length,
                                              block::StatusDetail detail) override;
  Result<block::DriverInfo> info() const override;
  Reopenable* reopenable() override { return this; }
  io::Task<Result<void>> reopen(base::OptionSet, block::OpenFlags) override {
    return io::Task<Result<void>>::ready(Result<void>());
  }
  io::Task<Result<uint64_t>> allocated_size() override {
    return file_.node().driver().allocated_size();
  }
  block::Resizable* resizable() override { return this; }
  io::Task<Result<void>> resize(uint64_t size, block::Preallocation preallocation,
                                bool exact) override;
  block::Amendable* amendable() override { return this; }
  io::Task<Result<void>> amend(const base::OptionSet& options, bool force,
                               std::function<void(uint64_t, uint64_t)> progress) override;

 private:
  LuksDriver(block::Node& node, block::Child& file, block::Child* header_file,
             crypto::LuksHeader header);
  io::Task<Result<void>> unlock(const base::OptionSet& options);

  block::Node& node_;
  block::Child& file_;
  crypto::MediumOver<block::Child> payload_;
  crypto::MediumOver<block::Child> header_medium_;
  crypto::LuksHeader header_;
  // None while only the metadata is looked at.
  base::SecretBytes key_;
  std::unique_ptr<crypto::SectorCipher> cipher_;
  std::unique_ptr<crypto::EncryptedIo> io_;
};

}  // namespace platter::format::luks
