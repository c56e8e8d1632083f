// The option tables of the luks format.
#pragma once

#include "base/options.h"

namespace platter::format::luks {

extern const base::OptionSchema kRuntimeOptions;
extern const base::OptionSchema kCreateOptions;
extern const base::OptionSchema kAmendOptions;

}  // namespace platter::format::luks
