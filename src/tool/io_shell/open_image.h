// The image that the shell works on, and what it was opened with.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/options.h"
#include "block/graph.h"
#include "tool/session.h"

namespace platter::tool::io_shell {

struct OpenSettings {
  std::string name;
  bool named = false;            // there is a name, empty though it may be
  bool name_is_options = false;  // --image-opts
  base::Options options;         // driver options besides
  bool writable = true;
  bool snapshot = false;  // writes go to a temporary overlay
  bool copy_on_read = false;
  bool force_share = false;
  bool unmap = true;
  block::CacheMode cache = {.writeback = false};
  std::string aio;  // empty: the driver's own choice

  // What the option `letter` of the program and of `open` says: -r -s -C -n -k -U -i -t -d. False:
  // it is none of them.
  Result<bool> apply(char letter, std::string_view value);
};

class OpenImage {
 public:
  static io::Task<Result<std::unique_ptr<OpenImage>>> open(Session& session, OpenSettings settings);

  block::Backend& backend() { return *backend_; }
  block::Node& node() { return backend_->node(); }
  const OpenSettings& settings() const { return settings_; }

  io::Task<Result<void>> close() { return backend_->close(); }

 private:
  OpenImage(OpenSettings settings, std::unique_ptr<block::Backend> backend)
      : settings_(std::move(settings)), backend_(std::move(backend)) {}

  OpenSettings settings_;
  std::unique_ptr<block::Backend> backend_;
};

}  // namespace platter::tool::io_shell
