#include "format/luks/driver_type.h"

#include "crypto/luks_header.h"
#include "format/luks/create.h"
#include "format/luks/driver.h"
#include "format/luks/options.h"

namespace platter::format {
namespace {

int probe(std::span<const uint8_t> head, std::string_view) { return crypto::probe_luks(head); }

// The content depends on the key, not on the path alone.
constexpr std::string_view kIdentity[] = {"key-secret"};

}  // namespace

const block::DriverType kLuks = {
    .name = "luks",
    .kind = block::DriverKind::kFormat,
    .runtime_options = luks::kRuntimeOptions,
    .create_options = luks::kCreateOptions,
    .probe = probe,
    .identity_options = kIdentity,
    .open = luks::LuksDriver::open,
    .create = luks::create,
    .measure = luks::measure,
    .amend_options = luks::kAmendOptions,
};

}  // namespace platter::format
