#include "crypto/luks_header.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace platter::crypto {
namespace {

LuksHeader sample() {
  LuksHeader header;
  header.key_bytes = 64;
  header.payload_sector = 4040;
  header.digest_iterations = 1000;
  header.uuid = "0774d710-9227-45fa-b6c5-ada68b5a6c01";
  for (size_t i = 0; i < kLuksSlots; ++i)
    header.slots[i].key_sector = static_cast<uint32_t>(8 + i * 504);
  header.slots[2].active = true;
  header.slots[2].iterations = 77;
  header.slots[2].salt.fill(0xab);
  return header;
}

class Bytes {
 public:
  explicit Bytes(const LuksHeader& header = sample()) : bytes_(serialise_luks_header(header)) {}
  template <typename T>
  Bytes& set(size_t offset, T value) {
    base::store_big<T>(bytes_, offset, value);
    return *this;
  }
  Bytes& text(size_t offset, std::string_view text) {
    std::fill_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), 32, uint8_t{0});
    std::ranges::copy(text, bytes_.begin() + static_cast<ptrdiff_t>(offset));
    return *this;
  }
  std::string error() const {
    const auto header = parse_luks_header(bytes_);
    return header ? "none" : header.error().message();
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

constexpr size_t slot(size_t index) { return 208 + index * 48; }

TEST(LuksHeader, ComesBackAsItWas) {
  const LuksHeader header = sample();
  const auto bytes = serialise_luks_header(header);
  EXPECT_EQ(bytes.size(), kLuksHeaderBytes);
  EXPECT_EQ(probe_luks(bytes), 100);
  const auto parsed = parse_luks_header(bytes);
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(*parsed, header);
  EXPECT_EQ(parsed->active_slots(), 1u);
  EXPECT_EQ(luks_payload_offset(64), 4040u * 512);
}

TEST(LuksHeader, EveryFieldHasItsLimits) {
  EXPECT_EQ(Bytes().set<uint8_t>(0, 'X').error(), "Volume is not in LUKS format");
  EXPECT_EQ(Bytes().set<uint16_t>(6, 2).error(), "LUKS version 2 is not supported");
  EXPECT_EQ(Bytes().text(8, "frob").error(),
            "Algorithm 'frob' with key size 64 bytes not supported");
  EXPECT_EQ(Bytes().text(8, std::string(32, 'a')).error(),
            "LUKS header cipher name is not NUL terminated");
  EXPECT_EQ(Bytes().text(40, "xts").error(), "Unexpected cipher mode string format 'xts'");
  EXPECT_EQ(Bytes().text(40, "cbc-essiv").set<uint32_t>(108, 32).error(),
            "Hash algorithm not specified for ESSIV");
  EXPECT_EQ(Bytes().text(40, "cbc-essiv:sha1").set<uint32_t>(108, 32).error(),
            "No AES cipher with key size 20 available");
  EXPECT_EQ(Bytes().text(40, "xts-plain64:frob").error(),
            "Hash algorithm 'frob' is not recognized");
  EXPECT_EQ(Bytes().text(72, "frob").error(), "Hash algorithm 'frob' is not recognized");
  EXPECT_EQ(Bytes().set<uint32_t>(104, 7).error(), "LUKS payload is overlapping with the header");
  EXPECT_EQ(Bytes().set<uint32_t>(108, 63).error(),
            "XTS cipher key length should be a multiple of 2");
  EXPECT_EQ(Bytes().set<uint32_t>(108, 0xfffffffe).error(),
            "No aes cipher with key size 2147483647 available");
  EXPECT_EQ(Bytes().set<uint32_t>(164, 0).error(), "LUKS key iteration count is zero");
}

TEST(LuksHeader, EverySlotHasItsPlace) {
  EXPECT_EQ(Bytes().set<uint32_t>(slot(1), 5).error(),
            "Keyslot 1 state (active/disable) is corrupted");
  EXPECT_EQ(Bytes().set<uint32_t>(slot(2) + 4, 0).error(), "Keyslot 2 iteration count is zero");
  EXPECT_EQ(Bytes().set<uint32_t>(slot(0) + 40, 1).error(),
            "Keyslot 0 is overlapping with the LUKS header");
  EXPECT_EQ(Bytes().set<uint32_t>(slot(1) + 40, 8).error(),
            "Keyslots 0 and 1 are overlapping in the header");
  EXPECT_EQ(Bytes().set<uint32_t>(slot(7) + 40, 0xffffffff).error(),
            "Keyslot 7 is overlapping with the encrypted payload");
  EXPECT_EQ(Bytes().set<uint32_t>(slot(7) + 44, 3999).error(),
            "Keyslot 7 is corrupted (stripes 3999 != 4000)");
}

TEST(LuksHeader, AShortOneIsNone) {
  const auto bytes = serialise_luks_header(sample());
  for (const size_t size : {size_t{0}, size_t{6}, kLuksHeaderBytes - 1}) {
    EXPECT_FALSE(parse_luks_header(std::span(bytes).first(size)).has_value());
  }
  EXPECT_EQ(probe_luks({}), 0);
}

}  // namespace
}  // namespace platter::crypto
