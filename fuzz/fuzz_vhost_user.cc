// A front-end that does as it likes: an input is a program of messages, of bytes in the shared
// memory, of requests that are more or less right, and of notifications, run against a session of
// the vhost-user export with a disk of its own. Some inputs have a thread that rewrites the shared
// memory meanwhile, some shorten the file behind it; some have a disk that fails, where the device
// stops, and is told to go on in between.
//
// Whatever it does, the session must end when its socket is shut, with its queues stopped, and the
// disk must still be read. Some inputs have a disk of zones, whose states must stay what they can
// be.

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "block/backend.h"
#include "block/graph.h"
#include "block/registry.h"
#include "export/vhost_user/export.h"
#include "export/vhost_user/session.h"
#include "io/reactor_group.h"
#include "io/shared_mapping.h"
#include "virtio/blk/config.h"
#include "virtio/features.h"

namespace {

using namespace platter;
using vhost_user::Request;

constexpr uint64_t kMemoryBytes = 256 << 10;
constexpr uint64_t kGuestBase = 0x10000;
constexpr uint64_t kUserBase = 0x7f0000000000;
constexpr uint64_t kDescriptors = 0;
constexpr uint64_t kDriverArea = 0x1000;
constexpr uint64_t kDeviceArea = 0x2000;
constexpr uint64_t kTables = 0x3000;
constexpr uint64_t kData = 0x8000;
constexpr uint16_t kRingSize = 16;
constexpr uint16_t kQueues = 2;
constexpr size_t kMaxOperations = 200;
// For the requests in flight of all queues, with some room behind.
constexpr uint64_t kInflightBytes = 2048;
constexpr uint8_t kInflightMessages = 0xc0;

void require(bool holds) {
  if (!holds) std::abort();
}

constexpr uint64_t kZoneSectors = 128;
constexpr unsigned kMaxOpenZones = 2;
constexpr unsigned kMaxActiveZones = 3;
constexpr const char* kPlainDisk = "driver=memory,size=1M";
constexpr const char* kZonedDisk =
    "driver=memory,size=1000k,zoned=host-managed,zone-size=64k,zone-capacity=48k,"
    "conventional-zones=1,max-open-zones=2,max-active-zones=3,max-append-bytes=4k";
constexpr const char* kFailingDisk =
    "driver=blkdebug,image.driver=memory,image.size=1M,image.discard=unmap,"
    "inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.sector=3,"
    "inject-error.0.errno=28,inject-error.1.event=none,inject-error.1.iotype=write-zeroes,"
    "inject-error.2.event=none,inject-error.2.iotype=read,inject-error.2.sector=5";

// What is shared by all inputs: a disk and the threads that serve it.
class Disk {
 public:
  explicit Disk(const char* options, bool fails = false) {
    auto group = io::ReactorGroup::start({.reactors = 2});
    require(group.has_value());
    reactors_ = std::move(*group);
    block::OpenRequest request;
    request.options = *base::Options::from_key_values(options);
    request.flags.read_only = false;
    request.discard_unmap = true;
    request.policy = OpenPolicy::anything();
    auto opened = run(graph_.open(std::move(request),
                                  block::Permission::kConsistentRead | block::Permission::kWrite,
                                  block::kAllPermissions));
    require(opened.has_value());
    backend_ = std::move(*opened);
    virtio::blk::Properties properties = vhost_user::default_properties();
    properties.queues = kQueues;
    if (fails) {
      properties.read_error = virtio::blk::OnError::kIgnore;
      properties.write_error = virtio::blk::OnError::kStop;
    }
    device_ = *virtio::blk::Device::make(*backend_, properties);
    first_state_ = device_->state();
    for (unsigned i = 0; i < reactors_->size(); ++i) all_.push_back(&reactors_->at(i));
    // As the program does it.
    signal(SIGPIPE, SIG_IGN);
  }
  ~Disk() { require(run(backend_->close()).has_value()); }

  template <typename T>
  T run(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  virtio::blk::Device& device() { return *device_; }
  const virtio::blk::DeviceState& first_state() const { return first_state_; }
  const std::vector<io::Reactor*>& reactors() const { return all_; }
  const base::Log& log() const { return log_; }
  bool is_readable() {
    std::array<uint8_t, 512> sector;
    return run(backend_->read(0, io::BufferList(sector))).has_value();
  }
  bool is_zoned() const { return backend_->zoned_characteristics().has_value(); }
  // The next input finds them empty.
  void check_and_reset_zones() {
    std::array<block::Zone, 32> zones;
    const auto count = run(backend_->zone_report(0, zones));
    require(count.value_or(0) == 16);
    unsigned open = 0;
    unsigned closed = 0;
    for (const block::Zone& zone : std::span(zones).first(*count)) {
      require(zone.write_pointer >= zone.offset && zone.write_pointer <= zone.offset + zone.length);
      open += zone.state == block::ZoneState::kImplicitlyOpen ||
              zone.state == block::ZoneState::kExplicitlyOpen;
      closed += zone.state == block::ZoneState::kClosed;
    }
    require(open <= kMaxOpenZones && open + closed <= kMaxActiveZones);
    const auto reset =
        run(backend_->zone_manage(block::ZoneAction::kResetAll, 0, backend_->size()));
    require(reset.has_value());
  }

 private:
  std::unique_ptr<io::ReactorGroup> reactors_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  base::Log log_;
  block::Graph graph_{{registry_, io::system_files(), log_}};
  std::unique_ptr<block::Backend> backend_;
  std::unique_ptr<virtio::blk::Device> device_;
  virtio::blk::DeviceState first_state_;
  std::vector<io::Reactor*> all_;
};

Disk& disk(bool zoned, bool fails) {
  static Disk plain(kPlainDisk);
  static Disk with_zones(kZonedDisk);
  static Disk bad(kFailingDisk, true);
  if (fails) return bad;
  return zoned ? with_zones : plain;
}

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  template <typename T = uint8_t>
  T take() {
    T value{};
    const auto got = take_bytes(sizeof(T));
    std::memcpy(&value, got.data(), got.size());
    return value;
  }
  std::span<const uint8_t> take_bytes(size_t count) {
    const auto taken = bytes_.first(std::min(count, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const uint8_t> bytes_;
};

// ThreadSanitizer's own calls do not survive a signal in the middle of one.
void shorten(const io::Descriptor& file, off_t bytes) {
#if !__has_feature(thread_sanitizer)
  (void)!ftruncate(file.get(), bytes);
#else
  (void)file, (void)bytes;
#endif
}

// Changes some of the shared memory all the time.
class Vandal {
 public:
  Vandal(uint8_t* memory, uint64_t seed) : thread_([this, memory, seed] { run(memory, seed); }) {}
  ~Vandal() {
    stop_ = true;
    thread_.join();
  }

 private:
  void run(uint8_t* memory, uint64_t seed) {
    for (uint64_t random = seed | 1; !stop_;) {
      random ^= random << 13;
      random ^= random >> 7;
      random ^= random << 17;
      // Rings, tables and headers: what is judged.
      __atomic_store_n(memory + random % kData, static_cast<uint8_t>(random >> 32),
                       __ATOMIC_RELAXED);
    }
  }
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

class FrontEnd {
 public:
  explicit FrontEnd(std::span<const uint8_t> bytes)
      : input_(bytes), options_(input_.take()), disk_(disk(has(kZoned), has(kFails))) {
    int ends[2];
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    socket_.reset(ends[0]);
    const timeval limit = {.tv_sec = 0, .tv_usec = 20'000};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    memory_file_.reset(memfd_create("guest", MFD_CLOEXEC));
    require(ftruncate(memory_file_.get(), kMemoryBytes) == 0);
    auto mapping = io::SharedMapping::map(memory_file_.get(), 0, kMemoryBytes);
    require(mapping.has_value());
    mapping_ = std::move(*mapping);
    inflight_file_.reset(memfd_create("inflight", MFD_CLOEXEC));
    require(ftruncate(inflight_file_.get(), kInflightBytes + 64) == 0);
    for (io::Descriptor& kick : kicks_) kick.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    call_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    session_ = std::make_unique<vhost_user::Session>(io::Descriptor(ends[1]), disk_.device(),
                                                     disk_.reactors(), disk_.log());
    disk_.run(begin());
  }

  void run() {
    std::optional<Vandal> vandal;
    if (has(kHasVandal)) vandal.emplace(memory_(), input_.take<uint32_t>());
    if (!has(kBare)) set_up();
    for (size_t count = 0; count < kMaxOperations && !input_.empty(); ++count) operate();
    synchronise();
    shutdown(socket_.get(), SHUT_RDWR);
    disk_.run(gate_.close());
    session_.reset();
    require(disk_.device().status() == 0);
    require(!disk_.device().errors().is_stopped_by_error());
    disk_.device().errors().go_on();
    require(disk_.is_readable());
    if (disk_.is_zoned()) disk_.check_and_reset_zones();
  }

 private:
  enum Option : uint8_t {
    kPacked = 1,
    kEventIndex = 2,
    kIndirect = 4,
    kHasVandal = 8,
    kBare = 16,
    kInOrder = 32,
    kZoned = 64,
    kFails = 128,
  };
  bool has(Option option) const { return (options_ & option) != 0; }
  uint8_t* memory_() const { return mapping_->data(); }
  io::Task<void> go_on() {
    disk_.device().errors().go_on();
    session_->go_on();
    co_return;
  }
  // Told by the user of a disk that fails.
  void stop_or_go_on(uint8_t which) {
    if (!has(kFails)) return synchronise();
    if (which % 4 == 0) {
      disk_.device().errors().stop_by_user();
    } else {
      disk_.run(go_on());
    }
  }
  io::Task<void> begin() {
    gate_.spawn(*io::Reactor::current(), session_->run());
    co_return;
  }

  void send_message(uint32_t request, uint32_t flags, std::span<const uint8_t> payload,
                    std::span<const int> descriptors = {}) {
    std::vector<uint8_t> bytes(vhost_user::kHeaderBytes);
    const uint32_t header[] = {request, flags, static_cast<uint32_t>(payload.size())};
    std::memcpy(bytes.data(), header, sizeof header);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    iovec piece = {.iov_base = bytes.data(), .iov_len = bytes.size()};
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(16 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* ancillary = CMSG_FIRSTHDR(&message);
      ancillary->cmsg_level = SOL_SOCKET;
      ancillary->cmsg_type = SCM_RIGHTS;
      ancillary->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(ancillary), descriptors.data(), descriptors.size_bytes());
    }
    (void)sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  }
  template <typename... Fields>
  void send_fields(Request request, std::span<const int> descriptors, Fields... fields) {
    std::vector<uint8_t> payload;
    const auto append = [&](auto field) {
      const auto* raw = reinterpret_cast<const uint8_t*>(&field);
      payload.insert(payload.end(), raw, raw + sizeof field);
    };
    (append(fields), ...);
    send_message(static_cast<uint32_t>(request), 1, payload, descriptors);
  }

  // As a front-end that means well.
  void set_up() {
    uint64_t features = virtio::kVersion1 | vhost_user::kProtocolFeatures;
    if (has(kPacked)) features |= virtio::kPackedRing;
    if (has(kEventIndex)) features |= virtio::kEventIndex;
    if (has(kIndirect)) features |= virtio::kIndirectDescriptors;
    if (has(kInOrder)) features |= virtio::kInOrder;
    if (has(kZoned)) features |= virtio::blk::kZoned;
    send_fields(Request::kSetProtocolFeatures, {},
                uint64_t{vhost_user::kReplyAck | vhost_user::kDeviceState});
    send_fields(Request::kSetFeatures, {}, features);
    const int memory[] = {memory_file_.get()};
    send_fields(Request::kSetMemoryTable, memory, uint32_t{1}, uint32_t{0}, kGuestBase,
                kMemoryBytes, kUserBase, uint64_t{0});
    send_fields(Request::kSetVringSize, {}, uint32_t{0}, uint32_t{kRingSize});
    send_fields(Request::kSetVringBase, {}, uint32_t{0},
                has(kPacked) ? uint32_t{0x80008000} : uint32_t{0});
    send_fields(Request::kSetVringAddress, {}, uint32_t{0}, uint32_t{0}, kUserBase + kDescriptors,
                kUserBase + kDeviceArea, kUserBase + kDriverArea, uint64_t{0});
    const int call[] = {call_.get()};
    send_fields(Request::kSetVringCall, call, uint64_t{0});
    const int kick[] = {kicks_[0].get()};
    send_fields(Request::kSetVringKick, kick, uint64_t{0});
    send_fields(Request::kSetVringEnable, {}, uint32_t{0}, uint32_t{1});
  }

  void operate() {
    switch (input_.take() % 8) {
      case 0: {
        const uint32_t request = input_.take() % 48;
        const uint32_t flags = (input_.take() & 0x0e) | 1;
        const auto count = input_.take() % 4;
        std::vector<int> descriptors;
        for (int i = 0; i < count; ++i) descriptors.push_back(descriptor(input_.take()));
        send_message(request, flags, input_.take_bytes(input_.take() % 80), descriptors);
        break;
      }
      case 1: {  // any message, at its right length
        const uint8_t which = input_.take();
        const uint32_t index = input_.take() % 3;
        if (which >= kInflightMessages) {
          adjust_inflight(which);
        } else {
          adjust_vring(which, index);
        }
        break;
      }
      case 2: {
        const uint64_t offset = input_.take<uint16_t>() * uint64_t{4};
        const auto bytes = input_.take_bytes(input_.take() % 33);
        if (offset + bytes.size() <= kMemoryBytes)
          std::memcpy(memory_() + offset, bytes.data(), bytes.size());
        break;
      }
      case 3:
      case 4:
      case 5: add_request(); break;
      case 6: kick(input_.take() % kQueues); break;
      default: rare();
    }
  }

  void rare() {
    switch (input_.take() % 16) {
      case 0: shorten(memory_file_, input_.take() * 1024); break;
      case 1: send_bytes(input_.take_bytes(input_.take() % 32)); break;
      case 9: shorten(inflight_file_, input_.take() * 8); break;
      case 10: transfer_state(input_.take()); break;
      case 11: stop_or_go_on(input_.take()); break;
      default: synchronise();
    }
  }
  // The device's own state, or one that is made up, of which some bytes are others; the pipe may
  // stay open, or have nobody at its other end.
  void transfer_state(uint8_t shape) {
    int ends[2];
    require(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    const bool loads = (shape & 1) != 0;
    const int theirs[] = {ends[loads ? 0 : 1]};
    io::Descriptor given(theirs[0]);
    io::Descriptor kept(ends[loads ? 1 : 0]);
    if ((shape & 2) != 0) {
      for (uint32_t queue = 0; queue < kQueues; ++queue)
        send_fields(Request::kGetVringBase, {}, queue, uint32_t{0});
    }
    send_fields(Request::kSetDeviceState, theirs, uint32_t{loads}, uint32_t{0});
    given.reset();
    if (loads) {
      virtio::blk::DeviceState state = disk_.first_state();
      state.queues = {{.size = kRingSize, .position = virtio::QueueState{input_.take(), 0}}, {}};
      state.features |= input_.take<uint32_t>();
      auto bytes = state.encode();
      for (int changes = shape >> 6; changes > 0; --changes)
        bytes[input_.take() % bytes.size()] = input_.take();
      (void)!write(kept.get(), bytes.data(), bytes.size());
    }
    if ((shape & 4) != 0) kept.reset();
    if ((shape & 8) != 0) synchronise();
    send_fields(Request::kCheckDeviceState, {});
    if ((shape & 16) != 0) synchronise();
  }
  void send_bytes(std::span<const uint8_t> bytes) {
    (void)!send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }

  int descriptor(uint8_t which) const {
    switch (which % 5) {
      case 0: return memory_file_.get();
      case 1: return kicks_[0].get();
      case 2: return kicks_[1].get();
      case 3: return call_.get();
      default: return socket_.get();
    }
  }

  void adjust_vring(uint8_t which, uint32_t index) {
    const int kick[] = {kicks_[index % kQueues].get()};
    const auto number = input_.take<uint16_t>();
    switch (which % 9) {
      case 0: send_fields(Request::kSetVringSize, {}, index, uint32_t{number} % 40); break;
      case 1: send_fields(Request::kSetVringBase, {}, index, uint32_t{number} * 65537); break;
      case 2:
        send_fields(Request::kSetVringAddress, {}, index, uint32_t{0},
                    kUserBase + kDescriptors + number % 5 * 64,
                    kUserBase + kDeviceArea + number % 7 * 16, kUserBase + kDriverArea,
                    uint64_t{0});
        break;
      case 3: send_fields(Request::kSetVringKick, kick, uint64_t{index}); break;
      case 4: send_fields(Request::kSetVringKick, {}, uint64_t{index} | 256); break;
      case 5: send_fields(Request::kSetVringEnable, {}, index, uint32_t{number} & 1); break;
      case 6: send_fields(Request::kGetVringBase, {}, index, uint32_t{0}); break;
      case 7: {
        const int memory[] = {memory_file_.get()};
        send_fields(Request::kSetMemoryTable, memory, uint32_t{1}, uint32_t{0}, kGuestBase,
                    number % 3 == 0 ? kMemoryBytes / 2 : kMemoryBytes, kUserBase, uint64_t{0});
        break;
      }
      default: send_fields(Request::kSetStatus, {}, uint64_t{number} & 0xcf);
    }
  }

  // What is in flight: asked for, given back with numbers that may be wrong, and rewritten; a ring
  // that starts anew with it has to recover from that.
  void adjust_inflight(uint8_t which) {
    const auto number = input_.take<uint16_t>();
    const uint16_t queues = number % 7 == 6 ? 9 : kQueues;
    const uint16_t size = number % 11 == 10 ? number : kRingSize;
    const int file[] = {inflight_file_.get()};
    switch (which % 4) {
      case 0: send_fields(Request::kGetInflight, {}, uint64_t{0}, uint64_t{0}, queues, size); break;
      case 1:
        send_fields(Request::kSetInflight, file,
                    number % 5 == 4 ? uint64_t{number} << 48 : kInflightBytes,
                    uint64_t{number} / 256 % 4 * 8, queues, size);
        break;
      case 2: {
        const auto bytes = input_.take_bytes(input_.take() % 33);
        (void)!pwrite(file[0], bytes.data(), bytes.size(), number % kInflightBytes);
        break;
      }
      default: {
        const int kick[] = {kicks_[0].get()};
        send_fields(Request::kGetVringBase, {}, uint32_t{0}, uint32_t{0});
        send_fields(Request::kSetInflight, file, kInflightBytes, uint64_t{0}, kQueues, kRingSize);
        send_fields(Request::kSetVringKick, kick, uint64_t{0});
      }
    }
  }

  // A request of up to three buffers: header, data, status; in which little may be wrong.
  void add_request() {
    const uint8_t shape = input_.take();
    const uint8_t type = input_.take();
    const auto sector = input_.take<uint16_t>();
    const auto length = input_.take<uint16_t>();
    constexpr uint32_t kTypes[] = {0, 1, 4, 8, 11, 13, 2, 14, 15, 16, 18, 20, 22, 24, 26, 17};
    uint8_t* header = memory_() + kData + next_slot_ * 64;
    const uint32_t kind = kTypes[type % (has(kZoned) ? 16 : 8)];
    std::memcpy(header, &kind, sizeof kind);
    // What is done to zones, and most of what is written to them, begins at their first sector.
    const bool at_zone = has(kZoned) && (kind >= 15 || (shape & 8) != 0);
    const uint64_t place = at_zone ? sector % 20 * kZoneSectors + sector / 20 % 2 : sector;
    std::memcpy(header + 8, &place, sizeof place);
    const bool from_device = kind == 0 || kind == 8 || kind == 16;
    const uint32_t before_status = kind == 15 ? 8 : 0;
    const uint64_t data = kGuestBase + kData + 0x4000 + (length & 7) * 4096;
    uint32_t bytes = (shape & 1) != 0 ? uint32_t{length} & ~511U : 512;
    if (kind == 11 || kind == 13) bytes = 16;
    std::vector<std::array<uint64_t, 3>> buffers = {
        {kGuestBase + kData + next_slot_ * 64, 16, 0},
        {data, bytes, from_device ? uint64_t{2} : 0},
        {kGuestBase + kData + next_slot_ * 64 + 32 - before_status, 1 + before_status, 2}};
    if ((shape & 6) == 6) buffers.erase(buffers.begin() + (shape >> 3) % 3);
    if ((shape & 0xc0) == 0xc0) buffers[(shape >> 3) % buffers.size()][1] = length;
    next_slot_ = (next_slot_ + 1) % 64;
    if (has(kPacked)) {
      add_packed(buffers, (shape & 0x20) != 0);
    } else {
      add_split(buffers, (shape & 0x20) != 0);
    }
    if ((shape & 0x10) != 0) kick(0);
  }

  static void put_descriptor(uint8_t* at, const std::array<uint64_t, 3>& buffer, uint16_t flags,
                             uint16_t last, bool packed) {
    const auto bytes = static_cast<uint32_t>(buffer[1]);
    std::memcpy(at, &buffer[0], 8);
    std::memcpy(at + 8, &bytes, 4);
    std::memcpy(at + (packed ? 14 : 12), &flags, 2);
    std::memcpy(at + (packed ? 12 : 14), &last, 2);
  }

  void add_split(const std::vector<std::array<uint64_t, 3>>& buffers, bool indirect) {
    const uint16_t head = next_descriptor_;
    uint8_t* table = indirect ? memory_() + kTables + head * 64 : memory_() + kDescriptors;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const bool more = i + 1 < buffers.size();
      const auto at = static_cast<uint16_t>(indirect ? i : (head + i) % kRingSize);
      const auto next = static_cast<uint16_t>(indirect ? i + 1 : (at + 1) % kRingSize);
      put_descriptor(table + at * 16, buffers[i],
                     static_cast<uint16_t>(buffers[i][2] | (more ? 1 : 0)), next, false);
    }
    if (indirect) {
      put_descriptor(memory_() + kDescriptors + head * 16,
                     {kGuestBase + kTables + head * 64, buffers.size() * 16, 0}, 4, 0, false);
    }
    next_descriptor_ = static_cast<uint16_t>((head + (indirect ? 1 : buffers.size())) % kRingSize);
    uint8_t* available = memory_() + kDriverArea;
    std::memcpy(available + 4 + available_ % kRingSize * 2, &head, 2);
    ++available_;
    __atomic_store_n(reinterpret_cast<uint16_t*>(available + 2), available_, __ATOMIC_RELEASE);
  }

  void add_packed(const std::vector<std::array<uint64_t, 3>>& buffers, bool indirect) {
    uint8_t* table = memory_() + kTables + next_descriptor_ * 64;
    const size_t entries = indirect ? 1 : buffers.size();
    for (size_t i = 0; indirect && i < buffers.size(); ++i)
      put_descriptor(table + i * 16, buffers[i], static_cast<uint16_t>(buffers[i][2]), 0, true);
    // The first entry last, so that a batch is whole when it is seen.
    for (size_t n = entries; n-- > 0;) {
      const size_t at = (next_descriptor_ + n) % kRingSize;
      const bool wrap = (next_descriptor_ + n) / kRingSize % 2 == 0 ? wrap_ : !wrap_;
      auto flags = static_cast<uint16_t>(wrap ? 1 << 7 : 1 << 15);
      uint8_t* place = memory_() + kDescriptors + at * 16;
      if (indirect) {
        put_descriptor(
            place, {kGuestBase + static_cast<uint64_t>(table - memory_()), buffers.size() * 16, 0},
            flags | 4, next_slot_, true);
      } else {
        flags = static_cast<uint16_t>(flags | buffers[n][2] | (n + 1 < entries ? 1 : 0));
        put_descriptor(place, buffers[n], flags, next_slot_, true);
      }
    }
    const size_t next = next_descriptor_ + entries;
    wrap_ ^= next >= kRingSize;
    next_descriptor_ = static_cast<uint16_t>(next % kRingSize);
  }

  void kick(unsigned queue) const { eventfd_write(kicks_[queue].get(), 1); }

  // Until the session has answered, or it is clear that it does not.
  void synchronise() {
    uint8_t reply[512];
    while (recv(socket_.get(), reply, sizeof reply, MSG_DONTWAIT) > 0) {
    }
    send_fields(Request::kGetStatus, {});
    (void)recv(socket_.get(), reply, sizeof reply, 0);
  }

  Input input_;
  const uint8_t options_;
  Disk& disk_;
  io::Descriptor socket_;
  io::Descriptor memory_file_;
  std::shared_ptr<io::SharedMapping> mapping_;
  io::Descriptor inflight_file_;
  std::array<io::Descriptor, kQueues> kicks_;
  io::Descriptor call_;
  std::unique_ptr<vhost_user::Session> session_;
  io::Gate gate_;
  uint16_t next_descriptor_ = 0;
  uint16_t next_slot_ = 0;
  uint16_t available_ = 0;
  bool wrap_ = true;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FrontEnd({data, size}).run();
  return 0;
}
