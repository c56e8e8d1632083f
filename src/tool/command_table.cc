#include "tool/command_table.h"

namespace platter::tool {

extern const Command kAmendCommand;
extern const Command kBenchCommand;
extern const Command kBitmapCommand;
extern const Command kCheckCommand;
extern const Command kCommitCommand;
extern const Command kCompactCommand;
extern const Command kCompareCommand;
extern const Command kCompletionCommand;
extern const Command kConvertCommand;
extern const Command kCreateCommand;
extern const Command kDaemonCommand;
extern const Command kDdCommand;
extern const Command kInfoCommand;
extern const Command kInspectCommand;
extern const Command kIoCommand;
extern const Command kManCommand;
extern const Command kMapCommand;
extern const Command kMeasureCommand;
extern const Command kRebaseCommand;
extern const Command kResizeCommand;
extern const Command kServeCommand;
extern const Command kSnapshotCommand;

namespace {

// clang-format off
constexpr const Command* kCommands[] = {
    &kAmendCommand,
    &kBenchCommand,
    &kBitmapCommand,
    &kCheckCommand,
    &kCommitCommand,
    &kCompactCommand,
    &kCompareCommand,
    &kCompletionCommand,
    &kConvertCommand,
    &kCreateCommand,
    &kDaemonCommand,
    &kDdCommand,
    &kInfoCommand,
    &kInspectCommand,
    &kIoCommand,
    &kManCommand,
    &kMapCommand,
    &kMeasureCommand,
    &kRebaseCommand,
    &kResizeCommand,
    &kServeCommand,
    &kSnapshotCommand,
};
// clang-format on

}  // namespace

std::span<const Command* const> all_commands() { return kCommands; }

const Command* find_command(std::string_view name) {
  for (const auto* command : kCommands) {
    if (command->name == name) return command;
  }
  return nullptr;
}

}  // namespace platter::tool
