#include "platter/error.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "base/try.h"

namespace platter {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return fail(EINVAL, "odd");
  return value / 2;
}

Result<int> quarter(int value) {
  PLATTER_ASSIGN(int once, half(value));
  PLATTER_ASSIGN(int twice, half(once));
  return twice;
}

Result<void> check_even(int value) {
  PLATTER_TRY(half(value));
  return {};
}

TEST(Error, CarriesErrnoTextAndHint) {
  Error error = Error(ENOSPC, "No room").with_hint("Delete something.");
  EXPECT_EQ(error.code(), ENOSPC);
  EXPECT_EQ(error.message(), "No room");
  EXPECT_EQ(error.hint(), "Delete something.");
}

TEST(Error, FromErrnoUsesTheSystemsText) {
  EXPECT_EQ(Error::from_errno(ENOENT).message(), "No such file or directory");
  EXPECT_EQ(Error::from_errno(EIO, "read").message(), "read: Input/output error");
}

TEST(Error, ContextGoesInFront) {
  Error error = Error::from_errno(ENOENT)
                    .with_context("Could not open 'b'")
                    .with_context("Could not open 'a'");
  EXPECT_EQ(error.message(), "Could not open 'a': Could not open 'b': No such file or directory");
  EXPECT_EQ(error.code(), ENOENT);
}

TEST(Error, IsOneLineWhateverItQuotes) {
  Error error(EINVAL, "Cipher 'aes\n\x1b[2J' is not known");
  error.add_context("Could not open 'a\tb\x7f'");
  EXPECT_EQ(error.message(),
            "Could not open 'a\\x09b\\x7f': Cipher 'aes\\x0a\\x1b[2J' is not known");
}

TEST(Error, CopiesAreIndependent) {
  Error first(EINVAL, "first");
  Error second = first;
  second.add_context("second");
  EXPECT_EQ(first.message(), "first");
  EXPECT_EQ(second.message(), "second: first");
  first = second;
  EXPECT_EQ(first.message(), "second: first");
}

TEST(Try, HandsErrorsUpAndValuesOn) {
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(6).error().message(), "odd");
  EXPECT_TRUE(check_even(2).has_value());
  EXPECT_EQ(check_even(3).error().code(), EINVAL);
}

}  // namespace
}  // namespace platter
