// SplitQueue: a split virtqueue (virtio 1.2, section 2.7). For this room alone.
#pragma once

#include <optional>

#include "virtio/inflight.h"
#include "virtio/queue.h"

namespace platter::virtio {

class SplitQueue final : public Queue {
 public:
  explicit SplitQueue(const QueueOptions& options)
      : Queue(options),
        next_available_(options.state.available),
        seen_available_(options.state.available),
        fetched_(options.state.available),
        next_used_(options.state.used),
        shown_used_(options.state.used),
        told_used_(options.state.used) {}

  bool publish() override;
  void show() override;
  bool is_awaited() const override;
  bool enable_notifications() override;
  void disable_notifications() override;
  QueueState state() const override { return {next_available_, shown_used_}; }

 private:
  std::array<AreaShape, 3> area_shapes() const override;
  void set_areas(const Areas& areas) override { areas_ = areas; }
  Result<bool> take_next(Chain& chain) override;
  Result<void> add_descriptors(uint16_t head, Chain& chain);
  Result<bool> take_again(uint32_t n, Chain& chain) override;
  Result<void> add_chain(uint16_t head, Chain& chain);
  uint16_t available_head(uint16_t position) const;
  void fetch_ahead();
  void write_used(const Used& used) override;
  Result<uint32_t> track() override;
  Result<void> note_taken(Chain& chain) override;
  bool driver_wants_interrupt(uint16_t before) const;
  bool is_event_between(uint16_t first, uint16_t end) const;

  Areas areas_{};
  uint16_t next_available_;
  uint16_t seen_available_;  // of the driver's index, when it was last looked at
  uint16_t fetched_;         // up to where the lines of requests have been asked for
  uint16_t next_used_;
  uint16_t shown_used_;      // of ours, that the driver sees
  uint16_t told_used_;       // up to where it has been asked about interrupts
  bool shown_once_ = false;  // since what was there before is not known
  std::optional<SplitInflight> inflight_;
  std::vector<uint16_t> again_;  // heads to resubmit
};

}  // namespace platter::virtio
