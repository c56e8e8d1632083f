#include "io/reactor.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <string>
#include <thread>

#include "base/bytes.h"
#include "io/file_io.h"
#include "io/reactor_group.h"
#include "io/sync.h"

namespace platter::io {
namespace {

using std::chrono::milliseconds;

class ReactorTest : public testing::TestWithParam<EngineKind> {
 protected:
  std::unique_ptr<ReactorGroup> start(unsigned reactors) {
    auto group = ReactorGroup::start({.reactors = reactors, .engine = GetParam()});
    EXPECT_TRUE(group.has_value()) << group.error().message();
    return std::move(*group);
  }
};

Task<int> answer() { co_return 42; }

TEST_P(ReactorTest, RunsATaskForAThread) {
  auto group = start(1);
  EXPECT_EQ(run_blocking(group->at(0), answer()), 42);
  EXPECT_EQ(run_blocking(group->at(0), Task<int>::ready(7)), 7);
}

Task<unsigned> index_here() { co_return Reactor::current()->index(); }

Task<std::vector<unsigned>> visit_all(ReactorGroup& group) {
  std::vector<unsigned> seen;
  for (unsigned i = 0; i < group.size(); ++i) {
    seen.push_back(co_await run_on(group.at(i), index_here()));
    seen.push_back(Reactor::current()->index());
  }
  co_return seen;
}

TEST_P(ReactorTest, RunOnRunsThereAndResumesHere) {
  auto group = start(3);
  auto seen = run_blocking(group->at(1), visit_all(*group));
  EXPECT_EQ(seen, (std::vector<unsigned>{0, 1, 1, 1, 2, 1}));
}

Task<uint64_t> sum_of_immediate_awaits(int count) {
  uint64_t sum = 0;
  for (int i = 0; i < count; ++i) sum += static_cast<uint64_t>(co_await answer());
  for (int i = 0; i < count; ++i) sum += static_cast<uint64_t>(co_await Task<int>::ready(1));
  co_return sum;
}

TEST_P(ReactorTest, AMillionImmediateAwaitsUseNoStack) {
  auto group = start(1);
  EXPECT_EQ(run_blocking(group->at(0), sum_of_immediate_awaits(1'000'000)), 43'000'000u);
}

Task<int> nested(int depth) {
  if (depth == 0) {
    co_await Reactor::current()->yield();
    co_return 0;
  }
  co_return 1 + co_await nested(depth - 1);
}

TEST_P(ReactorTest, AChainOfNestedTasksUsesNoStack) {
  auto group = start(1);
  EXPECT_EQ(run_blocking(group->at(0), nested(100'000)), 100'000);
}

Task<void> note_at(Nanoseconds deadline, std::string& log, char mark) {
  co_await Reactor::current()->sleep_until(deadline);
  log += mark;
}

// How long it took.
Task<Nanoseconds> three_sleepers(std::string& log) {
  Nanoseconds start = Reactor::current()->now();
  std::vector<Task<void>> tasks;
  tasks.push_back(note_at(start + milliseconds(30), log, 'c'));
  tasks.push_back(note_at(start + milliseconds(1), log, 'a'));
  tasks.push_back(note_at(start + milliseconds(15), log, 'b'));
  co_await when_all(std::move(tasks));
  co_return Reactor::current()->now() - start;
}

TEST_P(ReactorTest, TimersExpireInOrderOfTheirDeadlines) {
  auto group = start(1);
  std::string log;
  const Nanoseconds taken = run_blocking(group->at(0), three_sleepers(log));
  EXPECT_EQ(log, "abc");
  EXPECT_GE(taken, milliseconds(30));
}

Task<std::thread::id> worker_thread_id() {
  co_return co_await Reactor::current()->call([] { return std::this_thread::get_id(); });
}
Task<bool> calls_return_to_the_same_thread() {
  auto before = std::this_thread::get_id();
  auto worker = co_await worker_thread_id();
  co_await Reactor::current()->call([] {});
  co_return before == std::this_thread::get_id() && worker != before;
}

Task<void> look_at_the_clock(Reactor& reactor) {
  const Nanoseconds before = reactor.now();
  EXPECT_EQ(reactor.recent(), before);
  co_await reactor.sleep_for(milliseconds(1));
  EXPECT_GE(reactor.recent(), before + milliseconds(1)) << "from before the sleep";
}

TEST_P(ReactorTest, RecentIsOfThisPieceOfWork) {
  auto group = start(1);
  run_blocking(group->at(0), look_at_the_clock(group->at(0)));
}

TEST_P(ReactorTest, CallRunsOnAWorkerAndResumesHere) {
  auto group = start(1);
  EXPECT_TRUE(run_blocking(group->at(0), calls_return_to_the_same_thread()));
}

Task<void> write_then_read(File& file, IoMode mode, size_t pieces, Result<void>& end) {
  std::vector<uint8_t> out(pieces * 700), in(pieces * 700 + 100, 0xee);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<uint8_t>(i * 7 + i / 251);
  std::vector<iovec> vectors;
  for (size_t i = 0; i < pieces; ++i) vectors.push_back({out.data() + i * 700, 700});
  end = co_await write_full(file, 100, BufferList(vectors), mode, true);
  if (!end) co_return;
  end = co_await sync(file, mode);
  if (!end) co_return;
  std::vector<iovec> into;
  for (size_t i = 0; i < pieces; ++i) into.push_back({in.data() + i * 700, 700});
  into.push_back({in.data() + pieces * 700, 100});
  // A window that cuts the first piece.
  end = co_await read_full(file, 103, BufferList(into).sub(3, in.size() - 3), mode);
  if (!end) co_return;
  EXPECT_TRUE(std::equal(out.begin() + 3, out.end(), in.begin() + 3));
  EXPECT_TRUE(base::is_zero({in.data() + pieces * 700, 100}));
}

struct TemporaryFile {
  std::string path = testing::TempDir() + "platter-io-XXXXXX";
  std::unique_ptr<File> file;
  explicit TemporaryFile(OpenFlags flags = {.write = true}) {
    int fd = mkstemp(path.data());
    EXPECT_GE(fd, 0);
    close(fd);
    auto opened = system_files().open(path, flags);
    EXPECT_TRUE(opened.has_value());
    file = std::move(*opened);
  }
  ~TemporaryFile() { EXPECT_TRUE(system_files().remove(path).has_value()); }
};

TEST_P(ReactorTest, WhatIsWrittenIsReadWhateverThePieces) {
  auto group = start(1);
  for (bool use_threads : {false, true}) {
    for (size_t pieces : {1, 2, 4, 5, 100, 1500}) {
      TemporaryFile temporary;
      Result<void> end;
      run_blocking(group->at(0), write_then_read(*temporary.file, {use_threads}, pieces, end));
      EXPECT_TRUE(end.has_value()) << end.error().message();
      EXPECT_EQ(temporary.file->info()->size, 100 + pieces * 700);
    }
  }
}

Task<Result<void>> use_read_only(File& file) {
  uint8_t byte = 1;
  co_return co_await write_full(file, 0, {&byte, 1});
}

TEST_P(ReactorTest, AFailedOperationIsAnError) {
  auto group = start(1);
  TemporaryFile temporary({.write = false});
  auto end = run_blocking(group->at(0), use_read_only(*temporary.file));
  ASSERT_FALSE(end.has_value());
  EXPECT_EQ(end.error().code(), EBADF);
}

Task<Result<void>> punch_and_check(File& file) {
  std::vector<uint8_t> bytes(1 << 20, 0xaa);
  auto end = co_await write_full(file, 0, {bytes.data(), bytes.size()});
  if (!end) co_return end;
  end = co_await allocate(file, AllocateMode::kPunchHole, 65536, 65536);
  if (!end) co_return end;
  end = co_await allocate(file, AllocateMode::kZeroRange, 262144, 65536);
  if (!end) co_return end;
  end = co_await read_full(file, 0, {bytes.data(), bytes.size()});
  if (!end) co_return end;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bool zero = (i >= 65536 && i < 131072) || (i >= 262144 && i < 327680);
    if (bytes[i] != (zero ? 0 : 0xaa)) co_return std::unexpected(Error(EIO, std::to_string(i)));
  }
  co_return Result<void>();
}

TEST_P(ReactorTest, PunchedAndZeroedRangesReadAsZeroes) {
  auto group = start(1);
  TemporaryFile temporary;
  auto end = run_blocking(group->at(0), punch_and_check(*temporary.file));
  EXPECT_TRUE(end.has_value()) << end.error().message();
  auto hole = temporary.file->seek_hole(0);
  ASSERT_TRUE(hole.has_value());
  EXPECT_EQ(**hole, 65536u);
}

INSTANTIATE_TEST_SUITE_P(Engines, ReactorTest,
                         testing::Values(EngineKind::kUring, EngineKind::kThreads),
                         [](const auto& instance) {
                           return instance.param == EngineKind::kUring ? "uring" : "threads";
                         });

}  // namespace
}  // namespace platter::io
