#include "virtio/blk/error_policy.h"

#include <cerrno>

#include "base/assert.h"

namespace platter::virtio::blk {
namespace {

OnError resolve(OnError given, OnError automatic) {
  return given == OnError::kAuto ? automatic : given;
}

}  // namespace

ErrorPolicy::ErrorPolicy(OnError on_read, OnError on_write)
    : on_read_(resolve(on_read, OnError::kReport)),
      on_write_(resolve(on_write, OnError::kEnospc)) {}

ErrorAction ErrorPolicy::action_for(bool read, int error) const {
  switch (read ? on_read_ : on_write_) {
    case OnError::kReport: return ErrorAction::kReport;
    case OnError::kIgnore: return ErrorAction::kIgnore;
    case OnError::kStop: return ErrorAction::kStop;
    case OnError::kEnospc: return error == ENOSPC ? ErrorAction::kStop : ErrorAction::kReport;
    case OnError::kAuto: break;
  }
  PLATTER_ASSERT(false);
}

ErrorAction ErrorPolicy::judge(bool read, int error) {
  const bool was_stopped = is_stopped_by_error();
  RequestFailure failure = {
      .read = read, .error = error, .action = action_for(read, error), .stops = false};
  if (failure.action == ErrorAction::kStop) {
    // The status first: who sees the stop finds it.
    IoStatus before = IoStatus::kOk;
    status_.compare_exchange_strong(before,
                                    error == ENOSPC ? IoStatus::kNoSpace : IoStatus::kFailed,
                                    std::memory_order_acq_rel);
    failure.stops = (stops_.fetch_or(kByError, std::memory_order_acq_rel) & kByError) == 0;
  } else if (was_stopped) {
    failure.action = ErrorAction::kStop;
  }
  if (observer_) observer_(failure);
  return failure.action;
}

void ErrorPolicy::go_on() {
  status_.store(IoStatus::kOk, std::memory_order_release);
  stops_.store(0, std::memory_order_release);
}

void ErrorPolicy::forget_stop() {
  stops_.fetch_and(static_cast<uint8_t>(~kByError), std::memory_order_acq_rel);
}

bool ErrorPolicy::has_status() const {
  return on_read_ == OnError::kStop || on_write_ == OnError::kStop || on_write_ == OnError::kEnospc;
}

}  // namespace platter::virtio::blk
