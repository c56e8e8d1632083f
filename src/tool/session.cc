#include "tool/session.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "base/absolute_path.h"
#include "base/try.h"

namespace platter::tool {
namespace {

constexpr unsigned kMaxDefaultReactors = 8;

Result<io::EngineKind> parse_engine(std::string_view name) {
  if (name == "io_uring") return io::EngineKind::kUring;
  if (name == "threads") return io::EngineKind::kThreads;
  return fail(EINVAL, "Unknown engine '" + std::string(name) + "': it is 'io_uring' or 'threads'");
}

Result<unsigned> parse_reactors(std::string_view text) {
  unsigned count = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size() || count < 1 ||
      count > io::kMaxReactors) {
    return fail(EINVAL, "--reactors is a number from 1 to " + std::to_string(io::kMaxReactors) +
                            ", not '" + std::string(text) + "'");
  }
  return count;
}

// A name in an image is followed anywhere under the compat name, as its users expect; as ourselves
// only within the image's own directory, unless --allow-backing says more.
OpenPolicy make_policy(const Invocation& invocation) {
  if (invocation.dialect != Dialect::kPlatter) return OpenPolicy::anything();
  OpenPolicy policy = OpenPolicy::own_directory();
  for (auto& directory : invocation.values("allow-backing")) {
    if (directory == "any") return OpenPolicy::anything();
    policy.allowed_directories.push_back(std::move(directory));
  }
  return policy;
}

std::string without_prefix(std::string path) {
  constexpr std::string_view kFilePrefix = "file:";
  if (path.starts_with(kFilePrefix)) path.erase(0, kFilePrefix.size());
  return path;
}

}  // namespace

Session::Session(const Invocation& invocation)
    : console_(invocation.console),
      log_([this](base::LogLevel,
                  std::string_view line) { console_.note("WARNING: " + std::string(line) + "\n"); },
           base::LogLevel::kWarning),
      policy_(make_policy(invocation)),
      registry_(block::DriverRegistry::builtin()) {}

Result<std::string> state_directory(const Invocation& invocation) {
  const auto said = invocation.value("state");
  if (!said && invocation.dialect != Dialect::kPlatter) return std::string();
  if (!said) return "/dev/shm/platter-" + std::to_string(geteuid());
  if (*said == "none") return std::string();
  if (said->empty()) return fail(EINVAL, "--state is a directory or none, not ''");
  return base::absolute_path(*said);
}

void raise_file_limit() {
  rlimit limit;
  // Best effort: who meets the limit is told.
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

Result<std::unique_ptr<Session>> Session::start(const Invocation& invocation, Reactors reactors,
                                                std::string state_directory) {
  std::unique_ptr<Session> session(new Session(invocation));
  io::ReactorGroup::Options options;
  if (reactors == Reactors::kOneAProcessor)
    options.reactors = std::min(io::usable_processors(), kMaxDefaultReactors);
  options.log = &session->log_;
  if (auto count = invocation.value("reactors")) {
    PLATTER_ASSIGN(options.reactors, parse_reactors(*count));
  }
  if (auto engine = invocation.value("engine")) {
    PLATTER_ASSIGN(options.engine, parse_engine(*engine));
  }
  PLATTER_ASSIGN(session->reactors_, io::ReactorGroup::start(options));
  session->graph_ = std::make_unique<block::Graph>(
      block::Graph::Environment{.registry = session->registry_,
                                .files = io::system_files(),
                                .log = session->log_,
                                .secrets = &invocation.objects,
                                .state_directory = std::move(state_directory)});
  return session;
}

std::vector<io::Reactor*> Session::all_reactors() {
  std::vector<io::Reactor*> reactors;
  for (unsigned i = 0; i < reactors_->size(); ++i) reactors.push_back(&reactors_->at(i));
  return reactors;
}

int run_session(Invocation& invocation, const std::function<io::Task<int>(Session&)>& work,
                Reactors reactors) {
  auto session = Session::start(invocation, reactors);
  if (!session) return invocation.fail(session.error());
  const int status = io::run_blocking((*session)->reactors().at(0), work(**session));
  const int signal = (*session)->interrupts().caught();
  session->reset();
  if (signal != 0) {
    invocation.console.flush();
    die_of(signal);
  }
  return status;
}

HalfMadeFile::HalfMadeFile(Session& session, std::string path)
    : session_(session), path_(without_prefix(std::move(path))), before_(identify(path_)) {
  session_.interrupts().set_handler([this] {
    const bool removed = is_begun() && unlink(path_.c_str()) == 0;
    session_.console().error(
        "interrupted" + (removed ? "; removed the unfinished '" + path_ + "'" : std::string()));
    die_of(session_.interrupts().caught());
  });
}

HalfMadeFile::~HalfMadeFile() { session_.interrupts().set_handler({}); }

// Of regular files: what else has this name is not ours to remove.
std::optional<HalfMadeFile::Identity> HalfMadeFile::identify(const std::string& path) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return Identity{static_cast<int64_t>(status.st_dev),
                  static_cast<int64_t>(status.st_ino),
                  status.st_size,
                  status.st_mtim.tv_sec,
                  status.st_mtim.tv_nsec,
                  status.st_ctim.tv_sec,
                  status.st_ctim.tv_nsec};
}

bool HalfMadeFile::is_begun() const {
  const auto now = identify(path_);
  return now && now != before_;
}

bool HalfMadeFile::remove() {
  if (!is_begun()) return false;
  if (unlink(path_.c_str()) == 0) return true;
  session_.console().error(
      Error::from_errno(errno, "Could not remove the half-made '" + path_ + "'"));
  return false;
}

}  // namespace platter::tool
