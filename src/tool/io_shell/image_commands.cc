// open, close, reopen.
#include <algorithm>
#include <array>
#include <cerrno>

#include "base/try.h"
#include "block/registry.h"
#include "fmt/format.h"
#include "tool/io_shell/shell.h"
#include "tool/io_shell/words.h"

namespace platter::tool::io_shell {

extern const IoCommand kClose, kOpen, kReopen;

namespace {

bool run_open(Shell& shell, const std::vector<std::string>& line) {
  constexpr std::string_view kSimple = "rsCnkUitd";
  auto words = Words::parse(line, "rsCnkUi:t:d:o:");
  if (!words) return shell.fail_words(kOpen, words.error());
  OpenSettings settings;
  for (const char letter : kSimple) {
    if (!words->has(letter)) continue;
    if (auto applied = settings.apply(letter, words->value(letter).value_or("")); !applied)
      return shell.fail_error(applied.error());
  }
  const auto lists = words->values('o');
  if (!lists.empty() && shell.options().names_are_options)
    return shell.fail_out("--image-opts and 'open -o' are mutually exclusive");
  for (const auto& list : lists) {
    auto options = base::Options::from_key_values(list);
    if (!options) return shell.fail_error(options.error());
    for (const auto& [key, value] : options->entries()) settings.options.set(key, value);
  }
  if (words->operands().size() > 1) return shell.fail_usage(kOpen);
  if (!words->operands().empty()) {
    settings.name = words->operands()[0];
    settings.named = !shell.options().names_are_options;
    settings.name_is_options = shell.options().names_are_options;
  }
  return shell.open(settings);
}

bool run_close(Shell& shell, const std::vector<std::string>&) { return shell.close(); }

// ---- reopen

constexpr std::array<std::string_view, 6> kNodeOptions = {
    "cache.direct", "cache.no-flush", "detect-zeroes", "discard", "read-only", "auto-read-only"};

// Whether `key` may be given another value while the node (or a child that it leads to) is in use.
Result<void> check_changeable(const block::Node& node, std::string_view key) {
  for (const auto& child : node.children()) {
    if (key.starts_with(child->name() + "."))
      return check_changeable(child->node(), key.substr(child->name().size() + 1));
  }
  const auto* known = node.type().runtime_options.find(key);
  const bool of_node = std::ranges::find(kNodeOptions, key) != kNodeOptions.end();
  if (of_node || (known != nullptr && known->changeable)) return {};
  return fail(EINVAL, fmt::format("Cannot change the option '{}'", key));
}

bool says_off(const base::OptionValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text != nullptr && *text == "off";
}

// What -r, -w, -c and -o make of the settings that the image was opened with.
Result<void> change_settings(const block::Node& node, const Words& words, OpenSettings& settings) {
  for (const auto& list : words.values('o')) {
    PLATTER_ASSIGN(const auto options, base::Options::from_key_values(list));
    for (const auto& [key, value] : options.entries()) {
      PLATTER_TRY(check_changeable(node, key));
      const bool cache = key.starts_with("cache.");
      if (cache && words.has('c')) return fail(EINVAL, "Cannot set both -c and the cache options");
      if (key == "read-only") {
        if (words.has('r') || words.has('w'))
          return fail(EINVAL, "Cannot set both -r/-w and 'read-only'");
        if (settings.writable && !says_off(value)) {
          return fail(EPERM,
                      fmt::format("Read-only block node '{}' cannot support read-write users",
                                  node.name()));
        }
        settings.writable = says_off(value);
      }
      settings.options.set(key, value);
    }
  }
  if (words.has('r') || words.has('w')) {
    settings.options.erase("read-only");
    settings.writable = words.has('w');
  }
  if (auto mode = words.value('c')) {
    PLATTER_ASSIGN(settings.cache, block::CacheMode::parse(*mode));
    settings.options.erase("cache.direct");
    settings.options.erase("cache.no-flush");
  }
  return {};
}

bool run_reopen(Shell& shell, const std::vector<std::string>& line) {
  auto words = Words::parse(line, "c:o:rw");
  if (!words) return shell.fail_words(kReopen, words.error());
  if (words->has('r') && words->has('w'))
    return shell.fail_error(Error(EINVAL, "Only one -r/-w option may be given"));
  if (!words->operands().empty()) return shell.fail_usage(kReopen);
  OpenSettings settings = shell.image()->settings();
  if (auto changed = change_settings(shell.image()->node().skip_filters(), *words, settings); !changed)
    return shell.fail_error(changed.error());
  if (settings.snapshot) {
    return shell.fail_error(
        Error(ENOTSUP, "A temporary overlay cannot be reopened: its file has no name"));
  }
  return shell.reopen(std::move(settings));
}

}  // namespace

const IoCommand kOpen = {
    .name = "open",
    .alias = "o",
    .min_arguments = 1,
    .max_arguments = -1,
    .needs_image = false,
    .arguments = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
    .summary = "open the file specified by path",
    .help =
        "\n"
        " Opens an image for the commands that follow.\n"
        " 'open -n -o driver=raw /tmp/data' opens raw data, bypassing the page cache.\n\n"
        " -r  read only\n"
        " -s  what is written goes to a temporary overlay\n"
        " -C  what is read from a backing file is written to the image\n"
        " -n  bypass the host's page cache: short for -t none\n"
        " -U  share the image with others that write to it\n"
        " -k  short for -i native\n"
        " -i  how files are read and written: threads, native or io_uring\n"
        " -t  cache mode\n"
        " -d  what becomes of discards: unmap or ignore\n"
        " -o  options of the driver\n",
    .run = run_open,
};

const IoCommand kClose = {
    .name = "close",
    .alias = "c",
    .summary = "close the current open file",
    .run = run_close,
};

const IoCommand kReopen = {
    .name = "reopen",
    .max_arguments = -1,
    .arguments = "[(-r|-w)] [-c cache] [-o options]",
    .summary = "reopens an image with new options",
    .help =
        "\n"
        " Changes what the open image was opened with. What is not named stays.\n"
        " 'reopen -o lazy-refcounts=on' puts off the updates of a qcow2 image's refcounts.\n\n"
        " -r  read only\n"
        " -w  for reading and writing\n"
        " -c  cache mode\n"
        " -o  options of the driver\n",
    .run = run_reopen,
};

}  // namespace platter::tool::io_shell
