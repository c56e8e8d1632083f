// The disk of a simulation: named files, each with what its users see and what would survive a loss
// of power.
//
// The model. A change (a write, a punch or zeroing, a change of size) is volatile when it
// completes. A sync makes durable every change to its file that had completed when the sync was
// issued; a durable write makes durable the sectors that it wrote, and the size. When the power
// goes, each 512-byte sector independently keeps its durable content or that after any of the later
// changes to it, those in flight included; so does the size. What lies past the surviving size is
// gone; a growth that survives without its data reads as zeroes. A cut draws one of several
// tempers: nothing volatile survives, all of it does, each sector for itself, or the changes up to
// a moment, in order. Names (creation, removal) are durable at once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/buffer.h"
#include "io/random.h"
#include "io/sparse_bytes.h"
#include "platter/error.h"

namespace platter::io {

// What is on the medium of one file when nothing is volatile.
struct SimulatedContent {
  SparseBytes bytes;
  uint64_t size = 0;
};

// The files of a disk at rest. A value: copying is cheap, and one disk may start many worlds.
class SimulatedDisk {
 public:
  std::map<std::string, SimulatedContent>& files() { return files_; }
  const std::map<std::string, SimulatedContent>& files() const { return files_; }

  // Makes or replaces a file.
  void put(const std::string& name, std::span<const uint8_t> bytes);
  // The file's bytes; it exists (asserted).
  std::vector<uint8_t> get(const std::string& name) const;
  // Between this disk and a file of the host, holes kept: for looking at a disk with other
  // programs.
  Result<void> export_file(const std::string& name, const std::string& host_path) const;
  Result<void> import_file(const std::string& host_path, const std::string& name);

 private:
  std::map<std::string, SimulatedContent> files_;
};

// One file in a running world.
class SimulatedMedium {
 public:
  static constexpr uint64_t kSectorBytes = 512;

  struct Change {
    enum class Kind : uint8_t { kWrite, kZero, kSize };
    Kind kind;
    uint64_t offset = 0;  // kSize: the new size
    uint64_t length = 0;
    std::vector<uint8_t> data{};  // kWrite
    uint64_t sequence = 0;        // in order of completion, from 1
  };
  static Change write_change(uint64_t offset, const BufferList& buffers);

  SimulatedMedium() = default;
  explicit SimulatedMedium(SimulatedContent content)
      : current_(content), durable_(std::move(content)) {}

  const SimulatedContent& current() const { return current_; }
  uint64_t size() const { return current_.size; }

  // Each is complete, and volatile, when it returns.
  void apply(Change change);
  void resize(uint64_t size);

  // The last change that has completed; what a sync notes when it is issued.
  uint64_t completed() const { return last_sequence_; }
  void make_durable(uint64_t up_to_sequence);
  // The sectors of the range, and the size.
  void make_range_durable(uint64_t offset, uint64_t length);

  // What is left when the power goes now, or the process, with these changes in flight.
  enum class Loss : uint8_t { kOfPower, kOfProcess };
  SimulatedContent survivor(Random& random, Loss loss, std::vector<Change> in_flight) const;

 private:
  static void perform(SimulatedContent& content, const Change& change);

  SimulatedContent current_;
  SimulatedContent durable_;
  uint64_t last_sequence_ = 0;
  std::vector<Change> log_;  // completed and volatile, in order of their sequence
};

}  // namespace platter::io
