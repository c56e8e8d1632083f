// What the tests of the engines stand on: images in memory that remember what was asked of them,
// and fail or dawdle where a test wants it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/try.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"
#include "io/sync.h"

namespace platter::job {

inline constexpr uint64_t kBlock = 4096;

// The content of an image, its allocation in blocks, and a record of requests.
struct TestImage {
  explicit TestImage(uint64_t size) : bytes(size), allocated((size + kBlock - 1) / kBlock) {}

  struct Access {
    char kind;  // 'r', 'w', 'z'
    uint64_t offset;
    uint64_t length;
  };

  std::vector<uint8_t> bytes;
  std::vector<bool> allocated;
  block::Limits limits;
  std::function<int(char kind, uint64_t offset)> fault;  // an errno, or 0
  unsigned max_yields = 0;  // each request lets other tasks run up to this many times

  std::mutex mutex;
  std::vector<Access> log;

  void put(uint64_t offset, std::vector<uint8_t> data) {
    std::copy(data.begin(), data.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
    mark(offset, data.size());
  }
  void fill(uint64_t offset, uint64_t length, uint8_t value) {
    put(offset, std::vector<uint8_t>(length, value));
  }
  void mark(uint64_t offset, uint64_t length) {
    for (uint64_t block = offset / kBlock; block * kBlock < offset + length; ++block)
      allocated[block] = true;
  }
  std::vector<Access> accesses(char kind) {
    std::lock_guard lock(mutex);
    std::vector<Access> found;
    for (const Access& access : log) {
      if (access.kind == kind) found.push_back(access);
    }
    return found;
  }
  uint64_t bytes_of(char kind) {
    uint64_t total = 0;
    for (const Access& access : accesses(kind)) total += access.length;
    return total;
  }
};

class TestDriver : public block::Driver {
 public:
  explicit TestDriver(TestImage& image) : image_(image) {}

  uint64_t size() const override { return image_.bytes.size(); }
  block::Limits limits() const override { return image_.limits; }

  io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) override {
    PLATTER_CO_TRY(co_await begin('r', offset, buffers.size()));
    buffers.copy_from({image_.bytes.data() + offset, buffers.size()});
    co_return Result<void>{};
  }
  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers,
                               block::WriteFlags) override {
    PLATTER_CO_TRY(co_await begin('w', offset, buffers.size()));
    std::lock_guard lock(image_.mutex);
    buffers.copy_to({image_.bytes.data() + offset, buffers.size()});
    image_.mark(offset, buffers.size());
    co_return Result<void>{};
  }
  io::Task<Result<void>> zero(uint64_t offset, uint64_t length, block::WriteFlags) override {
    PLATTER_CO_TRY(co_await begin('z', offset, length));
    std::lock_guard lock(image_.mutex);
    std::fill_n(image_.bytes.begin() + static_cast<ptrdiff_t>(offset), length, 0);
    co_return Result<void>{};
  }
  io::Task<Result<void>> flush() override { return io::Task<Result<void>>::ready(Result<void>{}); }
  io::Task<Result<block::BlockStatus>> status(uint64_t offset, uint64_t length,
                                              block::StatusDetail) override {
    if (int code = image_.fault ? image_.fault('s', offset) : 0) {
      return io::Task<Result<block::BlockStatus>>::ready(fail_errno(code));
    }
    const bool allocated = image_.allocated[offset / kBlock];
    uint64_t end = offset / kBlock * kBlock + kBlock;
    while (end < offset + length && image_.allocated[end / kBlock] == allocated) end += kBlock;
    end = std::min(end, offset + length);
    block::BlockStatus status;
    status.length = end - offset;
    status.data = allocated;
    status.zero = !allocated;
    status.allocated = allocated;
    status.eof = end == size();
    return io::Task<Result<block::BlockStatus>>::ready(status);
  }

 private:
  io::Task<Result<void>> begin(char kind, uint64_t offset, uint64_t length) {
    {
      std::lock_guard lock(image_.mutex);
      image_.log.push_back({kind, offset, length});
    }
    if (image_.max_yields != 0) {
      io::Reactor& reactor = *io::Reactor::current();
      for (uint64_t left = reactor.random() % (image_.max_yields + 1); left != 0; --left) {
        co_await reactor.yield();
      }
    }
    if (int code = image_.fault ? image_.fault(kind, offset) : 0) co_return fail_errno(code);
    co_return Result<void>{};
  }

  TestImage& image_;
};

// "driver=test-image,address=N": N is the address of a TestImage.
inline constexpr base::OptionDef kTestOptions[] = {
    {.name = "address", .type = base::OptionType::kNumber, .help = "of the TestImage"}};

inline io::Task<Result<std::unique_ptr<block::Driver>>> open_test_image(
    block::OpenContext& context) {
  auto* image = reinterpret_cast<TestImage*>(context.options().get_number("address"));
  co_return std::make_unique<TestDriver>(*image);
}

inline constexpr block::DriverType kTestDriver = {
    .name = "test-image",
    .kind = block::DriverKind::kProtocol,
    .runtime_options = base::OptionSchema(kTestOptions),
    .create_options = base::OptionSchema({}),
    .open = open_test_image,
};

// A runtime with a few reactors, and backends on test images.
class EngineTest : public testing::TestWithParam<unsigned> {
 protected:
  EngineTest() : graph_({.registry = registry_, .files = io::system_files(), .log = log_}) {
    auto group = io::ReactorGroup::start({.reactors = GetParam(), .random_seed = 1});
    EXPECT_TRUE(group.has_value());
    group_ = std::move(*group);
    for (unsigned i = 0; i < group_->size(); ++i) reactors_.push_back(&group_->at(i));
  }
  ~EngineTest() override {
    for (auto& backend : backends_) {
      EXPECT_TRUE(io::run_blocking(group_->at(0), backend->close()).has_value());
    }
  }

  block::Backend& open(TestImage& image, bool writable) {
    block::OpenRequest request;
    request.options.set("driver", std::string("test-image"));
    request.options.set("address", reinterpret_cast<uint64_t>(&image));
    request.flags.read_only = !writable;
    block::Permissions needed = block::Permission::kConsistentRead;
    if (writable) needed |= block::Permission::kWrite;
    auto backend = io::run_blocking(
        group_->at(0), graph_.open(std::move(request), needed, block::kAllPermissions));
    EXPECT_TRUE(backend.has_value()) << backend.error().message();
    backends_.push_back(std::move(*backend));
    return *backends_.back();
  }

  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(group_->at(0), std::move(task));
  }

  base::Log log_;
  block::DriverRegistry registry_{{&kTestDriver}};
  std::unique_ptr<io::ReactorGroup> group_;
  block::Graph graph_;
  std::vector<io::Reactor*> reactors_;
  std::vector<std::unique_ptr<block::Backend>> backends_;
};

}  // namespace platter::job
