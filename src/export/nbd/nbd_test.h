// What a server has said, taken apart: for unit tests.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "block/test_disk.h"
#include "export/nbd/test_client.h"

namespace platter::nbd::test {

class Answers {
 public:
  explicit Answers(Bytes bytes) : bytes_(std::move(bytes)) {}

  template <typename T>
  T number() {
    if (bytes_.size() - at_ < sizeof(T)) {
      ADD_FAILURE() << "the answer ends at byte " << at_;
      return 0;
    }
    const T value = base::load_big<T>(bytes_, at_);
    at_ += sizeof(T);
    return value;
  }
  Bytes take(size_t count) {
    if (bytes_.size() - at_ < count) {
      ADD_FAILURE() << "the answer ends before " << count << " more bytes";
      return Bytes(count);
    }
    Bytes taken(bytes_.begin() + static_cast<ptrdiff_t>(at_),
                bytes_.begin() + static_cast<ptrdiff_t>(at_ + count));
    at_ += count;
    return taken;
  }
  size_t left() const { return bytes_.size() - at_; }

  void greeting() {
    EXPECT_EQ(number<uint64_t>(), kServerMagic);
    EXPECT_EQ(number<uint64_t>(), kOptionMagic);
    EXPECT_EQ(number<uint16_t>(), kFixedNewstyle | kNoZeroes);
  }
  struct OptionAnswer {
    Option option;
    OptionReply type;
    Bytes payload;
    std::string text() const { return {payload.begin(), payload.end()}; }
  };
  OptionAnswer option() {
    EXPECT_EQ(number<uint64_t>(), kOptionReplyMagic);
    const auto option = static_cast<Option>(number<uint32_t>());
    const auto type = static_cast<OptionReply>(number<uint32_t>());
    return {option, type, take(number<uint32_t>())};
  }
  // Everything up to the acknowledgement.
  void skip_to_ack(Option option) {
    for (;;) {
      const OptionAnswer next = this->option();
      ASSERT_EQ(next.option, option);
      if (next.type == OptionReply::kAck) return;
      ASSERT_LT(static_cast<uint32_t>(next.type), uint32_t{1} << 31) << next.text();
      ASSERT_NE(left(), 0u);
    }
  }
  struct Simple {
    uint32_t error;
    uint64_t cookie;
    bool operator==(const Simple&) const = default;
  };
  Simple simple() {
    EXPECT_EQ(number<uint32_t>(), 0x67446698u);
    const auto error = number<uint32_t>();
    return {error, number<uint64_t>()};
  }
  struct ChunkAnswer {
    bool last;
    Chunk type;
    uint64_t cookie;
    Bytes payload;
  };
  ChunkAnswer chunk() {
    EXPECT_EQ(number<uint32_t>(), 0x668e33efu);
    const auto flags = number<uint16_t>();
    const auto type = static_cast<Chunk>(number<uint16_t>());
    const auto cookie = number<uint64_t>();
    return {flags == 1, type, cookie, take(number<uint32_t>())};
  }
  ChunkAnswer extended_chunk(uint64_t offset) {
    EXPECT_EQ(number<uint32_t>(), 0x6e8a278cu);
    const auto flags = number<uint16_t>();
    const auto type = static_cast<Chunk>(number<uint16_t>());
    const auto cookie = number<uint64_t>();
    EXPECT_EQ(number<uint64_t>(), offset);
    return {flags == 1, type, cookie, take(number<uint64_t>())};
  }

 private:
  Bytes bytes_;
  size_t at_ = 0;
};

// An export "disk" of a disk in memory, of 1 MiB and 5 bytes, and its client.
class NbdTest : public block::DiskTest {
 protected:
  static constexpr uint64_t kBytes = 1 << 20;

  void serve(ExportOptions options, std::string_view disk = "driver=memory,size=1048581") {
    served_.reset();
    host_.all.clear();
    open(disk);
    if (options.name.empty()) options.name = "disk";
    options.reactors = {&reactors_->at(0)};
    served_ = std::make_unique<Export>(*backend_, std::move(options));
    host_.all = {served_.get()};
  }
  void SetUp() override { serve({.writable = true}); }
  void TearDown() override {
    served_.reset();
    DiskTest::TearDown();
  }

  // What the server says to it all; an error ends what it says.
  Answers say(const Words& words, size_t step = SIZE_MAX) {
    ScriptedStream stream(words.bytes(), step);
    auto ended = run(converse(stream, host_));
    error_ = ended ? "" : ended.error().message();
    Answers answers(std::move(stream.heard));
    answers.greeting();
    return answers;
  }
  // In the transmission phase of "disk".
  Answers ask(const Words& requests, Framing framing = Framing::kSimple, size_t step = SIZE_MAX,
              std::initializer_list<std::string_view> contexts = {}) {
    Words words = Words().hello();
    if (framing == Framing::kStructured) words.option(Option::kStructuredReply);
    if (framing == Framing::kExtended) words.option(Option::kExtendedHeaders);
    if (contexts.size() != 0) words.option(Option::kSetMetaContext, Words::query("disk", contexts));
    words.go("disk");
    words.raw({reinterpret_cast<const char*>(requests.bytes().data()), requests.bytes().size()});
    Answers answers = say(words, step);
    if (framing == Framing::kStructured) answers.skip_to_ack(Option::kStructuredReply);
    if (framing == Framing::kExtended) answers.skip_to_ack(Option::kExtendedHeaders);
    if (contexts.size() != 0) answers.skip_to_ack(Option::kSetMetaContext);
    answers.skip_to_ack(Option::kGo);
    return answers;
  }

  TestHost host_;
  std::unique_ptr<Export> served_;
  std::string error_;
};

}  // namespace platter::nbd::test
