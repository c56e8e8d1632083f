// Transmission: one client's requests on one export, from the end of the negotiation to the end of
// the connection (the NBD protocol, "Transmission").
//
// Requests run side by side and are answered in the order in which they end; what ends in one turn
// of the reactor goes out in one message. Neither the reader nor a request waits for a client that
// does not take its replies, until it has kMaxRequests of them, or kMaxBytes of data, under way.
//
// One reactor. Nothing is allocated once each slot has met its largest request.
#pragma once

#include <memory>
#include <vector>

#include "export/nbd/extents.h"
#include "export/nbd/intake.h"
#include "export/nbd/negotiation.h"
#include "export/nbd/reply.h"
#include "io/buffer.h"
#include "io/reactor.h"
#include "io/task.h"

namespace platter::nbd {

class Transmission {
 public:
  static constexpr size_t kMaxRequests = 256;
  static constexpr uint64_t kMaxBytes = uint64_t{64} << 20;
  // Of buffers that are kept for requests to come.
  static constexpr uint64_t kMaxKeptBytes = uint64_t{16} << 20;
  // Reads as long as this leave out what is known to be zeroes.
  static constexpr uint64_t kSparseBytes = uint64_t{64} << 10;
  // Shorter runs of zeroes are sent as data.
  static constexpr uint64_t kMinHole = uint64_t{32} << 10;
  // What CACHE reads at a time.
  static constexpr uint64_t kCacheBytes = uint64_t{1} << 20;

  // The stream outlives it, and so does what is served.
  Transmission(io::Stream& stream, Agreement agreement);
  ~Transmission();

  // Until the client leaves; nothing is under way then. EPROTO: it broke the rules; or the
  // stream's error.
  io::Task<Result<void>> run();

 private:
  struct Slot {
    Request request;
    io::AlignedBuffer buffer;
    uint64_t bytes = 0;  // of kMaxBytes
    Reply reply;
    std::vector<Extent> extents;
    Slot* next = nullptr;
  };
  // One coroutine of this reactor waits for another one to say so.
  class Signal {
   public:
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) noexcept { waiter_ = handle; }
    void await_resume() const noexcept {}
    void raise() {
      if (auto waiter = std::exchange(waiter_, nullptr))
        io::Reactor::current()->resume_later(waiter);
    }

   private:
    std::coroutine_handle<> waiter_;
  };

  io::Task<Result<void>> read_requests();
  io::Task<Result<bool>> read_request();
  io::Task<Result<void>> write_replies();

  Result<void> check(const Request& request, uint64_t payload) const;
  uint64_t buffer_bytes(const Request& request) const;
  bool may_take(uint64_t bytes) const;
  Slot* take_slot(uint64_t bytes);
  void release(Slot* slot);

  io::SelfOwned serve(Slot* slot);
  io::Task<Result<void>> carry_out(Slot& slot);
  io::Task<Result<void>> read_sparse(Slot& slot);
  io::Task<Result<std::vector<Extent>>> find_runs(const Request& request);
  io::Task<Result<void>> zero(const Request& request);
  io::Task<Result<void>> trim(const Request& request);
  io::Task<Result<void>> cache(Slot& slot);
  struct StatusQuestion {
    uint64_t length;
    std::vector<uint32_t> contexts;
  };
  Result<StatusQuestion> read_question(const Slot& slot) const;
  io::Task<Result<void>> tell_status(Slot& slot);
  void append_extents(Slot& slot, uint32_t context, bool last);
  void answer_read(Slot& slot);
  void finish(Slot* slot, Result<void> result);

  io::Stream& stream_;
  const Agreement agreement_;
  block::Backend& backend_;
  Intake intake_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
  uint64_t bytes_ = 0;       // of slots in use
  uint64_t kept_bytes_ = 0;  // of free ones' buffers
  size_t under_way_ = 0;     // slots that are not free
  Slot* done_ = nullptr;     // replies to send
  Slot** done_end_ = &done_;
  bool ended_ = false;  // nothing more is read
  Signal slot_freed_;
  Signal reply_made_;
  std::vector<iovec> pieces_;
};

}  // namespace platter::nbd
