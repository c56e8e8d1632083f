#include "io/request_times.h"

#include <gtest/gtest.h>

#include "io/async_mutex.h"
#include "io/file_io.h"
#include "io/reactor_group.h"
#include "io/when_all.h"
#include "support/scratch_directory.h"

namespace platter::io {
namespace {

using namespace std::chrono_literals;

TEST(RequestTimes, TakesWhatOverlapsOnce) {
  RequestTimes times;
  times.file_begins(10ns);
  times.file_begins(20ns);
  times.file_ends(30ns);
  times.file_ends(50ns);
  times.file_begins(60ns);
  times.file_ends(61ns);
  EXPECT_EQ(times.in_files, 41ns);
}

Task<RequestTimes*> ask() { co_return co_await request_times(); }

Task<RequestTimes*> ask_after_a_wait(AsyncMutex& mutex) {
  auto lock = co_await mutex.lock();
  co_await Reactor::current()->yield();
  co_return co_await ask();
}

Task<void> inherit() {
  RequestTimes times;
  EXPECT_EQ(co_await ask(), nullptr);
  co_await measure_here(times);
  EXPECT_EQ(co_await ask(), &times);
  AsyncMutex mutex;
  auto [first, second] = co_await when_all(ask_after_a_wait(mutex), ask_after_a_wait(mutex));
  EXPECT_EQ(first, &times);
  EXPECT_EQ(second, &times);
}

TEST(RequestTimes, AreThoseOfWhoAwaits) {
  auto reactors = *ReactorGroup::start({});
  run_blocking(reactors->at(0), inherit());
}

Task<void> write_and_measure(File& file) {
  RequestTimes times;
  AlignedBuffer data(4096);
  data.view().fill_zero();
  EXPECT_TRUE(co_await write_full(file, 0, data.view(), {}, false));
  co_await measure_here(times);
  EXPECT_EQ(times.in_files, 0ns);
  EXPECT_TRUE(co_await write_full(file, 0, data.view(), {}, false));
  EXPECT_GT(times.in_files, 0ns);
}

TEST(RequestTimes, HaveWhatFilesTake) {
  const support::ScratchDirectory scratch;
  auto reactors = *ReactorGroup::start({});
  auto file = *system_files().open(scratch.path("a"), {.write = true, .create = true});
  run_blocking(reactors->at(0), write_and_measure(*file));
}

}  // namespace
}  // namespace platter::io
