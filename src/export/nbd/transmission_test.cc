#include "export/nbd/transmission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "export/nbd/nbd_test.h"
#include "io/random.h"

namespace platter::nbd::test {
namespace {

using testing::HasSubstr;
using Simple = Answers::Simple;

constexpr uint32_t kPermission = 1, kIo = 5, kInvalidArgument = 22, kNoSpace = 28,
                   kNotSupported = 95;

io::Task<Result<void>> break_in_transmission(ScriptedStream& stream, TestHost& host) {
  Negotiation negotiation(stream, host);
  PLATTER_CO_ASSIGN(auto agreed, co_await negotiation.run());
  stream.broken = true;
  Transmission transmission(stream, std::move(*agreed));
  co_return co_await transmission.run();
}

std::string filled(size_t size, char value) { return std::string(size, value); }

class NbdTransmissionTest : public NbdTest {
 protected:
  Bytes disk_at(uint64_t offset, size_t length) {
    Bytes bytes(length);
    EXPECT_TRUE(run(backend_->read(offset, io::BufferList(std::span(bytes)))));
    return bytes;
  }
  // An error as a structured client hears it.
  static uint32_t error_in(const Answers::ChunkAnswer& chunk) {
    EXPECT_EQ(chunk.type, Chunk::kError);
    EXPECT_TRUE(chunk.last);
    Answers body(chunk.payload);
    const auto number = body.number<uint32_t>();
    EXPECT_EQ(body.number<uint16_t>(), body.left());
    EXPECT_NE(body.left(), 0u);
    return number;
  }
  // What is between the first `skip` bytes of a chunk's payload and its end.
  static Bytes behind(const Bytes& payload, size_t skip) {
    return {payload.begin() + static_cast<ptrdiff_t>(skip), payload.end()};
  }
};

TEST_F(NbdTransmissionTest, WhatIsWrittenIsRead) {
  for (const size_t step : {size_t{1}, size_t{7}, size_t{100}, SIZE_MAX}) {
    Words words;
    words.request(Command::kWrite, 1, 4096, 1000).raw(filled(1000, 'a'));
    words.request(Command::kWrite, 2, 9999, 3, kFua).raw("xyz");
    words.request(Command::kFlush, 3, 0, 0);
    Answers answers = ask(words, Framing::kSimple, step);
    EXPECT_EQ(answers.simple(), (Simple{0, 1}));
    EXPECT_EQ(answers.simple(), (Simple{0, 2}));
    EXPECT_EQ(answers.simple(), (Simple{0, 3}));
    EXPECT_EQ(answers.left(), 0u);
    answers = ask(Words().request(Command::kRead, 4, 5095, 2), Framing::kSimple, step);
    EXPECT_EQ(answers.simple(), (Simple{0, 4}));
    EXPECT_EQ(answers.take(2), (Bytes{'a', 0}));
    EXPECT_EQ(disk_at(9999, 3), (Bytes{'x', 'y', 'z'}));
    EXPECT_EQ(error_, "");
  }
}

TEST_F(NbdTransmissionTest, APayloadLargerThanWhatIsReceivedAtOnceArrivesWhole) {
  io::Random random(1);
  std::string data(Intake::kBytes * 3 + 17, 0);
  for (char& byte : data) byte = static_cast<char>(random.next());
  for (const size_t step : {size_t{1000}, size_t{Intake::kBytes + 1}, SIZE_MAX}) {
    Words words;
    words.request(Command::kWrite, 1, 3, static_cast<uint32_t>(data.size())).raw(data);
    words.request(Command::kRead, 2, 0, 1);
    Answers answers = ask(words, Framing::kSimple, step);
    EXPECT_EQ(answers.left(), 16u + 16 + 1);
    EXPECT_EQ(disk_at(3, data.size()), Bytes(data.begin(), data.end()));
  }
}

TEST_F(NbdTransmissionTest, MoreRequestsThanMayRunAtOnceAreAllAnswered) {
  constexpr uint64_t kCount = 3 * Transmission::kMaxRequests;
  Words words;
  for (uint64_t i = 0; i < kCount; ++i) words.request(Command::kRead, i, i * 512, 512);
  Answers answers = ask(words);
  std::vector<bool> seen(kCount);
  for (uint64_t i = 0; i < kCount; ++i) {
    const Simple one = answers.simple();
    ASSERT_LT(one.cookie, kCount);
    EXPECT_FALSE(seen[one.cookie]);
    seen[one.cookie] = true;
    answers.take(512);
  }
  EXPECT_EQ(answers.left(), 0u);
}

TEST_F(NbdTransmissionTest, RequestsThatCannotBeAreRefusedAndTheNextOneIsHeard) {
  struct Case {
    Command command;
    uint64_t offset;
    uint32_t length;
    uint16_t flags;
    uint32_t error;
  };
  const Case cases[] = {
      {static_cast<Command>(99), 0, 0, 0, kInvalidArgument},
      {Command::kBlockStatus, 0, 512, 0, kInvalidArgument},  // without contexts
      {Command::kRead, kBytes - 511, 512, 0, kInvalidArgument},
      {Command::kRead, UINT64_MAX - 100, 512, 0, kInvalidArgument},
      {Command::kRead, 0, (32u << 20) + 1, 0, kInvalidArgument},
      {Command::kRead, 0, 512, kDontFragment, kInvalidArgument},  // not agreed on
      {Command::kRead, 0, 512, 0x8000, kInvalidArgument},
      {Command::kCache, kBytes, 1, 0, kInvalidArgument},
      {Command::kTrim, 0, 0xffffffff, 0, kInvalidArgument},
      {Command::kWriteZeroes, kBytes, 512, 0, kNoSpace},
      {Command::kWriteZeroes, 0, 512, kRequestOne, kInvalidArgument},
      {Command::kWrite, kBytes, 600, 0, kNoSpace},
      {Command::kWrite, 0, 600, kNoHole, kInvalidArgument},
      {Command::kWrite, 0, (32u << 20) + 1, 0, kInvalidArgument},
  };
  for (const Case& one : cases) {
    Words words;
    words.request(one.command, 7, one.offset, one.length, one.flags);
    if (one.command == Command::kWrite) words.raw(filled(one.length, 'z'));
    words.request(Command::kFlush, 8, 0, 0);
    Answers answers = ask(words);
    EXPECT_EQ(answers.simple(), (Simple{one.error, 7}));
    EXPECT_EQ(answers.simple(), (Simple{0, 8}));
    EXPECT_EQ(answers.left(), 0u);
  }
  EXPECT_EQ(disk_at(0, 512), Bytes(512));
}

TEST_F(NbdTransmissionTest, NothingIsStillSomething) {
  Words words;
  for (const Command command :
       {Command::kRead, Command::kWrite, Command::kTrim, Command::kCache, Command::kWriteZeroes})
    words.request(command, 1, kBytes, 0);
  Answers answers = ask(words);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(answers.simple(), (Simple{0, 1}));
  answers = ask(words, Framing::kStructured);
  const auto read = answers.chunk();
  EXPECT_EQ(read.type, Chunk::kNone);
  EXPECT_TRUE(read.last);
}

TEST_F(NbdTransmissionTest, AnExportForReadingIsNotWritten) {
  serve({});
  Words words;
  words.request(Command::kWrite, 1, 0, 4).raw("abcd");
  words.request(Command::kWriteZeroes, 2, 0, 4);
  words.request(Command::kTrim, 3, 0, 4);
  Answers answers = ask(words);
  for (uint64_t cookie = 1; cookie <= 3; ++cookie)
    EXPECT_EQ(answers.simple(), (Simple{kPermission, cookie}));
  EXPECT_EQ(disk_at(0, 4), Bytes(4));
}

TEST_F(NbdTransmissionTest, WhatIsNoRequestEndsTheConnectionAndWhatWasAskedBeforeIsAnswered) {
  Words words;
  words.request(Command::kWrite, 1, 0, 4).raw("abcd").raw(filled(28, 0));
  Answers answers = ask(words);
  EXPECT_EQ(answers.simple(), (Simple{0, 1}));
  EXPECT_EQ(error_, "a request that begins with 0x00000000");
  EXPECT_EQ(disk_at(0, 4), (Bytes{'a', 'b', 'c', 'd'}));
}

TEST_F(NbdTransmissionTest, AWriteThatIsCutShortIsNotBegun) {
  ask(Words().request(Command::kWrite, 1, 0, 100000).raw(filled(99999, 'a')));
  EXPECT_EQ(error_, "a request that is cut short");
  EXPECT_EQ(disk_at(0, 512), Bytes(512));
}

TEST_F(NbdTransmissionTest, NothingBehindADisconnectIsLookedAt) {
  Words words;
  words.request(Command::kDisconnect, 1, 0, 0).request(Command::kWrite, 2, 0, 1).raw("x");
  EXPECT_EQ(ask(words).left(), 0u);
  EXPECT_EQ(error_, "");
  EXPECT_EQ(disk_at(0, 1), Bytes(1));
}

TEST_F(NbdTransmissionTest, AClientThatTakesNoRepliesEndsAsSoonAsOneIsToBeSent) {
  Words words = Words().hello().go("disk");
  for (int i = 0; i < 1000; ++i) words.request(Command::kRead, 1, 0, 4096);
  ScriptedStream stream(words.bytes(), 4096);
  auto ended = run(break_in_transmission(stream, host_));
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code(), EPIPE);
}

TEST_F(NbdTransmissionTest, ZeroesAndTrimsReachTheDisk) {
  ask(Words().request(Command::kWrite, 1, 0, 65536).raw(filled(65536, 'a')));
  Words words;
  words.request(Command::kWriteZeroes, 1, 512, 1024, kFua);
  words.request(Command::kWriteZeroes, 2, 2048, 512, kNoHole);
  words.request(Command::kTrim, 3, 4096, 4096, kFua);
  words.request(Command::kCache, 4, 0, 65536);
  Answers answers = ask(words);
  for (uint64_t cookie = 1; cookie <= 4; ++cookie) EXPECT_EQ(answers.simple().error, 0u);
  EXPECT_EQ(disk_at(512, 1024), Bytes(1024));
  EXPECT_EQ(disk_at(2048, 512), Bytes(512));
  EXPECT_EQ(disk_at(0, 512), Bytes(512, 'a'));
}

TEST_F(NbdTransmissionTest, ErrorsOfTheDiskReachTheClient) {
  serve({.writable = true},
        "driver=blkdebug,image.driver=memory,image.size=1048576,"
        "inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno=28,"
        "inject-error.1.event=none,inject-error.1.iotype=read,inject-error.1.errno=5");
  Words words;
  words.request(Command::kWrite, 1, 0, 512).raw(filled(512, 'a'));
  Answers answers = ask(words);
  EXPECT_EQ(answers.simple(), (Simple{kNoSpace, 1}));
  answers = ask(Words().request(Command::kRead, 2, 0, 512));
  EXPECT_EQ(answers.simple(), (Simple{kIo, 2}));
  EXPECT_EQ(answers.left(), 0u);
  answers = ask(Words().request(Command::kRead, 2, 0, 512), Framing::kStructured);
  EXPECT_EQ(error_in(answers.chunk()), kIo);
  answers = ask(Words().request(Command::kRead, 2, 0, 524288, kDontFragment), Framing::kStructured);
  EXPECT_EQ(error_in(answers.chunk()), kIo);
  EXPECT_EQ(answers.left(), 0u);
}

TEST_F(NbdTransmissionTest, AFastZeroThatWouldNotBeFastIsRefused) {
  serve({.writable = true},
        "driver=blkdebug,image.driver=memory,image.size=1048576,max-write-zero=512,opt-write-zero="
        "512");
  Answers answers = ask(Words()
                            .request(Command::kWriteZeroes, 1, 100, 200, kFastZero)
                            .request(Command::kWriteZeroes, 2, 100, 200));
  const Simple fast = answers.simple();
  EXPECT_TRUE(fast.error == 0 || fast.error == kNotSupported) << fast.error;
  EXPECT_EQ(answers.simple(), (Simple{0, 2}));
}

// ---- Structured replies

TEST_F(NbdTransmissionTest, AStructuredReadIsOneChunkAndErrorsComeWithWords) {
  ask(Words().request(Command::kWrite, 1, 0, 4).raw("abcd"));
  Words words;
  words.request(Command::kRead, 1, 1, 2).request(Command::kRead, 2, kBytes, 1);
  words.request(Command::kFlush, 3, 0, 0);
  Answers answers = ask(words, Framing::kStructured);
  const auto read = answers.chunk();
  EXPECT_EQ(read.type, Chunk::kOffsetData);
  EXPECT_EQ(read.cookie, 1u);
  EXPECT_TRUE(read.last);
  EXPECT_EQ(read.payload, (Bytes{0, 0, 0, 0, 0, 0, 0, 1, 'b', 'c'}));
  EXPECT_EQ(error_in(answers.chunk()), kInvalidArgument);
  EXPECT_EQ(answers.simple(), (Simple{0, 3}));
  EXPECT_EQ(answers.left(), 0u);
}

TEST_F(NbdTransmissionTest, ALongReadLeavesOutHolesUnlessItMayNotBeFragmented) {
  constexpr uint32_t kLength = 512 << 10, kAt = 128 << 10;
  ask(Words().request(Command::kWrite, 1, kAt, 65536).raw(filled(65536, 'q')));
  Bytes expected(kLength);
  std::fill_n(expected.begin() + kAt, 65536, 'q');
  Answers answers = ask(Words().request(Command::kRead, 9, 0, kLength), Framing::kStructured);
  Bytes got(kLength, 'x');
  size_t holes = 0;
  for (bool last = false; !last;) {
    const auto chunk = answers.chunk();
    last = chunk.last;
    Answers body(chunk.payload);
    const auto offset = body.number<uint64_t>();
    if (chunk.type == Chunk::kOffsetHole) {
      ++holes;
      const auto length = body.number<uint32_t>();
      ASSERT_LE(offset + length, kLength);
      std::fill_n(got.begin() + static_cast<ptrdiff_t>(offset), length, uint8_t{0});
    } else {
      ASSERT_EQ(chunk.type, Chunk::kOffsetData);
      ASSERT_LE(offset + body.left(), kLength);
      const Bytes data = body.take(body.left());
      std::ranges::copy(data, got.begin() + static_cast<ptrdiff_t>(offset));
    }
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_EQ(got, expected);
  EXPECT_EQ(holes, 2u);
  answers =
      ask(Words().request(Command::kRead, 9, 0, kLength, kDontFragment), Framing::kStructured);
  const auto whole = answers.chunk();
  EXPECT_EQ(whole.type, Chunk::kOffsetData);
  EXPECT_TRUE(whole.last);
  EXPECT_EQ(behind(whole.payload, 8), expected);
}

// ---- Extents

std::vector<Extent> extents_in(const Bytes& payload, uint32_t context, bool extended) {
  Answers body(payload);
  EXPECT_EQ(body.number<uint32_t>(), context);
  const size_t each = extended ? 16 : 8;
  if (extended) EXPECT_EQ(body.number<uint32_t>(), body.left() / each);
  std::vector<Extent> extents;
  while (body.left() >= each) {
    const uint64_t length = extended ? body.number<uint64_t>() : body.number<uint32_t>();
    const auto flags =
        extended ? static_cast<uint32_t>(body.number<uint64_t>()) : body.number<uint32_t>();
    extents.push_back({length, flags});
  }
  EXPECT_EQ(body.left(), 0u);
  return extents;
}

TEST_F(NbdTransmissionTest, AllocationIsToldInExtents) {
  constexpr uint32_t kHole = kStatusHole | kStatusZero;
  ask(Words().request(Command::kWrite, 1, 131072, 65536).raw(filled(65536, 'q')));
  Words words;
  words.request(Command::kBlockStatus, 1, 65536, 262144);
  words.request(Command::kBlockStatus, 2, 65536, 262144, kRequestOne);
  words.request(Command::kBlockStatus, 3, 131072, 1);
  words.request(Command::kBlockStatus, 4, kBytes - 1, 2);
  words.request(Command::kBlockStatus, 5, 0, 0);
  Answers answers = ask(words, Framing::kStructured, SIZE_MAX, {"base:allocation"});
  using Extents = std::vector<Extent>;
  const auto all = answers.chunk();
  EXPECT_EQ(all.type, Chunk::kBlockStatus);
  EXPECT_TRUE(all.last);
  EXPECT_EQ(extents_in(all.payload, 0, false),
            (Extents{{65536, kHole}, {65536, 0}, {131072, kHole}}));
  EXPECT_EQ(extents_in(answers.chunk().payload, 0, false), (Extents{{65536, kHole}}));
  EXPECT_EQ(extents_in(answers.chunk().payload, 0, false), (Extents{{1, 0}}));
  EXPECT_EQ(error_in(answers.chunk()), kInvalidArgument);
  EXPECT_EQ(error_in(answers.chunk()), kInvalidArgument);
}

TEST_F(NbdTransmissionTest, ABitmapIsToldBesideTheAllocation) {
  auto bits = *block::DirtyBitmap::create("b", kBytes, 65536);
  bits->mark(65536, 1);
  serve({.writable = true, .bitmaps = {{"b", bits}}});
  Answers answers = ask(Words().request(Command::kBlockStatus, 1, 1000, 200000),
                        Framing::kStructured, SIZE_MAX, {"base:allocation", "qemu:dirty-bitmap:b"});
  const auto first = answers.chunk();
  EXPECT_FALSE(first.last);
  EXPECT_EQ(extents_in(first.payload, 0, false),
            (std::vector<Extent>{{200000, kStatusHole | kStatusZero}}));
  const auto second = answers.chunk();
  EXPECT_TRUE(second.last);
  EXPECT_EQ(extents_in(second.payload, 1, false),
            (std::vector<Extent>{{64536, 0}, {65536, kStatusDirty}, {69928, 0}}));
}

// ---- Extended headers

TEST_F(NbdTransmissionTest, ExtendedHeadersFrameEverything) {
  Words words;
  words.extended_request(Command::kWrite, 1, 0, 4, kPayloadLength).raw("abcd");
  words.extended_request(Command::kRead, 2, 1, 2);
  words.extended_request(Command::kFlush, 3, 0, 0);
  words.extended_request(Command::kWrite, 4, 0, 4).raw("efgh");  // does not say so
  words.extended_request(Command::kRead, 5, 0, uint64_t{1} << 40);
  Answers answers = ask(words, Framing::kExtended);
  EXPECT_EQ(answers.extended_chunk(0).type, Chunk::kNone);
  const auto read = answers.extended_chunk(1);
  EXPECT_EQ(read.cookie, 2u);
  EXPECT_EQ(behind(read.payload, 8), (Bytes{'b', 'c'}));
  EXPECT_EQ(answers.extended_chunk(0).type, Chunk::kNone);
  EXPECT_EQ(error_in(answers.extended_chunk(0)), kInvalidArgument);
  EXPECT_EQ(error_in(answers.extended_chunk(0)), kInvalidArgument);
  EXPECT_EQ(answers.left(), 0u);
}

TEST_F(NbdTransmissionTest, AClientMayChooseAmongItsContextsForOneRequest) {
  auto bits = *block::DirtyBitmap::create("b", kBytes, 65536);
  serve({.writable = true, .bitmaps = {{"b", bits}}});
  auto choose = [](Words& words, uint64_t cookie, std::initializer_list<uint32_t> ids) -> Words& {
    words.extended_request(Command::kBlockStatus, cookie, 0, 8 + 4 * ids.size(), kPayloadLength);
    words.number(uint64_t{65536});
    for (const uint32_t id : ids) words.number(id);
    return words;
  };
  Words words;
  choose(words, 1, {1});
  choose(words, 2, {});
  choose(words, 3, {0, 0});
  choose(words, 4, {7});
  words.extended_request(Command::kBlockStatus, 5, 0, 9, kPayloadLength).raw(filled(9, 0));
  words.extended_request(Command::kBlockStatus, 6, 0, 100000, kPayloadLength)
      .raw(filled(100000, 0));
  words.extended_request(Command::kFlush, 7, 0, 5, kPayloadLength).raw("12345");
  words.extended_request(Command::kBlockStatus, 8, 0, 65536);
  Answers answers =
      ask(words, Framing::kExtended, SIZE_MAX, {"base:allocation", "qemu:dirty-bitmap:b"});
  const auto chosen = answers.extended_chunk(0);
  EXPECT_EQ(chosen.type, Chunk::kBlockStatusExtended);
  EXPECT_TRUE(chosen.last);
  EXPECT_EQ(extents_in(chosen.payload, 1, true), (std::vector<Extent>{{65536, 0}}));
  for (uint64_t cookie = 2; cookie <= 7; ++cookie) {
    const auto refused = answers.extended_chunk(0);
    EXPECT_EQ(refused.cookie, cookie);
    EXPECT_EQ(error_in(refused), kInvalidArgument);
  }
  EXPECT_EQ(extents_in(answers.extended_chunk(0).payload, 0, true).size(), 1u);
  EXPECT_EQ(extents_in(answers.extended_chunk(0).payload, 1, true).size(), 1u);
  EXPECT_EQ(answers.left(), 0u);
}

TEST_F(NbdTransmissionTest, APayloadOfTerabytesEndsTheConnection) {
  ask(Words().extended_request(Command::kWrite, 1, 0, uint64_t{1} << 40, kPayloadLength),
      Framing::kExtended);
  EXPECT_THAT(error_, HasSubstr("1099511627776 bytes behind it"));
}

}  // namespace
}  // namespace platter::nbd::test
