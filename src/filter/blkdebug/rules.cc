#include "filter/blkdebug/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/try.h"

namespace platter::filter::blkdebug {

namespace {

using base::OptionType;
using block::DebugEvent;

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kMaxSector = (uint64_t{1} << 63) / kSectorBytes;
constexpr uint64_t kMaxErrno = 4095;

constexpr std::array<std::string_view, 6> kOperations = {"read",    "write", "write-zeroes",
                                                         "discard", "flush", "block-status"};
constexpr unsigned bit(Operation operation) { return 1u << static_cast<unsigned>(operation); }
// What fails where the rule does not say.
constexpr unsigned kDefaultOperations = (1u << kOperations.size()) - 1 - (1u << 5);

constexpr base::OptionDef kInjectionOptions[] = {
    {.name = "event", .type = OptionType::kString, .help = "Event that brings the error about"},
    {.name = "state",
     .type = OptionType::kNumber,
     .help = "State that it takes (0: any)",
     .default_value = "0"},
    {.name = "iotype", .type = OptionType::kString, .help = "Kind of request that fails"},
    {.name = "errno",
     .type = OptionType::kNumber,
     .help = "Error that it fails with",
     .default_value = "5",
     .max = kMaxErrno},
    {.name = "sector",
     .type = OptionType::kNumber,
     .help = "Sector that the request covers",
     .max = kMaxSector},
    {.name = "once",
     .type = OptionType::kBool,
     .help = "Only the first request fails",
     .default_value = "off"},
    {.name = "immediately",
     .type = OptionType::kBool,
     .help = "Accepted for compatibility",
     .default_value = "off"},
};
constexpr base::OptionDef kChangeOptions[] = {
    {.name = "event", .type = OptionType::kString, .help = "Event that changes the state"},
    {.name = "state",
     .type = OptionType::kNumber,
     .help = "State before (0: any)",
     .default_value = "0"},
    {.name = "new_state", .type = OptionType::kNumber, .help = "State after", .default_value = "0"},
};

Result<base::OptionSet> parse_section(std::span<const base::OptionDef> defs, std::string_view name,
                                      const base::Options& options) {
  const base::OptionSchema schema{defs};
  for (const auto& [key, value] : options.entries()) {
    if (schema.find(key) == nullptr) {
      return fail(EINVAL, fmt::format("[{}] section doesn't support the option '{}'", name, key));
    }
  }
  return schema.parse(options);
}

Result<DebugEvent> parse_event(const base::OptionSet& options) {
  if (!options.has("event")) return fail(EINVAL, "Missing event name for rule");
  const std::string& name = options.get_string("event");
  const auto event = block::find_debug_event(name);
  if (!event) return fail(EINVAL, fmt::format("invalid parameter value: {}", name));
  return *event;
}

Result<unsigned> parse_operations(const base::OptionSet& options) {
  if (!options.has("iotype")) return kDefaultOperations;
  const std::string& name = options.get_string("iotype");
  const auto found = std::ranges::find(kOperations, name);
  if (found == kOperations.end())
    return fail(EINVAL, fmt::format("invalid parameter value: {}", name));
  return 1u << (found - kOperations.begin());
}

}  // namespace

Result<void> RuleSet::add_injection(const base::Options& options) {
  PLATTER_ASSIGN(const auto set, parse_section(kInjectionOptions, "inject-error", options));
  PLATTER_ASSIGN(const DebugEvent event, parse_event(set));
  PLATTER_ASSIGN(const unsigned operations, parse_operations(set));
  Injection injection = {.event = event,
                         .state = set.get_number("state"),
                         .operations = operations,
                         .code = static_cast<int>(set.get_number("errno")),
                         .offset = std::nullopt,
                         .once = set.get_bool("once")};
  if (set.has("sector")) injection.offset = set.get_number("sector") * kSectorBytes;
  injections.push_back(injection);
  return {};
}

Result<void> RuleSet::add_change(const base::Options& options) {
  PLATTER_ASSIGN(const auto set, parse_section(kChangeOptions, "set-state", options));
  PLATTER_ASSIGN(const DebugEvent event, parse_event(set));
  changes.push_back({event, set.get_number("state"), set.get_number("new_state")});
  return {};
}

// ---- Rules

Rules::Rules(RuleSet rules)
    : injections_(rules.injections.begin(), rules.injections.end()),
      changes_(std::move(rules.changes)) {
  settle_injections(DebugEvent::kNone);
}

Result<void> Rules::check(Operation operation, uint64_t offset, uint64_t length) {
  std::lock_guard lock(mutex_);
  for (auto rule = active_.begin(); rule != active_.end(); ++rule) {
    const Injection& injection = **rule;
    const bool meant =
        (injection.operations & bit(operation)) != 0 &&
        (!injection.offset || (*injection.offset >= offset && *injection.offset - offset < length));
    if (!meant) continue;
    const int code = injection.code;
    if (code != 0 && injection.once) {
      injections_.erase(*rule);
      active_.erase(rule);
      in_force_.store(!active_.empty(), std::memory_order_release);
    }
    if (code == 0) return {};
    return fail_errno(code);
  }
  return {};
}

void Rules::settle_injections(DebugEvent event) {
  bool replaced = false;
  for (auto rule = injections_.begin(); rule != injections_.end(); ++rule) {
    if (rule->event != event || (rule->state != 0 && rule->state != state_)) continue;
    if (!std::exchange(replaced, true)) active_.clear();
    active_.push_back(rule);
  }
  if (replaced) in_force_.store(true, std::memory_order_release);
}

void Rules::change_state(DebugEvent event) {
  const uint64_t before = state_;
  for (const StateChange& change : changes_) {
    if (change.event == event && (change.state == 0 || change.state == before))
      state_ = change.new_state;
  }
}

bool Rules::hold(DebugEvent event, Held& held) {
  const auto breakpoint = std::ranges::find(breakpoints_, event, &Breakpoint::event);
  if (breakpoint == breakpoints_.end()) return false;
  held.tag = std::move(breakpoint->tag);
  breakpoints_.erase(breakpoint);
  held_.push_back(&held);
  if (listener_) listener_({.held = true, .tag = held.tag});
  return true;
}

io::Task<void> Rules::pass(DebugEvent event) {
  Held held;
  {
    std::lock_guard lock(mutex_);
    settle_injections(event);
    change_state(event);
    if (!hold(event, held)) co_return;
  }
  co_await held.go.wait();
}

Result<void> Rules::add_breakpoint(DebugEvent event, std::string tag) {
  std::lock_guard lock(mutex_);
  breakpoints_.push_back({event, std::move(tag)});
  return {};
}

std::list<Rules::Held*>::iterator Rules::let_go(std::list<Held*>::iterator held) {
  Held* one = *held;
  if (listener_) listener_({.held = false, .tag = one->tag});
  const auto next = held_.erase(held);
  one->go.set();
  return next;
}

Result<void> Rules::remove_breakpoint(std::string_view tag) {
  std::lock_guard lock(mutex_);
  const size_t found =
      std::erase_if(breakpoints_, [tag](const auto& point) { return point.tag == tag; });
  for (auto held = held_.begin(); held != held_.end();) {
    held = (*held)->tag == tag ? let_go(held) : std::next(held);
  }
  if (found == 0) return fail_errno(ENOENT);
  return {};
}

Result<void> Rules::resume(std::string_view tag) {
  std::lock_guard lock(mutex_);
  const auto held = std::ranges::find_if(held_, [tag](const Held* one) { return one->tag == tag; });
  if (held == held_.end()) return fail_errno(ENOENT);
  let_go(held);
  return {};
}

void Rules::release_all() {
  std::lock_guard lock(mutex_);
  breakpoints_.clear();
  for (auto held = held_.begin(); held != held_.end();) held = let_go(held);
}

void Rules::set_listener(std::function<void(Change)> listener) {
  std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
}

bool Rules::is_held(std::string_view tag) {
  std::lock_guard lock(mutex_);
  return std::ranges::any_of(held_, [tag](const Held* one) { return one->tag == tag; });
}

}  // namespace platter::filter::blkdebug
