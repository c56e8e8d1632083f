// ImageSession: one image through its lives. It makes the image, opens it, runs random requests on
// it, closes it, checks it, and knows in its SectorModel what the image must hold.
//
// It serves both suites. When power fails a request ends with an error, and the life is over
// (Life::kStop). When a fault was injected the request has failed but the image lives on
// (Life::kGoOn): what the request touched is read back, and the workload goes on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/file.h"
#include "io/reactor.h"
#include "powercut/aim.h"
#include "powercut/sector_model.h"
#include "workload/bitmap_model.h"
#include "workload/claims.h"
#include "workload/header_model.h"
#include "workload/image_setup.h"
#include "workload/random.h"
#include "workload/slot_model.h"

namespace platter::powercut {

using VoidTask = io::Task<Result<void>>;

enum class AfterError { kStop, kGoOn };

struct CheckOutcome {
  bool dirty =
      false;  // refcounts are out of date by design, until the next writer has rebuilt them
  block::CheckResult counts;
  std::string first_line;
};

class ImageSession {
 public:
  ImageSession(const workload::ImageSetup& setup, workload::Random random);
  ~ImageSession();

  // The world that everything below runs in; no image may be open.
  // `state_directory`: of the graph (block/graph.h).
  void enter(io::FileSystem& files, std::vector<io::Reactor*> reactors, AfterError after_error,
             std::string state_directory = {});
  // Prints what each request does as it begins and ends.
  void set_trace(bool on) { trace_ = on; }
  // The points that the image passes from its next opening on, and resizes, are told to `aim`.
  // Null: no more.
  void set_aim(Aim* aim) { aim_ = aim; }
  // What has been acknowledged stays, as if it had been flushed.
  void keep_acknowledged() { end_flush(begin_flush()); }
  // Lets go of the world: it is about to end.
  void leave() { graph_.reset(); }
  bool is_open() const { return backend_ != nullptr; }
  uint64_t failed_requests() const { return failed_requests_; }
  const workload::ImageSetup& setup() const { return setup_; }

  // Backing file and image; what they hold is durable when it ends.
  VoidTask create();
  VoidTask open();
  VoidTask close();
  // Runs `task`; if it fails and leaves the image open, closes it: the failure can then be told.
  VoidTask guarded(VoidTask task);
  // `operations` requests on every reactor at once, then perhaps a resize.
  VoidTask phase(unsigned operations);
  // Opens, works and closes again and again until `over` says so or a request fails.
  VoidTask lives(const std::function<bool()>& over);
  // Opens it, makes it as large as it may become, every cluster mapped, and closes it.
  VoidTask grow_preallocated();
  // Reads everything back; all must be as last written.
  VoidTask verify();
  // In a new world: opens it, finds a size and contents that the model allows, and settles on them.
  VoidTask verify_survivor(bool writable = false);
  io::Task<Result<CheckOutcome>> check();
  // Repairs the image; nothing may be wrong with it afterwards, and its content is what it was.
  VoidTask repair(block::Repair what);
  // Fails if the image has corruptions, or leaks where they are not allowed.
  VoidTask expect_sound(bool leaks_allowed);

  static constexpr const char* kImagePath = "/image";
  static constexpr const char* kBackingPath = "/backing";
  static constexpr const char* kDataPath = "/data";

 private:
  using Kind = workload::RangeClaims::Kind;
  struct Range {
    uint64_t first;  // sectors
    uint64_t count;
    uint64_t offset() const { return first * kSectorSize; }
    uint64_t length() const { return count * kSectorSize; }
  };

  VoidTask make_backing();
  VoidTask worker(workload::Random random, unsigned operations);
  VoidTask operation(workload::Random& random);
  VoidTask read(Range range);
  VoidTask write(workload::Random& random, Range range);
  VoidTask zero(workload::Random& random, Range range);
  VoidTask discard(Range range);
  VoidTask flush();
  VoidTask resize();
  VoidTask resize_to(uint64_t sectors, bool preallocate);
  VoidTask make_empty();
  VoidTask compact();
  VoidTask snapshot();
  VoidTask take_snapshot(block::SnapshotStore& store);
  VoidTask change_bitmaps();
  VoidTask change_names();
  VoidTask change_slots();
  io::Task<Result<bool>> secret_opens(std::string id);
  VoidTask vm_state();
  VoidTask write_vm_state(block::VmStateStore& store, Range range);
  // What is kept must be what it was; `settle`: one of the things that it may be.
  VoidTask verify_vm_state(block::Backend& backend, bool settle);
  // Promises: of the disk, and of the state of the machine.
  struct Ticket {
    uint64_t disk;
    uint64_t vm;
  };
  Ticket begin_flush() const { return {model_.begin_flush(), vm_.begin_flush()}; }
  void end_flush(Ticket ticket);
  // Whether it is time for what happens once in `n` times, and more often where it is aimed at.
  bool is_time_for(Moment moment, uint64_t n);
  const base::OptionSchema& amendable() const { return registry_.find("qcow2")->amend_options; }
  // Of completed requests.
  void written(Range range) { bitmaps_.written(range.offset(), range.length()); }
  VoidTask apply(block::SnapshotStore& store);
  // After a cut, or an error: which of them there are.
  void find_kept();
  // What to do about a request that failed.
  VoidTask after_failure(Error error, Range range);
  VoidTask adopt(Range range);
  VoidTask verify_content(block::Backend& backend, bool settle);
  Range draw_range(workload::Random& random) const;
  void trace(const char* what, Range range, Stamp stamp) const;

  workload::ImageSetup setup_;
  workload::Random random_;
  SectorModel model_;
  workload::BitmapModel bitmaps_;
  workload::HeaderModel header_;
  workload::SlotModel slots_;
  // The state of a machine, and whether anything is known of it: its place moves with the size.
  SectorModel vm_;
  bool vm_known_ = false;
  block::DriverRegistry registry_;
  workload::FixedSecrets secrets_;
  base::Log log_;
  std::unique_ptr<block::Graph> graph_;
  std::unique_ptr<block::Backend> backend_;
  // A snapshot, and what it must hold.
  struct Kept {
    std::string id;
    std::vector<Stamp> content;
    std::vector<Stamp> vm_state;  // empty: not known
  };
  std::vector<Kept> kept_;
  std::vector<io::Reactor*> reactors_;
  workload::RangeClaims claims_;
  Stamp next_stamp_ = kFirstWriteStamp;
  AfterError after_error_ = AfterError::kStop;
  uint64_t failed_requests_ = 0;
  bool trace_ = false;
  Aim* aim_ = nullptr;
  std::vector<uint64_t>
      unsure_sizes_;  // in sectors: what a resize that failed may have left on disk
};

}  // namespace platter::powercut
