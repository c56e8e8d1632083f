#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "io/file.h"
#include "io/file_io.h"
#include "io/reactor_group.h"

namespace platter::io {
namespace {

class SystemFiles : public testing::Test {
 protected:
  SystemFiles() {
    int fd = mkstemp(path_.data());
    EXPECT_GE(fd, 0);
    close(fd);
  }
  ~SystemFiles() override { unlink(path_.c_str()); }
  std::unique_ptr<File> open(OpenFlags flags = {.write = true}) {
    auto file = files_.open(path_, flags);
    EXPECT_TRUE(file.has_value()) << file.error().message();
    return std::move(*file);
  }
  std::string path_ = testing::TempDir() + "platter-files-XXXXXX";
  FileSystem& files_ = system_files();
};

TEST_F(SystemFiles, SaysWhatAFileIs) {
  auto file = open();
  ASSERT_TRUE(file->truncate(10'000));
  auto info = file->info();
  ASSERT_TRUE(info);
  EXPECT_EQ(info->kind, FileKind::kRegular);
  EXPECT_EQ(info->size, 10'000u);
  EXPECT_EQ(info->allocated, 0u);
  struct stat status;
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(info->inode, status.st_ino);
  EXPECT_EQ(files_.info(path_)->inode, info->inode);
  EXPECT_EQ(files_.info("/dev/null")->kind, FileKind::kCharacterDevice);
  EXPECT_EQ(files_.info("/")->kind, FileKind::kOther);
}

TEST_F(SystemFiles, OpeningAndRemovingReportTheSystemsReason) {
  EXPECT_EQ(files_.open(path_ + ".missing", {}).error().code(), ENOENT);
  EXPECT_EQ(files_.open(path_, {.write = true, .create = true, .exclusive = true}).error().code(),
            EEXIST);
  EXPECT_EQ(files_.info(path_ + ".missing").error().message(), "No such file or directory");
  EXPECT_EQ(files_.remove(path_ + ".missing").error().code(), ENOENT);
}

TEST_F(SystemFiles, ADeviceKeepsItsSize) {
  auto null_device = files_.open("/dev/null", {.write = true});
  ASSERT_TRUE(null_device);
  EXPECT_EQ((*null_device)->truncate(1).error().code(), ENOTSUP);
}

TEST_F(SystemFiles, FindsDataAndHoles) {
  auto file = open();
  auto group = ReactorGroup::start({.reactors = 1});
  ASSERT_TRUE(group);
  std::vector<uint8_t> bytes(65536, 1);
  ASSERT_TRUE(
      run_blocking((*group)->at(0), write_full(*file, 1 << 20, {bytes.data(), bytes.size()})));
  ASSERT_TRUE(file->truncate(4 << 20));
  EXPECT_EQ(**file->seek_data(0), uint64_t{1} << 20);
  EXPECT_EQ(**file->seek_hole(1 << 20), (uint64_t{1} << 20) + 65536);
  EXPECT_FALSE(file->seek_data(2 << 20)->has_value());
  EXPECT_FALSE(file->seek_hole(4 << 20)->has_value());
}

TEST_F(SystemFiles, KnowsAFileThatIsInMemory) {
  auto null_device = files_.open("/dev/null", {});
  ASSERT_TRUE(null_device);
  EXPECT_FALSE((*null_device)->in_memory()) << "a device, though its name is in a tmpfs";
  const int fd = memfd_create("platter-files", 0);
  ASSERT_GE(fd, 0);
  auto file = files_.open("/proc/self/fd/" + std::to_string(fd), {.write = true});
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_TRUE((*file)->in_memory());

  for (EngineKind kind : {EngineKind::kAuto, EngineKind::kThreads}) {
    auto group = ReactorGroup::start({.reactors = 1, .engine = kind});
    ASSERT_TRUE(group);
    // Of a size that the reactor copies itself, and of one that it does not.
    for (const size_t size : {size_t{5000}, size_t{1} << 20}) {
      ASSERT_TRUE((*file)->truncate(0));
      std::vector<uint8_t> data(size), back(size + 1100, 1);
      for (size_t i = 0; i < size; ++i) data[i] = static_cast<uint8_t>(i * 7);
      Reactor& reactor = (*group)->at(0);
      ASSERT_TRUE(run_blocking(reactor, write_full(**file, 100, BufferList(data), {}, true)));
      ASSERT_TRUE(run_blocking(reactor, sync(**file)));
      ASSERT_TRUE(run_blocking(reactor, read_full(**file, 0, BufferList(back))));
      EXPECT_EQ(back[99], 0);
      EXPECT_TRUE(std::equal(data.begin(), data.end(), back.begin() + 100));
      EXPECT_EQ(back.back(), 0) << "past the end";
    }
    auto read_only = files_.open("/proc/self/fd/" + std::to_string(fd), {});
    ASSERT_TRUE(read_only);
    std::vector<uint8_t> byte(1);
    auto refused = run_blocking((*group)->at(0), write_full(**read_only, 0, BufferList(byte)));
    EXPECT_EQ(refused.error().code(), EBADF);
  }
  close(fd);
}

TEST_F(SystemFiles, LocksBelongToTheOpenFile) {
  auto a = open();
  auto b = open();
  ASSERT_TRUE(a->lock(100, 1, LockKind::kShared));
  ASSERT_TRUE(b->lock(100, 1, LockKind::kShared));
  EXPECT_EQ(b->test_lock(100, 1, LockKind::kExclusive).error().code(), EAGAIN);
  EXPECT_EQ(b->lock(100, 1, LockKind::kExclusive).error().code(), EAGAIN);
  ASSERT_TRUE(a->lock(100, 1, LockKind::kNone));
  EXPECT_TRUE(b->test_lock(100, 1, LockKind::kExclusive));
  EXPECT_TRUE(b->lock(100, 1, LockKind::kExclusive));
  EXPECT_EQ(a->test_lock(100, 1, LockKind::kShared).error().code(), EAGAIN);
  b.reset();
  EXPECT_TRUE(a->test_lock(100, 1, LockKind::kExclusive));
}

TEST_F(SystemFiles, DirectFilesSayTheirAlignmentAndReadToTheirEnd) {
  {
    auto file = open();
    ASSERT_TRUE(file->truncate(8192 + 700));
    EXPECT_EQ(file->io_alignment(), 1u);
  }
  auto direct = files_.open(path_, {.direct = true});
  if (!direct) GTEST_SKIP() << "the file system has no direct I/O: " << direct.error().message();
  uint32_t alignment = (*direct)->io_alignment();
  EXPECT_TRUE(alignment >= 1 && alignment <= 4096 && (alignment & (alignment - 1)) == 0);
  for (EngineKind kind : {EngineKind::kUring, EngineKind::kThreads}) {
    auto group = ReactorGroup::start({.reactors = 1, .engine = kind});
    ASSERT_TRUE(group);
    AlignedBuffer buffer(16384);
    std::fill(buffer.span().begin(), buffer.span().end(), uint8_t{0xff});
    auto end = run_blocking((*group)->at(0), read_full(**direct, 0, buffer.view()));
    ASSERT_TRUE(end) << end.error().message();
    EXPECT_TRUE(buffer.view().is_zero());
  }
}

}  // namespace
}  // namespace platter::io
