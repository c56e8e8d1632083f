#include "filter/blkdebug/rules.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace platter::filter::blkdebug {
namespace {

using block::DebugEvent;

RuleSet rules_of(std::string_view config) {
  RuleSet rules;
  const auto parsed = parse_config(config, rules);
  EXPECT_TRUE(parsed) << parsed.error().message();
  return rules;
}

// Nobody is held: the task ends at once.
void pass(Rules& rules, DebugEvent event) {
  struct Starter {
    struct promise_type {
      Starter get_return_object() { return {}; }
      std::suspend_never initial_suspend() { return {}; }
      std::suspend_never final_suspend() noexcept { return {}; }
      void return_void() {}
      void unhandled_exception() { std::terminate(); }
    };
    static Starter run(Rules& the_rules, DebugEvent the_event, bool& ended) {
      co_await the_rules.pass(the_event);
      ended = true;
    }
  };
  bool ended = false;
  Starter::run(rules, event, ended);
  EXPECT_TRUE(ended);
}

int met(Rules& rules, Operation operation, uint64_t offset = 0, uint64_t length = 512) {
  const auto result = rules.check(operation, offset, length);
  return result ? 0 : result.error().code();
}

TEST(BlkdebugRules, AnErrorIsInForceFromItsEventOn) {
  Rules rules(rules_of("[inject-error]\nevent = \"write_aio\"\nerrno = \"28\"\n"));
  EXPECT_FALSE(rules.in_force());
  EXPECT_EQ(met(rules, Operation::kWrite), 0);
  pass(rules, DebugEvent::kReadAio);
  EXPECT_FALSE(rules.in_force());
  pass(rules, DebugEvent::kWriteAio);
  EXPECT_TRUE(rules.in_force());
  EXPECT_EQ(met(rules, Operation::kWrite), ENOSPC);
  EXPECT_EQ(met(rules, Operation::kFlush, 0, 0), ENOSPC);
  EXPECT_EQ(met(rules, Operation::kBlockStatus), 0);
}

TEST(BlkdebugRules, NoneIsInForceFromTheStartAndOnceEnds) {
  Rules rules(rules_of("[inject-error]\nevent = \"none\"\nonce = \"on\"\niotype = \"read\"\n"));
  EXPECT_TRUE(rules.in_force());
  EXPECT_EQ(met(rules, Operation::kWrite), 0);
  EXPECT_EQ(met(rules, Operation::kRead), EIO);
  EXPECT_EQ(met(rules, Operation::kRead), 0);
  EXPECT_FALSE(rules.in_force());
}

TEST(BlkdebugRules, ASectorIsMetByRequestsThatCoverIt) {
  Rules rules(rules_of("[inject-error]\nevent = \"none\"\nsector = \"2\"\n"));
  EXPECT_EQ(met(rules, Operation::kRead, 0, 1024), 0);
  EXPECT_EQ(met(rules, Operation::kRead, 0, 1025), EIO);
  EXPECT_EQ(met(rules, Operation::kRead, 1024, 1), EIO);
  EXPECT_EQ(met(rules, Operation::kRead, 1025, 4096), 0);
  EXPECT_EQ(met(rules, Operation::kFlush, 0, 0), 0);
}

TEST(BlkdebugRules, StatesOrderRules) {
  Rules rules(
      rules_of("# first the state, then the error\n"
               "[set-state]\nevent = \"l2_load\"\nstate = \"1\"\nnew_state = \"2\"\n"
               "[inject-error]\nevent = \"l2_load\"\nstate = \"2\"\n"));
  pass(rules, DebugEvent::kL2Load);
  EXPECT_EQ(met(rules, Operation::kRead), 0);
  pass(rules, DebugEvent::kL2Load);
  EXPECT_EQ(met(rules, Operation::kRead), EIO);
}

TEST(BlkdebugRules, BreakpointsAreForgottenByName) {
  Rules rules({});
  EXPECT_TRUE(rules.add_breakpoint(DebugEvent::kPwritev, "A"));
  EXPECT_FALSE(rules.is_held("A"));
  EXPECT_EQ(rules.resume("A").error().code(), ENOENT);
  EXPECT_TRUE(rules.remove_breakpoint("A"));
  EXPECT_EQ(rules.remove_breakpoint("A").error().code(), ENOENT);
  pass(rules, DebugEvent::kPwritev);
}

TEST(BlkdebugRules, WhatAConfigurationLacksIsNamed) {
  const std::pair<const char*, const char*> kCases[] = {
      {"[inject-error]\n", "Missing event name for rule"},
      {"[inject-error]\nevent = \"foo\"\n", "invalid parameter value: foo"},
      {"[inject-error]\nevent = \"none\"\niotype = \"foo\"\n", "invalid parameter value: foo"},
      {"[inject-error]\nevent = \"none\"\nfoo = \"1\"\n",
       "[inject-error] section doesn't support the option 'foo'"},
      {"[foo]\n", "There is no option group 'foo'"},
      {"event = \"none\"\n", "no group defined"},
      {"[inject-error\n", "Line 1 of the blkdebug config file: ']' is missing"},
      {"\n[set-state]\nevent none\n", "Line 3 of the blkdebug config file: '=' is missing"},
      {"[set-state]\nevent = none\n",
       "Line 2 of the blkdebug config file: a value stands in double quotes"},
      {"[set-state]\nevent = \"none\"\nnew_state = \"x\"\n",
       "Parameter 'new_state' expects a number"},
  };
  for (const auto& [config, message] : kCases) {
    RuleSet rules;
    const auto parsed = parse_config(config, rules);
    ASSERT_FALSE(parsed) << config;
    EXPECT_EQ(parsed.error().message(), message);
  }
}

}  // namespace
}  // namespace platter::filter::blkdebug
