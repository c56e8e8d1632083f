#include "format/luks/create.h"

#include <cerrno>

#include "base/math.h"
#include "base/try.h"
#include "block/backend.h"
#include "block/graph.h"
#include "block/secret_source.h"
#include "crypto/luks_keys.h"
#include "crypto/luks_options.h"

namespace platter::format::luks {
namespace {

using block::Preallocation;

// "metadata": there is none to preallocate.
Result<Preallocation> preallocation_of(const base::OptionSet& options) {
  if (!options.given("preallocation")) return Preallocation::kOff;
  const std::string& mode = options.get_string("preallocation");
  if (mode == "off" || mode == "metadata") return Preallocation::kOff;
  if (mode == "falloc") return Preallocation::kFalloc;
  if (mode == "full") return Preallocation::kFull;
  return fail(EINVAL, "invalid parameter value: " + mode);
}

// What a person is asked for to lock a volume.
Result<base::SecretBytes> passphrase_of(const base::OptionSet& options, const block::Graph& graph) {
  if (!options.given("key-secret"))
    return fail(EINVAL, "Parameter 'key-secret' is required for cipher");
  return block::find_passphrase(graph.environment().secrets, options.get_string("key-secret"));
}

io::Task<Result<void>> write_volume(block::Backend& file, const crypto::NewVolume& volume,
                                    uint64_t size, Preallocation preallocation,
                                    const base::SecretBytes& passphrase) {
  const uint64_t header = crypto::luks_payload_offset(crypto::key_bytes(volume.cipher));
  const uint64_t whole = volume.detached ? header : header + size;
  PLATTER_CO_TRY(co_await file.resize(whole, preallocation, false));
  crypto::MediumOver<block::Backend> medium(file);
  PLATTER_CO_TRY(co_await crypto::make_volume(volume, medium, passphrase));
  co_return Result<void>{};
}

// Header and payload together have to fit a file.
Result<uint64_t> checked_size(const base::OptionSet& options, const crypto::NewVolume& volume) {
  if (!options.given("size")) {
    if (volume.detached) return 0;
    return fail(EINVAL, "Image creation needs a size parameter");
  }
  const uint64_t size = options.get_size("size");
  const uint64_t header = crypto::luks_payload_offset(crypto::key_bytes(volume.cipher));
  if (!base::range_within(header, size, block::kMaxLength))
    return fail(EFBIG, "The requested file size is too large");
  return size;
}

bool is_detached(const base::OptionSet& options) {
  return options.given("detached-header") && options.get_bool("detached-header");
}

}  // namespace

io::Task<Result<void>> create(block::CreateContext& context) {
  const base::OptionSet& options = context.options;
  PLATTER_CO_ASSIGN(auto volume, crypto::parse_new_volume(options, ""));
  volume.detached = is_detached(options);
  PLATTER_CO_ASSIGN(const uint64_t size, checked_size(options, volume));
  PLATTER_CO_ASSIGN(const auto preallocation, preallocation_of(options));
  PLATTER_CO_ASSIGN(const auto passphrase, passphrase_of(options, context.graph));
  PLATTER_CO_ASSIGN(const auto file, co_await context.create_file());
  auto written = co_await write_volume(*file, volume, size, preallocation, passphrase);
  auto closed = co_await file->close();
  PLATTER_CO_TRY(std::move(written));
  co_return closed;
}

io::Task<Result<block::Measurement>> measure(const block::MeasureContext& context) {
  PLATTER_CO_ASSIGN(auto volume, crypto::parse_new_volume(context.options, ""));
  volume.detached = is_detached(context.options);
  if (!context.options.given("key-secret"))
    co_return fail(EINVAL, "Parameter 'key-secret' is required for cipher");
  PLATTER_CO_ASSIGN(const uint64_t size, checked_size(context.options, volume));
  const uint64_t header = crypto::luks_payload_offset(crypto::key_bytes(volume.cipher));
  const uint64_t whole = volume.detached ? header : header + size;
  co_return block::Measurement{.required = whole, .fully_allocated = whole};
}

}  // namespace platter::format::luks
