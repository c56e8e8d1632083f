#include "tool/io_shell/io_command.h"

namespace platter::tool::io_shell {

extern const IoCommand kAbort, kAioFlush, kAioRead, kAioWrite, kAlloc, kBreak, kClose, kDiscard,
    kFlush, kHelp, kInfo, kLength, kMap, kOpen, kQuit, kRead, kReadv, kRemoveBreak, kReopen,
    kResume, kSigraise, kSleep, kTruncate, kWaitBreak, kWrite, kWritev, kZoneAppend, kZoneClose,
    kZoneFinish, kZoneOpen, kZoneReport, kZoneReset;

namespace {

constexpr const IoCommand* kCommands[] = {
    &kAbort,      &kAioFlush, &kAioRead,    &kAioWrite,    &kAlloc,  &kBreak,      &kClose,
    &kDiscard,    &kFlush,    &kHelp,       &kInfo,        &kLength, &kMap,        &kOpen,
    &kQuit,       &kRead,     &kReadv,      &kRemoveBreak, &kReopen, &kResume,     &kSigraise,
    &kSleep,      &kTruncate, &kWaitBreak,  &kWrite,       &kWritev, &kZoneAppend, &kZoneClose,
    &kZoneFinish, &kZoneOpen, &kZoneReport, &kZoneReset,
};

}  // namespace

std::span<const IoCommand* const> all_io_commands() { return kCommands; }

const IoCommand* find_io_command(std::string_view name) {
  for (const auto* command : kCommands) {
    if (command->name == name || (!command->alias.empty() && command->alias == name))
      return command;
  }
  return nullptr;
}

std::string usage_line(const IoCommand& command, std::string_view called) {
  std::string line(called.empty() ? command.name : called);
  if (!command.arguments.empty()) line += " " + std::string(command.arguments);
  return line + " -- " + std::string(command.summary) + "\n";
}

}  // namespace platter::tool::io_shell
