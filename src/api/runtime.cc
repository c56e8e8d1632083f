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

unsigned Runtime::reactors() const { return state_->reactors->size(); }
std::string_view Runtime::engine() const { return state_->reactors->engine_name(); }

}  // namespace platter
