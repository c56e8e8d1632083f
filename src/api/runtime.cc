#include "platter/runtime.h"

#include <algorithm>

#include "api/runtime_state.h"
#include "base/try.h"

namespace platter {

static constexpr unsigned kDefaultReactorsMax = 8;

static io::EngineKind engine_kind(Engine engine) {
  switch (engine) {
    case Engine::kUring: return io::EngineKind::kUring;
    case Engine::kThreads: return io::EngineKind::kThreads;
    case Engine::kAuto: break;
  }
  return io::EngineKind::kAuto;
}

static base::Log make_log(const RuntimeOptions& options) {
  if (!options.log) return base::Log();
  return base::Log(
      [sink = options.log](base::LogLevel level, std::string_view line) {
        sink(static_cast<Severity>(level), line);
      },
      base::LogLevel::kDebug);
}

Runtime::Runtime(std::unique_ptr<State> state) : state_(std::move(state)) {}
Runtime::~Runtime() = default;

Result<std::unique_ptr<Runtime>> Runtime::create(const RuntimeOptions& options) {
  auto state = std::make_unique<State>(make_log(options));
  io::ReactorGroup::Options group;
  group.reactors = options.reactors != 0 ? options.reactors
                                         : std::min(io::usable_processors(), kDefaultReactorsMax);
  group.engine = engine_kind(options.engine);
  group.log = &state->log;
  PLATTER_ASSIGN(state->reactors, io::ReactorGroup::start(group));
  return std::unique_ptr<Runtime>(new Runtime(std::move(state)));
}

void SecretStore::set(std::string_view id, std::span<const uint8_t> bytes) {
  const std::lock_guard lock(mutex_);
  secrets_.insert_or_assign(std::string(id), base::SecretBytes::copy_of(bytes));
}

bool SecretStore::remove(std::string_view id) {
  const std::lock_guard lock(mutex_);
  const auto found = secrets_.find(id);
  if (found == secrets_.end()) return false;
  secrets_.erase(found);
  return true;
}

Result<base::SecretBytes> SecretStore::secret(std::string_view id) const {
  const std::lock_guard lock(mutex_);
  const auto found = secrets_.find(id);
  if (found == secrets_.end()) return std::unexpected(block::no_such_secret(id));
  return base::SecretBytes::copy_of(found->second.span());
}

void Runtime::set_secret(std::string_view id, std::span<const uint8_t> bytes) {
  state_->secrets.set(id, bytes);
}
bool Runtime::remove_secret(std::string_view id) { return state_->secrets.remove(id); }

unsigned Runtime::reactors() const { return state_->reactors->size(); }
std::string_view Runtime::engine() const { return state_->reactors->engine_name(); }

}  // namespace platter
