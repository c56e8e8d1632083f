// hold read|write FORMAT IMAGE: opens the image, says "holding", and lets go when its input ends.
// What another program sees of the locks that Platter holds (locking.py).
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/try.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/reactor_group.h"

namespace platter {
namespace {

using block::Permission;

io::Task<Result<void>> open_image(block::Graph& graph, block::OpenRequest request,
                                  std::unique_ptr<block::Backend>& backend) {
  block::Permissions needed = Permission::kConsistentRead;
  block::Permissions shared = block::kAllPermissions;
  if (!request.flags.read_only) {
    needed = needed | Permission::kWrite | Permission::kResize;
    shared = Permission::kConsistentRead | Permission::kWriteUnchanged;
  } else {
    shared = shared.without(Permission::kWrite | Permission::kResize);
  }
  PLATTER_CO_ASSIGN(backend, co_await graph.open(std::move(request), needed, shared));
  co_return Result<void>{};
}

int hold(std::string_view how, const char* format, const char* image) {
  auto group = io::ReactorGroup::start({.reactors = 1, .log = nullptr});
  if (!group) {
    std::fprintf(stderr, "%s\n", group.error().message().c_str());
    return 1;
  }
  block::DriverRegistry registry = block::DriverRegistry::builtin();
  base::Log log;
  block::Graph graph({registry, io::system_files(), log});
  block::OpenRequest request;
  request.filename = image;
  request.format = format;
  request.flags.read_only = how == "read";
  request.policy = OpenPolicy::own_directory();
  std::unique_ptr<block::Backend> backend;
  auto opened = io::run_blocking((*group)->at(0), open_image(graph, std::move(request), backend));
  if (!opened) {
    std::fprintf(stderr, "%s\n", opened.error().message().c_str());
    return 1;
  }
  std::puts("holding");
  std::fflush(stdout);
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  auto closed = io::run_blocking((*group)->at(0), backend->close());
  return closed ? 0 : 1;
}

}  // namespace
}  // namespace platter

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: hold read|write FORMAT IMAGE\n", stderr);
    return 2;
  }
  return platter::hold(argv[1], argv[2], argv[3]);
}
