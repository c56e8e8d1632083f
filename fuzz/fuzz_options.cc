// Option strings, JSON descriptions, sizes and the create options of qcow2, from arbitrary text.
// What parses must survive the way back: text -> Options -> JSON -> Options.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json.h"
#include "base/options.h"
#include "base/size.h"
#include "format/qcow2/create.h"
#include "format/qcow2/create_options.h"

namespace {

using platter::base::Json;
using platter::base::Options;

void require(bool holds) {
  if (!holds) std::abort();
}

void json_round_trip(std::string_view text) {
  const auto value = Json::parse(text);
  if (!value) return;
  const std::string line = value->dump();
  const auto again = Json::parse(line);
  require(again.has_value() && again->dump() == line);
  require(Json::parse(value->dump_pretty()).has_value());
}

void options_of(std::string_view text, std::string_view implied_key) {
  auto options = Options::from_key_values(text, implied_key);
  if (!options) return;
  const Json nested = options->to_json();
  json_round_trip(nested.dump());
  const auto schema = platter::format::qcow2::create_options();
  Options rest = *options;
  if (const auto taken = schema.take(rest)) {
    if (taken->has("size")) (void)platter::format::qcow2::parse_create_options(*taken);
  }
  (void)schema.parse(*options);
}

void sizes(std::string_view text) {
  if (const auto size = platter::base::parse_size(text)) {
    require(*size <= platter::base::kMaxSize);
    require(!platter::base::format_size(*size).empty());
  }
  (void)platter::base::parse_wide_size(text, 'M');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  options_of(text, {});
  options_of(text, "file");
  json_round_trip(text);
  if (auto options = Options::from_json_text(text)) json_round_trip(options->to_json().dump());
  sizes(text);
  return 0;
}
