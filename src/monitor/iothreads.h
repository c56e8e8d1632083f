// Which reactor stands for an I/O thread.
#pragma once

#include <string>
#include <vector>

#include "io/reactor.h"
#include "io/task.h"
#include "monitor/objects.h"

namespace platter::monitor {

// The one that the I/O thread of this id stands for, which polls from now on as the thread is told
// to. Several threads are spread over the reactors. ENOENT: there is no such thread.
io::Task<Result<io::Reactor*>> reactor_of(const Objects& objects,
                                          std::vector<io::Reactor*> reactors, std::string iothread);

}  // namespace platter::monitor
