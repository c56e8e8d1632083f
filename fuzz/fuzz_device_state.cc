// A device's state, as a peer gives it (virtio/blk/device_state.h): refused, or the bytes of what
// was understood.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "virtio/blk/device_state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using platter::virtio::blk::DeviceState;
  const std::span<const uint8_t> bytes(data, size);
  const auto state = DeviceState::parse(bytes);
  if (state && !std::ranges::equal(state->encode(), bytes)) std::abort();
  return 0;
}
