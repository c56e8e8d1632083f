// AES comes from OpenSSL, which has it in the processor's own instructions in every mode; the other
// families from Nettle, which has all of them.
#include "crypto/block_cipher.h"

#include <nettle/aes.h>
#include <nettle/cast128.h>
#include <nettle/cbc.h>
#include <nettle/ctr.h>
#include <nettle/serpent.h>
#include <nettle/twofish.h>
#include <nettle/xts.h>
#include <openssl/evp.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "base/assert.h"
#include "base/try.h"
#include "fmt/format.h"

namespace platter::crypto {
namespace {

// ---- OpenSSL

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

Context new_context() {
  Context context(EVP_CIPHER_CTX_new());
  if (!context) throw std::bad_alloc();
  return context;
}

Context copy(const Context& from) {
  Context context = new_context();
  if (EVP_CIPHER_CTX_copy(context.get(), from.get()) != 1) throw std::bad_alloc();
  return context;
}

const EVP_CIPHER* find_aes(size_t key_bytes, CipherMode mode) {
  const size_t row = (key_bytes - 16) / 8;
  switch (mode) {
    case CipherMode::kEcb:
      return row == 0 ? EVP_aes_128_ecb() : row == 1 ? EVP_aes_192_ecb() : EVP_aes_256_ecb();
    case CipherMode::kCbc:
      return row == 0 ? EVP_aes_128_cbc() : row == 1 ? EVP_aes_192_cbc() : EVP_aes_256_cbc();
    case CipherMode::kCtr:
      return row == 0 ? EVP_aes_128_ctr() : row == 1 ? EVP_aes_192_ctr() : EVP_aes_256_ctr();
    case CipherMode::kXts: break;
  }
  return row == 0 ? EVP_aes_128_xts() : EVP_aes_256_xts();
}

class OpenSslCipher final : public BlockCipher {
 public:
  OpenSslCipher(Context encrypting, Context decrypting)
      : encrypting_(std::move(encrypting)), decrypting_(std::move(decrypting)) {}

  static Result<std::unique_ptr<BlockCipher>> make(const EVP_CIPHER* cipher,
                                                   std::span<const uint8_t> key) {
    Context encrypting = new_context();
    Context decrypting = new_context();
    if (EVP_EncryptInit_ex(encrypting.get(), cipher, nullptr, key.data(), nullptr) != 1 ||
        EVP_DecryptInit_ex(decrypting.get(), cipher, nullptr, key.data(), nullptr) != 1) {
      return fail(EINVAL, "The encryption key is not one that the cipher takes");
    }
    EVP_CIPHER_CTX_set_padding(encrypting.get(), 0);
    EVP_CIPHER_CTX_set_padding(decrypting.get(), 0);
    return std::make_unique<OpenSslCipher>(std::move(encrypting), std::move(decrypting));
  }

  std::unique_ptr<BlockCipher> clone() const override {
    return std::make_unique<OpenSslCipher>(copy(encrypting_), copy(decrypting_));
  }
  void encrypt(const uint8_t* iv, const uint8_t* in, uint8_t* out, size_t length) override {
    int done = 0;
    const bool good =
        EVP_EncryptInit_ex(encrypting_.get(), nullptr, nullptr, nullptr, iv) == 1 &&
        EVP_EncryptUpdate(encrypting_.get(), out, &done, in, static_cast<int>(length)) == 1;
    PLATTER_ASSERT(good && static_cast<size_t>(done) == length);
  }
  void decrypt(const uint8_t* iv, const uint8_t* in, uint8_t* out, size_t length) override {
    int done = 0;
    const bool good =
        EVP_DecryptInit_ex(decrypting_.get(), nullptr, nullptr, nullptr, iv) == 1 &&
        EVP_DecryptUpdate(decrypting_.get(), out, &done, in, static_cast<int>(length)) == 1;
    PLATTER_ASSERT(good && static_cast<size_t>(done) == length);
  }

 private:
  Context encrypting_;
  Context decrypting_;
};

// ---- Nettle

struct Serpent {
  using Schedule = serpent_ctx;
  static constexpr size_t kBlock = SERPENT_BLOCK_SIZE;
  static void set_key(Schedule& schedule, std::span<const uint8_t> key) {
    serpent_set_key(&schedule, key.size(), key.data());
  }
  static void encrypt(const void* s, size_t n, uint8_t* out, const uint8_t* in) {
    serpent_encrypt(static_cast<const Schedule*>(s), n, out, in);
  }
  static void decrypt(const void* s, size_t n, uint8_t* out, const uint8_t* in) {
    serpent_decrypt(static_cast<const Schedule*>(s), n, out, in);
  }
};
struct Twofish {
  using Schedule = twofish_ctx;
  static constexpr size_t kBlock = TWOFISH_BLOCK_SIZE;
  static void set_key(Schedule& schedule, std::span<const uint8_t> key) {
    twofish_set_key(&schedule, key.size(), key.data());
  }
  static void encrypt(const void* s, size_t n, uint8_t* out, const uint8_t* in) {
    twofish_encrypt(static_cast<const Schedule*>(s), n, out, in);
  }
  static void decrypt(const void* s, size_t n, uint8_t* out, const uint8_t* in) {
    twofish_decrypt(static_cast<const Schedule*>(s), n, out, in);
  }
};
struct Cast5 {
  using Schedule = cast128_ctx;
  static constexpr size_t kBlock = CAST128_BLOCK_SIZE;
  static void set_key(Schedule& schedule, std::span<const uint8_t> key) {
    cast5_set_key(&schedule, key.size(), key.data());
  }
  static void encrypt(const void* s, size_t n, uint8_t* out, const uint8_t* in) {
    cast128_encrypt(static_cast<const Schedule*>(s), n, out, in);
  }
  static void decrypt(const void* s, size_t n, uint8_t* out, const uint8_t* in) {
    cast128_decrypt(static_cast<const Schedule*>(s), n, out, in);
  }
};

// For XTS, which OpenSSL has with the other key lengths only: IEEE 1619 knows no other, LUKS does.
struct Aes192 {
  struct Schedule {
    aes192_ctx encrypting;
    aes192_ctx decrypting;
  };
  static constexpr size_t kBlock = AES_BLOCK_SIZE;
  static void set_key(Schedule& schedule, std::span<const uint8_t> key) {
    aes192_set_encrypt_key(&schedule.encrypting, key.data());
    aes192_invert_key(&schedule.decrypting, &schedule.encrypting);
  }
  static void encrypt(const void* s, size_t n, uint8_t* out, const uint8_t* in) {
    aes192_encrypt(&static_cast<const Schedule*>(s)->encrypting, n, out, in);
  }
  static void decrypt(const void* s, size_t n, uint8_t* out, const uint8_t* in) {
    aes192_decrypt(&static_cast<const Schedule*>(s)->decrypting, n, out, in);
  }
};

template <typename Cipher>
class NettleCipher final : public BlockCipher {
 public:
  NettleCipher(CipherMode mode, std::span<const uint8_t> key) : mode_(mode) {
    const size_t half = mode == CipherMode::kXts ? key.size() / 2 : key.size();
    Cipher::set_key(data_, key.first(half));
    if (mode == CipherMode::kXts) Cipher::set_key(tweak_, key.subspan(half));
  }
  ~NettleCipher() override {
    explicit_bzero(&data_, sizeof data_);
    explicit_bzero(&tweak_, sizeof tweak_);
  }
  NettleCipher(const NettleCipher&) = default;

  std::unique_ptr<BlockCipher> clone() const override {
    return std::make_unique<NettleCipher>(*this);
  }
  void encrypt(const uint8_t* iv, const uint8_t* in, uint8_t* out, size_t length) override {
    uint8_t running[kMaxBlockBytes];
    if (mode_ != CipherMode::kEcb) std::memcpy(running, iv, Cipher::kBlock);
    switch (mode_) {
      case CipherMode::kEcb: Cipher::encrypt(&data_, length, out, in); return;
      case CipherMode::kCbc:
        cbc_encrypt(&data_, Cipher::encrypt, Cipher::kBlock, running, length, out, in);
        return;
      case CipherMode::kCtr:
        ctr_crypt(&data_, Cipher::encrypt, Cipher::kBlock, running, length, out, in);
        return;
      case CipherMode::kXts:
        xts_encrypt_message(&data_, &tweak_, Cipher::encrypt, running, length, out, in);
        return;
    }
  }
  void decrypt(const uint8_t* iv, const uint8_t* in, uint8_t* out, size_t length) override {
    uint8_t running[kMaxBlockBytes];
    if (mode_ != CipherMode::kEcb) std::memcpy(running, iv, Cipher::kBlock);
    switch (mode_) {
      case CipherMode::kEcb: Cipher::decrypt(&data_, length, out, in); return;
      case CipherMode::kCbc:
        cbc_decrypt(&data_, Cipher::decrypt, Cipher::kBlock, running, length, out, in);
        return;
      case CipherMode::kCtr:
        ctr_crypt(&data_, Cipher::encrypt, Cipher::kBlock, running, length, out, in);
        return;
      case CipherMode::kXts:
        xts_decrypt_message(&data_, &tweak_, Cipher::decrypt, Cipher::encrypt, running, length, out,
                            in);
        return;
    }
  }

 private:
  CipherMode mode_;
  typename Cipher::Schedule data_{};
  typename Cipher::Schedule tweak_{};  // kXts
};

}  // namespace

Result<std::unique_ptr<BlockCipher>> make_block_cipher(CipherAlgorithm algorithm, CipherMode mode,
                                                       std::span<const uint8_t> key) {
  PLATTER_ASSERT(key.size() == cipher_key_bytes(algorithm) * (mode == CipherMode::kXts ? 2 : 1));
  PLATTER_ASSERT(mode != CipherMode::kXts || block_bytes(algorithm) == kMaxBlockBytes);
  switch (family_of(algorithm)) {
    case CipherFamily::kSerpent: return std::make_unique<NettleCipher<Serpent>>(mode, key);
    case CipherFamily::kTwofish: return std::make_unique<NettleCipher<Twofish>>(mode, key);
    case CipherFamily::kCast5: return std::make_unique<NettleCipher<Cast5>>(mode, key);
    case CipherFamily::kAes: break;
  }
  if (algorithm == CipherAlgorithm::kAes192 && mode == CipherMode::kXts)
    return std::make_unique<NettleCipher<Aes192>>(mode, key);
  return OpenSslCipher::make(find_aes(cipher_key_bytes(algorithm), mode), key);
}

}  // namespace platter::crypto
