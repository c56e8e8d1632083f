// platter serve: an image as a disk of a virtual machine, until it is interrupted.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "base/line_limit.h"
#include "base/size.h"
#include "base/try.h"
#include "block/backend.h"
#include "export/limited_log.h"
#include "export/vhost_user/export.h"
#include "io/cancel.h"
#include "io/gate.h"
#include "tool/arguments.h"
#include "tool/command.h"
#include "tool/image_open.h"
#include "tool/io_shell/open_image.h"
#include "tool/serve_status.h"
#include "tool/session.h"
#include "tool/slow_request.h"

namespace platter::tool {
namespace {

using io_shell::OpenImage;
using io_shell::OpenSettings;

// More than a machine has processors: a front-end may ask for fewer, never for more.
constexpr uint16_t kDefaultQueues = 64;
constexpr uint64_t kMaxPollMicroseconds = 1'000'000;
constexpr auto kDefaultPolling = std::chrono::microseconds(32);
constexpr auto kStatusPeriod = std::chrono::seconds(1);
constexpr io::Nanoseconds kLockPause = std::chrono::milliseconds(20);
constexpr io::Nanoseconds kLockPatience = std::chrono::seconds(2);
constexpr auto kNothingToDraw = std::chrono::hours(1);

struct ServeArguments {
  OpenSettings image;
  std::string socket;
  io::Descriptor listening;  // it is there already, by that name
  unsigned socket_mode = 0600;
  virtio::blk::Properties properties = vhost_user::default_properties();
  io::Nanoseconds polling = kDefaultPolling;
  io::Nanoseconds slow_request{};
  bool quiet = false;
};

template <typename T>
Result<T> parse_number(std::string_view name, std::string_view text, T least, T most,
                       int radix = 10) {
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, radix);
  if (error != std::errc() || end != text.data() + text.size() || number < least || number > most) {
    return fail(EINVAL, radix == 8 ? fmt::format("--{} is an octal number up to {:o}, not '{}'",
                                                 name, most, text)
                                   : fmt::format("--{} is a number from {} to {}, not '{}'", name,
                                                 least, most, text));
  }
  return number;
}

Result<virtio::blk::OnError> parse_on_error(std::string_view name, std::string_view text) {
  const auto policy = virtio::blk::parse_on_error(text);
  if (policy && (*policy != virtio::blk::OnError::kEnospc || name == "werror")) return *policy;
  return fail(EINVAL, fmt::format("--{} is report, ignore, stop{} or auto, not '{}'", name,
                                  name == "werror" ? ", enospc" : "", text));
}

// The socket that a service manager listens at for us (sd_listen_fds(3)); none: there is no such.
Result<io::Descriptor> take_passed_socket() {
  constexpr int kFirstPassed = 3;
  const char* process = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (process == nullptr || count == nullptr || process != std::to_string(getpid()))
    return io::Descriptor();
  if (std::string_view(count) != "1") {
    return fail(EINVAL,
                fmt::format("A service manager has passed {} sockets, and one is served", count));
  }
  // Nobody that we start is to take it for his.
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  io::Descriptor passed(kFirstPassed);
  int listens = 0, domain = 0;
  socklen_t bytes = sizeof listens;
  if (getsockopt(passed.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || listens == 0 ||
      getsockopt(passed.get(), SOL_SOCKET, SO_DOMAIN, &domain, &bytes) != 0 || domain != AF_UNIX)
    return fail(EINVAL, "What a service manager has passed is no UNIX socket that listens");
  if (fcntl(passed.get(), F_SETFD, FD_CLOEXEC) != 0 ||
      fcntl(passed.get(), F_SETFL, O_NONBLOCK) != 0)
    return fail_errno(errno);
  return passed;
}

std::string name_of(const io::Descriptor& socket) {
  sockaddr_un address{};
  socklen_t bytes = sizeof address;
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return {};
  return std::string(address.sun_path, strnlen(address.sun_path, sizeof address.sun_path));
}

Result<ServeArguments> read_arguments(const Invocation& invocation) {
  ServeArguments arguments;
  OpenSettings& image = arguments.image;
  image.name = invocation.operands[0];
  image.named = true;
  image.name_is_options = invocation.has("image-opts");
  image.cache = {};
  if (const auto format = invocation.value("f")) image.options.set("driver", *format);
  if (const auto cache = invocation.value("t")) {
    PLATTER_ASSIGN(image.cache, block::CacheMode::parse(*cache));
  }
  if (const auto aio = invocation.value("i")) PLATTER_TRY(image.apply('i', *aio));
  image.writable = !invocation.has("read-only");
  image.snapshot = invocation.has("snapshot");
  if (image.snapshot && !image.writable)
    return fail(EINVAL, "--snapshot is for what is written: it does not go with --read-only");
  PLATTER_ASSIGN(arguments.listening, take_passed_socket());
  if (!arguments.listening && !invocation.has("vhost-user"))
    return fail(EINVAL, "Expecting --vhost-user SOCKET: where to serve the image");
  if (arguments.listening && invocation.has("vhost-user"))
    return fail(EINVAL, "--vhost-user does not go with a socket that a service manager has passed");
  if (arguments.listening) {
    arguments.socket = name_of(arguments.listening);
  } else {
    arguments.socket = *invocation.value("vhost-user");
  }
  arguments.quiet = invocation.has("q");

  virtio::blk::Properties& properties = arguments.properties;
  properties.read_only = !image.writable;
  properties.queues = kDefaultQueues;
  properties.serial = invocation.value_or("serial", properties.serial);
  if (properties.serial.size() > virtio::blk::kMaxSerialBytes) {
    return fail(EINVAL, fmt::format("--serial has at most {} bytes, not {}",
                                    virtio::blk::kMaxSerialBytes, properties.serial.size()));
  }
  if (const auto queues = invocation.value("queues")) {
    PLATTER_ASSIGN(properties.queues,
                   parse_number<uint16_t>("queues", *queues, 1, vhost_user::Options::kMaxQueues));
  }
  if (const auto policy = invocation.value("rerror")) {
    PLATTER_ASSIGN(properties.read_error, parse_on_error("rerror", *policy));
  }
  if (const auto policy = invocation.value("werror")) {
    PLATTER_ASSIGN(properties.write_error, parse_on_error("werror", *policy));
  }
  if (const auto mode = invocation.value("socket-mode")) {
    PLATTER_ASSIGN(arguments.socket_mode, parse_number<unsigned>("socket-mode", *mode, 0, 0777, 8));
  }
  if (const auto slow = invocation.value("slow")) {
    auto time = parse_slow_request(*slow);
    if (!time) return std::unexpected(std::move(time).error().with_context("--slow"));
    arguments.slow_request = *time;
  }
  if (const auto poll = invocation.value("poll")) {
    PLATTER_ASSIGN(const uint64_t longest,
                   parse_number<uint64_t>("poll", *poll, 0, kMaxPollMicroseconds));
    arguments.polling = std::chrono::microseconds(longest);
  }
  return arguments;
}

void say_how_to_use(Console& console, const ServeArguments& arguments,
                    const block::Backend& backend, unsigned reactors) {
  const std::string& socket = arguments.socket;
  console.print(fmt::format(
      "{}: {}, {}{}; served at {}, up to {} queues on {} {}\n\n"
      "QEMU:\n"
      "  -object memory-backend-memfd,id=ram,size=1G,share=on -m 1G -machine "
      "q35,memory-backend=ram\n"
      "  -chardev socket,id=disk,path={} -device vhost-user-blk-pci,chardev=disk\n\n"
      "Cloud Hypervisor:\n"
      "  --memory size=1G,shared=on --disk vhost_user=on,socket={}\n\n"
      "Interrupt (^C) to stop.\n",
      arguments.image.name, backend.node().type().name, base::format_size(backend.size()),
      arguments.properties.read_only ? ", read-only"
      : arguments.image.snapshot     ? ", what is written is thrown away"
                                     : "",
      socket, arguments.properties.queues, reactors, reactors == 1 ? "reactor" : "reactors", socket,
      socket));
  console.flush();
}

io::Task<void> set_polling(io::Nanoseconds longest) {
  io::Reactor::current()->set_polling(longest);
  co_return;
}

// Until it is interrupted.
io::Task<void> wait_and_show(Session& session, const ServeArguments& arguments,
                             vhost_user::Export& served, block::Backend& backend,
                             io::CancelToken interrupted) {
  ServeStatus status(session.console());
  const bool draws = !arguments.quiet && isatty(STDERR_FILENO) == 1;
  const io::Nanoseconds period = draws ? io::Nanoseconds(kStatusPeriod) : kNothingToDraw;
  while (co_await io::sleep_for(period, interrupted)) {
    if (draws) status.draw(served.is_connected(), backend.statistics(), period);
  }
}

// Of a request that the disk has failed; any reactor.
void say_that_it_stops(const Session& session, const std::string& image, base::LineLimit& lines,
                       const virtio::blk::RequestFailure& failure) {
  // A guest may reset its device, and have it fail again, as often as it likes.
  if (!failure.stops || !lines.admit(io::Reactor::current()->now())) return;
  session.log().warning(fmt::format(
      "{}: the disk is stopped, as a {} has failed: {}; when that is mended, `kill -USR2 {}` has "
      "it go on",
      image, failure.read ? "read" : "write", Error::from_errno(failure.error).message(),
      getpid()));
}

// Has a disk go on that was stopped, whenever SIGUSR2 says so.
class GoOnSignal {
 public:
  // On the reactor of `served`. All outlive it.
  GoOnSignal(Interrupts& interrupts, vhost_user::Export& served)
      : interrupts_(interrupts), served_(served), reactor_(*io::Reactor::current()) {
    interrupts_.set_go_on_handler([this] { going_on_.spawn(reactor_, go_on()); });
  }
  io::Task<void> close() {
    interrupts_.set_go_on_handler({});
    co_await going_on_.close();
  }

 private:
  io::Task<void> go_on() {
    served_.go_on();
    co_return;
  }

  Interrupts& interrupts_;
  vhost_user::Export& served_;
  io::Reactor& reactor_;
  io::Gate going_on_;
};

io::Task<Result<void>> serve_image(Session& session, ServeArguments& arguments, OpenImage& image,
                                   io::CancelToken interrupted) {
  const auto reactors = session.all_reactors();
  for (io::Reactor* reactor : reactors)
    co_await io::run_on(*reactor, set_polling(arguments.polling));
  vhost_user::Options options;
  // A socket that is there already is its maker's to remove.
  if (arguments.listening) {
    options.listening = std::move(arguments.listening);
  } else {
    options.path = arguments.socket;
  }
  options.socket_mode = arguments.socket_mode;
  options.properties = arguments.properties;
  options.reactors = reactors;
  options.slow_request = arguments.slow_request;
  base::LineLimit lines(exports::LimitedLog::kLinesASecond);
  options.on_failure = [&](const virtio::blk::RequestFailure& failure) {
    say_that_it_stops(session, arguments.image.name, lines, failure);
  };
  PLATTER_CO_ASSIGN(auto served,
                    vhost_user::Export::start(image.backend(), std::move(options), session.log()));
  // Before anybody hears that it is there.
  GoOnSignal go_on(session.interrupts(), *served);
  if (!arguments.quiet) {
    say_how_to_use(session.console(), arguments, image.backend(),
                   static_cast<unsigned>(reactors.size()));
  }
  co_await wait_and_show(session, arguments, *served, image.backend(), interrupted);
  co_await go_on.close();
  co_await served->stop();
  co_return Result<void>();
}

// The system keeps the locks of a process that was killed until its last requests have ended.
// ECANCELED: interrupted meanwhile.
io::Task<Result<std::unique_ptr<OpenImage>>> open_patiently(Session& session,
                                                            const OpenSettings& settings,
                                                            io::CancelToken interrupted) {
  for (auto waited = io::Nanoseconds(0);; waited += kLockPause) {
    auto image = co_await OpenImage::open(session, settings);
    if (image || image.error().code() != EAGAIN || waited >= kLockPatience) co_return image;
    if (!co_await io::sleep_for(kLockPause, interrupted)) co_return fail(ECANCELED, "Interrupted");
  }
}

io::Task<int> run_in(Session& session, const Invocation& invocation, ServeArguments& arguments,
                     io::CancelToken interrupted) {
  auto image = co_await open_patiently(session, arguments.image, interrupted);
  if (!image) {
    if (image.error().code() == ECANCELED) co_return 0;
    co_return invocation.fail(std::move(image).error().with_context(
        fmt::format("Could not open '{}'", arguments.image.name)));
  }
  auto served = co_await serve_image(session, arguments, **image, interrupted);
  int status = 0;
  if (!served) status = invocation.fail(served.error());
  co_return co_await close_image(invocation, (*image)->backend(), status);
}

// An interrupt is how it ends: that is no failure.
int run_serve(Invocation& invocation) {
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting one image file name");
  auto arguments = read_arguments(invocation);
  if (!arguments) return invocation.fail(arguments.error());
  // What a machine writes to a throw-away overlay goes with the process.
  auto states = arguments->image.snapshot ? std::string() : state_directory(invocation);
  if (!states) return invocation.fail(states.error());
  auto session = Session::start(invocation, Reactors::kOneAProcessor, std::move(*states));
  if (!session) return invocation.fail(session.error());
  io::CancelSource interrupted;
  (*session)->interrupts().set_handler([&] { interrupted.cancel(); });
  const int status = io::run_blocking(
      (*session)->reactors().at(0), run_in(**session, invocation, *arguments, interrupted.token()));
  (*session)->interrupts().set_handler({});
  return status;
}

constexpr CommandOption kOptions[] = {
    {.name = "object", .argument = "OBJECT", .help = "define a secret or credentials"},
    {.name = "image-opts", .help = "FILE is a list of options, not a file name"},
    {.letter = 'f', .argument = "FMT", .help = "format of the image (default: found out)"},
    {.letter = 't', .argument = "CACHE", .help = "cache mode of the image's file"},
    {.letter = 'i',
     .argument = "AIO",
     .help = "how its file is read and written: io_uring or threads"},
    {.letter = 'q', .help = "say nothing but errors"},
    {.name = "vhost-user",
     .argument = "SOCKET",
     .help = "serve it as a vhost-user-blk device at this UNIX socket (needless where a service "
             "manager has passed one that listens)"},
    {.name = "socket-mode", .argument = "MODE", .help = "permissions of the socket (default: 600)"},
    {.name = "queues", .argument = "N", .help = "queues that a machine may use (default: 64)"},
    {.name = "serial", .argument = "TEXT", .help = "the disk's serial number, up to 20 bytes"},
    {.letter = 'r', .name = "read-only", .help = "the machine may not write"},
    {.name = "snapshot", .help = "what the machine writes is thrown away in the end"},
    {.name = "state",
     .argument = "DIRECTORY",
     .help = "where what is not yet on disk outlives a killed process, or none (default: this "
             "user's in /dev/shm)"},
    {.name = "rerror",
     .argument = "POLICY",
     .help = "what becomes of reads that fail: report (default), ignore or stop"},
    {.name = "werror",
     .argument = "POLICY",
     .help =
         "of writes, flushes and discards: report (default), ignore, stop or enospc: stop where "
         "there is no space left. A stopped disk goes on at SIGUSR2"},
    {.name = "poll",
     .argument = "MICROSECONDS",
     .help = "look at the queues for up to so long before sleeping (default: 32)"},
    {.name = "slow",
     .argument = "MS",
     .help = "say which requests take so many milliseconds or more, and where they spend them"},
};

constexpr ExitMeaning kExitStatuses[] = {
    {0, "It was served until an interrupt, and closed."},
    {1, "It could not be served, or not be closed."},
};

}  // namespace

extern const Command kServeCommand;
const Command kServeCommand = {
    .name = "serve",
    .summary = "Give an image to a virtual machine as its disk.",
    .operands = "FILE",
    .options = kOptions,
    .run = run_serve,
    .native = true,
    .exit_statuses = kExitStatuses,
};

}  // namespace platter::tool
