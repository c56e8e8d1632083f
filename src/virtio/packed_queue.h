// PackedQueue: a packed virtqueue (virtio 1.2, section 2.8). For this room alone.
#pragma once

#include <optional>

#include "virtio/inflight.h"
#include "virtio/queue.h"

namespace platter::virtio {

class PackedQueue final : public Queue {
 public:
  explicit PackedQueue(const QueueOptions& options)
      : Queue(options),
        available_(Position::of(options.state.available)),
        used_(Position::of(options.state.used)),
        first_unshown_(used_) {}

  bool publish() override;
  void show() override;
  bool is_awaited() const override;
  bool enable_notifications() override;
  void disable_notifications() override;
  QueueState state() const override { return {available_.bits(), first_unshown_.bits()}; }

 private:
  // An entry of the ring, and the wrap counter of whoever stands there.
  struct Position {
    uint16_t index;
    bool wrap;

    static Position of(uint16_t bits) {
      return {static_cast<uint16_t>(bits & 0x7fff), (bits & 0x8000) != 0};
    }
    bool operator==(const Position&) const = default;
    uint16_t bits() const { return static_cast<uint16_t>(index | (wrap ? 0x8000 : 0)); }
    void advance(uint32_t by, uint32_t size) {
      const uint32_t next = index + by;
      wrap ^= next >= size;
      index = static_cast<uint16_t>(next >= size ? next - size : next);
    }
  };

  std::array<AreaShape, 3> area_shapes() const override;
  void set_areas(const Areas& areas) override { areas_ = areas; }
  uint8_t* entry(uint16_t index) const { return areas_[0] + index * kDescriptorBytes; }
  bool is_available(Position position) const;
  Result<bool> take_next(Chain& chain) override;
  Result<bool> take_again(uint32_t n, Chain& chain) override;
  // `next` gives the descriptors one by one.
  Result<void> add_chain(auto next, Chain& chain);
  void fetch_ahead();
  void write_used(const Used& used) override;
  Result<uint32_t> track() override;
  Result<void> note_taken(Chain& chain) override;
  bool driver_wants_interrupt(uint32_t advanced) const;

  Areas areas_{};
  Position available_;
  uint32_t fetched_ = 0;  // entries from there on whose lines have been asked for
  Position used_;
  // What was pushed since the last publish(): the flags of the first entry show all of it.
  Position first_unshown_;
  uint16_t first_flags_ = 0;
  uint32_t untold_slots_ = 0;  // shown, and the driver not asked about interrupts
  uint32_t unshown_slots_ = 0;
  std::optional<PackedInflight> inflight_;
  std::vector<PackedInflight::Request> again_;  // to resubmit
};

}  // namespace platter::virtio
