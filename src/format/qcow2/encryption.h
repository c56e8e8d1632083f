// Encryption of guest data. Metadata, and data that is compressed, is not encrypted.
//
// Two kinds: LUKS, whose header lies in clusters that an extension of the image's header names, and
// which numbers sectors by where they are in the file; and AES, without a header, by where they are
// on the disk. Specification: docs/format/qcow2.md, "Encryption".
#pragma once

#include <memory>
#include <optional>

#include "base/options.h"
#include "block/secret_source.h"
#include "crypto/encrypted_io.h"
#include "crypto/luks_amend.h"
#include "crypto/luks_keys.h"
#include "format/qcow2/header.h"
#include "format/qcow2/image.h"

namespace platter::format::qcow2 {

// The header of a LUKS image. `file` outlives nothing but the call.
io::Task<Result<crypto::LuksHeader>> read_luks_header(block::Child& file, const Header& header);

// Refuses options that contradict the header.
Result<void> check_encryption_options(const base::OptionSet& options, const Header& header);

// The key of AES images: a passphrase cut or filled up to its length.
base::SecretBytes aes_key(const base::SecretBytes& passphrase);
inline constexpr crypto::CipherSpec kAesSpec = {.algorithm = crypto::CipherAlgorithm::kAes128,
                                                .mode = crypto::CipherMode::kCbc,
                                                .iv_generator = crypto::IvGenerator::kPlain64};

// An image that was unlocked. Any thread, without a lock; amend() with no request in flight.
class Encryption {
 public:
  // `luks`: as read_luks_header() found it; nullopt for AES. `image` outlives it.
  static io::Task<Result<std::unique_ptr<Encryption>>> unlock(
      Image& image, std::optional<crypto::LuksHeader> luks, const base::OptionSet& options,
      const block::SecretSource* secrets);

  // Guest data: whole sectors.
  io::Task<Result<void>> read(uint64_t host_offset, uint64_t guest_offset, io::BufferList buffers);
  io::Task<Result<void>> write(uint64_t host_offset, uint64_t guest_offset, io::BufferList buffers);
  // Writes what lies at host offset `from` such that it means the same at `to`, by way of
  // `buffers`.
  io::Task<Result<void>> relocate(uint64_t from, uint64_t to, io::BufferList buffers);

  // Of a LUKS image; `luks` then is its header as it is now.
  io::Task<Result<void>> amend(crypto::LuksHeader& luks, crypto::SlotChange change,
                               const block::SecretSource* secrets, bool force);

 private:
  class DataMedium;
  Encryption(Image& image, base::SecretBytes key, std::unique_ptr<crypto::SectorCipher> cipher);
  uint64_t sector(uint64_t host_offset, uint64_t guest_offset) const {
    return (by_host_offset_ ? host_offset : guest_offset) / crypto::kSectorBytes;
  }

  Image& image_;
  base::SecretBytes key_;
  bool by_host_offset_;
  std::unique_ptr<crypto::SectorCipher> cipher_;
  crypto::EncryptedIo io_;
  std::unique_ptr<crypto::Medium> data_;
};

}  // namespace platter::format::qcow2
