#include "tool/backing_chain.h"

#include <sys/stat.h>

#include "block/driver.h"
#include "block/graph.h"

namespace platter::tool {
namespace {

bool same_file(const std::string& a, const std::string& b) {
  struct stat first, second;
  return stat(a.c_str(), &first) == 0 && stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace

block::Node* find_in_chain(const block::Node& top, const std::string& name) {
  const block::Node* overlay = &top;
  while (const block::Child* edge = overlay->backing()) {
    block::Node& node = edge->node().skip_filters();
    const auto reference = overlay->driver().backing_reference();
    if (node.filename() == name || (reference && reference->filename == name)) return &node;
    auto resolved = block::resolve_backing_name(*overlay, name);
    if (same_file(node.filename(), name) || (resolved && same_file(node.filename(), *resolved)))
      return &node;
    overlay = &node;
  }
  return nullptr;
}

}  // namespace platter::tool
