// What a driver is: the one header that formats, protocols and filters build on.
//
// A DriverType is a driver's static description: its name, option tables, probe, open and
// create. A Driver is one open instance, owned by its node. Every driver has the I/O interface;
// anything more is a separate interface that it hands out if it has it, so that a command can ask
// and say plainly which format lacks it.
//
// Concurrency: read, write, zero, discard, flush and status may be called from any reactor at any
// time, also for overlapping ranges, and must be safe; the driver guards its own state. Everything
// else is called with no request in flight (drained), one call at a time.
//
// Ranges are aligned to limits().request_alignment and lie within size() rounded up to it, except
// that a write to a node whose limits say extends_on_write may lie anywhere: it grows the node.
// What a driver reads past its size() (below the rounded one) is zeroes. A read, write, zero or
// discard is never empty.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"
#include "block/debug.h"
#include "block/types.h"
#include "io/buffer.h"
#include "io/cancel.h"
#include "io/task.h"
#include "platter/error.h"
#include "platter/open_policy.h"

namespace platter::block {

class Backend;
class Child;
class DirtyBitmap;
class Driver;
class Graph;
class Node;
class Zoned;

// How a node is opened.
struct OpenFlags {
  bool read_only = true;
  bool auto_read_only = false;  // not read_only: become so where writing is not permitted
  bool no_io = false;           // only the metadata will be looked at (info)
  bool no_backing = false;      // leave the backing file closed
  bool check = false;           // tolerate what a check is there to find
  bool direct = false;          // cache.direct
  bool unmap = false;           // discard=unmap: discards reach the driver
};

// ---- Optional interfaces

class Resizable {
 public:
  virtual ~Resizable() = default;
  // `exact`: fail rather than end up larger. New bytes read as zeroes, also where a longer backing
  // file would show through.
  virtual io::Task<Result<void>> resize(uint64_t size, Preallocation preallocation, bool exact) = 0;
};

// What a check found. Counts of clusters; messages have gone to the reporter as they were found.
struct CheckResult {
  uint64_t corruptions = 0;
  uint64_t leaks = 0;
  uint64_t check_errors = 0;
  uint64_t corruptions_fixed = 0;
  uint64_t leaks_fixed = 0;
  uint64_t image_end_offset = 0;
  uint64_t total_clusters = 0;
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
};

// One line each, as a person reads them: "ERROR cluster 5 refcount=0 reference=1".
class CheckReporter {
 public:
  virtual ~CheckReporter() = default;
  virtual void report(std::string line) = 0;
  // How far it is, in bytes of tables read; `total` may grow as tables come to light, and is
  // reached at the end alone.
  virtual void progress(uint64_t done, uint64_t total) {
    (void)done;
    (void)total;
  }
};

// Keeps the first line, which stands for what is wrong.
class FirstLine final : public CheckReporter {
 public:
  void report(std::string line) override {
    if (line_.empty()) line_ = std::move(line);
  }
  const std::string& line() const { return line_; }

 private:
  std::string line_;
};

enum class Repair {
  kLeaks,  // counts that are too high: no content is at stake
  kAll,
};

class Checkable {
 public:
  virtual ~Checkable() = default;
  virtual io::Task<Result<CheckResult>> check(CheckReporter& reporter) = 0;
  // Repairs what `what` covers of what a check finds, on an image that may be written to. The
  // result counts what was found and what of it was fixed. ENOTSUP: the format only checks.
  virtual io::Task<Result<CheckResult>> repair(CheckReporter& reporter, Repair what);
};

// Files that the system copies parts of by itself, sharing blocks where it can.
class RangeCopier {
 public:
  virtual ~RangeCopier() = default;
  // Copies from `source`, the driver of another node. ENOTSUP: not between these two, and nothing
  // useful was copied; reading and writing may do it.
  virtual io::Task<Result<void>> copy_range(Driver& source, uint64_t source_offset, uint64_t offset,
                                            uint64_t length) = 0;
};

// Images whose files have holes within that nothing uses.
struct CompactResult {
  uint64_t bytes_before = 0;  // of the file
  uint64_t bytes_after = 0;
  uint64_t moved_bytes = 0;
};

class Compactable {
 public:
  virtual ~Compactable() = default;
  // Moves what lies at the end of the file into its holes and cuts the file. The content stays what
  // it is; a power cut at any instant leaves a sound image. No request is in flight. ECANCELED: it
  // stopped on the way, the image is in order. EIO: the image is damaged, and untouched. `progress`
  // is called with steps done and steps there are.
  virtual io::Task<Result<CompactResult>> compact(
      io::CancelToken cancel, std::function<void(uint64_t, uint64_t)> progress) = 0;
};

// Images that can let go of all they hold: what a commit leaves behind.
class Emptiable {
 public:
  virtual ~Emptiable() = default;
  // Afterwards the image allocates nothing: it reads as its backing file does. A power cut on the
  // way leaves some of it as it was.
  virtual io::Task<Result<void>> make_empty() = 0;
};

// ---- What an image's file is used for, for a picture of it

enum class FileUse : uint8_t {
  kHeader,
  kL1Table,
  kL2Table,
  kRefcounts,
  kSnapshotTable,
  kBitmaps,
  kEncryption,
  kData,          // that the guest sees
  kPreallocated,  // kept for a range that reads as zeroes
  kCompressed,
  kVmState,
  kSnapshotOnly,  // data and tables that only snapshots refer to
  kLeaked,        // counted as used, referred to by nothing
};
inline constexpr size_t kFileUses = 13;

enum class GuestUse : uint8_t { kData, kZero, kCompressed };
inline constexpr size_t kGuestUses = 3;

// A run of the guest's view, of the disk as it is now or as a snapshot has it.
struct GuestRun {
  std::optional<size_t>
      snapshot;  // its index in DriverInfo::snapshots; none: the disk as it is now
  GuestUse use = GuestUse::kData;
  uint64_t offset = 0;
  uint64_t length = 0;
  std::optional<uint64_t> host_offset;  // in the image's file
  uint64_t host_length = 0;             // 0: takes no room there
  bool shared = false;                  // something else refers to the same clusters
};

class LayoutVisitor {
 public:
  virtual ~LayoutVisitor() = default;
  // Each cluster of the file at most once, in any order; what is never named is not in use.
  virtual void file_run(FileUse use, uint64_t offset, uint64_t length) = 0;
  // In order within the disk and within each snapshot; what is never named is not in this image.
  virtual void guest_run(const GuestRun& run) = 0;
};

class Charted {
 public:
  // Snapshots beyond these have no guest runs.
  static constexpr size_t kMaxChartedSnapshots = 16;
  virtual ~Charted() = default;
  // The counts of a check come with it; what it finds damaged is left out of the picture.
  virtual io::Task<Result<CheckResult>> chart(LayoutVisitor& visitor) = 0;
};

// ---- Facts about an image, for info

struct BackingReference {
  std::string filename;  // as the header has it
  std::string format;    // empty: not recorded
};

// Images that name a backing file which can be exchanged.
class Rebasable {
 public:
  virtual ~Rebasable() = default;
  // Records another one, durably; an empty file name: none. What is open stays open: the caller has
  // seen to it that the image reads the same through the new one. ENOSPC: no room for the name.
  virtual io::Task<Result<void>> change_backing_reference(BackingReference reference) = 0;
};

// An internal snapshot.
struct SnapshotInfo {
  std::string id;
  std::string name;
  uint64_t vm_state_size = 0;  // bytes
  uint64_t date_seconds = 0;   // since 1970, with date_nanoseconds
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock_nanoseconds = 0;
  std::optional<uint64_t> icount = std::nullopt;
};

// Internal snapshots. Ids are unique in an image, names need not be.
class SnapshotStore {
 public:
  virtual ~SnapshotStore() = default;
  virtual std::vector<SnapshotInfo> snapshots() const = 0;
  // Keeps the disk as it is now. `snapshot` has no id: the store chooses one.
  virtual io::Task<Result<void>> create_snapshot(SnapshotInfo snapshot) = 0;
  // The disk becomes what it was; its present content is lost.
  virtual io::Task<Result<void>> apply_snapshot(std::string id) = 0;
  virtual io::Task<Result<void>> delete_snapshot(std::string id) = 0;
  // From now on the node, open for reading only, shows what the disk was, in the size it had.
  virtual io::Task<Result<void>> load_snapshot(std::string id) = 0;
};

// Where the state of a virtual machine is kept beside its disk. Snapshots keep it too: one that is
// said to have a state takes it along, and leaves none behind. Offsets are of the state; sectors of
// 512 bytes. The disk is not resized meanwhile, and no snapshot taken or applied.
class VmStateStore {
 public:
  virtual ~VmStateStore() = default;
  // What was never written reads as zeroes.
  virtual io::Task<Result<void>> read_vm_state(uint64_t offset, io::BufferList buffers) = 0;
  // The place grows with what is written. EFBIG: there is an end to that.
  virtual io::Task<Result<void>> write_vm_state(uint64_t offset, io::BufferList buffers) = 0;
};

// A persistent dirty bitmap.
struct BitmapInfo {
  std::string name;
  uint64_t granularity = 0;   // bytes a bit stands for
  bool enabled = true;        // records writes
  bool inconsistent = false;  // was not written back: only removing it makes sense
};

// Changes count in the image from its close on, all of them together. The errors are those that a
// person reads who named the bitmap.
class BitmapStore {
 public:
  virtual ~BitmapStore() = default;
  virtual std::vector<BitmapInfo> bitmaps() const = 0;
  // `granularity`: 0 for what suits the image.
  virtual Result<void> add_bitmap(std::string name, uint64_t granularity, bool enabled) = 0;
  virtual Result<void> remove_bitmap(std::string name) = 0;
  virtual Result<void> clear_bitmap(std::string name) = 0;
  virtual Result<void> enable_bitmap(std::string name, bool on) = 0;
  virtual Result<void> merge_bitmap(std::string name, const DirtyBitmap& source) = 0;
  // The bitmap itself, what the image has stored of it included: whoever changes it changes what
  // will be stored.
  virtual io::Task<Result<std::shared_ptr<DirtyBitmap>>> bitmap_bits(std::string name) = 0;
};

class Amendable {
 public:
  virtual ~Amendable() = default;
  // `options` are of the driver's amend table; what was not given stays as it is. `progress` may be
  // called with steps done and steps there are.
  virtual io::Task<Result<void>> amend(const base::OptionSet& options, bool force,
                                       std::function<void(uint64_t, uint64_t)> progress) = 0;
};

// Drivers that go on while what they were told changes.
class Reopenable {
 public:
  virtual ~Reopenable() = default;
  // `options`: all that the driver is told from now on; those that its table does not call
  // changeable are what they were. The children may be written to as long as the node might be
  // before, or will be after. On an error the driver goes on as before.
  virtual io::Task<Result<void>> reopen(base::OptionSet options, OpenFlags flags) = 0;
};

struct DriverInfo {
  uint64_t cluster_size = 0;     // 0: the format has none
  uint64_t vm_state_offset = 0;  // where, past the disk, the state of a virtual machine is kept
  bool dirty = false;            // not cleanly shut down
  bool compressed = false;
  bool encrypted = false;
  // "format-specific": {"type": ..., "data": {...}}; null: none.
  base::Json specific;
  std::vector<SnapshotInfo> snapshots = {};
};

// ---- The driver

class Driver {
 public:
  virtual ~Driver() = default;

  virtual uint64_t size() const = 0;  // bytes; atomic
  virtual Limits limits() const = 0;

  // A request at `offset` is to follow: has what tells its place brought to the processor, without
  // waiting for it. Any offset; any thread.
  virtual void prefetch(uint64_t /*offset*/) const {}
  virtual io::Task<Result<void>> read(uint64_t offset, io::BufferList buffers) = 0;
  virtual io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers, WriteFlags flags);
  // ENOTSUP: the caller may write zeroes as data instead (and does, unless kNoFallback).
  virtual io::Task<Result<void>> zero(uint64_t offset, uint64_t length, WriteFlags flags);
  // Advice: the content becomes undefined or zero. ENOTSUP is not an error to the user.
  virtual io::Task<Result<void>> discard(uint64_t offset, uint64_t length);
  // What completed before the call is on stable storage after it.
  virtual io::Task<Result<void>> flush();
  virtual io::Task<Result<BlockStatus>> status(uint64_t offset, uint64_t length,
                                               StatusDetail detail) = 0;

  // Before the node goes: write back what is cached, leave the image clean. Errors are reported,
  // and the driver is gone all the same.
  virtual io::Task<Result<void>> close();

  virtual Result<DriverInfo> info() const { return DriverInfo{}; }
  // Counters that only such a driver has, by the names that clients know; null: it has none.
  virtual base::Json statistics() const { return {}; }
  // What io::File::identity() is of the file that it stands for. Empty: there is none.
  virtual std::string file_identity() { return {}; }
  // Bytes that the image occupies on its medium, if known.
  virtual io::Task<Result<uint64_t>> allocated_size();
  // The backing file that the image itself names. Opened by the graph, under the policy.
  virtual std::optional<BackingReference> backing_reference() const { return std::nullopt; }
  // Whether a freshly created image (a freshly grown part) is known to read as zeroes.
  virtual bool zero_initialised() const { return false; }

  // Permissions that the driver needs on a child and shares with others, given what its own
  // parents need (`needed`) and share (`shared`). The default follows the child's role.
  struct ChildPermissions {
    Permissions needed;
    Permissions shared;
  };
  virtual ChildPermissions child_permissions(const Child& child, Permissions needed,
                                             Permissions shared) const;
  // Permissions on this node were changed to these (file: takes and drops image locks). `apply` is
  // called before the graph is changed and may refuse; a refusal undoes the whole change.
  virtual Result<void> set_permissions(Permissions needed, Permissions shared);

  virtual Resizable* resizable() { return nullptr; }
  virtual Checkable* checkable() { return nullptr; }
  virtual Charted* charted() { return nullptr; }
  virtual SnapshotStore* snapshot_store() { return nullptr; }
  virtual VmStateStore* vm_state_store() { return nullptr; }
  virtual BitmapStore* bitmap_store() { return nullptr; }
  virtual Amendable* amendable() { return nullptr; }
  virtual Reopenable* reopenable() { return nullptr; }
  virtual Emptiable* emptiable() { return nullptr; }
  virtual Compactable* compactable() { return nullptr; }
  virtual RangeCopier* range_copier() { return nullptr; }
  virtual Rebasable* rebasable() { return nullptr; }
  virtual DebugPoints* debug_points() { return nullptr; }
  // Called with requests in flight, too (block/zoned.h).
  virtual Zoned* zoned() { return nullptr; }
};

// ---- Opening and creating

// Given to DriverType::open. Valid until open returns; the driver keeps the Graph, Node and Child
// pointers it gets (they outlive it), nothing else.
class OpenContext {
 public:
  virtual ~OpenContext() = default;
  virtual Graph& graph() = 0;
  virtual Node& node() = 0;
  virtual const base::OptionSet& options() const = 0;
  virtual const OpenFlags& flags() const = 0;
  virtual const OpenPolicy& policy() const = 0;
  // The name that the user gave, for a protocol driver; empty if only options did.
  virtual const std::string& filename() const = 0;
  // Opens what the options say for the child `name` ("file": an inline definition under "file.", or
  // the name of a node), or the node's file name if they say nothing. A child of a format is opened
  // as a protocol.
  // `filename`: what is opened where there are no such options either.
  virtual io::Task<Result<Child*>> open_child(std::string_view name, ChildRoles roles,
                                              std::string filename = {}) = 0;
  // Whether the options say anything of the child `name`: for one that need not be there.
  virtual bool names_child(std::string_view name) const = 0;
  // Takes the options below "<prefix>.": a list, which a table cannot describe. What is not taken
  // is refused as unknown.
  virtual base::Options take_options(std::string_view prefix) = 0;
};

// Given to DriverType::create.
struct CreateContext {
  Graph& graph;
  std::string filename;
  const base::OptionSet& options;  // of the driver's create table
  const base::Options&
      protocol_options;  // what the table did not know: for the file beneath; already checked
  bool begun = false;    // create_file() has made or emptied the file

  // For a format: creates the empty file beneath (an existing one is emptied) and opens it for
  // writing and resizing. Called once every option has been found good; what it made is removed
  // when the creation fails later. The caller closes the backend.
  io::Task<Result<std::unique_ptr<Backend>>> create_file();
  // The same for a further file, with the same protocol options. The caller sees to its removal.
  CreateContext beside(std::string name) const {
    return {graph, std::move(name), options, protocol_options};
  }
  // What create_file() made, where it is a regular file.
  void remove_file() const;
};

// Given to DriverType::measure.
struct MeasureContext {
  const base::OptionSet& options;  // of the driver's create table; "size" is given
  Backend* source = nullptr;       // whose content the image is to hold; null: nothing is known
};

// How large an image's file will be, in bytes.
struct Measurement {
  uint64_t required = 0;         // with the content as it is
  uint64_t fully_allocated = 0;  // once everything has been written to
  // What copying the source's bitmaps takes besides; nullopt: the source has none to copy, or the
  // target cannot hold any.
  std::optional<uint64_t> bitmaps = std::nullopt;
};

enum class DriverKind { kFormat, kProtocol, kFilter };

struct DriverType {
  std::string_view name;
  DriverKind kind;
  base::OptionSchema runtime_options;
  base::OptionSchema create_options;
  // 0 (not this format) to 100. `head` is the first min(size, 512... kProbeBytes) bytes.
  int (*probe)(std::span<const uint8_t> head, std::string_view filename) = nullptr;
  // For a protocol: "nbd" of "nbd:..." and "nbd://"; empty: none. Turns the rest of such a name
  // into options.
  std::string_view filename_prefix = {};
  Result<base::Options> (*parse_filename)(std::string_view filename) = nullptr;
  bool supports_backing = false;
  bool supports_compression = false;  // its images take compressed writes
  // Whether an image that is created with these options can have dirty bitmaps; null: none can.
  bool (*holds_bitmaps)(const base::OptionSet& create_options) = nullptr;
  // Runtime options, besides the file name, that change what the image contains: a node that was
  // given one is named by json:{...} rather than by its path.
  std::span<const std::string_view> identity_options = {};
  io::Task<Result<std::unique_ptr<Driver>>> (*open)(OpenContext& context) = nullptr;
  io::Task<Result<void>> (*create)(CreateContext& context) = nullptr;
  io::Task<Result<Measurement>> (*measure)(const MeasureContext& context) = nullptr;
  // Empty where Driver::amendable() is null.
  base::OptionSchema amend_options{std::span<const base::OptionDef>{}};
};

inline constexpr size_t kProbeBytes = 2048;

}  // namespace platter::block
