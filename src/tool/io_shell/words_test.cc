#include "tool/io_shell/words.h"

#include <gtest/gtest.h>

namespace platter::tool::io_shell {
namespace {

using Strings = std::vector<std::string>;

TEST(ShellWords, AreCutAtBlanksAlone) {
  EXPECT_EQ(split_words("  read  -v 0\t1 '2' "), (Strings{"read", "-v", "0\t1", "'2'"}));
  EXPECT_EQ(split_words("   "), Strings{});
}

TEST(ShellWords, OptionsStandAnywhereAndShareAWord) {
  auto words = Words::parse({"read", "0", "-qP7", "512", "-s", "1", "--", "-x"}, "qP:s:");
  ASSERT_TRUE(words);
  EXPECT_TRUE(words->has('q'));
  EXPECT_EQ(words->value('P'), "7");
  EXPECT_EQ(words->value('s'), "1");
  EXPECT_FALSE(words->has('x'));
  EXPECT_EQ(words->operands(), (Strings{"0", "512", "-x"}));
  EXPECT_EQ(Words::parse({"open", "-o", "a", "-o", "b"}, "o:")->values('o'), (Strings{"a", "b"}));
}

TEST(ShellWords, AnUnknownOptionAndAMissingValueAreNamed) {
  EXPECT_EQ(Words::parse({"read", "-vZ"}, "v").error().message(), "read: invalid option -- 'Z'");
  EXPECT_EQ(Words::parse({"r", "0", "-P"}, "P:").error().message(),
            "r: option requires an argument -- 'P'");
  EXPECT_EQ(Words::parse({"r", "-:"}, "P:").error().message(), "r: invalid option -- ':'");
}

}  // namespace
}  // namespace platter::tool::io_shell
