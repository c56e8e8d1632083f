// The keys of a LUKS volume: making it, unlocking it, filling and erasing its key slots.
//
// What takes long (key derivation) runs on the worker threads. Everything that a coroutine here
// takes by reference outlives it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/secret_bytes.h"
#include "crypto/luks_header.h"
#include "crypto/medium.h"
#include "io/task.h"
#include "platter/error.h"

namespace platter::crypto {

inline constexpr uint64_t kDefaultIterTimeMs = 2000;

// Reads and parses the header at the beginning of `medium`.
io::Task<Result<LuksHeader>> read_luks_header(Medium& medium);

// How long it may take to find a volume's key, all slots that are tried together, in rounds: PBKDF2
// takes one for each iteration and each piece of key that is as long as a hash. A header says how
// many iterations there are, up to 2^32 for each slot and each digest: that is hours, and nothing
// can be made of the answer before they are over. A fast processor does this many rounds in five
// minutes. A slot is made to take two seconds, unless its maker is told otherwise, and its digest
// an eighth of that: eight such slots of that processor, all tried in vain, take less than a tenth.
inline constexpr uint64_t kMaxUnlockRounds = uint64_t{1} << 30;

// What is left of that.
class UnlockBudget {
 public:
  // Before `slot` is tried; ERANGE: that takes too long.
  Result<void> take(const LuksHeader& header, size_t slot);

 private:
  uint64_t rounds_left_ = kMaxUnlockRounds;
};

// The volume's key, out of the slots that `passphrase` opens; nullopt: it opens none.
io::Task<Result<std::optional<base::SecretBytes>>> find_volume_key(
    const LuksHeader& header, Medium& medium, const base::SecretBytes& passphrase);
// The same with one slot; an inactive one opens for nobody.
io::Task<Result<std::optional<base::SecretBytes>>> open_slot(const LuksHeader& header,
                                                             Medium& medium, size_t slot,
                                                             const base::SecretBytes& passphrase,
                                                             UnlockBudget& budget);

struct NewVolume {
  CipherSpec cipher;
  HashAlgorithm hash = HashAlgorithm::kSha256;
  uint64_t iter_time_ms = kDefaultIterTimeMs;
  bool detached = false;  // the payload is in a file of its own
};
struct MadeVolume {
  LuksHeader header;
  base::SecretBytes key;
};
// Writes key material and, last, the header of a volume with a fresh key that `passphrase` opens.
// `medium` has room for luks_payload_offset() bytes.
io::Task<Result<MadeVolume>> make_volume(const NewVolume& volume, Medium& medium,
                                         const base::SecretBytes& passphrase);

// Makes `slot`, inactive or not, one that `passphrase` opens; durable afterwards. A power cut on
// the way leaves the slot as it was, or of no use if it was active.
io::Task<Result<void>> fill_slot(LuksHeader& header, Medium& medium, size_t slot,
                                 const base::SecretBytes& volume_key,
                                 const base::SecretBytes& passphrase, uint64_t iter_time_ms);
// Nobody opens the slot any more: its key material is overwritten; durable afterwards.
io::Task<Result<void>> erase_slot(LuksHeader& header, Medium& medium, size_t slot);

}  // namespace platter::crypto
