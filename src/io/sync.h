// What tasks wait on each other with. Every primitive may be shared by tasks of different reactors:
// a waiter is always resumed on its own reactor, through its ready queue, never from inside the
// call that wakes it. Uncontended operations do not suspend, lock or allocate. Waiters are served
// first come, first served.
//
// Destroying a primitive that has waiters, or is held, is a bug (asserted). An Event, an AsyncMutex
// and a closed Gate may be destroyed by the very task that they resumed; the others once
// every call on them has returned.
#pragma once

#include "io/async_mutex.h"
#include "io/async_semaphore.h"
#include "io/async_shared_mutex.h"
#include "io/cancel.h"
#include "io/event.h"
#include "io/gate.h"
#include "io/when_all.h"
