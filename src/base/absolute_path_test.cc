#include "base/absolute_path.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>

namespace platter::base {
namespace {

TEST(AbsolutePath, StartsFromTheCurrentDirectory) {
  const std::string here = std::filesystem::current_path();
  EXPECT_EQ(absolute_path("no/where").value(), here + "/no/where");
  EXPECT_EQ(absolute_path("/no/where").value(), "/no/where");
  EXPECT_EQ(absolute_path("").error().code(), EINVAL);
}

}  // namespace
}  // namespace platter::base
