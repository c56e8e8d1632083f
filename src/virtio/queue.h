// Queue: the device's side of a virtqueue (virtio 1.2, sections 2.6 to 2.8), split or packed.
//
// The ring lies in memory that a guest may change at any moment to anything. Every entry is copied
// once, judged, and only the copy is used; what breaks a rule of the specification is an error of
// pop(), after which the queue is broken and answers nothing more.
//
// A batch: pop() until it has nothing, work, push() each chain, publish() once; interrupt the
// driver if that says so. Before going to sleep: enable_notifications(), and once more if that says
// so.
//
// Where InflightMemory is given, what is popped is noted there until the driver has seen that it is
// done. A queue that is made with memory that was used before goes on from it, whatever its state
// says: pop() gives first what was in flight.
//
// Not thread-safe: a queue is used by one reactor at a time. Nothing is allocated once every Chain
// in use has met its largest request.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "platter/error.h"
#include "virtio/chain.h"
#include "virtio/guest_memory.h"
#include "virtio/inflight.h"

namespace platter::virtio {

// Where the next chain comes from and where the next used entry goes. Of a packed ring bit 15 of
// each is the wrap counter; of a split ring both count freely.
struct QueueState {
  uint16_t available = 0;
  uint16_t used = 0;
  bool operator==(const QueueState&) const = default;
};

struct QueueOptions {
  static constexpr uint32_t kMaxSize = 1024;

  uint32_t size = 0;  // entries: 1 to kMaxSize; a power of two in a split ring
  // Guest addresses.
  uint64_t descriptor_area = 0;  // the descriptor table, or the packed ring
  uint64_t driver_area = 0;      // the available ring, or the driver's event suppression
  uint64_t device_area = 0;      // the used ring, or the device's event suppression
  uint64_t features = 0;         // negotiated; see virtio/features.h
  QueueState state;
  InflightMemory inflight = {};

  // The state of a packed ring that nothing has passed through.
  static constexpr QueueState kFreshPacked = {.available = 0x8000, .used = 0x8000};
};

class Queue {
 public:
  // EINVAL: a size, an alignment or a state that cannot be, a ring outside of the memory, or a
  // region of requests in flight that no device left.
  static Result<std::unique_ptr<Queue>> make(const QueueOptions& options,
                                             std::shared_ptr<const GuestMemory> memory);
  virtual ~Queue() = default;
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // Fills `chain` with the next request. False: there is none. An error: the ring is broken, which
  // every later call says again.
  Result<bool> pop(Chain& chain);
  // The request of `chain` has ended, with so many bytes written into it from its start. The driver
  // sees it after publish(). Where the order was promised to be kept, it waits for its elders.
  void push(Chain& chain, uint32_t written);
  // The request of `chain` is given up: it is not answered, and stays noted as in flight. Nothing
  // may be pushed afterwards.
  void drop(Chain& chain);
  // Shows the driver what was pushed. True: it wants an interrupt, for that or for what was shown
  // since the last question.
  [[nodiscard]] virtual bool publish() = 0;
  // Shows it, to one who looks by itself. publish() must follow soon.
  virtual void show() = 0;
  // The driver has said which entry it sleeps for, and it is among those pushed since the last
  // publish(). One who has no way to say so is never awaited.
  virtual bool is_awaited() const = 0;

  // Asks the driver to notify when it makes something available. True: pop() has something already.
  [[nodiscard]] virtual bool enable_notifications() = 0;
  virtual void disable_notifications() = 0;

  // New memory for what is popped from now on. Chains that are out keep theirs. EINVAL: the ring
  // lies outside of it; the queue is broken then.
  Result<void> set_memory(std::shared_ptr<const GuestMemory> memory);

  uint32_t size() const { return size_; }
  // Of the area that the device writes its answers to: the used ring, or the packed ring.
  uint64_t answer_bytes() const;
  uint64_t answer_address() const;
  uint32_t in_flight() const { return in_flight_; }
  // Requests that were in flight before and that pop() has still to give.
  uint32_t to_resubmit() const { return to_resubmit_; }
  bool broken() const { return broken_; }
  // With nothing in flight, a queue that is made with this state goes on where this one stopped.
  virtual QueueState state() const = 0;

 protected:
  // The descriptor area, the driver's and the device's.
  using Areas = std::array<uint8_t*, 3>;
  struct AreaShape {
    uint64_t bytes;
    uint64_t alignment;
  };

  explicit Queue(const QueueOptions& options);
  bool has(uint64_t feature) const { return (options_.features & feature) != 0; }
  const GuestMemory& memory() const { return *generations_.back().memory; }
  // Adds the table that an indirect descriptor names: as its entries stand in a packed ring, by
  // their `next` in a split one.
  Result<void> add_indirect(const Descriptor& descriptor, Chain& chain);
  // What the device will touch of a request lies where the driver's processor has left it. The
  // lines of several are asked for together, a hop after the other, before the first is taken:
  // their first descriptors are given, of which nothing is believed.
  static constexpr size_t kFetchedAhead = 8;
  void fetch_ahead(std::span<const Descriptor> firsts) const;

  virtual std::array<AreaShape, 3> area_shapes() const = 0;
  virtual void set_areas(const Areas& areas) = 0;
  // Fills the pieces, the id and the slots.
  virtual Result<bool> take_next(Chain& chain) = 0;
  // The like, of those to resubmit: the n-th.
  virtual Result<bool> take_again(uint32_t n, Chain& chain) = 0;
  struct Used {
    uint16_t id;
    uint16_t slots;
    uint16_t inflight;
    uint32_t written;
  };
  virtual void write_used(const Used& used) = 0;

  // The state that it was made with can be.
  Result<void> check_state() const;
  // Begins to note what is in flight: from that state, or from what the region says. How many
  // requests are to be resubmitted.
  virtual Result<uint32_t> track() = 0;
  // Notes a chain that take_next() has filled.
  virtual Result<void> note_taken(Chain& chain) = 0;

  const uint32_t size_;
  const QueueOptions options_;

 private:
  struct Generation {
    std::shared_ptr<const GuestMemory> memory;
    uint32_t in_flight = 0;
  };
  // A chain that came back, in the order in which they went out.
  struct Returned {
    bool back = false;
    Used used{};
  };

  Result<bool> take(Chain& chain);
  void let_go(Chain& chain);

  std::list<Generation> generations_;  // the last one is for new chains
  std::vector<Returned> returned_;     // by sequence; only where the order is kept
  uint64_t next_sequence_ = 0;
  uint64_t oldest_sequence_ = 0;
  uint32_t in_flight_ = 0;
  uint32_t slots_in_flight_ = 0;
  uint32_t resubmitted_ = 0;
  uint32_t to_resubmit_ = 0;
  const bool tracks_;
  bool broken_ = false;
  bool dropped_ = false;
};

}  // namespace platter::virtio
