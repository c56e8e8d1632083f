// Inspection: from an image's bytes to a Report. Pure: it opens nothing, follows no name, and reads
// what the Source's budget allows. What it cannot make sense of becomes damage in the report.
#pragma once

#include <string_view>
#include <vector>

#include "inspect/report.h"
#include "inspect/source.h"

namespace platter::inspect {

// `format`: what its user is going to open it as; empty: what a probe would take it for. Other
// formats that the bytes could be taken for are reported either way. An error: it could not be
// read.
Result<Report> inspect_image(Source& source, std::string_view format);

// The formats that are told apart, by the names that QEMU gives them.
std::vector<std::string_view> known_formats();

}  // namespace platter::inspect
