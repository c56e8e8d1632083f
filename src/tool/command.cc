#include "tool/command.h"

#include <getopt.h>

#include "tool/help.h"

namespace platter::tool {
namespace {

constexpr CommandOption kNativeOptions[] = {
    {.name = "engine", .argument = "io_uring|threads", .help = "how files are read and written"},
    {.name = "reactors",
     .argument = "N",
     .help = "threads to work on (default: as many as help, at most 8)"},
    {.name = "allow-backing",
     .argument = "DIR",
     .help = "let images name files in this directory too; 'any': anywhere"},
    {.name = "progress-fd",
     .argument = "N",
     .help = "tell of progress, errors and the end on this descriptor, as lines of JSON"},
};

constexpr int kHelpKey = 'h';
constexpr int kFirstLongKey = 256;

// The tables as getopt_long wants them. An option's key is its letter or, without one, its index
// from kFirstLongKey.
struct GetoptTables {
  std::vector<const CommandOption*> known;
  std::string letters;
  std::vector<option> names;

  explicit GetoptTables(const Invocation& invocation) {
    letters = ":h";  // ':' first: a missing argument is told apart from an unknown option
    names.push_back({"help", no_argument, nullptr, kHelpKey});
    for (const auto& option : invocation.command.options) {
      if (!option.native || invocation.dialect == Dialect::kPlatter) add(option);
    }
    if (invocation.dialect == Dialect::kPlatter) {
      for (const auto& option : native_options()) add(option);
    }
    names.push_back({nullptr, 0, nullptr, 0});
  }

  void add(const CommandOption& option) {
    int key = option.letter != 0 ? option.letter : kFirstLongKey + static_cast<int>(known.size());
    known.push_back(&option);
    if (option.letter != 0) {
      letters += option.letter;
      if (!option.argument.empty()) letters += ':';
    }
    if (!option.name.empty()) {
      // The tables hold literals: data() ends in a null.
      names.push_back({option.name.data(),
                       option.argument.empty() ? no_argument : required_argument, nullptr, key});
    }
  }

  const CommandOption* find(int key) const {
    if (key >= kFirstLongKey) return known[static_cast<size_t>(key - kFirstLongKey)];
    for (const auto* option : known) {
      if (option->letter == key) return option;
    }
    return nullptr;
  }
};

int show_help(const Invocation& invocation) {
  invocation.console.print(command_help(invocation.dialect, invocation.command));
  return invocation.console.finish() ? 0 : 1;
}

// Objects are made in the order given, before what comes after them is looked at.
std::optional<int> define_object(Invocation& invocation, const std::string& definition) {
  if (const std::string help = monitor::object_help(definition); !help.empty()) {
    invocation.console.print(help);
    return invocation.console.finish() ? 0 : 1;
  }
  if (invocation.command.defines_objects) return std::nullopt;
  auto added = invocation.objects.add(definition);
  if (added) return std::nullopt;
  invocation.console.error(added.error());
  return invocation.command.object_error_status;
}

}  // namespace

std::span<const CommandOption> native_options() { return kNativeOptions; }

const GivenOption* Invocation::find(std::string_view name) const {
  for (auto given = options.rbegin(); given != options.rend(); ++given) {
    if (given->is(name)) return &*given;
  }
  return nullptr;
}

std::optional<std::string> Invocation::value(std::string_view name) const {
  const auto* given = find(name);
  if (given == nullptr) return std::nullopt;
  return given->value;
}

std::string Invocation::value_or(std::string_view name, std::string_view fallback) const {
  return value(name).value_or(std::string(fallback));
}

std::vector<std::string> Invocation::values(std::string_view name) const {
  std::vector<std::string> found;
  for (const auto& given : options) {
    if (given.is(name)) found.push_back(given.value);
  }
  return found;
}

void Invocation::set_native_option(std::string_view name, std::string value) {
  for (const auto& option : kNativeOptions) {
    if (option.name == name) options.push_back({&option, std::move(value)});
  }
}

int Invocation::usage_error(std::string_view message) const {
  console.error(message);
  std::string help = console.program_name();
  if (dialect == Dialect::kPlatter) help += " " + std::string(command.name);
  console.note("Try '" + help + " --help' for more information\n");
  return 1;
}

int Invocation::fail(std::string_view message) const {
  console.error(message);
  return 1;
}

int Invocation::fail(const Error& failure) const {
  console.error(failure);
  return 1;
}

namespace {

// A word that getopt_long() stopped at, as it says so itself in the dialect that has its messages.
int fail_word(const Invocation& invocation, bool value_missing, const std::string& word) {
  if (invocation.dialect == Dialect::kPlatter || invocation.dialect == Dialect::kQemuImg) {
    return invocation.usage_error(
        (value_missing ? "missing argument for option '" : "unrecognized option '") + word + "'");
  }
  const std::string letter(1, static_cast<char>(optopt));
  if (word.starts_with("--")) {
    invocation.console.error(value_missing ? "option '" + word + "' requires an argument"
                                           : "unrecognized option '" + word + "'");
  } else {
    invocation.console.error(
        (value_missing ? "option requires an argument -- '" : "invalid option -- '") + letter +
        "'");
  }
  if (invocation.dialect == Dialect::kQemuIo) show_help(invocation);
  return 1;
}

}  // namespace

std::optional<int> parse_arguments(Invocation& invocation, std::span<char*> arguments) {
  const GetoptTables tables(invocation);
  std::optional<std::string> last_word;
  if (invocation.command.last_word_is_operand) {
    if (arguments.size() == 2 && std::string_view(arguments[1]) == "--help")
      return show_help(invocation);
    if (arguments.size() < 3) return invocation.usage_error("Not enough arguments");
    last_word = arguments.back();
    arguments = arguments.first(arguments.size() - 1);
  }
  const int count = static_cast<int>(arguments.size());
  optind = 0;  // makes glibc start afresh
  opterr = 0;
  for (;;) {
    int key =
        getopt_long(count, arguments.data(), tables.letters.c_str(), tables.names.data(), nullptr);
    if (key == -1) break;
    if (key == kHelpKey) return show_help(invocation);
    if (key == ':' || key == '?') {
      std::string word = arguments[static_cast<size_t>(optind - 1)];
      return fail_word(invocation, key == ':', word);
    }
    invocation.options.push_back({tables.find(key), optarg != nullptr ? optarg : ""});
    if (invocation.options.back().is("object")) {
      if (auto status = define_object(invocation, invocation.options.back().value)) return status;
    }
  }
  for (int i = optind; i < count; ++i) {
    invocation.operands.emplace_back(arguments[static_cast<size_t>(i)]);
  }
  if (last_word) invocation.operands.push_back(std::move(*last_word));
  return std::nullopt;
}

}  // namespace platter::tool
