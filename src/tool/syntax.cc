#include "tool/syntax.h"

#include <algorithm>
#include <set>

#include "block/registry.h"
#include "tool/command_table.h"

namespace platter::tool {
namespace {

constexpr CommandOption kHelpOption = {.letter = 'h', .name = "help", .help = "show this help"};

constexpr ExitMeaning kCommonStatuses[] = {
    {0, "done"},
    {1, "not done; one line on standard error says why"},
};

// "human|json": words to choose from.
std::vector<std::string> choices(std::string_view text) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789_-|";
  std::vector<std::string> words;
  if (text.find('|') == text.npos || text.find_first_not_of(kLetters) != text.npos) return words;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('|', begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

std::vector<std::string> creation_words() {
  std::set<std::string> names;
  for (const auto& format : creatable_formats()) {
    for (const auto& def : format.options.defs()) names.insert(std::string(def.name) + "=");
  }
  return {names.begin(), names.end()};
}

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const auto* command : all_commands()) names.emplace_back(command->name);
  return names;
}

}  // namespace

ValueHint hint_of_option(const CommandOption& option) {
  const std::string_view argument = option.argument;
  if (auto words = choices(argument); !words.empty()) return {.words = std::move(words)};
  if (argument == "FORM") return {.words = {"human", "json"}};
  if (argument == "FMT") return {.words = format_names()};
  if (argument == "CACHE") {
    return {.words = {"writeback", "none", "writethrough", "directsync", "unsafe"}};
  }
  if (argument == "AIO") return {.words = {"threads", "native", "io_uring"}};
  if (argument == "POLICY") return {.words = {"default", "openstack"}, .files = true};
  if (argument == "OPTIONS" && option.letter == 'o') return {.words = creation_words()};
  if (argument == "DIR") return {.words = {}, .directories = true};
  const bool names_file = argument == "BACKING" || argument.find("FILE") != argument.npos ||
                          argument.find('.') != argument.npos;
  return {.words = {}, .files = names_file};
}

ValueHint hint_of_operands(const Command& command) {
  std::string_view operands = command.operands;
  if (operands == "[COMMAND]") return {.words = command_names()};
  if (auto words = choices(operands); !words.empty()) return {.words = std::move(words)};
  return {.words = {}, .files = !operands.empty()};
}

std::vector<const CommandOption*> options_of(const Command& command) {
  std::vector<const CommandOption*> options;
  for (const auto& option : command.options) options.push_back(&option);
  options.push_back(&kHelpOption);
  for (const auto& option : native_options()) options.push_back(&option);
  return options;
}

std::vector<CreatableFormat> creatable_formats() {
  std::vector<CreatableFormat> formats;
  for (const auto* type : block::DriverRegistry::builtin().types()) {
    if (type->kind == block::DriverKind::kFormat && type->create != nullptr) {
      formats.push_back({type->name, type->create_options});
    }
  }
  return formats;
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const auto* type : block::DriverRegistry::builtin().types()) {
    if (type->kind == block::DriverKind::kFormat) names.emplace_back(type->name);
  }
  std::ranges::sort(names);
  return names;
}

std::vector<ExitMeaning> exit_statuses_of(const Command& command) {
  std::vector<ExitMeaning> statuses(command.exit_statuses.begin(), command.exit_statuses.end());
  for (const auto& common : kCommonStatuses) {
    if (std::ranges::find(statuses, common.status, &ExitMeaning::status) == statuses.end()) {
      statuses.push_back(common);
    }
  }
  std::ranges::sort(statuses, {}, &ExitMeaning::status);
  return statuses;
}

}  // namespace platter::tool
