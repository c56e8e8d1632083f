#include "monitor/iothreads.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/try.h"

namespace platter::monitor {
namespace {

io::Task<void> set_polling(io::Nanoseconds longest) {
  io::Reactor::current()->set_polling(longest);
  co_return;
}

}  // namespace

io::Task<Result<io::Reactor*>> reactor_of(const Objects& objects,
                                          std::vector<io::Reactor*> reactors,
                                          std::string iothread) {
  const auto thread = objects.io_thread(iothread);
  if (!thread) co_return fail(ENOENT, fmt::format("iothread \"{}\" not found", iothread));
  size_t index = 0;
  for (const ObjectName& name : objects.list()) {
    if (name.type != "iothread") continue;
    if (name.id == iothread) break;
    ++index;
  }
  // The last ones first: the first one has the monitors, too.
  io::Reactor* reactor = reactors[reactors.size() - 1 - index % reactors.size()];
  co_await io::run_on(*reactor, set_polling(io::Nanoseconds(thread->poll_max_ns)));
  co_return reactor;
}

}  // namespace platter::monitor
