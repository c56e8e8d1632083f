#include "tool/events.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "base/json.h"

namespace platter::tool {
namespace {

class EventsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(pipe2(ends_, O_NONBLOCK), 0);
    ASSERT_TRUE(events_.open(ends_[1]));
  }
  void TearDown() override {
    for (const int end : ends_) {
      if (end >= 0) close(end);
    }
  }
  std::vector<base::Json> lines() {
    std::string text(size_t{1} << 20, '\0');
    const ssize_t got = read(ends_[0], text.data(), text.size());
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    std::vector<base::Json> found;
    while (!text.empty()) {
      const size_t end = text.find('\n');
      EXPECT_NE(end, text.npos);
      found.push_back(*base::Json::parse(text.substr(0, end)));
      text.erase(0, end + 1);
    }
    return found;
  }
  int ends_[2] = {-1, -1};
  EventStream events_;
};

TEST_F(EventsTest, LastProgressAlwaysComes) {
  for (uint64_t done = 0; done <= 1000; ++done) events_.progress(done, 1000);
  events_.progress(1000, 1000);
  const auto found = lines();
  ASSERT_GE(found.size(), 2u);
  EXPECT_EQ(*found.front().find("done")->get_if<uint64_t>(), 0);
  EXPECT_TRUE(std::holds_alternative<std::nullptr_t>(found.front().find("seconds-left")->value()));
  uint64_t complete = 0;
  for (const auto& line : found) complete += *line.find("done")->get_if<uint64_t>() == 1000;
  EXPECT_EQ(complete, 1u);
}

TEST_F(EventsTest, ReaderThatDoesNotKeepUpLosesProgressAlone) {
  const std::string filler(size_t{1} << 20, 'x');
  while (write(ends_[1], filler.data(), filler.size()) > 0) {
  }
  events_.progress(1, 100);  // does not wait
  std::string sink(filler.size(), '\0');
  while (read(ends_[0], sink.data(), sink.size()) > 0) {
  }
  events_.finished(3);
  const auto found = lines();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(*found[0].find("status")->get_if<uint64_t>(), 3);
}

TEST_F(EventsTest, ReaderThatWentAwayIsNoError) {
  signal(SIGPIPE, SIG_IGN);
  close(ends_[0]);
  ends_[0] = -1;
  events_.error("x");
  EXPECT_FALSE(events_.is_open());
  events_.finished(0);
}

TEST(Events, DescriptorsThatCannotBeWritten) {
  EventStream events;
  EXPECT_FALSE(events.open(12345));
  const int reading = open("/dev/null", O_RDONLY);
  EXPECT_FALSE(events.open(reading));
  close(reading);
  EXPECT_FALSE(parse_descriptor("-1"));
  EXPECT_FALSE(parse_descriptor("1x"));
  EXPECT_EQ(*parse_descriptor("7"), 7);
  events.progress(1, 2);  // goes nowhere
}

}  // namespace
}  // namespace platter::tool
