// luks on files in memory.
#include "format/luks/driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "base/bytes.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "block/secret_source.h"
#include "crypto/luks_keys.h"
#include "io/reactor_group.h"
#include "support/scratch_directory.h"

namespace platter::format::luks {
namespace {

using namespace block;

class Secrets final : public SecretSource {
 public:
  Result<base::SecretBytes> secret(std::string_view id) const override {
    const auto found = secrets.find(id);
    if (found == secrets.end()) return std::unexpected(no_such_secret(id));
    return base::SecretBytes::copy_of(found->second);
  }
  std::map<std::string, std::string, std::less<>> secrets = {
      {"first", "open sesame"}, {"second", "x"}, {"latin", "\xe9t\xe9"}};
};

class LuksTest : public testing::Test {
 protected:
  void SetUp() override {
    auto group = io::ReactorGroup::start({.reactors = 2});
    ASSERT_TRUE(group) << group.error().message();
    reactors_ = std::move(*group);
  }
  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  std::string path(const std::string& name) const { return scratch_.path(name); }
  std::string create(const std::string& name, const std::string& options) {
    auto made =
        run(graph_.create({.filename = path(name),
                           .format = "luks",
                           .options = *base::Options::from_key_values("iter-time=1," + options)}));
    return made ? "" : made.error().message();
  }
  Result<std::unique_ptr<Backend>> open(const std::string& options, bool no_io = false) {
    OpenRequest request;
    request.description = "it";
    request.options = *base::Options::from_key_values("driver=luks," + options);
    request.flags.read_only = no_io;
    request.flags.no_io = no_io;
    return run(
        graph_.open(std::move(request),
                    no_io ? Permission::kConsistentRead
                          : Permission::kConsistentRead | Permission::kWrite | Permission::kResize,
                    kAllPermissions));
  }
  // Beside whoever has it open.
  std::string open_error(const std::string& options) {
    OpenRequest request;
    request.description = "it";
    request.options = *base::Options::from_key_values("driver=luks," + options);
    request.force_share = true;
    auto backend =
        run(graph_.open(std::move(request), Permission::kConsistentRead, kAllPermissions));
    if (!backend) return backend.error().message();
    EXPECT_TRUE(run((*backend)->close()));
    return "";
  }
  std::string amend(Backend& backend, const std::string& options, bool force = false) {
    const auto parsed =
        backend.node().type().amend_options.parse(*base::Options::from_key_values(options));
    auto amended =
        run(backend.node().driver().amendable()->amend(*parsed, force, [](uint64_t, uint64_t) {}));
    return amended ? "" : amended.error().message();
  }

  std::unique_ptr<io::ReactorGroup> reactors_;
  support::ScratchDirectory scratch_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Secrets secrets_;
  Graph graph_{{registry_, io::system_files(), log_, &secrets_}};
};

std::vector<uint8_t> pattern(size_t size) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 4096);
  return bytes;
}

TEST_F(LuksTest, HoldsWhatIsWrittenAndHidesIt) {
  ASSERT_EQ(create("a", "size=8M,key-secret=first"), "");
  auto backend = open("key-secret=first,file.filename=" + path("a"));
  ASSERT_TRUE(backend) << backend.error().message();
  EXPECT_EQ((*backend)->size(), 8u << 20);
  const auto data = pattern(5 << 20);
  std::vector<uint8_t> source = data;
  ASSERT_TRUE(run((*backend)->write(1000, io::BufferList(source))));
  EXPECT_EQ(source, data) << "a write takes from its buffers only";
  std::vector<uint8_t> back(data.size());
  ASSERT_TRUE(run((*backend)->read(1000, io::BufferList(back))));
  EXPECT_EQ(back, data);
  ASSERT_TRUE(run((*backend)->resize(9 << 20, Preallocation::kOff, true)));
  EXPECT_EQ((*backend)->size(), 9u << 20);
  ASSERT_TRUE(run((*backend)->close()));

  OpenRequest as_raw;
  as_raw.filename = path("a");
  as_raw.format = "raw";
  auto raw = run(graph_.open(std::move(as_raw), Permission::kConsistentRead, kAllPermissions));
  ASSERT_TRUE(raw);
  std::vector<uint8_t> hidden(data.size());
  ASSERT_TRUE(run((*raw)->read((*raw)->size() - (9 << 20) + 1000, io::BufferList(hidden))));
  size_t equal = 0;
  for (size_t i = 0; i < data.size(); ++i) equal += hidden[i] == data[i];
  EXPECT_LT(equal, data.size() / 64);
  ASSERT_TRUE(run((*raw)->close()));
}

TEST_F(LuksTest, OpensForItsPassphraseAlone) {
  EXPECT_EQ(create("a", "size=1M"), "Parameter 'key-secret' is required for cipher");
  EXPECT_EQ(create("a", "size=1M,key-secret=none"), "No secret with id 'none'");
  EXPECT_EQ(create("a", "size=1M,key-secret=latin"), "Data from secret latin is not valid UTF-8");
  EXPECT_EQ(create("a", "key-secret=first"), "Image creation needs a size parameter");
  EXPECT_FALSE(std::filesystem::exists(path("a"))) << "nothing half-made is left";
  ASSERT_EQ(create("a", "size=1M,key-secret=first"), "");
  const std::string file = "file.filename=" + path("a");
  EXPECT_EQ(open_error(file), "Could not open 'it': Parameter 'key-secret' is required for cipher");
  EXPECT_EQ(open_error("key-secret=second," + file),
            "Could not open 'it': Invalid password, cannot unlock any keyslot");
  auto looked_at = open(file, /*no_io=*/true);
  ASSERT_TRUE(looked_at) << looked_at.error().message();
  auto info = (*looked_at)->node().driver().info();
  ASSERT_TRUE(info);
  EXPECT_TRUE(info->encrypted);
  EXPECT_EQ(*info->specific.find("data")->find("cipher-alg")->get_if<std::string>(), "aes-256");
  EXPECT_TRUE(run((*looked_at)->close()));
}

// What a stranger's header asks for is not done for hours.
TEST_F(LuksTest, AHeaderThatTakesForEverIsRefused) {
  constexpr std::streamoff kDigestIterations = 164, kSlotIterations = 208 + 4, kSlotBytes = 48;
  ASSERT_EQ(create("a", "size=1M,key-secret=first"), "");
  const std::string file = "file.filename=" + path("a");
  const auto set = [this](std::streamoff offset, uint32_t iterations) {
    std::fstream image(path("a"), std::ios::in | std::ios::out | std::ios::binary);
    std::array<uint8_t, 4> bytes;
    base::store_big(std::span<uint8_t>(bytes), 0, iterations);
    image.seekp(offset).write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    EXPECT_TRUE(image.flush().good());
  };
  set(kSlotIterations, UINT32_MAX);
  EXPECT_THAT(open_error("key-secret=first," + file),
              testing::StartsWith("Could not open 'it': Keyslot 0 takes too long to try: "
                                  "4294967295 iterations of key derivation, and "));
  auto looked_at = open(file, /*no_io=*/true);
  ASSERT_TRUE(looked_at) << looked_at.error().message();
  EXPECT_TRUE((*looked_at)->node().driver().info().has_value());
  EXPECT_TRUE(run((*looked_at)->close()));

  set(kSlotIterations, 1000);
  set(kDigestIterations, UINT32_MAX);
  EXPECT_EQ(open_error("key-secret=first," + file),
            "Could not open 'it': Keyslot 0 takes too long to try: 1000 iterations of key "
            "derivation, and 4294967295 for the digest");

  // Others may be erased with a passphrase, but not tried for ever either.
  set(kDigestIterations, 1000);
  ASSERT_EQ(create("b", "size=1M,key-secret=first"), "");
  auto backend = open("key-secret=first,file.filename=" + path("b"));
  ASSERT_TRUE(backend) << backend.error().message();
  EXPECT_EQ(amend(**backend, "state=active,new-secret=second,keyslot=1,iter-time=1"), "");
  ASSERT_TRUE(run((*backend)->close()));
  std::filesystem::rename(path("b"), path("a"));
  set(kSlotIterations + kSlotBytes, UINT32_MAX);
  backend = open("key-secret=first," + file);
  ASSERT_TRUE(backend) << "its slot comes first: " << backend.error().message();
  EXPECT_THAT(amend(**backend, "state=inactive,old-secret=second"),
              testing::StartsWith("Keyslot 1 takes too long to try: 4294967295 iterations"));
  EXPECT_THAT(amend(**backend, "state=inactive,keyslot=1,old-secret=second"),
              testing::StartsWith("Keyslot 1 takes too long to try: 4294967295 iterations"));
  EXPECT_EQ(amend(**backend, "state=inactive,keyslot=1"), "");
  ASSERT_TRUE(run((*backend)->close()));
}

// The slots that are tried share what they may take.
TEST_F(LuksTest, NorDoManySlotsTogetherTakeForEver) {
  crypto::LuksHeader header;
  header.key_bytes = 64;  // two rounds of SHA-256 an iteration
  header.digest_iterations = 1;
  for (auto& slot : header.slots) slot.iterations = crypto::kMaxUnlockRounds / 2 / 4;
  crypto::UnlockBudget budget;
  for (size_t slot = 0; slot < 3; ++slot) EXPECT_TRUE(budget.take(header, slot).has_value());
  EXPECT_EQ(budget.take(header, 3).error().code(), ERANGE);
}

TEST_F(LuksTest, NoSlotIsMadeThatCouldNotBeOpened) {
  EXPECT_THAT(create("a", "size=1M,key-secret=first,iter-time=100000000"),
              testing::HasSubstr("larger than 536870912"));
  EXPECT_FALSE(std::filesystem::exists(path("a")));
}

TEST_F(LuksTest, SlotsAreFilledAndErased) {
  ASSERT_EQ(create("a", "size=1M,key-secret=first"), "");
  const std::string file = "file.filename=" + path("a");
  auto backend = open("key-secret=first," + file);
  ASSERT_TRUE(backend);
  EXPECT_EQ(amend(**backend, "state=inactive,keyslot=0"),
            "Attempt to erase the only active keyslot 0 which will erase all the data in the image "
            "irreversibly - refusing operation");
  EXPECT_EQ(amend(**backend, "state=active,new-secret=second,keyslot=6,iter-time=1"), "");
  EXPECT_EQ(amend(**backend, "state=active,new-secret=second,keyslot=6"),
            "Refusing to overwrite active keyslot 6 - please erase it first");
  EXPECT_EQ(open_error("key-secret=second," + file), "");
  EXPECT_EQ(amend(**backend, "state=inactive,old-secret=first"), "");
  EXPECT_EQ(open_error("key-secret=first," + file),
            "Could not open 'it': Invalid password, cannot unlock any keyslot");
  EXPECT_EQ(amend(**backend, "state=inactive,old-secret=first"),
            "No keyslots match given (old) password for erase operation");
  EXPECT_EQ(amend(**backend, "state=inactive,old-secret=second"),
            "All the active keyslots match the (old) password that was given and erasing them will "
            "erase all the data in the image irreversibly - refusing operation");
  EXPECT_EQ(amend(**backend, "state=inactive,old-secret=second", /*force=*/true), "");
  EXPECT_TRUE(run((*backend)->close()));
  EXPECT_EQ(open_error("key-secret=second," + file),
            "Could not open 'it': Invalid password, cannot unlock any keyslot");
}

TEST_F(LuksTest, AHeaderOfItsOwn) {
  ASSERT_EQ(create("header", "detached-header=on,key-secret=first"), "");
  ASSERT_TRUE(run(graph_.create({.filename = path("payload"),
                                 .format = "raw",
                                 .options = *base::Options::from_key_values("size=1M")})));
  EXPECT_EQ(open_error("key-secret=first,file.filename=" + path("header")),
            "Could not open 'it': This LUKS header is for a payload in a file of its own: open "
            "that, and name this one as its 'header'");
  const std::string both =
      "key-secret=first,file.filename=" + path("payload") + ",header.filename=" + path("header");
  auto backend = open(both);
  ASSERT_TRUE(backend) << backend.error().message();
  EXPECT_EQ((*backend)->size(), 1u << 20);
  auto data = pattern(100000);
  const auto before = data;
  ASSERT_TRUE(run((*backend)->write(0, io::BufferList(data))));
  EXPECT_EQ(amend(**backend, "state=active,new-secret=second,iter-time=1"), "");
  ASSERT_TRUE(run((*backend)->close()));
  backend = open("key-secret=second,file.filename=" + path("payload") +
                 ",header.filename=" + path("header"));
  ASSERT_TRUE(backend) << backend.error().message();
  std::vector<uint8_t> back(data.size());
  ASSERT_TRUE(run((*backend)->read(0, io::BufferList(back))));
  EXPECT_EQ(back, before);
  ASSERT_TRUE(run((*backend)->close()));
}

}  // namespace
}  // namespace platter::format::luks
