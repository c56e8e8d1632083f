#include "io/reactor_group.h"

#include <sched.h>
#include <sys/random.h>

#include "base/try.h"

namespace platter::io {

unsigned usable_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  auto count = static_cast<unsigned>(CPU_COUNT(&set));
  return count < 1 ? 1 : count > kMaxReactors ? kMaxReactors : count;
}

static Result<std::vector<std::unique_ptr<Engine>>> make_engines(EngineKind kind, unsigned count,
                                                                 WorkerPool& workers) {
  std::vector<std::unique_ptr<Engine>> engines;
  for (unsigned index = 0; index < count; ++index) {
    PLATTER_ASSIGN(auto engine, make_engine(kind, workers));
    engines.push_back(std::move(engine));
  }
  return engines;
}

Result<std::unique_ptr<ReactorGroup>> ReactorGroup::start(Options options) {
  PLATTER_ASSERT(options.reactors >= 1 && options.reactors <= kMaxReactors);
  auto group = std::unique_ptr<ReactorGroup>(new ReactorGroup(options.max_workers));
  // Permitted or not, a ring may also fail for want of memory, and not only the first one.
  const bool choose = options.engine == EngineKind::kAuto;
  auto engines =
      make_engines(choose ? EngineKind::kUring : options.engine, options.reactors, group->workers_);
  if (!engines && choose) {
    if (options.log != nullptr)
      options.log->info(engines.error().message() + "; using threads for I/O instead");
    engines = make_engines(EngineKind::kThreads, options.reactors, group->workers_);
  }
  if (!engines) return std::unexpected(std::move(engines).error());
  uint64_t seed = options.random_seed;
  if (seed == 0 && getrandom(&seed, sizeof seed, 0) != sizeof seed)
    return std::unexpected(Error::from_errno(errno, "getrandom"));
  for (unsigned index = 0; index < options.reactors; ++index) {
    group->reactors_.push_back(std::make_unique<Reactor>(
        index, std::move((*engines)[index]),
        Reactor::Services{.now = {}, .random_seed = seed, .workers = &group->workers_}));
  }
  for (auto& reactor : group->reactors_)
    group->threads_.emplace_back([target = reactor.get()] { target->run(); });
  return group;
}

ReactorGroup::~ReactorGroup() {
  // threads_ is empty where start() failed half-way.
  if (!threads_.empty())
    for (auto& reactor : reactors_) reactor->stop();
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace platter::io
