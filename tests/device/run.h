// Run: a device and its queue, driven at random from a seed beside the model: batches of requests,
// good ones and broken ones, memory that comes and goes, resets, status and configuration written
// rightly and wrongly. What the driver gets back, and when the device asks for a reset, must be
// what the model says. The disk fails some requests, which the device reports, ignores, or stops
// at; its user stops it at times.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/graph.h"
#include "block/registry.h"
#include "device/model.h"
#include "io/reactor_group.h"
#include "virtio/blk/queue_server.h"
#include "virtio/test_driver.h"
#include "workload/random.h"

namespace platter::device_test {

class Run final : public virtio::blk::QueueEvents {
 public:
  explicit Run(uint64_t seed);
  ~Run() override;

  // The error says what the device did otherwise.
  Result<void> run(unsigned steps);

 private:
  struct Sent {
    Asked asked;
    std::optional<Answer> expected;  // nothing: the device breaks
    std::vector<uint64_t> room;      // guest address of each byte; the last one is the status
  };

  void interrupt() override {}
  bool can_be_notified() const override { return true; }
  void broken(const Error& error) override { why_ = error.message(); }

  template <typename T>
  T await(io::Task<T> task) {
    return io::run_blocking(reactors_->at(0), std::move(task));
  }
  io::Task<void> start();
  io::Task<void> stop(virtio::blk::QueueServer::Kept kept);
  io::Task<void> kick();
  io::Task<Result<void>> set_memory(bool whole);
  io::Task<std::optional<virtio::test::Used>> collect() { co_return driver_->collect(); }
  io::Task<bool> was_told() { co_return !why_.empty(); }
  io::Task<bool> is_stopped() { co_return device_->errors().is_stopped(); }
  io::Task<void> go_on();

  virtio::blk::Properties draw_properties();
  std::string draw_faults();
  uint64_t draw_features();
  Result<void> set_up();
  // A size and, in memory, places that the ring has not had; it is empty.
  void place_ring(uint64_t features);
  Result<void> reset();
  Result<void> reset_ring();
  Result<void> batch();
  Result<bool> look();
  Result<void> break_it();
  Result<void> write_config();
  Result<void> change_memory();
  Result<void> expect_broken(bool expected);

  Asked draw_request();
  void put(uint64_t address, std::span<const uint8_t> bytes);
  uint64_t place(size_t bytes);
  std::vector<virtio::test::Buffer> pieces(size_t bytes, bool writable);
  // False: there was no room for it, or its sectors are another's.
  bool send(Asked asked);
  void add(const std::vector<virtio::test::Buffer>& buffers);
  Result<void> finish(const virtio::test::Used& used);

  workload::Random random_;
  std::unique_ptr<io::ReactorGroup> reactors_;
  block::DriverRegistry registry_ = block::DriverRegistry::builtin();
  base::Log log_;
  block::Graph graph_{{registry_, io::system_files(), log_}};
  std::unique_ptr<block::Backend> backend_;
  std::vector<Fault> faults_;
  virtio::blk::OnError on_error_ = virtio::blk::OnError::kReport;
  virtio::blk::Properties properties_;
  std::unique_ptr<virtio::blk::Device> device_;
  std::unique_ptr<Model> model_;
  bool write_cache_ = true;

  virtio::test::Guest guest_;
  virtio::QueueOptions options_;
  std::unique_ptr<virtio::test::Driver> driver_;
  std::unique_ptr<virtio::blk::QueueServer> server_;
  bool whole_memory_ = true;
  std::string why_;  // the device broke
  bool is_broken_ = false;

  uint64_t next_byte_[2] = {};  // of each region
  std::vector<std::pair<uint64_t, uint64_t>> touched_;
  uint64_t neighbour_ = 0;  // the sector after the last request's
  std::map<uint16_t, Sent> sent_;
  uint16_t last_id_ = 0;
};

}  // namespace platter::device_test
