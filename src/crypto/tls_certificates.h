// Whether certificates are fit for what they are to be used for, said before a peer finds out.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "platter/error.h"

namespace platter::crypto {

// A file in PEM form.
struct CertificateFile {
  std::string path;
  std::span<const uint8_t> text;
};

// GnuTLS's code; not below 0: `text` are certificates.
int parse_certificates(std::span<const uint8_t> text);

// Dates, basic constraints, usage (RFC 5280, 4.2.1): of each certificate of the authorities, and of
// our own, the first one in `own`; and whether the authorities vouch for it, by the others in
// `own` where need be. `own` without a path: we have none.
Result<void> check_certificates(const CertificateFile& authorities, const CertificateFile& own,
                                bool for_server);

}  // namespace platter::crypto
