#include "format/qcow2/driver_type.h"

#include "format/qcow2/amend_options.h"
#include "format/qcow2/create.h"
#include "format/qcow2/driver.h"
#include "format/qcow2/measure.h"
#include "format/qcow2/open_options.h"

namespace platter::format {
namespace {

int probe(std::span<const uint8_t> head, std::string_view) { return qcow2::probe_header(head); }

}  // namespace

const block::DriverType kQcow2 = {
    .name = "qcow2",
    .kind = block::DriverKind::kFormat,
    .runtime_options = qcow2::kRuntimeOptions,
    .create_options = qcow2::create_options(),
    .probe = probe,
    .supports_backing = true,
    .supports_compression = true,
    .open = qcow2::Qcow2::open,
    .create = qcow2::create,
    .measure = qcow2::measure,
    .amend_options = qcow2::amend_options(),
};

}  // namespace platter::format
