#include "format/qcow2/driver_type.h"

#include "format/qcow2/amend_options.h"
#include "format/qcow2/create.h"
#include "format/qcow2/create_options.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/measure.h"
#include "format/qcow2/open_options.h"

namespace platter::format {
namespace {

int probe(std::span<const uint8_t> head, std::string_view) { return qcow2::probe_header(head); }

// Options that are wrong are refused when the image is created.
bool holds_bitmaps(const base::OptionSet& create_options) {
  const auto parsed = qcow2::parse_create_options(create_options);
  return !parsed || parsed->header.version >= 3;
}

// The content of an encrypted image depends on the key, not on the path alone.
constexpr std::string_view kIdentity[] = {"encrypt.key-secret"};

}  // namespace

const block::DriverType kQcow2 = {
    .name = "qcow2",
    .kind = block::DriverKind::kFormat,
    .runtime_options = qcow2::kRuntimeOptions,
    .create_options = qcow2::create_options(),
    .probe = probe,
    .supports_backing = true,
    .supports_compression = true,
    .holds_bitmaps = holds_bitmaps,
    .identity_options = kIdentity,
    .open = qcow2::Qcow2::open,
    .create = qcow2::create,
    .measure = qcow2::measure,
    .amend_options = qcow2::amend_options(),
};

}  // namespace platter::format
