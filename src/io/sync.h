// What tasks wait on each other with. Every primitive may be shared by tasks of different reactors:
// a waiter is always resumed on its own reactor, through its ready queue, never from inside the call
// that wakes it. Uncontended operations do not suspend, lock or allocate. Waiters are
// served first come, first served.
//
// Destroying a primitive that has waiters is a bug (asserted).
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "io/reactor.h"
#include "io/task.h"

namespace platter::io {

// One task at a time.   auto lock = co_await mutex.lock();
class AsyncMutex;
// Many readers or one writer; a waiting writer holds back new readers.
class AsyncSharedMutex;
// Counts units (bytes in flight, slots).   auto units = co_await semaphore.acquire(n);
class AsyncSemaphore;
// Set once, stays set (until reset); wakes all.
class Event;
// Two problems solved: keeping new work out, and knowing when the work inside has ended.
//   auto pass = gate.try_enter();   co_await gate.close();   gate.spawn(reactor, task);
class Gate;
// Cancellation: a source that is asked once; tokens that can be polled or awaited.
class CancelSource;
class CancelToken;

// when_all(Task<T>...) -> Task<std::tuple<T...>>; when_all(std::vector<Task<T>>) -> Task<std::vector<T>>.
// with_timeout(reactor, deadline, Task<Result<T>>, CancelSource&) -> Result<T> with ETIMEDOUT.

}  // namespace platter::io
