// DiskTest: a fixture with a graph on reactors of its own, and a disk open in it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string_view>

#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"

namespace platter::block {

class DiskTest : public testing::Test {
 protected:
  static constexpr Permissions kReadAndWrite = Permission::kConsistentRead | Permission::kWrite;

  explicit DiskTest(unsigned reactors = 1)
      : reactors_(*io::ReactorGroup::start({.reactors = reactors})) {}
  ~DiskTest() override { close(); }
  void TearDown() override { close(); }

  template <typename T>
  T run(io::Task<T> task, unsigned reactor = 0) {
    return io::run_blocking(reactors_->at(reactor), std::move(task));
  }
  // With what is discarded unmapped. What is open is closed first.
  Result<void> try_open(std::string_view options, Permissions needed = kReadAndWrite) {
    close();
    OpenRequest request;
    request.options = *base::Options::from_key_values(options);
    request.flags.read_only = false;
    request.discard_unmap = true;
    request.policy = OpenPolicy::anything();
    auto opened = run(graph_.open(std::move(request), needed, kAllPermissions));
    if (!opened) return std::unexpected(std::move(opened).error());
    backend_ = std::move(*opened);
    return {};
  }
  void open(std::string_view options, Permissions needed = kReadAndWrite) {
    const auto opened = try_open(options, needed);
    ASSERT_TRUE(opened) << opened.error().message();
  }
  void close() {
    if (backend_) EXPECT_TRUE(run(backend_->close()));
    backend_.reset();
  }

  std::unique_ptr<io::ReactorGroup> reactors_;
  DriverRegistry registry_ = DriverRegistry::builtin();
  base::Log log_;
  Graph graph_{{registry_, io::system_files(), log_}};
  std::unique_ptr<Backend> backend_;
};

}  // namespace platter::block
