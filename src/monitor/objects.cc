#include "monitor/objects.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>

#include "base/assert.h"
#include "base/options.h"
#include "base/try.h"
#include "crypto/block_cipher.h"
#include "monitor/base64.h"

namespace platter::monitor {

bool is_identifier(std::string_view id) {
  auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (id.empty() || !letter(id[0])) return false;
  return std::ranges::all_of(id, [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

Result<void> check_identifier(std::string_view id) {
  if (is_identifier(id)) return {};
  return std::unexpected(
      Error(EINVAL, "Parameter 'id' expects an identifier")
          .with_hint("Identifiers consist of letters, digits, '-', '.', '_', starting with a "
                     "letter."));
}

namespace {

// Above it a rate is taken for a mistake.
constexpr uint64_t kMaxThrottle = 1'000'000'000'000'000;
constexpr size_t kMaxSecretFileBytes = size_t{1} << 20;

}  // namespace

// The definition's properties, taken out one by one; what is left at the end is unknown.
class Properties {
 public:
  static Result<Properties> parse(std::string_view text) {
    Properties properties;
    if (text.starts_with('{')) {
      PLATTER_ASSIGN(auto json, base::Json::parse(text));
      if (!json.is_object()) return fail(EINVAL, "Object definition must be a JSON object");
      PLATTER_ASSIGN(properties.values_, base::Options::from_json(json));
      return properties;
    }
    PLATTER_TRY(properties.parse_words(text));
    return properties;
  }
  Properties() = default;
  explicit Properties(base::Options values) : values_(std::move(values)) {}

  base::Options take_values() { return std::move(values_); }

  std::optional<std::string> take(std::string_view name) {
    auto value = values_.find_string(name);
    if (value) values_.erase(name);
    return value;
  }

  Result<std::optional<int64_t>> take_integer(std::string_view name) {
    const auto* value = values_.find(name);
    if (value == nullptr) return std::optional<int64_t>();
    int64_t number = 0;
    bool good = true;
    if (const auto* text = std::get_if<std::string>(value)) {
      const auto [end, code] = std::from_chars(text->data(), text->data() + text->size(), number);
      good = code == std::errc() && end == text->data() + text->size();
    } else if (const auto* whole = std::get_if<int64_t>(value)) {
      number = *whole;
    } else if (const auto* large = std::get_if<uint64_t>(value); large && *large <= INT64_MAX) {
      number = static_cast<int64_t>(*large);
    } else {
      good = false;
    }
    if (!good) return fail(EINVAL, fmt::format("Parameter '{}' expects integer", name));
    values_.erase(name);
    return std::optional(number);
  }

  Result<void> check_empty() const {
    if (values_.empty()) return {};
    return fail(EINVAL,
                fmt::format("Parameter '{}' is unexpected", values_.entries().front().first));
  }

 private:
  // "secret,id=a": the first word may leave its key, the type's, out. A comma in a value is
  // doubled.
  Result<void> parse_words(std::string_view text) {
    for (bool first = true; !text.empty(); first = false) {
      const size_t equals = text.find('=');
      const size_t comma = text.find(',');
      std::string key = "qom-type";
      if (equals != text.npos && equals < comma) {
        key = text.substr(0, equals);
        text.remove_prefix(equals + 1);
      } else if (!first) {
        return fail(EINVAL,
                    fmt::format("Expected '=' after parameter '{}'", text.substr(0, comma)));
      }
      values_.set(key, take_word(text));
    }
    return {};
  }

  static std::string take_word(std::string_view& text) {
    std::string word;
    while (!text.empty()) {
      const char c = text.front();
      text.remove_prefix(1);
      if (c == ',' && !text.starts_with(',')) break;
      if (c == ',') text.remove_prefix(1);
      word += c;
    }
    return word;
  }

  base::Options values_;
};

namespace {

// ---- secret

struct SecretProperties {
  std::optional<int32_t> serial;  // of a key that the kernel keeps
  std::optional<std::string> data;
  std::optional<std::string> file;
  bool base64 = false;
  std::optional<std::string> key_id;
  std::optional<std::string> iv;

  SecretProperties() = default;
  SecretProperties(const SecretProperties&) = delete;
  SecretProperties& operator=(const SecretProperties&) = delete;
  ~SecretProperties() {
    if (data) explicit_bzero(data->data(), data->size());
  }
};

Result<void> take_secret(Properties& properties, bool in_keyring, SecretProperties& secret) {
  if (in_keyring) {
    PLATTER_ASSIGN(const auto serial, properties.take_integer("serial"));
    if (!serial) return fail(EINVAL, "Parameter 'serial' is missing");
    if (*serial < INT32_MIN || *serial > INT32_MAX)
      return fail(EINVAL, "Parameter 'serial' expects int32_t");
    secret.serial = static_cast<int32_t>(*serial);
  } else {
    secret.data = properties.take("data");
    secret.file = properties.take("file");
  }
  const std::string format = properties.take("format").value_or("raw");
  if (format != "raw" && format != "base64") {
    return fail(EINVAL, fmt::format("Parameter 'format' does not accept value '{}'", format));
  }
  secret.base64 = format == "base64";
  secret.key_id = properties.take("keyid");
  secret.iv = properties.take("iv");
  return {};
}

Result<base::SecretBytes> read_secret_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  file.rdbuf()->pubsetbuf(nullptr, 0);
  if (!file) {
    const int code = errno;
    return fail(code, fmt::format("Unable to read {}: Failed to open file “{}”: {}", path, path,
                                  Error::from_errno(code).message()));
  }
  base::SecretBytes buffer(kMaxSecretFileBytes + 1);
  file.read(reinterpret_cast<char*>(buffer.data()), static_cast<std::streamsize>(buffer.size()));
  if (file.bad()) return fail(EIO, fmt::format("Unable to read {}", path));
  const auto size = static_cast<size_t>(file.gcount());
  if (size > kMaxSecretFileBytes) {
    return fail(EFBIG, fmt::format("Unable to read {}: a secret has at most {} bytes", path,
                                   kMaxSecretFileBytes));
  }
  return base::SecretBytes::copy_of(buffer.span().first(size));
}

// keyctl(2), which the C library lacks.
constexpr int kReadKey = 11;

Result<base::SecretBytes> read_key(int32_t serial) {
  if (serial == 0) return fail(EINVAL, "'serial' should not be equal to 0");
  auto failed = [serial] {
    const auto number = static_cast<uint32_t>(serial);
    return std::unexpected(
        Error::from_errno(errno, fmt::format("Unable to read serial key {:08x}", number)));
  };
  const long size = syscall(SYS_keyctl, kReadKey, serial, nullptr, 0);
  if (size < 0) return failed();
  base::SecretBytes bytes(static_cast<size_t>(size));
  const long got = syscall(SYS_keyctl, kReadKey, serial, bytes.data(), bytes.size());
  if (got < 0) return failed();
  return base::SecretBytes::copy_of(
      bytes.span().first(std::min(static_cast<size_t>(got), bytes.size())));
}

// A secret that another one encrypts: AES-256 in CBC mode, padded as PKCS #7 says.
Result<base::SecretBytes> decrypt_secret(const base::SecretBytes& key,
                                         const std::optional<std::string>& iv_text,
                                         base::SecretBytes secret) {
  constexpr auto kAlgorithm = crypto::CipherAlgorithm::kAes256;
  const size_t block = crypto::block_bytes(kAlgorithm);
  if (key.size() != crypto::cipher_key_bytes(kAlgorithm)) {
    return fail(EINVAL, fmt::format("Key should be {} bytes in length",
                                    crypto::cipher_key_bytes(kAlgorithm)));
  }
  if (!iv_text) return fail(EINVAL, "IV is required to decrypt secret");
  PLATTER_ASSIGN(const auto iv, decode_base64(*iv_text));
  if (iv.size() != block) {
    return fail(EINVAL, fmt::format("IV should be {} bytes in length not {}", block, iv.size()));
  }
  if (secret.empty() || secret.size() % block != 0) {
    return fail(EINVAL,
                fmt::format("Length {} must be a multiple of block size {}", secret.size(), block));
  }
  PLATTER_ASSIGN(const auto cipher,
                 crypto::make_block_cipher(kAlgorithm, crypto::CipherMode::kCbc, key.span()));
  cipher->decrypt(iv.data(), secret.data(), secret.data(), secret.size());
  const size_t padding = secret.span().back();
  if (padding == 0 || padding > block || padding > secret.size()) {
    return fail(
        EINVAL,
        fmt::format("Incorrect number of padding bytes ({}) found on decrypted data", padding));
  }
  return base::SecretBytes::copy_of(secret.span().first(secret.size() - padding));
}

Result<base::SecretBytes> make_secret(const Objects& objects, const SecretProperties& properties) {
  if (properties.data && properties.file)
    return fail(EINVAL, "'file' and 'data' are mutually exclusive");
  if (!properties.data && !properties.file && !properties.serial)
    return fail(EINVAL, "Either 'file' or 'data' must be provided");
  base::SecretBytes bytes;
  if (properties.serial) {
    PLATTER_ASSIGN(bytes, read_key(*properties.serial));
  } else if (properties.file) {
    PLATTER_ASSIGN(bytes, read_secret_file(*properties.file));
  } else {
    bytes = base::SecretBytes::copy_of(*properties.data);
  }
  if (properties.base64) {
    PLATTER_ASSIGN(bytes, decode_base64(bytes.view()));
  }
  if (!properties.key_id) return bytes;
  PLATTER_ASSIGN(const auto key, objects.secret(*properties.key_id));
  return decrypt_secret(key, properties.iv, std::move(bytes));
}

// ---- throttle-group

struct ThrottleProperty {
  std::string name;  // without its prefix
  uint64_t ThrottleBucket::* member;
  size_t bucket;
};

std::vector<ThrottleProperty> throttle_properties() {
  std::vector<ThrottleProperty> properties;
  for (size_t i = 0; i < kThrottleBuckets.size(); ++i) {
    const std::string name(kThrottleBuckets[i]);
    properties.push_back({name, &ThrottleBucket::average, i});
    properties.push_back({name + "-max", &ThrottleBucket::burst, i});
    properties.push_back({name + "-max-length", &ThrottleBucket::burst_seconds, i});
  }
  return properties;
}

Result<void> check_buckets(const ThrottleGroup& group) {
  for (size_t first = 0; first < group.buckets.size(); first += 3) {
    const auto& total = group.buckets[first];
    const auto& read = group.buckets[first + 1];
    const auto& write = group.buckets[first + 2];
    if ((total.average != 0 && (read.average != 0 || write.average != 0)) ||
        (total.burst != 0 && (read.burst != 0 || write.burst != 0))) {
      return fail(EINVAL,
                  "bps/iops/max total values and read/write values cannot be used at the same "
                  "time");
    }
  }
  if (group.operation_bytes != 0 && group.buckets[0].average == 0 &&
      group.buckets[1].average == 0 && group.buckets[2].average == 0) {
    return fail(EINVAL, "iops size requires an iops value to be set");
  }
  for (const ThrottleBucket& bucket : group.buckets) {
    if (bucket.average > kMaxThrottle || bucket.burst > kMaxThrottle)
      return fail(EINVAL, fmt::format("bps/iops/max values must be within [0, {}]", kMaxThrottle));
    if (bucket.burst_seconds == 0) return fail(EINVAL, "the burst length cannot be 0");
    if (bucket.burst_seconds > 1 && bucket.burst == 0)
      return fail(EINVAL, "burst length set without burst rate");
    if (bucket.burst != 0 && bucket.burst_seconds > kMaxThrottle / bucket.burst)
      return fail(EINVAL, "burst length too high for this burst rate");
    if (bucket.burst != 0 && bucket.average == 0)
      return fail(EINVAL, "bps_max/iops_max require corresponding bps/iops values");
    if (bucket.burst != 0 && bucket.burst < bucket.average)
      return fail(EINVAL, "bps_max/iops_max cannot be lower than bps/iops");
  }
  return {};
}

Result<ThrottleGroup> take_throttle_group(Properties& properties, ThrottleGroup group = {}) {
  // The same limits under two names; the older one refuses negative numbers by itself.
  for (const std::string_view prefix : {"limits.", "x-"}) {
    for (const auto& property : throttle_properties()) {
      PLATTER_ASSIGN(auto value, properties.take_integer(std::string(prefix) + property.name));
      if (!value) continue;
      if (*value < 0 && prefix == "x-") return fail(EINVAL, "Property values cannot be negative");
      group.buckets[property.bucket].*property.member = static_cast<uint64_t>(*value);
    }
    PLATTER_ASSIGN(auto size, properties.take_integer(std::string(prefix) + "iops-size"));
    if (size && *size < 0 && prefix == "x-")
      return fail(EINVAL, "Property values cannot be negative");
    if (size) group.operation_bytes = static_cast<uint64_t>(*size);
  }
  return group;
}

// ---- iothread

struct IoThreadProperty {
  std::string_view name;
  uint64_t IoThread::* member;
};
constexpr IoThreadProperty kIoThreadProperties[] = {
    {"poll-max-ns", &IoThread::poll_max_ns},
    {"poll-grow", &IoThread::poll_grow},
    {"poll-shrink", &IoThread::poll_shrink},
    {"aio-max-batch", &IoThread::max_batch},
    {"thread-pool-min", &IoThread::thread_pool_min},
    {"thread-pool-max", &IoThread::thread_pool_max},
};

Result<IoThread> take_io_thread(Properties& properties, IoThread thread = {}) {
  for (const auto& [name, member] : kIoThreadProperties) {
    PLATTER_ASSIGN(auto value, properties.take_integer(name));
    if (!value) continue;
    if (*value < 0) {
      return fail(EINVAL, fmt::format("{} value must be in range [0, {}]", name, INT64_MAX));
    }
    thread.*member = static_cast<uint64_t>(*value);
  }
  return thread;
}

Result<void> check_pool(const IoThread& thread) {
  if (thread.thread_pool_max != 0 && thread.thread_pool_min <= thread.thread_pool_max) return {};
  return fail(EINVAL, "bad thread-pool-min/thread-pool-max values");
}

std::unexpected<Error> taken(std::string_view id) {
  return fail(EEXIST, fmt::format("attempt to add duplicate property '{}' to object (type "
                                  "'container')",
                                  id));
}

// ---- What is to be seen of them

std::vector<ObjectProperty> describe(const SecretProperties& secret) {
  std::vector<ObjectProperty> properties = {
      {"loaded", "bool", true},
      {"format", "QCryptoSecretFormat", secret.base64 ? "base64" : "raw"},
      {"keyid", "string", secret.key_id.value_or("")},
      {"iv", "string", secret.iv.value_or("")}};
  if (secret.serial) {
    properties.push_back({"serial", "int32_t", *secret.serial});
  } else {
    properties.push_back({"file", "string", secret.file.value_or("")});
  }
  return properties;
}

std::vector<ObjectProperty> describe(const IoThread& thread) {
  std::vector<ObjectProperty> properties;
  for (const auto& [name, member] : kIoThreadProperties)
    properties.push_back({std::string(name), "int", thread.*member});
  return properties;
}

std::vector<ObjectProperty> describe(const ThrottleGroup& group) {
  base::Json limits = base::Json::object();
  std::vector<ObjectProperty> properties;
  auto add = [&](const std::string& name, uint64_t value) {
    limits.add(name, value);
    properties.push_back({"x-" + name, "int", value});
  };
  for (const auto& property : throttle_properties())
    add(property.name, group.buckets[property.bucket].*property.member);
  add("iops-size", group.operation_bytes);
  properties.push_back({"limits", "ThrottleLimits", std::move(limits)});
  return properties;
}

std::vector<ObjectProperty> describe(const ObjectKind& kind, const base::Json* values) {
  std::vector<ObjectProperty> properties;
  for (const KindProperty& property : kind.properties) {
    const base::Json* value = values != nullptr ? values->find(property.name) : nullptr;
    properties.push_back({std::string(property.name), property.type,
                          value != nullptr ? *value : base::Json(std::string(property.fallback))});
  }
  return properties;
}

constexpr std::string_view kOwnTypes[] = {"iothread", "secret", "secret_keyring", "throttle-group"};

bool is_type(std::string_view type) {
  return std::ranges::find(kOwnTypes, type) != std::end(kOwnTypes) ||
         find_object_kind(type) != nullptr;
}

}  // namespace

std::vector<ObjectProperty> properties_of_type(std::string_view type) {
  if (type == "secret") return describe(SecretProperties());
  if (type == "secret_keyring") {
    SecretProperties secret;
    secret.serial = 0;
    return describe(secret);
  }
  if (const ObjectKind* kind = find_object_kind(type)) return describe(*kind, nullptr);
  if (type == "throttle-group") return describe(ThrottleGroup());
  if (type == "iothread") return describe(IoThread());
  return {};
}

Result<void> Objects::add(std::string_view definition) {
  PLATTER_ASSIGN(auto properties, Properties::parse(definition));
  return add(properties.take_values());
}

Result<void> Objects::add(base::Options definition) {
  Properties properties(std::move(definition));
  const auto type = properties.take("qom-type");
  if (!type) return fail(EINVAL, "Parameter 'qom-type' is missing");
  if (!is_type(*type)) {
    return fail(EINVAL, fmt::format("Parameter 'qom-type' does not accept value '{}'", *type));
  }
  const auto id = properties.take("id");
  if (!id) return fail(EINVAL, "Parameter 'id' is missing");
  PLATTER_ASSIGN(Object object, make(*type, *id, properties));
  std::lock_guard guard(mutex_);
  if (!objects_.emplace(*id, std::move(object)).second) return taken(*id);
  return {};
}

// A definition is understood before anything is done for it.
Result<Objects::Object> Objects::make(std::string_view type, const std::string& id,
                                      Properties& properties) const {
  const ObjectKind* kind = find_object_kind(type);
  const bool in_keyring = type == "secret_keyring";
  const bool is_secret = type == "secret" || in_keyring;
  SecretProperties secret;
  Object object = IoThread{};
  if (kind != nullptr) {
    PLATTER_ASSIGN(const base::Json values, read_properties(*kind, properties.take_values()));
    object = Defined{kind, describe(*kind, &values)};
  } else if (is_secret) {
    PLATTER_TRY(take_secret(properties, in_keyring, secret));
  } else if (type == "throttle-group") {
    PLATTER_ASSIGN(object, take_throttle_group(properties));
  } else {
    PLATTER_ASSIGN(object, take_io_thread(properties));
  }
  PLATTER_TRY(properties.check_empty());
  PLATTER_TRY(check_identifier(id));
  if (this->properties(id)) return taken(id);
  if (is_secret) {
    PLATTER_ASSIGN(auto bytes, make_secret(*this, secret));
    return Secret{in_keyring ? "secret_keyring" : "secret", std::move(bytes), describe(secret)};
  }
  if (kind != nullptr && kind->only_one) {
    for (const ObjectName& other : list()) {
      if (other.type == type)
        return fail(EINVAL, fmt::format("only one {} instance allowed", type));
    }
  }
  if (const auto* group = std::get_if<ThrottleGroup>(&object)) PLATTER_TRY(check_buckets(*group));
  if (const auto* thread = std::get_if<IoThread>(&object)) PLATTER_TRY(check_pool(*thread));
  return object;
}

Result<void> Objects::change(std::string_view id, base::Options values) {
  Properties properties(std::move(values));
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  PLATTER_ASSERT(found != objects_.end());
  Object next = IoThread{};
  if (const auto* group = std::get_if<ThrottleGroup>(&found->second)) {
    PLATTER_ASSIGN(next, take_throttle_group(properties, *group));
    PLATTER_TRY(check_buckets(std::get<ThrottleGroup>(next)));
  } else if (const auto* thread = std::get_if<IoThread>(&found->second)) {
    PLATTER_ASSIGN(const IoThread changed, take_io_thread(properties, *thread));
    PLATTER_TRY(check_pool(changed));
    next = changed;
  } else {
    return fail(ENOTSUP, fmt::format("The properties of a {} cannot be set after it was made",
                                     type_of(found->second)));
  }
  PLATTER_TRY(properties.check_empty());
  found->second = std::move(next);
  return {};
}

Result<void> Objects::remove(std::string_view id) {
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  if (found == objects_.end()) return fail(ENOENT, fmt::format("object '{}' not found", id));
  const auto* defined = std::get_if<Defined>(&found->second);
  if (defined != nullptr && defined->kind->only_one)
    return fail(EBUSY, fmt::format("object '{}' is in use, can not be deleted", id));
  objects_.erase(found);
  return {};
}

std::string_view Objects::type_of(const Object& object) {
  if (const auto* secret = std::get_if<Secret>(&object)) return secret->type;
  if (const auto* defined = std::get_if<Defined>(&object)) return defined->kind->name;
  return std::holds_alternative<ThrottleGroup>(object) ? "throttle-group" : "iothread";
}

std::vector<ObjectName> Objects::list() const {
  std::lock_guard guard(mutex_);
  std::vector<ObjectName> all;
  for (const auto& [id, object] : objects_) all.push_back({id, type_of(object)});
  return all;
}

std::optional<std::vector<ObjectProperty>> Objects::properties(std::string_view id) const {
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  if (found == objects_.end()) return std::nullopt;
  const Object& object = found->second;
  if (const auto* secret = std::get_if<Secret>(&object)) return secret->properties;
  if (const auto* defined = std::get_if<Defined>(&object)) return defined->properties;
  if (const auto* group = std::get_if<ThrottleGroup>(&object)) return describe(*group);
  return describe(std::get<IoThread>(object));
}

Result<base::SecretBytes> Objects::secret(std::string_view id) const {
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  if (found == objects_.end()) return std::unexpected(block::no_such_secret(id));
  const auto* secret = std::get_if<Secret>(&found->second);
  if (secret == nullptr)
    return fail(EINVAL, fmt::format("Object with id '{}' is not a secret", id));
  return base::SecretBytes::copy_of(secret->bytes.span());
}

template <typename T>
std::optional<T> Objects::copy_of(std::string_view id) const {
  std::lock_guard guard(mutex_);
  const auto found = objects_.find(id);
  if (found == objects_.end()) return std::nullopt;
  const T* object = std::get_if<T>(&found->second);
  return object == nullptr ? std::nullopt : std::optional<T>(*object);
}

std::optional<ThrottleGroup> Objects::throttle_group(std::string_view id) const {
  return copy_of<ThrottleGroup>(id);
}

std::optional<IoThread> Objects::io_thread(std::string_view id) const {
  return copy_of<IoThread>(id);
}

static std::string help_for_types() {
  std::vector<std::string_view> types(std::begin(kOwnTypes), std::end(kOwnTypes));
  for (const ObjectKind& kind : object_kinds()) types.push_back(kind.name);
  std::ranges::sort(types);
  std::string text = "List of user creatable objects:\n";
  for (const auto type : types) text += fmt::format("  {}\n", type);
  return text;
}

// A type that there is.
static std::vector<std::string> help_lines(std::string_view type) {
  std::vector<std::string> lines;
  auto add = [&lines](std::string_view name, std::string_view of) {
    lines.push_back(fmt::format("  {}=<{}>\n", name, of));
  };
  if (type == "throttle-group") {
    for (const auto& property : throttle_properties()) add("limits." + property.name, "int");
    add("limits.iops-size", "int");
    return lines;
  }
  for (const ObjectProperty& property : properties_of_type(type)) {
    if (property.name != "loaded") add(property.name, property.type);
  }
  if (type == "secret") add("data", "string");
  std::ranges::sort(lines);
  return lines;
}

std::string object_help(std::string_view definition) {
  const auto comma = definition.find(',');
  const auto type = definition.substr(0, comma);
  if (type == "help" || type == "?") return help_for_types();
  if (comma == definition.npos) return {};
  const auto rest = definition.substr(comma + 1);
  if (rest != "help" && rest != "?") return {};
  if (!is_type(type)) return help_for_types();
  std::string text = fmt::format("{} options:\n", type);
  for (const std::string& line : help_lines(type)) text += line;
  return text;
}

}  // namespace platter::monitor
