// What a guest does to a disk. Runs in the guest, which has no libraries: it is linked statically.
//
//   disk_load random DEVICE THREADS OPERATIONS SEED
//       Writes, reads, zeroes, discards and flushes at random, several at once, and knows what
//       every block has to hold; reads all of it back at the end. Status 1 and a line where it
//       differs.
//   disk_load journal DEVICE FIRST_BLOCK BLOCKS RECORDS
//       Writes one record after the other, each to a block of its own, and says "synced N" when
//       number N is said to be durable. Record N is N + 1, over and over, at the block that
//       journal_place() gives it.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr size_t kBlockBytes = 4096;
constexpr size_t kWordsPerBlock = kBlockBytes / sizeof(uint64_t);
// Each thread has every so-manieth extent to itself; that they are neighbours, and end within
// clusters, is what makes them meet below.
constexpr uint64_t kExtentBlocks = 40;

using Block = std::array<uint64_t, kWordsPerBlock>;

[[noreturn]] void die(const char* what) {
  std::printf("disk_load: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

int open_device(const char* path) {
  const int device = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
  if (device < 0) die(path);
  return device;
}

Block* aligned_blocks(size_t count) {
  auto* blocks = static_cast<Block*>(std::aligned_alloc(kBlockBytes, count * kBlockBytes));
  if (blocks == nullptr) die("memory");
  return blocks;
}

void write_blocks(int device, const Block* data, uint64_t first, uint64_t count) {
  const auto bytes = static_cast<ssize_t>(count * kBlockBytes);
  if (pwrite(device, data, count * kBlockBytes, static_cast<off_t>(first * kBlockBytes)) != bytes)
    die("write");
}

void read_blocks(int device, Block* data, uint64_t first, uint64_t count) {
  const auto bytes = static_cast<ssize_t>(count * kBlockBytes);
  if (pread(device, data, count * kBlockBytes, static_cast<off_t>(first * kBlockBytes)) != bytes)
    die("read");
}

// What a block holds after its so-manieth write. The disk begins with zeroes, as generation 0 has.
constexpr uint32_t kZeroes = 0;
constexpr uint32_t kUnknown = UINT32_MAX;  // discarded: may be either

void fill(Block& block, uint64_t number, uint32_t generation) {
  if (generation == kZeroes) return block.fill(0);
  std::minstd_rand words(static_cast<uint32_t>(number * 2654435761U ^ generation));
  for (uint64_t& word : block) word = uint64_t{words()} << 32 | words();
}

class Worker {
 public:
  Worker(const char* path, uint64_t blocks, uint32_t index, uint32_t count, uint32_t seed)
      : device_(open_device(path)),
        count_(count),
        index_(index),
        extents_(blocks / kExtentBlocks / count),
        random_(seed * 1000 + index),
        buffer_(aligned_blocks(kExtentBlocks)),
        generations_(extents_ * kExtentBlocks, kZeroes) {}

  void run(uint32_t operations) {
    for (uint32_t i = 0; i < operations; ++i) step();
    if (fdatasync(device_) != 0) die("flush");
    for (uint64_t extent = 0; extent < extents_; ++extent)
      verify(extent * kExtentBlocks, kExtentBlocks);
  }

 private:
  uint64_t below(uint64_t bound) {
    return std::uniform_int_distribution<uint64_t>(0, bound - 1)(random_);
  }
  // Of a block that this worker counts as number `mine`; an extent's blocks follow each other.
  uint64_t place(uint64_t mine) const {
    return (mine / kExtentBlocks * count_ + index_) * kExtentBlocks + mine % kExtentBlocks;
  }

  void step() {
    const uint64_t in_extent = below(kExtentBlocks);
    const uint64_t first = below(extents_) * kExtentBlocks + in_extent;
    // Small ones mostly, as guests do it.
    const uint64_t most = kExtentBlocks - in_extent;
    const uint64_t count = 1 + below(below(4) == 0 ? most : std::min<uint64_t>(most, 4));
    const uint64_t kind = below(100);
    if (kind < 50) {
      write(first, count);
    } else if (kind < 82) {
      verify(first, count);
    } else if (kind < 94) {
      clear(kind < 88 ? BLKZEROOUT : BLKDISCARD, first, count);
    } else if (fdatasync(device_) != 0) {
      die("flush");
    }
  }

  void write(uint64_t first, uint64_t count) {
    ++generation_;
    for (uint64_t i = 0; i < count; ++i) {
      fill(buffer_[i], place(first + i), generation_);
      generations_[first + i] = generation_;
    }
    write_blocks(device_, buffer_, place(first), count);
  }

  void clear(unsigned long request, uint64_t first, uint64_t count) {
    uint64_t range[2] = {place(first) * kBlockBytes, count * kBlockBytes};
    if (ioctl(device_, request, range) != 0)
      die(request == BLKDISCARD ? "discard" : "write zeroes");
    for (uint64_t i = 0; i < count; ++i)
      generations_[first + i] = request == BLKDISCARD ? kUnknown : kZeroes;
  }

  void verify(uint64_t first, uint64_t count) {
    read_blocks(device_, buffer_, place(first), count);
    for (uint64_t i = 0; i < count; ++i) {
      if (generations_[first + i] == kUnknown) continue;
      Block expected;
      fill(expected, place(first + i), generations_[first + i]);
      if (expected == buffer_[i]) continue;
      std::printf("disk_load: block %llu does not hold its write number %u\n",
                  static_cast<unsigned long long>(place(first + i)), generations_[first + i]);
      std::exit(1);
    }
  }

  const int device_;
  const uint32_t count_;
  const uint32_t index_;
  const uint64_t extents_;
  std::mt19937_64 random_;
  Block* const buffer_;
  std::vector<uint32_t> generations_;
  uint32_t generation_ = 0;
};

void random_load(const char* path, uint32_t threads, uint32_t operations, uint32_t seed) {
  const int device = open_device(path);
  uint64_t bytes = 0;
  if (ioctl(device, BLKGETSIZE64, &bytes) != 0) die(path);
  std::vector<std::thread> running;
  for (uint32_t i = 0; i < threads; ++i) {
    running.emplace_back(
        [=] { Worker(path, bytes / kBlockBytes, i, threads, seed).run(operations / threads); });
  }
  for (std::thread& each : running) each.join();
  std::printf("verified=%u\n", operations);
}

// Far from its neighbours, and no two alike: the step is odd, the number of blocks a power of two.
uint64_t journal_place(uint64_t record, uint64_t blocks) { return record * 40503 % blocks; }

void journal(const char* path, uint64_t first, uint64_t blocks, uint64_t records) {
  const int device = open_device(path);
  Block* block = aligned_blocks(1);
  for (uint64_t record = 0; record < records; ++record) {
    block->fill(record + 1);
    write_blocks(device, block, first + journal_place(record, blocks), 1);
    if (fdatasync(device) != 0) die("flush");
    std::printf("synced %llu\n", static_cast<unsigned long long>(record));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int count, char** words) {
  const std::string_view command = count > 1 ? words[1] : "";
  const auto number = [&](int index) { return std::strtoull(words[index], nullptr, 10); };
  if (command == "random" && count == 6) {
    random_load(words[2], static_cast<uint32_t>(number(3)), static_cast<uint32_t>(number(4)),
                static_cast<uint32_t>(number(5)));
  } else if (command == "journal" && count == 6) {
    journal(words[2], number(3), number(4), number(5));
  } else {
    std::puts(
        "usage: disk_load random DEVICE THREADS OPERATIONS SEED\n"
        "       disk_load journal DEVICE FIRST_BLOCK BLOCKS RECORDS");
    return 2;
  }
  return 0;
}
