#include "monitor/session.h"

#include <fmt/format.h>

#include "base/try.h"
#include "monitor/validate.h"

namespace platter::monitor {
namespace {

using base::Json;

constexpr std::string_view kExecute = "execute";
constexpr std::string_view kExecuteOutOfBand = "exec-oob";
constexpr std::string_view kNegotiate = "qmp_capabilities";

}  // namespace

Session::Session(CommandRunner& runner, bool pretty) : runner_(runner), pretty_(pretty) { greet(); }

void Session::greet() {
  Json greeting = Json::object();
  Json& about = greeting.add("QMP", Json::object());
  about.add("version", runner_.version());
  about.add("capabilities", Json::array()).append("oob");
  send(greeting);
}

void Session::receive(std::string_view bytes) {
  while (auto value = splitter_.next(bytes)) {
    const bool now = out_of_band_ && *value && (*value)->is_object() &&
                     (*value)->find(kExecuteOutOfBand) != nullptr;
    if (now) {
      answer_out_of_band(**value);
    } else {
      waiting_.push_back(std::move(*value));
    }
  }
}

io::Task<void> Session::run_next() {
  const Result<Json> value = std::move(waiting_.front());
  waiting_.pop_front();
  if (!value) {
    answer(nullptr, std::unexpected(Failure(value.error())));
    co_return;
  }
  const Reply reply = co_await execute(*value);
  answer(&*value, reply);
}

Result<Session::Request> Session::parse(const Json& value) const {
  const auto* members = value.get_if<Json::Object>();
  if (members == nullptr) return fail(EINVAL, "QMP input must be a JSON object");
  Request request{.command = {}, .arguments = Json::object()};
  bool named = false;
  for (const auto& [key, item] : *members) {
    if (key == kExecute || (key == kExecuteOutOfBand && out_of_band_)) {
      const auto* text = item.get_if<std::string>();
      if (text == nullptr)
        return fail(EINVAL, fmt::format("QMP input member '{}' must be a string", key));
      if (named) return fail(EINVAL, "QMP input member 'execute' clashes with 'exec-oob'");
      named = true;
      request.command = *text;
      request.out_of_band = key == kExecuteOutOfBand;
    } else if (key == "arguments") {
      if (!item.is_object()) return fail(EINVAL, "QMP input member 'arguments' must be an object");
      request.arguments = item;
    } else if (key != "id") {
      return fail(EINVAL, fmt::format("QMP input member '{}' is unexpected", key));
    }
  }
  if (!named) return fail(EINVAL, "QMP input lacks member 'execute'");
  return request;
}

io::Task<Reply> Session::execute(const Json& value) {
  PLATTER_CO_ASSIGN(Request request, parse(value));
  auto refuse_command = [](std::string text) {
    return std::unexpected(Failure(FailureClass::kCommandNotFound, std::move(text)));
  };
  const bool negotiates = request.command == kNegotiate;
  if (!negotiated_ && !negotiates)
    co_return refuse_command("Expecting capabilities negotiation with 'qmp_capabilities'");
  const CommandSchema* command = runner_.schema().find_command(request.command);
  if (command == nullptr)
    co_return refuse_command(fmt::format("The command {} has not been found", request.command));
  if (negotiates) {
    PLATTER_CO_TRY(validate(*command->arguments, request.arguments));
    if (negotiated_)
      co_return refuse_command("Capabilities negotiation is already complete, command ignored");
    co_return negotiate(request.arguments);
  }
  co_return co_await runner_.run(*command, std::move(request.arguments));
}

Reply Session::negotiate(const Json& arguments) {
  const Json* enable = arguments.find("enable");
  // The one capability that the schema knows.
  out_of_band_ = enable != nullptr && !enable->get_if<Json::Array>()->empty();
  negotiated_ = true;
  return Json::object();
}

// No command is of use out of band: none takes long before it lets others have their turn.
void Session::answer_out_of_band(const Json& value) {
  const auto request = parse(value);
  if (!request) return answer(&value, std::unexpected(Failure(request.error())));
  if (runner_.schema().find_command(request->command) == nullptr) {
    return answer(&value, std::unexpected(Failure(
                              FailureClass::kCommandNotFound,
                              fmt::format("The command {} has not been found", request->command))));
  }
  answer(&value, refuse(fmt::format("The command {} does not support OOB", request->command)));
}

// `value`: the request, or null where there was none to make out.
void Session::answer(const Json* value, const Reply& reply) {
  Json message = Json::object();
  if (reply) {
    message.add("return", *reply);
  } else {
    Json& error = message.add("error", Json::object());
    error.add("class", class_name(reply.error().of));
    error.add("desc", reply.error().description);
  }
  if (value != nullptr && value->is_object()) {
    if (const Json* id = value->find("id")) message.add("id", *id);
  }
  send(message);
}

void Session::notify(const Event& event) {
  if (!negotiated_ || output_.size() >= kMaxOutputBytes) return;
  constexpr uint64_t kPerSecond = 1'000'000;
  Json message = Json::object();
  Json& time = message.add("timestamp", Json::object());
  time.add("seconds", event.microseconds / kPerSecond);
  time.add("microseconds", event.microseconds % kPerSecond);
  message.add("event", event.name);
  if (!event.data.get_if<Json::Object>()->empty()) message.add("data", event.data);
  send(message);
}

void Session::send(const Json& message) {
  output_ += pretty_ ? message.dump_pretty() : message.dump();
  output_ += "\r\n";
}

}  // namespace platter::monitor
