// The external data file of an image, which holds the guest's clusters at the offsets that they
// have for the guest. Specification: docs/format/qcow2.md, "External data file".
#pragma once

#include "block/driver.h"
#include "block/node.h"
#include "format/qcow2/header.h"

namespace platter::format::qcow2 {

// Opens it as the child "data-file". Null: the image has none, or nothing will be read from it
// (OpenFlags::no_io). What the options say goes before the name in the header, which is followed as
// far as the policy allows and is a path, whatever it looks like. As QEMU has it, a relative one
// starts from the working directory.
io::Task<Result<block::Child*>> open_data_file(block::OpenContext& context, const Header& header,
                                               const std::string& image_name);

}  // namespace platter::format::qcow2
