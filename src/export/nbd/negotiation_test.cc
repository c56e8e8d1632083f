#include "export/nbd/negotiation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "export/nbd/nbd_test.h"

namespace platter::nbd::test {
namespace {

using testing::HasSubstr;

class NbdNegotiationTest : public NbdTest {
 protected:
  // The type of the one answer to an option.
  OptionReply answer_to(const Words& words) {
    Answers answers = say(words);
    const auto answer = answers.option();
    EXPECT_EQ(answers.left(), 0u);
    text_ = answer.text();
    return answer.type;
  }
  std::string text_;
};

TEST_F(NbdNegotiationTest, AClientThatSpeaksAnotherProtocolIsLeft) {
  say(Words().number(uint32_t{0}));
  EXPECT_THAT(error_, HasSubstr("fixed newstyle"));
  say(Words().number(uint32_t{7}));
  EXPECT_THAT(error_, HasSubstr("unknown client flags 0x7"));
  say(Words().hello().raw("GET / HTTP/1.1\r\n\r\n"));
  EXPECT_EQ(error_, "an option that does not begin as one");
}

TEST_F(NbdNegotiationTest, AClientMayLeaveAtAnyTime) {
  const Words all = Words()
                        .hello()
                        .option(Option::kList)
                        .option(Option::kInfo, Words::choice("disk", {Info::kName}));
  for (size_t length = 0; length < all.bytes().size(); ++length) {
    Words words;
    words.raw({reinterpret_cast<const char*>(all.bytes().data()), length});
    say(words);
    EXPECT_TRUE(error_.empty() || error_.contains("cut short") || error_.contains("middle"))
        << error_;
  }
}

TEST_F(NbdNegotiationTest, WhatComesAByteAtATimeIsTheSame) {
  const Words words = Words().hello().option(Option::kStructuredReply).go("disk");
  const size_t whole = say(words).left();
  EXPECT_EQ(say(words, 1).left(), whole);
  EXPECT_NE(whole, 0u);
}

TEST_F(NbdNegotiationTest, ExportsAreListed) {
  serve({.name = "disk", .description = "a disk"});
  Answers answers = say(Words().hello().option(Option::kList));
  const auto one = answers.option();
  EXPECT_EQ(one.type, OptionReply::kServer);
  EXPECT_EQ(one.text(), std::string("\0\0\0\4", 4) + "diska disk");
  EXPECT_EQ(answers.option().type, OptionReply::kAck);
  EXPECT_EQ(answers.left(), 0u);
}

TEST_F(NbdNegotiationTest, InfoTellsWhatGoWouldServe) {
  serve({.name = "disk", .description = "a disk", .writable = true});
  Answers answers = say(Words().hello().option(
      Option::kInfo, Words::choice("disk", {Info::kName, Info::kDescription, Info::kBlockSize})));
  EXPECT_EQ(answers.option().text(), std::string("\0\1", 2) + "disk");
  EXPECT_EQ(answers.option().text(), std::string("\0\2", 2) + "a disk");
  Answers sizes(answers.option().payload);
  EXPECT_EQ(sizes.number<uint16_t>(), 3);
  EXPECT_EQ(sizes.number<uint32_t>(), 1u);
  EXPECT_EQ(sizes.number<uint32_t>(), 4096u);
  EXPECT_EQ(sizes.number<uint32_t>(), 32u << 20);
  Answers disk(answers.option().payload);
  EXPECT_EQ(disk.number<uint16_t>(), 0);
  EXPECT_EQ(disk.number<uint64_t>(), kBytes);  // whole sectors
  EXPECT_EQ(disk.number<uint16_t>(), kHasFlags | kSendFlush | kSendFua | kSendTrim |
                                         kSendWriteZeroes | kCanMultiConnection | kSendCache |
                                         kSendFastZero);
  EXPECT_EQ(answers.option().type, OptionReply::kAck);
  EXPECT_EQ(answers.left(), 0u);
}

TEST_F(NbdNegotiationTest, WhoMustAlignRequestsHasToAskHow) {
  serve({}, "driver=blkdebug,align=4096,image.driver=memory,image.size=1048576");
  Answers answers = say(Words().hello().option(Option::kInfo, Words::choice("disk")));
  EXPECT_EQ(answers.option().type, OptionReply::kInfo);
  EXPECT_EQ(answers.option().type, OptionReply::kInfo);
  EXPECT_EQ(answers.option().type, OptionReply::kBlockSizeRequired);
  answers = say(Words().hello().option(Option::kInfo, Words::choice("disk", {Info::kBlockSize})));
  Answers sizes(answers.option().payload);
  EXPECT_EQ(sizes.number<uint16_t>(), 3);
  EXPECT_EQ(sizes.number<uint32_t>(), 4096u);
}

TEST_F(NbdNegotiationTest, WhatCannotBeIsRefusedAndTheClientAsksAgain) {
  auto one = [](Option option, const Words& data = {}) {
    return Words().hello().option(option, data);
  };
  EXPECT_EQ(answer_to(one(static_cast<Option>(77))), OptionReply::kUnsupported);
  EXPECT_EQ(answer_to(one(Option::kStartTls)), OptionReply::kPolicy);
  EXPECT_EQ(answer_to(one(Option::kList, Words().raw("x"))), OptionReply::kInvalid);
  EXPECT_EQ(answer_to(one(Option::kGo, Words().raw("xyz"))), OptionReply::kInvalid);
  EXPECT_EQ(answer_to(one(Option::kGo, Words().text("disk").number(uint16_t{2}))),
            OptionReply::kInvalid);
  EXPECT_EQ(answer_to(one(Option::kGo, Words().number(uint32_t{0xffffffff}).raw("disk"))),
            OptionReply::kInvalid);
  EXPECT_EQ(answer_to(one(Option::kGo, Words::choice("other"))), OptionReply::kUnknown);
  EXPECT_EQ(text_, "export 'other' not present");
  EXPECT_EQ(answer_to(one(Option::kGo, Words().raw(std::string(70000, 'x')))),
            OptionReply::kTooBig);
  EXPECT_EQ(answer_to(one(Option::kSetMetaContext, Words::query("disk", {}))),
            OptionReply::kInvalid);
  Answers answers = say(one(Option::kGo, Words::choice("other")).go("disk"));
  EXPECT_EQ(answers.option().type, OptionReply::kUnknown);
  answers.skip_to_ack(Option::kGo);
}

TEST_F(NbdNegotiationTest, AnOptionOfGigabytesIsNotEvenSkipped) {
  say(Words().hello().number(kOptionMagic).number(uint32_t{7}).number(uint32_t{0xffffffff}));
  EXPECT_EQ(error_, "an option of 4294967295 bytes");
}

TEST_F(NbdNegotiationTest, TheOldWayToChooseCannotBeRefused) {
  Answers answers =
      say(Words().hello(kFixedNewstyle).option(Option::kExportName, Words().raw("disk")));
  EXPECT_EQ(answers.number<uint64_t>(), kBytes);
  EXPECT_NE(answers.number<uint16_t>(), 0);
  EXPECT_EQ(answers.take(124), Bytes(124));
  EXPECT_EQ(answers.left(), 0u);
  answers = say(Words().hello().option(Option::kExportName, Words().raw("disk")));
  EXPECT_EQ(answers.left(), 10u);  // without the zeroes
  say(Words().hello().option(Option::kExportName, Words().raw("other")));
  EXPECT_EQ(error_, "the client asks for an export that is not here");
}

TEST_F(NbdNegotiationTest, FramingIsAgreedOnOnceAndGoesUp) {
  Answers answers = say(Words()
                            .hello()
                            .option(Option::kStructuredReply)
                            .option(Option::kStructuredReply)
                            .option(Option::kExtendedHeaders)
                            .option(Option::kStructuredReply)
                            .option(Option::kExtendedHeaders));
  EXPECT_EQ(answers.option().type, OptionReply::kAck);
  EXPECT_EQ(answers.option().type, OptionReply::kInvalid);
  EXPECT_EQ(answers.option().type, OptionReply::kAck);
  EXPECT_EQ(answers.option().type, OptionReply::kExtendedHeadersRequired);
  EXPECT_EQ(answers.option().type, OptionReply::kInvalid);
}

std::vector<std::string> contexts_in(Answers& answers) {
  std::vector<std::string> names;
  for (;;) {
    const auto answer = answers.option();
    if (answer.type != OptionReply::kMetaContext) {
      EXPECT_EQ(answer.type, OptionReply::kAck);
      return names;
    }
    names.push_back(answer.text().substr(4));
  }
}

TEST_F(NbdNegotiationTest, MetadataContextsAreListedBySpacesAndSetByNames) {
  serve({.name = "disk",
         .writable = true,
         .allocation_depth = true,
         .bitmaps = {{"b", *block::DirtyBitmap::create("b", kBytes, 65536)}}});
  auto asked = [&](Option option, std::initializer_list<std::string_view> queries) {
    Answers answers = say(Words()
                              .hello()
                              .option(Option::kStructuredReply)
                              .option(option, Words::query("disk", queries)));
    answers.skip_to_ack(Option::kStructuredReply);
    return contexts_in(answers);
  };
  using Names = std::vector<std::string>;
  const Names all = {"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b"};
  EXPECT_EQ(asked(Option::kListMetaContext, {}), all);
  EXPECT_EQ(asked(Option::kListMetaContext, {"base:"}), Names{all[0]});
  EXPECT_EQ(asked(Option::kListMetaContext, {"qemu:"}), (Names{all[1], all[2]}));
  EXPECT_EQ(asked(Option::kListMetaContext, {"qemu:dirty-bitmap:"}), Names{all[2]});
  EXPECT_EQ(asked(Option::kListMetaContext, {"qemu:dirty-bitmap:c", "other:"}), Names{});
  EXPECT_EQ(asked(Option::kSetMetaContext, {"base:allocation", "qemu:dirty-bitmap:b"}),
            (Names{all[0], all[2]}));
  EXPECT_EQ(asked(Option::kSetMetaContext, {"qemu:"}), Names{});
  EXPECT_EQ(asked(Option::kSetMetaContext, {}), Names{});
}

TEST_F(NbdNegotiationTest, AQueryThatCountsWrongIsRefused) {
  for (const uint32_t count : {0u, 2u, 0xffffffffu}) {
    Words data = Words().text("disk").number(count).text("base:allocation");
    Answers answers =
        say(Words().hello().option(Option::kStructuredReply).option(Option::kSetMetaContext, data));
    answers.skip_to_ack(Option::kStructuredReply);
    EXPECT_EQ(answers.option().type, OptionReply::kInvalid) << count;
  }
}

// ---- TLS

TEST_F(NbdNegotiationTest, WithTlsNothingIsSaidBeforeIt) {
  const Words later = Words().option(Option::kList).option(Option::kStartTls).go("disk");
  ScriptedStream tls(later.bytes());
  host_.tls = &tls;
  Answers answers = say(Words()
                            .hello()
                            .option(Option::kList)
                            .option(Option::kStructuredReply)
                            .option(Option::kStartTls));
  EXPECT_EQ(answers.option().type, OptionReply::kTlsRequired);
  EXPECT_EQ(answers.option().type, OptionReply::kTlsRequired);
  EXPECT_EQ(answers.option().type, OptionReply::kAck);
  EXPECT_EQ(answers.left(), 0u);
  EXPECT_EQ(error_, "");
  Answers secured(tls.heard);
  EXPECT_EQ(secured.option().type, OptionReply::kServer);
  EXPECT_EQ(secured.option().type, OptionReply::kAck);
  EXPECT_EQ(secured.option().type, OptionReply::kInvalid);
  secured.skip_to_ack(Option::kGo);
}

TEST_F(NbdNegotiationTest, WithTlsTheOldWayToChooseIsTheEnd) {
  ScriptedStream tls({});
  host_.tls = &tls;
  say(Words().hello().option(Option::kExportName, Words().raw("disk")));
  EXPECT_EQ(error_, "the client asks for an export without TLS");
}

}  // namespace
}  // namespace platter::nbd::test
