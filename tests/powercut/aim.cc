#include "powercut/aim.h"

#include <memory>
#include <utility>

#include "base/try.h"
#include "block/filter_driver.h"

namespace platter::powercut {
namespace {

using block::DebugEvent;

thread_local Aim* current_aim = nullptr;

class AimedDriver final : public block::FilterDriver, public block::DebugPoints {
 public:
  using FilterDriver::FilterDriver;

  io::Task<Result<void>> write(uint64_t offset, io::BufferList buffers,
                               block::WriteFlags flags) override {
    if (current_aim != nullptr) current_aim->pass_write(offset);
    return child_.write(offset, buffers, flags);
  }
  block::DebugPoints* debug_points() override { return this; }
  io::Task<void> pass(DebugEvent event) override {
    if (current_aim != nullptr) current_aim->pass(event);
    return io::Task<void>::ready();
  }

  // Nobody is ever held here.
  Result<void> add_breakpoint(DebugEvent, std::string) override { return fail_errno(ENOTSUP); }
  Result<void> remove_breakpoint(std::string_view) override { return fail_errno(ENOENT); }
  Result<void> resume(std::string_view) override { return fail_errno(ENOENT); }
  bool is_held(std::string_view) override { return false; }
  void release_all() override {}
  void set_listener(std::function<void(Change)>) override {}
};

io::Task<Result<std::unique_ptr<block::Driver>>> open_aimed(block::OpenContext& context) {
  PLATTER_CO_ASSIGN(block::Child * file,
                    co_await context.open_child(
                        "file", block::ChildRole::kFiltered | block::ChildRole::kPrimary));
  co_return std::make_unique<AimedDriver>(*file);
}

}  // namespace

const block::DriverType kAimed = {
    .name = "aimed",
    .kind = block::DriverKind::kFilter,
    .runtime_options = base::OptionSchema({}),
    .create_options = base::OptionSchema({}),
    .open = open_aimed,
};

void Aim::pass(DebugEvent passed) {
  if (!hit || passed != event) return;
  if (moment != Moment::kNone ? begun : passes-- == 0) std::exchange(hit, nullptr)();
}

void Aim::pass(Moment passed) {
  if (!hit || passed != moment || begun || passes-- != 0) return;
  begun = true;
  if (!header_writes && !event) std::exchange(hit, nullptr)();
}

void Aim::pass_write(uint64_t offset) {
  if (hit && begun && header_writes && offset < header_bytes && (*header_writes)-- == 0)
    std::exchange(hit, nullptr)();
}

AimGuard::AimGuard(Aim& aim) { current_aim = &aim; }
AimGuard::~AimGuard() { current_aim = nullptr; }

}  // namespace platter::powercut
