// An inspection of arbitrary bytes, the policies, and the way of a report through JSON.
//
// An input is a sparse file: its size (u64), then runs: offset (u64), length (u16), bytes; all
// little-endian. So a few hundred bytes reach structures that lie megabytes apart.

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/bytes.h"
#include "inspect/inspect.h"
#include "inspect/policy.h"

namespace {

using platter::base::load_little;
namespace inspect = platter::inspect;

void require(bool holds) {
  if (!holds) std::abort();
}

class SparseSource : public inspect::Source {
 public:
  SparseSource(uint64_t size, std::span<const uint8_t> runs) : Source(size) {
    constexpr size_t kRunHeaderBytes = 10;
    while (runs.size() >= kRunHeaderBytes) {
      const uint64_t offset = load_little<uint64_t>(runs, 0);
      const size_t length =
          std::min<size_t>(load_little<uint16_t>(runs, 8), runs.size() - kRunHeaderBytes);
      runs_.push_back({offset, runs.subspan(kRunHeaderBytes, length)});
      runs = runs.subspan(kRunHeaderBytes + length);
    }
  }

 protected:
  platter::Result<void> read_at(uint64_t offset, std::span<uint8_t> into) override {
    require(offset <= size() && into.size() <= size() - offset);
    std::ranges::fill(into, uint8_t{0});
    for (const auto& run : runs_) {
      const uint64_t begin = std::max(offset, run.offset);
      const uint64_t run_end = run.offset + run.bytes.size();
      const uint64_t end = std::min(offset + into.size(), run_end);
      if (run_end < run.offset || begin >= end) continue;
      std::copy_n(run.bytes.begin() + static_cast<ptrdiff_t>(begin - run.offset), end - begin,
                  into.begin() + static_cast<ptrdiff_t>(begin - offset));
    }
    return {};
  }

 private:
  struct Run {
    uint64_t offset;
    std::span<const uint8_t> bytes;
  };
  std::vector<Run> runs_;
};

void inspect_as(uint64_t size, std::span<const uint8_t> runs, std::string_view format) {
  SparseSource source(size, runs);
  const auto report = inspect::inspect_image(source, format);
  require(report.has_value());
  // Text that is not UTF-8 changes on its first way through JSON, and not again.
  const auto json = inspect::report_to_json(*report).dump();
  const auto parsed = platter::base::Json::parse(json);
  require(parsed.has_value());
  const auto received = inspect::report_from_json(*parsed);
  require(received.has_value());
  require(inspect::report_to_json(*received).dump() == json);
  for (const auto* name : {"default", "openstack"}) {
    const auto policy = inspect::builtin_policy(name);
    for (const auto& violation : inspect::judge(*received, *policy)) {
      require(!violation.reason.empty() && violation.reason.find('\n') == std::string::npos);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> input(data, size);
  // Policies are text that people write; a report that is not ours must be refused, not trusted.
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)inspect::parse_policy(text);
  if (const auto json = platter::base::Json::parse(text)) (void)inspect::report_from_json(*json);
  if (size < 8) return 0;
  const uint64_t file_size = load_little<uint64_t>(input, 0) & INT64_MAX;
  inspect_as(file_size, input.subspan(8), {});
  for (const auto format : inspect::known_formats())
    inspect_as(file_size, input.subspan(8), format);
  return 0;
}
