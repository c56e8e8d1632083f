#include "monitor/exports.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.h"
#include "base/try.h"
#include "monitor/arguments.h"
#include "monitor/objects.h"

namespace platter::monitor {

using base::Json;

Exports::~Exports() { PLATTER_ASSERT(entries_.empty()); }

io::Task<Reply> Exports::add(Json all) {
  const Arguments given(all);
  BlockExportOptions options;
  options.id = given.text("id");
  options.type = given.text("type");
  options.all = all;
  options.bitmaps = &bitmaps_;
  if (!is_identifier(options.id)) co_return refuse("Invalid block export id");
  if (std::ranges::find(entries_, options.id, &Entry::id) != entries_.end())
    co_return refuse(fmt::format("Block export id '{}' is already in use", options.id));
  if (types_ == nullptr || !types_->knows(options.type))
    co_return refuse("No driver found for the requested export type");
  const std::string& node_name = given.text("node-name");
  options.node = graph_.find(node_name);
  if (options.node == nullptr)
    co_return refuse(fmt::format("Cannot find device='' nor node-name='{}'", node_name));
  options.writable = given.flag("writable");
  options.writethrough = given.flag("writethrough");
  options.iothread = given.text_or_empty("iothread");
  if (options.writable && options.node->read_only())
    co_return refuse("Cannot export read-only node as writable");
  Entry entry{options.id, options.type, options.iothread, nullptr};
  PLATTER_CO_ASSIGN(entry.made, co_await types_->start(std::move(options)));
  entries_.insert(entries_.begin(), std::move(entry));
  co_return Json::object();
}

io::Task<Reply> Exports::remove(std::string id, Mode mode) {
  const auto found = std::ranges::find(entries_, id, &Entry::id);
  if (found == entries_.end()) co_return refuse(fmt::format("Export '{}' is not found", id));
  if (mode == Mode::kSafe && found->made->in_use())
    co_return refuse(fmt::format("export '{}' still in use", id));
  Entry entry = std::move(*found);
  entries_.erase(found);
  Result<void> closed = co_await entry.made->close();
  if (observer_) observer_(id);
  PLATTER_CO_TRY(std::move(closed));
  co_return Json::object();
}

Json Exports::list() const {
  Json list = Json::array();
  for (const Entry& entry : entries_) {
    Json& one = list.append(Json::object());
    one.add("node-name", entry.made->node().name());
    one.add("shutting-down", false);
    one.add("type", entry.type);
    one.add("id", entry.id);
  }
  return list;
}

block::Node* Exports::node(std::string_view id) const {
  const auto found = std::ranges::find(entries_, id, &Entry::id);
  return found == entries_.end() ? nullptr : graph_.find(found->made->node().name());
}

bool Exports::use_io_thread(std::string_view id) const {
  return std::ranges::find(entries_, id, &Entry::iothread) != entries_.end();
}

void Exports::sizes_may_have_changed() {
  for (const Entry& entry : entries_) entry.made->size_may_have_changed();
}

bool Exports::is_of_type(std::string_view id, std::string_view type) const {
  const auto found = std::ranges::find(entries_, id, &Entry::id);
  return found != entries_.end() && found->type == type;
}

io::Task<Result<void>> Exports::close_all(std::string type) {
  Result<void> result;
  for (;;) {
    const auto last =
        std::ranges::find_if(entries_.rbegin(), entries_.rend(),
                             [&](const Entry& one) { return type.empty() || one.type == type; });
    if (last == entries_.rend()) co_return std::move(result);
    Entry entry = std::move(*last);
    entries_.erase(std::next(last).base());
    Result<void> closed = co_await entry.made->close();
    if (observer_) observer_(entry.id);
    if (result && !closed) result = std::move(closed);
  }
}

}  // namespace platter::monitor
