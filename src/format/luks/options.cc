#include "format/luks/options.h"

#include "block/types.h"

namespace platter::format::luks {
namespace {

using base::OptionType;

constexpr base::OptionDef kRuntime[] = {
    {.name = "key-secret",
     .type = OptionType::kString,
     .help = "ID of the secret that provides the keyslot passphrase"},
};

constexpr base::OptionDef kCreate[] = {
    {.name = "size",
     .type = OptionType::kSize,
     .help = "Virtual disk size",
     .max = block::kMaxLength},
    {.name = "key-secret",
     .type = OptionType::kString,
     .help = "ID of the secret that provides the keyslot passphrase"},
    {.name = "cipher-alg",
     .type = OptionType::kString,
     .help = "Name of encryption cipher algorithm"},
    {.name = "cipher-mode", .type = OptionType::kString, .help = "Name of encryption cipher mode"},
    {.name = "ivgen-alg", .type = OptionType::kString, .help = "Name of IV generator algorithm"},
    {.name = "ivgen-hash-alg",
     .type = OptionType::kString,
     .help = "Name of IV generator hash algorithm"},
    {.name = "hash-alg", .type = OptionType::kString, .help = "Name of encryption hash algorithm"},
    {.name = "iter-time",
     .type = OptionType::kNumber,
     .help = "Time to spend in PBKDF in milliseconds"},
    {.name = "detached-header",
     .type = OptionType::kBool,
     .help = "Create a detached LUKS header: the payload is in a file of its own"},
    {.name = "preallocation",
     .type = OptionType::kString,
     .help = "Preallocation mode (allowed values: off, falloc, full)"},
};

constexpr base::OptionDef kAmend[] = {
    {.name = "state",
     .type = OptionType::kString,
     .help = "Select new state of affected keyslots (active/inactive)"},
    {.name = "keyslot",
     .type = OptionType::kNumber,
     .help = "Select a single keyslot to modify explicitly"},
    {.name = "old-secret",
     .type = OptionType::kString,
     .help = "Select all keyslots that match this password"},
    {.name = "new-secret",
     .type = OptionType::kString,
     .help = "New secret to set in the matching keyslots. Empty string to erase"},
    {.name = "iter-time",
     .type = OptionType::kNumber,
     .help = "Time to spend in PBKDF in milliseconds"},
};

}  // namespace

constinit const base::OptionSchema kRuntimeOptions{kRuntime};
constinit const base::OptionSchema kCreateOptions{kCreate};
constinit const base::OptionSchema kAmendOptions{kAmend};

}  // namespace platter::format::luks
