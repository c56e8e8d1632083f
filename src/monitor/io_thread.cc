#include "monitor/io_thread.h"

#include <fmt/format.h>

#include <cerrno>
#include <string_view>

#include "base/try.h"

namespace platter::monitor {
namespace {

struct IoThreadProperty {
  std::string_view name;
  uint64_t IoThread::* member;
};
constexpr IoThreadProperty kIoThreadProperties[] = {
    {"poll-max-ns", &IoThread::poll_max_ns},
    {"poll-grow", &IoThread::poll_grow},
    {"poll-shrink", &IoThread::poll_shrink},
    {"aio-max-batch", &IoThread::max_batch},
    {"thread-pool-min", &IoThread::thread_pool_min},
    {"thread-pool-max", &IoThread::thread_pool_max},
};

}  // namespace

Result<IoThread> take_io_thread(Properties& properties, IoThread thread) {
  for (const auto& [name, member] : kIoThreadProperties) {
    PLATTER_ASSIGN(auto value, properties.take_integer(name));
    if (!value) continue;
    if (*value < 0) {
      return fail(EINVAL, fmt::format("{} value must be in range [0, {}]", name, INT64_MAX));
    }
    thread.*member = static_cast<uint64_t>(*value);
  }
  return thread;
}

Result<void> check_pool(const IoThread& thread) {
  if (thread.thread_pool_max != 0 && thread.thread_pool_min <= thread.thread_pool_max) return {};
  return fail(EINVAL, "bad thread-pool-min/thread-pool-max values");
}

std::vector<ObjectProperty> describe(const IoThread& thread) {
  std::vector<ObjectProperty> properties;
  for (const auto& [name, member] : kIoThreadProperties)
    properties.push_back({std::string(name), "int", thread.*member});
  return properties;
}

}  // namespace platter::monitor
