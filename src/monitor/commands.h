// The commands' functions, by the names that the schema has.
#pragma once

#include <span>
#include <string_view>

#include "io/task.h"
#include "monitor/arguments.h"
#include "monitor/control.h"

namespace platter::monitor {

struct CommandFunction {
  std::string_view name;
  // `arguments` outlive the call.
  io::Task<Reply> (*run)(Control& control, Arguments arguments);
};

std::span<const CommandFunction> control_commands();
std::span<const CommandFunction> node_commands();
std::span<const CommandFunction> change_commands();
std::span<const CommandFunction> object_commands();
std::span<const CommandFunction> chardev_commands();
std::span<const CommandFunction> graph_commands();
std::span<const CommandFunction> setting_commands();
std::span<const CommandFunction> nbd_commands();
std::span<const CommandFunction> device_commands();  // only where there are devices

inline io::Task<Reply> ready(Reply reply) { return io::Task<Reply>::ready(std::move(reply)); }
inline Reply done() { return base::Json::object(); }

// By either name; a node is what both stand for: "Cannot find device='a' nor node-name='b'".
std::expected<block::Node*, Failure> find_node(Control& control, std::string_view device,
                                               std::string_view node_name);

}  // namespace platter::monitor
