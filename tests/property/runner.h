// A property run: random requests from a seed, on an image drawn from the same seed, against a
// plain array of bytes that says what the image must read as.
//
// Requests run concurrently on every reactor of the world, on ranges that are disjoint to the byte
// but often share a cluster or a sector. Between phases the image is resized, flushed, closed and
// opened again, read back in full and compared with its own block status; snapshots are taken,
// applied and deleted, dirty bitmaps made, merged and removed, files named otherwise, key slots
// filled and erased. At the end qemu-img must
// find it clean and equal.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "block/graph.h"
#include "block/registry.h"
#include "io/buffer.h"
#include "workload/bitmap_model.h"
#include "workload/claims.h"
#include "workload/header_model.h"
#include "workload/image_setup.h"
#include "workload/random.h"
#include "workload/slot_model.h"
#include "workload/world.h"

namespace platter::property {

struct RunPlan {
  uint64_t seed = 0;
  unsigned operations = 300;
  unsigned seconds = 0;  // if not 0: so long, however many operations that is
  unsigned workers_per_reactor = 4;
  uint64_t max_size = uint64_t{16} << 20;
  std::string format;  // only this one; empty: any
};

class Runner {
 public:
  Runner(workload::World& world, const RunPlan& plan, std::string directory);
  ~Runner();

  const workload::ImageSetup& setup() const { return setup_; }
  // The whole run. The error says what went wrong, not how to repeat it: the caller knows.
  Result<void> run();
  // What the image must read as, after run().
  const std::vector<uint8_t>& expected() const { return expected_; }
  std::string image_path() const { return directory_ + "/image"; }
  std::string data_path() const { return directory_ + "/data"; }
  bool data_is_raw() const { return header_->data_is_raw(); }

 private:
  using VoidTask = io::Task<Result<void>>;
  using Kind = workload::RangeClaims::Kind;
  struct Range {
    uint64_t offset;
    uint64_t length;
  };

  VoidTask everything();
  bool is_over(unsigned operations_done) const;
  VoidTask make_backing();
  VoidTask open_image();
  VoidTask close_image();
  VoidTask concurrent_phase(unsigned operations);
  VoidTask worker(workload::Random random, unsigned operations);
  VoidTask between_phases();
  VoidTask resize();
  VoidTask snapshot();
  VoidTask compact();
  VoidTask bitmaps();
  VoidTask vm_state();
  VoidTask change_slots();
  block::BitmapStore& bitmap_store() const { return *backend_->node().driver().bitmap_store(); }
  VoidTask apply_or_delete(block::SnapshotStore& store);
  VoidTask verify_all();
  VoidTask verify_status(block::StatusDetail detail);
  VoidTask verify_host_bytes(block::BlockStatus status, uint64_t offset);

  VoidTask one_operation(workload::Random& random);
  VoidTask read_and_compare(workload::Random& random, Range range);
  VoidTask write(workload::Random& random, Range range);
  VoidTask zero(workload::Random& random, Range range);
  VoidTask discard(Range range);
  VoidTask status(workload::Random& random, Range range);
  // Takes over what the range reads as now, if each byte is what it was, zero or, with
  // `or_backing`, the backing file's.
  VoidTask adopt(Range range, const char* after, bool or_backing);

  Result<void> compare(const char* what, uint64_t offset, std::vector<uint8_t> got) const;
  Range draw_range(workload::Random& random) const;
  uint8_t backing_byte(uint64_t offset) const;

  workload::World& world_;
  RunPlan plan_;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::string directory_;
  workload::Random random_;
  workload::ImageSetup setup_;
  block::DriverRegistry registry_;
  workload::FixedSecrets secrets_;
  base::Log log_;
  std::unique_ptr<block::Graph> graph_;
  std::unique_ptr<block::Backend> backend_;
  workload::RangeClaims claims_;
  workload::BitmapModel bitmaps_{0};
  std::optional<workload::HeaderModel> header_;
  workload::SlotModel slots_;
  // What was kept, and what it must read as.
  struct Kept {
    std::string id;
    std::vector<uint8_t> content;
    std::vector<uint8_t> vm_state;
  };
  std::vector<Kept> kept_;
  std::vector<uint8_t> expected_;
  std::vector<uint8_t> vm_state_;  // empty: nothing is known of it
  std::vector<uint8_t> backing_;
};

}  // namespace platter::property
