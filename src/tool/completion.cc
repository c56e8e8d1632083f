// platter completion: scripts that make a shell complete the program's words.

#include <algorithm>

#include "fmt/format.h"
#include "tool/command.h"
#include "tool/command_table.h"
#include "tool/syntax.h"

namespace platter::tool {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const auto& word : words) line += (line.empty() ? "" : " ") + word;
  return line;
}

std::vector<std::string> spellings(const CommandOption& option) {
  std::vector<std::string> forms;
  if (option.letter != 0) forms.push_back(std::string("-") + option.letter);
  if (!option.name.empty()) forms.push_back("--" + std::string(option.name));
  return forms;
}

// Within single quotes; `escape` is how the shell writes one there.
std::string quoted(std::string_view text, std::string_view escape) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "'";
}

// ---- bash

std::string bash_command(const Command& command) {
  std::string options;
  std::string values;
  for (const auto* option : options_of(command)) {
    std::string pattern;
    for (const auto& form : spellings(*option)) {
      options += (options.empty() ? "" : " ") + form;
      pattern += (pattern.empty() ? "" : " | ") + form;
    }
    if (option->argument.empty()) continue;
    const ValueHint hint = hint_of_option(*option);
    values += fmt::format("        {}) takes=value words={} ;;\n", pattern,
                          quoted(joined(hint.words), "'\\''"));
  }
  std::string text = fmt::format("    {})\n      options={}\n      operands={}\n", command.name,
                                 quoted(options, "'\\''"),
                                 quoted(joined(hint_of_operands(command).words), "'\\''"));
  return text + "      case $previous in\n" + values + "      esac\n      ;;\n";
}

// ---- zsh

// In a description of _arguments, brackets and colons end it.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ']' || c == '[' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_action(const ValueHint& hint) {
  if (hint.words.empty()) return hint.directories ? "_files -/" : hint.files ? "_files" : "";
  if (hint.files)
    return fmt::format("_alternative 'words::({})' 'files::_files'", joined(hint.words));
  return "(" + joined(hint.words) + ")";
}

std::string zsh_option(const CommandOption& option) {
  std::string text;
  for (const auto& form : spellings(option)) {
    std::string spec = "*" + form;
    if (!option.argument.empty()) spec += form.starts_with("--") ? "=" : "+";
    spec += "[" + zsh_text(option.help) + "]";
    if (!option.argument.empty()) {
      spec += ":" + zsh_text(option.argument) + ":" + zsh_action(hint_of_option(option));
    }
    text += " \\\n        " + quoted(spec, "'\\''");
  }
  return text;
}

// ---- fish

std::string fish_quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string fish_option(const Command& command, const CommandOption& option) {
  std::string line =
      fmt::format("complete -c platter -n '__fish_seen_subcommand_from {}'", command.name);
  if (option.letter != 0) line += fmt::format(" -s {}", option.letter);
  if (!option.name.empty()) line += fmt::format(" -l {}", option.name);
  if (!option.argument.empty()) {
    const ValueHint hint = hint_of_option(option);
    line += hint.files || hint.directories ? " -r -F" : " -x";
    if (!hint.words.empty()) line += " -a " + fish_quoted(joined(hint.words));
  }
  return line + " -d " + fish_quoted(option.help) + "\n";
}

// ---- The command

int run_completion(Invocation& invocation) {
  if (invocation.operands.size() != 1)
    return invocation.usage_error("Expecting the name of one shell");
  const std::string& shell = invocation.operands[0];
  if (shell == "bash") {
    invocation.console.print(bash_completion());
  } else if (shell == "zsh") {
    invocation.console.print(zsh_completion());
  } else if (shell == "fish") {
    invocation.console.print(fish_completion());
  } else {
    return invocation.fail("No completion for '" + shell + "': it is bash, zsh or fish");
  }
  return 0;
}

}  // namespace

std::string bash_completion() {
  std::string commands;
  std::string cases;
  for (const auto* command : all_commands()) {
    commands += (commands.empty() ? "" : " ") + std::string(command->name);
    cases += bash_command(*command);
  }
  return fmt::format(R"(# bash completion for platter, made by: platter completion bash
_platter() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local command= options= operands= words= takes= i
  COMPREPLY=()
  # "--name=value" comes as three words.
  if [[ $current == "=" ]]; then
    current=
  elif [[ $previous == "=" && $COMP_CWORD -gt 2 ]]; then
    previous=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ ${{COMP_WORDS[i]}} != -* ]]; then
      command=${{COMP_WORDS[i]}}
      break
    fi
  done
  case $command in
    "") COMPREPLY=($(compgen -W '{} --help --version' -- "$current")); return ;;
{}    *) return ;;
  esac
  if [[ -n $takes ]]; then
    # What is left empty here becomes a file's name.
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
  elif [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  elif [[ -n $operands ]]; then
    COMPREPLY=($(compgen -W "$operands" -- "$current"))
  fi
  return 0
}}
complete -o default -F _platter platter
)",
                     commands, cases);
}

std::string zsh_completion() {
  std::string commands;
  std::string cases;
  for (const auto* command : all_commands()) {
    commands +=
        "    " + quoted(fmt::format("{}:{}", command->name, command->summary), "'\\''") + "\n";
    cases += fmt::format("    {})\n      _arguments -S", command->name);
    for (const auto* option : options_of(*command)) cases += zsh_option(*option);
    const ValueHint hint = hint_of_operands(*command);
    cases += " \\\n        " +
             quoted("*:" + zsh_text(command->operands) + ":" + zsh_action(hint), "'\\''");
    cases += "\n      ;;\n";
  }
  return fmt::format(R"(#compdef platter
# zsh completion for platter, made by: platter completion zsh
_platter() {{
  local -a commands
  commands=(
{}  )
  if (( CURRENT == 2 )); then
    _describe -t commands 'platter command' commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{}  esac
}}
if [[ $funcstack[1] == _platter ]]; then
  _platter "$@"
else
  compdef _platter platter
fi
)",
                     commands, cases);
}

std::string fish_completion() {
  std::string text =
      "# fish completion for platter, made by: platter completion fish\n"
      "complete -c platter -n __fish_use_subcommand -f\n"
      "complete -c platter -n __fish_use_subcommand -s h -l help -d 'show this help'\n"
      "complete -c platter -n __fish_use_subcommand -s V -l version -d 'show the version'\n";
  for (const auto* command : all_commands()) {
    text += fmt::format("complete -c platter -n __fish_use_subcommand -a {} -d {}\n", command->name,
                        fish_quoted(command->summary));
  }
  for (const auto* command : all_commands()) {
    const ValueHint hint = hint_of_operands(*command);
    if (!hint.words.empty()) {
      text += fmt::format("complete -c platter -n '__fish_seen_subcommand_from {}' -f -a {}\n",
                          command->name, fish_quoted(joined(hint.words)));
    }
    for (const auto* option : options_of(*command)) text += fish_option(*command, *option);
  }
  return text;
}

extern const Command kCompletionCommand;
const Command kCompletionCommand = {
    .name = "completion",
    .summary = "Print a script that makes a shell complete commands and options.",
    .operands = "bash|zsh|fish",
    .options = {},
    .run = run_completion,
    .native = true,
};

}  // namespace platter::tool
