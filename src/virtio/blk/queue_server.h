// QueueServer: serves one virtqueue of a virtio-blk device, on one reactor: takes what the driver
// made available, a batch a turn, carries it out, and gives it back, with one interrupt a turn.
//
// While there is work the reactor looks at the ring and the driver is asked not to notify; before
// the reactor sleeps the driver is asked to (io::Poller). Neighbouring reads, or writes, of one
// batch become one (Properties::request_merging).
//
// Where the device is stopped (virtio/blk/error_policy.h) nothing is taken and the reactor does not
// look: it costs nothing. What has failed is kept until the device goes on, and then carried out
// again in the order in which it was taken, before anything new.
//
// A ring that breaks the rules, or a request that is none, breaks the device: no queue of it takes
// or shows anything any more, and the transport is told.
//
// Threads: everything on the reactor's. Nothing is allocated once every slot has met its largest
// request.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "io/event.h"
#include "io/reactor.h"
#include "virtio/blk/device.h"
#include "virtio/blk/request.h"
#include "virtio/dirty_log.h"
#include "virtio/queue.h"

namespace platter::virtio::blk {

// What the transport does for a queue. Called on the queue's reactor.
class QueueEvents {
 public:
  virtual ~QueueEvents() = default;
  virtual void interrupt() = 0;
  // Whether the driver's notifications reach kick(); if not, the ring is looked at for ever.
  virtual bool can_be_notified() const = 0;
  // The device is broken, for this reason.
  virtual void broken(const Error& error) = 0;
};

class QueueServer final : private io::Poller {
 public:
  // Requests that one driver's batch may be merged into, at most.
  static constexpr size_t kMaxMerged = 32;
  // Between the starts of two requests that are merged, or that one between them joins, at most.
  static constexpr uint64_t kNearSectors = 2048;
  // Taken in one turn, so that a full ring does not keep the reactor from its other work.
  static constexpr size_t kMaxBatch = 256;
  // A driver sees what is done after so many requests, not only when all of a turn are: it has the
  // next ones ready then.
  static constexpr unsigned kShowAfter = 8;

  // All outlive it.
  QueueServer(io::Reactor& reactor, Device& device, std::unique_ptr<Queue> queue,
              QueueEvents& events);
  ~QueueServer() override;  // stopped

  // Begins, with what is available already.
  void start() { wake(); }
  // The driver has notified.
  void kick() { wake(); }
  // The device goes on after a stop.
  void go_on() { wake(); }

  // What becomes of requests that are kept when the queue ends, and of those of a stopped device
  // that are still to be resubmitted.
  enum class Kept {
    kFail,   // the driver gets the error
    kLeave,  // no answer; whoever serves the queue next resubmits them, if they are noted in flight
  };
  // Takes nothing more but what is to be resubmitted, waits for what is under way and shows it:
  // where to go on.
  io::Task<QueueState> stop(Kept kept = Kept::kFail);
  // After stop(): there are requests that it has left.
  bool has_left() const { return has_left_; }

  // The memory for what comes from now on. EINVAL: the ring is not in it; the queue is broken.
  Result<void> set_memory(std::shared_ptr<const GuestMemory> memory);

  // From now on what is written for the driver is noted in `log`; null: nowhere. What is written to
  // the ring is noted as if it lay at `ring`, or not at all.
  void set_log(std::shared_ptr<DirtyLog> log, std::optional<uint64_t> ring);

 private:
  struct Slot {
    Chain chain;
    Request request{};
    // Of a request that others were merged into: they, and all their pieces.
    Slot* merged = nullptr;
    uint64_t number = 0;      // how many were taken before
    io::Nanoseconds taken{};  // when, where slow requests are told of
    std::vector<iovec> pieces;
  };
  // A request that is being served; nothing of the server may be touched after its end.
  class UnderWay;
  // Reads, or writes, that wait for the batch to be complete.
  struct Plan {
    std::array<Slot*, kMaxMerged> slots;
    size_t count = 0;
  };

  bool look() override;
  void settle() override;
  bool rest() override;

  void tell_driver();
  void show_early();

  bool is_served() const {
    return !stopped_ && !device_.is_broken() && !device_.errors().is_stopped();
  }
  void wake();
  enum class Take { kAll, kResubmitted };
  bool may_take(Take what) const;
  bool take_batch(Take what = Take::kAll);
  Slot* take_slot();
  void plan(Slot* slot);
  void carry_out_plan();
  bool may_belong(const Slot& next) const;
  bool may_follow(const Slot& first, uint64_t bytes, size_t pieces, const Slot& next) const;
  void begin(Slot* slot);
  io::SelfOwned serve(Slot* slot);
  void finish(Slot* slot, Executor::Outcome outcome);
  // With those that were merged into it.
  void keep(Slot* slot);
  void carry_out_kept();
  void give_up_kept(Kept kept);
  void fail_for_good(const Error& error);

  io::Reactor& reactor_;
  Device& device_;
  std::unique_ptr<Queue> queue_;
  QueueEvents& events_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
  std::vector<Slot*> kept_;   // they failed, and the device is stopped
  std::vector<Slot*> again_;  // of them, while they are carried out again
  uint64_t taken_ = 0;
  Plan plan_;
  size_t under_way_ = 0;      // UnderWay
  io::Event none_under_way_;  // once stopped
  std::shared_ptr<DirtyLog> log_;
  std::optional<uint64_t> logged_ring_;
  bool polled_ = false;  // the reactor looks
  unsigned unshown_ = 0;
  bool dirty_ = false;    // something was pushed and not shown
  bool stopped_ = false;  // takes nothing more
  bool has_left_ = false;
};

}  // namespace platter::virtio::blk
