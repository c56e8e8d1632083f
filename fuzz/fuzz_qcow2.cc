// A qcow2 image of arbitrary bytes: opened as info, as a check, read-only and for writing; read,
// written, resized, checked. An encrypted one is opened with the one secret that there is.
//
// It runs in a simulated world (no clock, no files of the host, a bounded number of steps: a hang
// is a finding). Whatever the bytes are, nothing may crash, hang or take memory beyond the budget;
// and an image that a check found in order before it was written to is still free of corruption
// afterwards.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "block/backend.h"
#include "block/dirty_bitmap.h"
#include "block/graph.h"
#include "block/registry.h"
#include "format/qcow2/header.h"
#include "fuzz_keys.h"
#include "io/simulation.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using platter::OpenPolicy;
using platter::Result;
using platter::base::load_big;
using platter::base::store_big;
namespace block = platter::block;
namespace crypto = platter::crypto;
namespace io = platter::io;
namespace qcow2 = platter::format::qcow2;

constexpr const char* kName = "/disk.qcow2";
constexpr const char* kDataName = "/disk.raw";  // where an image wants an external data file
constexpr uint64_t kMaxSteps = 5'000'000;
constexpr uint64_t kCapacity = uint64_t{64} << 20;
constexpr uint64_t kMaxMetadata = uint64_t{16} << 20;
constexpr unsigned kMaxBitmaps = 8;  // that are looked at
constexpr uint64_t kMaxRuns = 4096;
constexpr size_t kProbeLength = 3000;  // of reads and writes: unaligned, several small clusters

class Silent final : public block::CheckReporter {
 public:
  void report(std::string) override {}
};

// What a chart promises: runs within the file, no cluster twice, the guest's view in order.
class Promises final : public block::LayoutVisitor {
 public:
  Promises(uint64_t file_size, uint64_t disk_size) : file_size_(file_size), disk_size_(disk_size) {}

  void file_run(block::FileUse, uint64_t offset, uint64_t length) override {
    require(length != 0 && offset <= file_size_ && length <= file_size_ - offset);
    const auto after = shown_.lower_bound(offset);
    require(after == shown_.end() || after->first >= offset + length);
    require(after == shown_.begin() || std::prev(after)->second <= offset);
    shown_.emplace(offset, offset + length);
  }
  void guest_run(const block::GuestRun& run) override {
    require(run.length != 0 && run.offset + run.length > run.offset);
    if (run.snapshot) return;
    require(run.offset >= next_ && run.offset + run.length <= disk_size_);
    next_ = run.offset + run.length;
  }

 private:
  static void require(bool holds) {
    if (!holds) std::abort();
  }
  std::map<uint64_t, uint64_t> shown_;  // from offset to end
  const uint64_t file_size_;
  const uint64_t disk_size_;
  uint64_t next_ = 0;
};

class World {
 public:
  explicit World(std::span<const uint8_t> image)
      : wants_data_file_(wants_data_file(image)),
        takes_key_(takes_key(image)),
        simulation_(1, {.capacity = kCapacity, .max_steps = kMaxSteps}, disk_of(image)),
        registry_(block::DriverRegistry::builtin()) {}

  void run() {
    const auto before = simulation_.run(check());
    simulation_.run(look());
    const bool wrote = simulation_.run(change());
    const auto after = simulation_.run(check());
    if (!wrote || !before || before->corruptions != 0 || before->check_errors != 0) return;
    if (after && after->corruptions != 0) std::abort();
  }

 private:
  static io::SimulatedDisk disk_of(std::span<const uint8_t> image) {
    io::SimulatedDisk disk;
    disk.put(kName, image);
    disk.put(kDataName, std::vector<uint8_t>(100'000, 0x33));
    return disk;
  }

  io::Task<Result<std::unique_ptr<block::Backend>>> open(block::Graph& graph,
                                                         block::OpenFlags flags,
                                                         block::Permissions needed) {
    block::OpenRequest request;
    request.filename = kName;
    request.format = "qcow2";
    request.flags = flags;
    if (wants_data_file_) {
      request.options.set("data-file.driver", std::string("file"));
      request.options.set("data-file.filename", std::string(kDataName));
    }
    if (takes_key_) request.options.set("encrypt.key-secret", std::string("s"));
    request.policy = OpenPolicy::deny();
    request.policy.max_metadata_bytes = kMaxMetadata;
    co_return co_await graph.open(std::move(request), needed, block::kAllPermissions);
  }

  io::Task<std::optional<block::CheckResult>> check() {
    block::Graph graph({registry_, simulation_.files(), log_, &secrets_});
    auto image = co_await open(graph, {.no_backing = true, .check = true},
                               block::Permission::kConsistentRead);
    if (!image) co_return std::nullopt;
    Silent silent;
    std::optional<block::CheckResult> result;
    if (auto* checkable = (*image)->node().driver().checkable()) {
      auto checked = co_await checkable->check(silent);
      if (checked) result = *checked;
    }
    if (auto* charted = (*image)->node().driver().charted()) {
      Promises promises((*image)->node().primary()->size(), (*image)->size());
      (void)co_await charted->chart(promises);
    }
    (void)co_await (*image)->close();
    co_return result;
  }

  // Everything that reads.
  io::Task<void> look() {
    block::Graph graph({registry_, simulation_.files(), log_, &secrets_});
    if (auto image = co_await open(graph, {.no_io = true, .no_backing = true}, {})) {
      (void)(*image)->node().driver().info();
      (void)co_await (*image)->close();
    }
    auto image = co_await open(graph, {.no_backing = true}, block::Permission::kConsistentRead);
    if (!image) co_return;
    const uint64_t size = (*image)->size();
    for (const uint64_t offset : {uint64_t{0}, size / 3, size / 2, size - size / 7}) {
      const uint64_t length = std::min<uint64_t>(kProbeLength, size - offset);
      if (length == 0) continue;
      (void)co_await (*image)->read(offset, {buffer_, length});
    }
    uint64_t offset = 0;
    for (unsigned runs = 0; runs < 64 && offset < size; ++runs) {
      const auto status = co_await (*image)->status_above(nullptr, offset, size - offset,
                                                          block::StatusDetail::kFast);
      if (!status) break;
      if (status->length == 0 || status->length > size - offset) std::abort();
      offset += status->length;
    }
    co_await look_at_bitmaps((*image)->node().driver());
    (void)co_await (*image)->close();
  }

  // Runs within the disk, in order.
  io::Task<void> look_at_bitmaps(block::Driver& driver) {
    auto* store = driver.bitmap_store();
    if (store == nullptr) co_return;
    unsigned looked_at = 0;
    for (const auto& info : store->bitmaps()) {
      if (++looked_at > kMaxBitmaps) co_return;
      const auto bits = co_await store->bitmap_bits(info.name);
      if (!bits) continue;
      uint64_t end = 0;
      uint64_t runs = 0;
      for (auto run = (*bits)->next_dirty(0); run && runs < kMaxRuns;
           run = (*bits)->next_dirty(end), ++runs) {
        if (run->offset < end || run->length == 0 || run->offset + run->length > driver.size())
          std::abort();
        end = run->offset + run->length;
      }
    }
  }

  // Every kind of change, to the first ones there are.
  io::Task<void> change_bitmaps(block::Driver& driver) {
    auto* store = driver.bitmap_store();
    if (store == nullptr) co_return;
    (void)store->add_bitmap("fuzzed", 4096, true);
    const auto bitmaps = store->bitmaps();
    for (size_t i = 0; i < std::min<size_t>(bitmaps.size(), kMaxBitmaps); ++i) {
      const std::string& name = bitmaps[i].name;
      switch (i % 4) {
        case 0:
          if (auto bits = co_await store->bitmap_bits(name))
            (void)store->merge_bitmap("fuzzed", **bits);
          break;
        case 1: (void)store->remove_bitmap(name); break;
        case 2: (void)store->enable_bitmap(name, !bitmaps[i].enabled); break;
        default: (void)store->clear_bitmap(name);
      }
    }
  }

  // Everything that writes. Whether the image could be opened for it.
  io::Task<bool> change() {
    block::Graph graph({registry_, simulation_.files(), log_, &secrets_});
    auto image = co_await open(graph, {.read_only = false, .no_backing = true},
                               block::Permission::kConsistentRead | block::Permission::kWrite |
                                   block::Permission::kResize);
    if (!image) co_return false;
    std::fill_n(buffer_, sizeof buffer_, uint8_t{0x5a});
    const uint64_t size = (*image)->size();
    for (const uint64_t offset : {uint64_t{0}, size / 2, size - size / 5}) {
      const uint64_t length = std::min<uint64_t>(kProbeLength, size - offset);
      if (length == 0) continue;
      (void)co_await (*image)->write(offset, {buffer_, length});
    }
    (void)co_await (*image)->flush();
    co_await change_bitmaps((*image)->node().driver());
    (void)co_await (*image)->zero(0, std::min<uint64_t>(size, 8192), block::WriteFlag::kMayUnmap);
    (void)co_await (*image)->discard(size / 2, std::min<uint64_t>(size - size / 2, 65536));
    (void)co_await (*image)->resize(size + 65536, block::Preallocation::kOff, false);
    (void)co_await (*image)->close();
    co_return true;
  }

  static bool wants_data_file(std::span<const uint8_t> image) {
    constexpr size_t kIncompatibleFeatures = 72;
    constexpr uint64_t kExternalDataFile = 4;
    return image.size() >= kIncompatibleFeatures + 8 && load_big<uint32_t>(image, 4) >= 3 &&
           (load_big<uint64_t>(image, kIncompatibleFeatures) & kExternalDataFile) != 0;
  }

  // Whether the image is encrypted, and trying a key is quick.
  static bool takes_key(std::span<const uint8_t> image) {
    if (image.size() < qcow2::kMinHeaderBytesV3) return false;
    const auto cluster_size = qcow2::declared_cluster_size(image);
    if (!cluster_size) return false;
    const auto present = image.first(std::min<uint64_t>(*cluster_size, image.size()));
    std::vector<uint8_t> cluster(present.begin(), present.end());
    cluster.resize(*cluster_size);
    const auto header = qcow2::parse_header(cluster, {});
    if (!header || header->crypt_method != qcow2::CryptMethod::kLuks)
      return header && header->crypt_method == qcow2::CryptMethod::kAes;
    if (!header->crypto_header || header->crypto_header->offset >= image.size()) return false;
    const auto luks = crypto::parse_luks_header(image.subspan(header->crypto_header->offset));
    return luks && platter::fuzz::is_quick(*luks);
  }

  const bool wants_data_file_;
  const bool takes_key_;
  io::Simulation simulation_;
  block::DriverRegistry registry_;
  platter::base::Log log_;
  const platter::fuzz::OneSecret secrets_;
  uint8_t buffer_[kProbeLength];
};

}  // namespace

#ifdef PLATTER_FUZZ_MUTATOR
// ---- A mutator that knows where the numbers are

namespace {

// Where the bitmaps' extension keeps the offset of their directory; 0: there is none.
size_t bitmaps_extension(std::span<const uint8_t> bytes) {
  constexpr uint32_t kBitmaps = 0x23852875;
  for (size_t at = load_big<uint32_t>(bytes, 100); at + 32 <= bytes.size();) {
    const uint32_t type = load_big<uint32_t>(bytes, at);
    const uint32_t length = load_big<uint32_t>(bytes, at + 4);
    if (type == kBitmaps) return at + 24;
    if (type == 0 || length > bytes.size()) break;
    at += 8 + (length + 7) / 8 * 8;
  }
  return 0;
}

// A 64-bit value that a table might hold, right or wrong.
uint64_t plausible_entry(uint64_t random, size_t image_size, unsigned cluster_bits) {
  const uint64_t clusters = (image_size >> cluster_bits) + 2;
  uint64_t entry = ((random >> 8) % clusters) << cluster_bits;
  if (random & 1) entry |= uint64_t{1} << 63;
  if ((random & 0x1e) == 0) entry |= uint64_t{1} << 62;
  if ((random & 0xe0) == 0) entry |= 1;
  return entry;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  constexpr size_t kHeaderBytes = 112;
  if (size < kHeaderBytes) return LLVMFuzzerMutate(data, size, max_size);
  std::span<uint8_t> bytes(data, size);
  uint64_t random = seed * uint64_t{0x9e3779b97f4a7c15};
  random ^= random >> 29;
  const unsigned cluster_bits = std::clamp<unsigned>(load_big<uint32_t>(bytes, 20), 9, 21);
  switch (random % 5) {
    case 0:  // the header's fields
      LLVMFuzzerMutate(data, kHeaderBytes, kHeaderBytes);
      return size;
    case 1:  // anything, at its length
      return LLVMFuzzerMutate(data, size, size);
    case 2:  // anything
      return LLVMFuzzerMutate(data, size, max_size);
    case 3: {  // the directory of the bitmaps, or the table of the first one
      const size_t place = bitmaps_extension(bytes);
      if (place == 0) return LLVMFuzzerMutate(data, size, size);
      const uint64_t directory = load_big<uint64_t>(bytes, place);
      if (directory + 32 > size || directory + 32 < 32) return LLVMFuzzerMutate(data, size, size);
      if (random & 32) {
        LLVMFuzzerMutate(data + directory, 24, 24);
        return size;
      }
      const uint64_t table = load_big<uint64_t>(bytes, directory);
      const uint64_t entry = table + (random >> 12) % 4 * 8;
      if (entry + 8 > size || entry + 8 < 8) return LLVMFuzzerMutate(data, size, size);
      store_big(bytes, entry, plausible_entry(random >> 20, size, cluster_bits));
      return size;
    }
    default: {  // an entry of a table that the header or the L1 table names
      const size_t places[] = {40, 48, 64};
      uint64_t table = load_big<uint64_t>(bytes, places[(random >> 4) % 3]);
      if (random & 4 && table <= size - 8) {
        table = load_big<uint64_t>(bytes, table) & 0x00fffffffffffe00;
      }
      const uint64_t entry = table + (random >> 12) % 16 * 8;
      if (size < 8 || entry > size - 8) return LLVMFuzzerMutate(data, size, size);
      store_big(bytes, entry, plausible_entry(random >> 20, size, cluster_bits));
      return size;
    }
  }
}
#endif

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  World({data, size}).run();
  return 0;
}
