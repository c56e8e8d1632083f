// Objects: what --object defines for the rest of the command line to name: secrets, throttle
// groups, I/O threads, and the kinds of monitor/object_kinds.h. Each is parsed and validated when
// it is given, and kept until the command ends, or until it is removed. Any thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/options.h"
#include "base/secret_bytes.h"
#include "block/secret_source.h"
#include "monitor/io_thread.h"
#include "monitor/object_kinds.h"
#include "monitor/object_properties.h"
#include "monitor/throttle_group.h"
#include "platter/error.h"

namespace platter::crypto {
class TlsCredentials;
}

namespace platter::monitor {

class AccessControl;

struct ObjectName {
  std::string id;
  std::string_view type;  // "secret"
};

// What an object of a type has, with the values that it is made with. Empty: there is no such type.
std::vector<ObjectProperty> properties_of_type(std::string_view type);

// Whether `id` may be the name of an object, or of an export.
bool is_identifier(std::string_view id);
Result<void> check_identifier(std::string_view id);

// EBUSY.
Error object_in_use(std::string_view id);

class Objects final : public block::SecretSource {
 public:
  // "TYPE,id=ID,...", or the same as a JSON object. An error leaves nothing behind.
  Result<void> add(std::string_view definition);
  // The same, taken apart.
  Result<void> add(base::Options definition);
  // Gives an object's properties other values; those that are not named stay. The object is there.
  Result<void> change(std::string_view id, base::Options properties);
  // ENOENT: there is none. EBUSY: it is of a kind that stays. What has taken a copy keeps it.
  Result<void> remove(std::string_view id);

  std::vector<ObjectName> list() const;
  // nullopt: there is no such object.
  std::optional<std::vector<ObjectProperty>> properties(std::string_view id) const;

  Result<base::SecretBytes> secret(std::string_view id) const override;
  // By id; nullopt: there is none of that type.
  std::optional<ThrottleGroup> throttle_group(std::string_view id) const;
  std::optional<IoThread> io_thread(std::string_view id) const;
  // Null: there is none of that type.
  std::shared_ptr<const crypto::TlsCredentials> tls_credentials(std::string_view id) const;
  std::shared_ptr<const AccessControl> access_control(std::string_view id) const;

 private:
  struct Secret {
    std::string_view type;  // "secret" or "secret_keyring"
    base::SecretBytes bytes;
    std::vector<ObjectProperty> properties;
  };
  struct Defined {
    const ObjectKind* kind;
    std::vector<ObjectProperty> properties;
    std::shared_ptr<const crypto::TlsCredentials> credentials = {};  // of a tls-creds
    std::shared_ptr<const AccessControl> access = {};                // of an authz
  };
  using Object = std::variant<Secret, ThrottleGroup, IoThread, Defined>;
  Result<Object> make(std::string_view type, const std::string& id, Properties& properties) const;
  template <typename T>
  std::optional<T> copy_of(std::string_view id) const;
  static std::string_view type_of(const Object& object);

  mutable std::mutex mutex_;  // secrets are asked for by any thread
  std::map<std::string, Object, std::less<>> objects_;
};

// The text that a definition asks for ("help", or "TYPE,help"); empty: it asks for none.
std::string object_help(std::string_view definition);

}  // namespace platter::monitor
