#include "crypto/luks_keys.h"

#include <nettle/memops.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/math.h"
#include "base/try.h"
#include "crypto/anti_forensic.h"
#include "crypto/digest.h"
#include "crypto/sector_cipher.h"
#include "fmt/format.h"
#include "io/reactor.h"

namespace platter::crypto {
namespace {

constexpr uint32_t kMinIterations = 1000;
// The digest proves a key that was found; it guards no passphrase and gets a share of the time.
constexpr uint64_t kDigestShare = 8;
// How often key material is overwritten, for media that remember.
constexpr unsigned kErasePasses = 40;

// Runs `fn` on a worker thread.
template <typename Fn>
auto on_worker(Fn fn) {
  return io::Reactor::current()->call(std::move(fn));
}

uint64_t rounds(HashAlgorithm hash, size_t key_bytes, uint64_t iterations) {
  return iterations * base::divide_round_up(key_bytes, digest_bytes(hash));
}

base::SecretBytes digest_of(const LuksHeader& header, std::span<const uint8_t> key) {
  return derive_key(header.hash, key, header.digest_salt, header.digest_iterations,
                    kLuksDigestBytes);
}

// What `passphrase` makes of a slot's key material.
Result<std::optional<base::SecretBytes>> try_material(const LuksHeader& header,
                                                      const LuksSlot& slot,
                                                      std::span<uint8_t> material,
                                                      const base::SecretBytes& passphrase) {
  const base::SecretBytes slot_key =
      derive_key(header.hash, passphrase.span(), slot.salt, slot.iterations, header.key_bytes);
  PLATTER_ASSIGN(const auto cipher, SectorCipher::create(header.cipher, slot_key.span()));
  cipher->decrypt(0, io::BufferList(material));
  base::SecretBytes key =
      merge_key(header.hash, material.first(size_t{header.key_bytes} * kStripes), header.key_bytes);
  const base::SecretBytes digest = digest_of(header, key.span());
  if (memeql_sec(digest.data(), header.digest.data(), kLuksDigestBytes) == 0)
    return std::optional<base::SecretBytes>();
  return std::optional(std::move(key));
}

// The material of a slot whose salt and iterations are set, encrypted.
Result<base::SecretBytes> make_material(const LuksHeader& header, const LuksSlot& slot,
                                        const base::SecretBytes& volume_key,
                                        const base::SecretBytes& passphrase) {
  const base::SecretBytes slot_key =
      derive_key(header.hash, passphrase.span(), slot.salt, slot.iterations, header.key_bytes);
  PLATTER_ASSIGN(const auto cipher, SectorCipher::create(header.cipher, slot_key.span()));
  const base::SecretBytes split = split_key(header.hash, volume_key.span(), kStripes);
  base::SecretBytes material(key_material_bytes(header));
  std::ranges::copy(split.span(), material.span().begin());
  cipher->encrypt(0, material.span());
  return material;
}

Result<uint32_t> choose_iterations(HashAlgorithm hash, size_t key_bytes, uint64_t time_ms,
                                   uint64_t share) {
  const uint64_t per_second = measure_iterations(hash, key_bytes, time_ms);
  const auto product = base::checked_mul(per_second, time_ms);
  if (!product)
    return fail(ERANGE, fmt::format("PBKDF iterations {} too large to scale", per_second));
  const uint64_t iterations = *product / 1000 / share;
  // With its digest it still can be opened.
  const uint64_t most = kMaxUnlockRounds / 2 / rounds(hash, key_bytes, 1);
  if (iterations > most)
    return fail(ERANGE, fmt::format("PBKDF iterations {} larger than {}", iterations, most));
  return std::max(static_cast<uint32_t>(iterations), kMinIterations);
}

// The header fits no single sector. One that gains an active slot is written from behind, so that
// the sector that says so comes last; one that loses it from the front. A slot whose fields lie in
// both sectors is at no time active with half of them.
io::Task<Result<void>> write_header(const LuksHeader& header, Medium& medium, bool from_behind) {
  std::vector<uint8_t> bytes = serialise_luks_header(header);
  const io::BufferList first(bytes.data(), kSectorBytes);
  const io::BufferList rest(bytes.data() + kSectorBytes, bytes.size() - kSectorBytes);
  for (unsigned step = 0; step < 2; ++step) {
    const bool behind = (step == 0) == from_behind;
    PLATTER_CO_TRY(co_await medium.write(behind ? kSectorBytes : 0, behind ? rest : first));
    PLATTER_CO_TRY(co_await medium.flush());
  }
  co_return Result<void>{};
}

uint64_t material_offset(const LuksSlot& slot) { return uint64_t{slot.key_sector} * kSectorBytes; }

std::string random_uuid() {
  std::array<uint8_t, 16> bytes;
  fill_random(bytes);
  bytes[6] = static_cast<uint8_t>((bytes[6] & 0x0f) | 0x40);  // RFC 4122: version 4
  bytes[8] = static_cast<uint8_t>((bytes[8] & 0x3f) | 0x80);
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

}  // namespace

Result<void> UnlockBudget::take(const LuksHeader& header, size_t slot) {
  const uint32_t iterations = header.slots[slot].iterations;
  const uint64_t wanted = rounds(header.hash, header.key_bytes, iterations) +
                          rounds(header.hash, kLuksDigestBytes, header.digest_iterations);
  if (wanted > rounds_left_) {
    return fail(ERANGE, fmt::format("Keyslot {} takes too long to try: {} iterations of key "
                                    "derivation, and {} for the digest",
                                    slot, iterations, header.digest_iterations));
  }
  rounds_left_ -= wanted;
  return {};
}

io::Task<Result<LuksHeader>> read_luks_header(Medium& medium) {
  std::vector<uint8_t> bytes(base::align_up(kLuksHeaderBytes, kSectorBytes));
  auto read = co_await medium.read(0, io::BufferList(bytes));
  if (!read) {
    co_return std::unexpected(std::move(read).error().with_context("Unable to read LUKS header"));
  }
  co_return parse_luks_header(bytes);
}

io::Task<Result<std::optional<base::SecretBytes>>> open_slot(const LuksHeader& header,
                                                             Medium& medium, size_t index,
                                                             const base::SecretBytes& passphrase,
                                                             UnlockBudget& budget) {
  const LuksSlot& slot = header.slots[index];
  if (!slot.active) co_return std::optional<base::SecretBytes>();
  PLATTER_CO_TRY(budget.take(header, index));
  io::AlignedBuffer material(key_material_bytes(header));
  auto read = co_await medium.read(material_offset(slot), material.view());
  if (!read) {
    co_return std::unexpected(std::move(read).error().with_context("Failed to read key material"));
  }
  const auto work = [&] { return try_material(header, slot, material.span(), passphrase); };
  auto key = co_await on_worker(work);
  explicit_bzero(material.data(), material.size());
  co_return key;
}

io::Task<Result<std::optional<base::SecretBytes>>> find_volume_key(
    const LuksHeader& header, Medium& medium, const base::SecretBytes& passphrase) {
  UnlockBudget budget;
  for (size_t i = 0; i < kLuksSlots; ++i) {
    PLATTER_CO_ASSIGN(auto key, co_await open_slot(header, medium, i, passphrase, budget));
    if (key) co_return std::move(key);
  }
  co_return std::optional<base::SecretBytes>();
}

io::Task<Result<MadeVolume>> make_volume(const NewVolume& volume, Medium& medium,
                                         const base::SecretBytes& passphrase) {
  MadeVolume made;
  LuksHeader& header = made.header;
  header.cipher = volume.cipher;
  header.hash = volume.hash;
  header.key_bytes = static_cast<uint32_t>(key_bytes(volume.cipher));
  const uint64_t payload = luks_payload_offset(header.key_bytes);
  header.payload_sector = volume.detached ? 0 : static_cast<uint32_t>(payload / kSectorBytes);
  header.uuid = random_uuid();
  const uint64_t slot_bytes = (payload - kLuksSlotAlignment) / kLuksSlots;
  for (size_t i = 0; i < kLuksSlots; ++i) {
    header.slots[i].key_sector =
        static_cast<uint32_t>((kLuksSlotAlignment + i * slot_bytes) / kSectorBytes);
  }
  made.key = base::SecretBytes(header.key_bytes);
  fill_random(made.key.span());
  fill_random(header.digest_salt);
  const auto digest = [&]() -> Result<void> {
    PLATTER_ASSIGN(header.digest_iterations, choose_iterations(volume.hash, kLuksDigestBytes,
                                                               volume.iter_time_ms, kDigestShare));
    std::ranges::copy(digest_of(header, made.key.span()).span(), header.digest.begin());
    return {};
  };
  PLATTER_CO_TRY(co_await on_worker(digest));
  PLATTER_CO_TRY(co_await fill_slot(header, medium, 0, made.key, passphrase, volume.iter_time_ms));
  co_return std::move(made);
}

io::Task<Result<void>> fill_slot(LuksHeader& header, Medium& medium, size_t index,
                                 const base::SecretBytes& volume_key,
                                 const base::SecretBytes& passphrase, uint64_t iter_time_ms) {
  LuksSlot slot = header.slots[index];
  fill_random(slot.salt);
  const auto work = [&]() -> Result<base::SecretBytes> {
    PLATTER_ASSIGN(slot.iterations,
                   choose_iterations(header.hash, header.key_bytes, iter_time_ms, 1));
    return make_material(header, slot, volume_key, passphrase);
  };
  PLATTER_CO_ASSIGN(base::SecretBytes material, co_await on_worker(work));
  PLATTER_CO_TRY(co_await medium.write(material_offset(slot), io::BufferList(material.span())));
  PLATTER_CO_TRY(co_await medium.flush());
  slot.active = true;
  LuksHeader next = header;
  next.slots[index] = slot;
  PLATTER_CO_TRY(co_await write_header(next, medium, /*from_behind=*/true));
  header = std::move(next);
  co_return Result<void>{};
}

io::Task<Result<void>> erase_slot(LuksHeader& header, Medium& medium, size_t index) {
  LuksHeader next = header;
  LuksSlot& slot = next.slots[index];
  slot = {.key_sector = slot.key_sector};
  PLATTER_CO_TRY(co_await write_header(next, medium, /*from_behind=*/false));
  header = next;
  io::AlignedBuffer noise(key_material_bytes(header));
  for (unsigned pass = 0; pass < kErasePasses; ++pass) {
    fill_random(noise.span());
    PLATTER_CO_TRY(co_await medium.write(material_offset(slot), noise.view()));
    PLATTER_CO_TRY(co_await medium.flush());
  }
  co_return Result<void>{};
}

}  // namespace platter::crypto
