// The library as an embedder uses it.

#include "platter/image.h"

#include <gtest/gtest.h>

#include <atomic>
#include <semaphore>
#include <vector>

#include "platter/runtime.h"
#include "support/scratch_directory.h"

namespace platter {
namespace {

class ImageTest : public testing::TestWithParam<Engine> {
 protected:
  void SetUp() override {
    auto runtime = Runtime::create({.reactors = 2, .engine = GetParam(), .log = {}});
    ASSERT_TRUE(runtime) << runtime.error().message();
    runtime_ = std::move(*runtime);
  }
  std::string path(const std::string& name) const { return scratch_.path(name); }

  support::ScratchDirectory scratch_;
  std::unique_ptr<Runtime> runtime_;
};

TEST_P(ImageTest, IsCreatedWrittenReadMeasuredResizedAndClosed) {
  ASSERT_TRUE(Image::create(
      *runtime_, {.filename = path("a"), .format = "raw", .size = 1 << 20, .options = {}}));
  ImageOpenOptions how;
  how.filename = path("a");
  how.format = "raw";
  how.writable = how.unmap = true;
  auto opened = Image::open(*runtime_, how);
  ASSERT_TRUE(opened) << opened.error().message();
  Image& image = **opened;
  EXPECT_EQ(image.size(), 1u << 20);
  const std::vector<uint8_t> data(65536, 0xc3);
  std::vector<uint8_t> back(65536);
  EXPECT_TRUE(image.write(131072, data, {.durable = true}));
  EXPECT_TRUE(image.read(131072, back));
  EXPECT_EQ(back, data);
  auto hole = image.status(0, 1 << 20);
  ASSERT_TRUE(hole);
  EXPECT_TRUE(hole->zero);
  EXPECT_EQ(hole->length, 131072u);
  auto stored = image.status(131072, 1 << 20);
  ASSERT_TRUE(stored);
  EXPECT_TRUE(stored->data);
  EXPECT_EQ(stored->host_offset, 131072u);
  EXPECT_TRUE(image.zero(131072, 4096, {.may_unmap = true}));
  EXPECT_TRUE(image.discard(196608, 4096));
  EXPECT_TRUE(image.flush());
  EXPECT_TRUE(image.resize(2 << 20));
  auto info = image.info();
  ASSERT_TRUE(info);
  EXPECT_EQ(info->size, 2u << 20);
  EXPECT_EQ(info->format, "raw");
  auto outside = image.read(2 << 20, back);
  ASSERT_FALSE(outside);
  EXPECT_EQ(outside.error().code(), EIO);
  auto second = Image::open(*runtime_, how);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message(),
            "Could not open '" + path("a") + "': Failed to get \"write\" lock");
  EXPECT_TRUE(image.close());
}

TEST_P(ImageTest, CompletesManyRequestsAtOnce) {
  auto opened = Image::open(*runtime_, {.filename = {},
                                        .format = {},
                                        .options = "driver=memory,size=16M",
                                        .writable = true,
                                        .policy = {}});
  ASSERT_TRUE(opened) << opened.error().message();
  Image& image = **opened;
  constexpr size_t kRequests = 256, kBytes = 4096;
  struct Outcome {
    std::atomic<unsigned> good{0};
    std::counting_semaphore<kRequests> ended{0};
  } outcome;
  const Completion completion = {[](void* user, Result<void> result) {
                                   auto* all = static_cast<Outcome*>(user);
                                   if (result) all->good.fetch_add(1);
                                   all->ended.release();
                                 },
                                 &outcome};
  std::vector<uint8_t> data(kRequests * kBytes);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i / kBytes + i);
  for (size_t i = 0; i < kRequests; ++i) {
    image.write(i * kBytes, std::span(data).subspan(i * kBytes, kBytes), {}, completion);
  }
  for (size_t i = 0; i < kRequests; ++i) outcome.ended.acquire();
  EXPECT_EQ(outcome.good.load(), kRequests);
  std::vector<uint8_t> back(data.size());
  EXPECT_TRUE(image.read(0, back));
  EXPECT_EQ(back, data);
  EXPECT_TRUE(image.close());
}

TEST_P(ImageTest, OpensWhatIsEncryptedWithASecret) {
  const std::string options = "encrypt.format=luks,encrypt.key-secret=mine,encrypt.iter-time=1";
  const ImageCreateOptions how = {
      .filename = path("e"), .format = "qcow2", .size = 1 << 20, .options = options};
  auto refused = Image::create(*runtime_, how);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message(), "No secret with id 'mine'");
  const std::vector<uint8_t> passphrase = {'a', 'b', 'c'};
  runtime_->set_secret("mine", passphrase);
  ASSERT_TRUE(Image::create(*runtime_, how));
  ImageOpenOptions opening;
  opening.filename = path("e");
  opening.options = "encrypt.key-secret=mine";
  opening.writable = true;
  auto image = Image::open(*runtime_, opening);
  ASSERT_TRUE(image) << image.error().message();
  const std::vector<uint8_t> data(70000, 0x5a);
  std::vector<uint8_t> back(data.size());
  EXPECT_TRUE((*image)->write(100, data));
  EXPECT_TRUE((*image)->read(100, back));
  EXPECT_EQ(back, data);
  auto info = (*image)->info();
  ASSERT_TRUE(info);
  EXPECT_TRUE(info->encrypted);
  EXPECT_TRUE((*image)->close());
  EXPECT_TRUE(runtime_->remove_secret("mine"));
  EXPECT_FALSE(runtime_->remove_secret("mine"));
  EXPECT_FALSE(Image::open(*runtime_, opening));
}

INSTANTIATE_TEST_SUITE_P(Engines, ImageTest, testing::Values(Engine::kAuto, Engine::kThreads));

}  // namespace
}  // namespace platter
