#include "format/qcow2/encryption.h"

#include <algorithm>
#include <cerrno>

#include "base/try.h"
#include "fmt/format.h"
#include "format/qcow2/metadata_io.h"

namespace platter::format::qcow2 {
namespace {

constexpr std::string_view kFormatOption = "encrypt.format";
constexpr std::string_view kSecretOption = "encrypt.key-secret";

std::string_view format_name(CryptMethod method) {
  return method == CryptMethod::kAes ? "aes" : "luks";
}

// Key material lies within the length that the extension gives the header.
crypto::MediumOver<block::Child> header_medium(block::Child& file, const Header& header) {
  return crypto::MediumOver<block::Child>(file, header.crypto_header->offset,
                                          header.crypto_header->length);
}

}  // namespace

// What lies beyond the end of the file reads as zeroes, as in an image without encryption.
class Encryption::DataMedium final : public crypto::Medium {
 public:
  explicit DataMedium(Image& image) : image_(image) {}
  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    return read_padded(*image_.data, offset, buffers);
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers) override {
    return image_.data->write(offset, buffers);
  }
  io::Task<Result<void>> flush() override { return image_.data->flush(); }

 private:
  Image& image_;
};

io::Task<Result<crypto::LuksHeader>> read_luks_header(block::Child& file, const Header& header) {
  if (!header.crypto_header) {
    co_return fail(EINVAL, fmt::format("Missing CRYPTO header for crypt method {}",
                                       static_cast<uint32_t>(header.crypt_method)));
  }
  auto medium = header_medium(file, header);
  co_return co_await crypto::read_luks_header(medium);
}

Result<void> check_encryption_options(const base::OptionSet& options, const Header& header) {
  if (!options.given(kFormatOption)) return {};
  const std::string& wanted = options.get_string(kFormatOption);
  if (header.crypt_method == CryptMethod::kNone) {
    return fail(EINVAL, fmt::format("No encryption in image header, but options specified format "
                                    "'{}'",
                                    wanted));
  }
  if (wanted != format_name(header.crypt_method)) {
    return fail(EINVAL, fmt::format("Header reported '{}' encryption format but options specify "
                                    "'{}'",
                                    format_name(header.crypt_method), wanted));
  }
  return {};
}

base::SecretBytes aes_key(const base::SecretBytes& passphrase) {
  base::SecretBytes key(crypto::key_bytes(kAesSpec));
  std::ranges::copy(passphrase.span().first(std::min(passphrase.size(), key.size())),
                    key.span().begin());
  return key;
}

Encryption::Encryption(Image& image, base::SecretBytes key,
                       std::unique_ptr<crypto::SectorCipher> cipher)
    : image_(image),
      key_(std::move(key)),
      by_host_offset_(image.header.crypt_method == CryptMethod::kLuks),
      cipher_(std::move(cipher)),
      io_(*cipher_),
      data_(std::make_unique<DataMedium>(image)) {}

io::Task<Result<std::unique_ptr<Encryption>>> Encryption::unlock(
    Image& image, std::optional<crypto::LuksHeader> luks, const base::OptionSet& options,
    const block::SecretSource* secrets) {
  if (!options.given(kSecretOption)) {
    co_return fail(EINVAL, fmt::format("Parameter '{}' is required for cipher", kSecretOption));
  }
  PLATTER_CO_ASSIGN(const auto passphrase,
                    block::find_passphrase(secrets, options.get_string(kSecretOption)));
  base::SecretBytes key;
  crypto::CipherSpec spec = kAesSpec;
  if (luks) {
    auto medium = header_medium(*image.file, image.header);
    PLATTER_CO_ASSIGN(auto found, co_await crypto::find_volume_key(*luks, medium, passphrase));
    if (!found) co_return fail(EACCES, "Invalid password, cannot unlock any keyslot");
    key = std::move(*found);
    spec = luks->cipher;
  } else {
    key = aes_key(passphrase);
  }
  PLATTER_CO_ASSIGN(auto cipher, crypto::SectorCipher::create(spec, key.span()));
  co_return std::unique_ptr<Encryption>(new Encryption(image, std::move(key), std::move(cipher)));
}

io::Task<Result<void>> Encryption::read(uint64_t host_offset, uint64_t guest_offset,
                                        io::BufferList buffers) {
  return io_.read(*data_, host_offset, sector(host_offset, guest_offset), buffers);
}

io::Task<Result<void>> Encryption::write(uint64_t host_offset, uint64_t guest_offset,
                                         io::BufferList buffers) {
  return io_.write(*data_, host_offset, sector(host_offset, guest_offset), buffers);
}

io::Task<Result<void>> Encryption::relocate(uint64_t from, uint64_t to, io::BufferList buffers) {
  if (by_host_offset_) {
    PLATTER_CO_TRY(co_await io_.read(*data_, from, sector(from, 0), buffers));
    co_return co_await io_.write(*data_, to, sector(to, 0), buffers);
  }
  PLATTER_CO_TRY(co_await data_->read(from, buffers));
  co_return co_await data_->write(to, buffers);
}

io::Task<Result<void>> Encryption::amend(crypto::LuksHeader& luks, crypto::SlotChange change,
                                         const block::SecretSource* secrets, bool force) {
  const crypto::SecretLookup lookup = [secrets](std::string_view id) {
    return block::find_passphrase(secrets, id);
  };
  auto medium = header_medium(*image_.file, image_.header);
  co_return co_await crypto::change_slots(luks, medium, key_, change, lookup, force);
}

}  // namespace platter::format::qcow2
