// Block status: of one layer, and through a backing chain.

#include <algorithm>

#include "base/math.h"
#include "base/try.h"
#include "block/node_state.h"

namespace platter::block {

namespace {

// Asks the host of a data run whether it is a hole there.
io::Task<Result<void>> descend(BlockStatus& status, StatusDetail detail) {
  Result<BlockStatus> below =
      co_await status.host->status(status.host_offset, status.length, detail);
  // The answer above stands without the one below.
  if (!below) co_return Result<void>();
  if (below->eof && below->zero) {
    // Past the end of the host, or a hole up to it: all that follows reads as zeroes too.
    status.zero = true;
  } else {
    status.length = std::min(status.length, below->length);
    status.zero = status.zero || below->zero;
  }
  co_return Result<void>();
}

void clip(BlockStatus& status, uint64_t length, uint64_t slack) {
  // The driver was asked about [offset - slack, ...): give back what concerns the caller.
  PLATTER_ASSERT(status.length > slack);
  status.length -= slack;
  if (status.has_host_offset) status.host_offset += slack;
  status.length = std::min(status.length, length);
}

}  // namespace

io::Task<Result<BlockStatus>> Node::status(uint64_t offset, uint64_t length, StatusDetail detail) {
  State& s = *state_;
  const uint64_t size = s.driver->size();
  PLATTER_ASSERT(length != 0);
  if (offset >= size) {
    BlockStatus past;
    past.length = length;
    past.zero = past.eof = true;
    co_return past;
  }
  const uint64_t asked = std::min(length, size - offset);
  const uint64_t alignment = s.limits.request_alignment;
  const uint64_t begin = base::align_down(offset, alignment);
  const uint64_t end = base::align_up(offset + asked, alignment);
  PLATTER_CO_ASSIGN(BlockStatus status, co_await s.driver->status(begin, end - begin, detail));
  clip(status, asked, offset - begin);
  PLATTER_ASSERT(!status.data || status.allocated);
  if (!status.allocated && s.type->kind != DriverKind::kFilter) {
    // Nothing here and, maybe, nothing beneath: zeroes.
    status.zero = s.backing == nullptr || s.backing->size() <= offset;
  }
  if (status.descend && detail == StatusDetail::kPrecise && status.data && !status.zero &&
      status.has_host_offset && status.host != nullptr && status.host != this) {
    PLATTER_CO_TRY(co_await descend(status, detail));
  }
  status.eof = offset + status.length == size;
  co_return status;
}

static Node* layer_below(Node& node) {
  if (node.backing() != nullptr) return &node.backing()->node();
  if (node.type().kind == DriverKind::kFilter && node.primary() != nullptr) {
    return &node.primary()->node();
  }
  return nullptr;
}

io::Task<Result<BlockStatus>> Node::status_above(Node* base, uint64_t offset, uint64_t length,
                                                 StatusDetail detail, unsigned* depth) {
  unsigned layers = 0;
  PLATTER_CO_ASSIGN(BlockStatus top, co_await status(offset, length, detail));
  BlockStatus answer = top;
  const uint64_t end_of_top = top.eof ? offset + top.length : UINT64_MAX;
  Node* node = layer_below(*this);
  while (!answer.allocated && !answer.zero && node != nullptr && node != base) {
    ++layers;
    PLATTER_CO_ASSIGN(answer, co_await node->status(offset, top.length, detail));
    top.length = answer.length;
    node = layer_below(*node);
  }
  answer.eof = offset + answer.length == end_of_top;
  if (depth != nullptr) *depth = layers;
  co_return answer;
}

}  // namespace platter::block
