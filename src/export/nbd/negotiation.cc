#include "export/nbd/negotiation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <concepts>

#include "base/bytes.h"
#include "base/try.h"

namespace platter::nbd {
namespace {

constexpr size_t kOptionHeader = 16;
constexpr size_t kReservedZeroes = 124;
// An option longer than this is no mistake: it is not even skipped.
constexpr uint32_t kMaxSkipped = uint32_t{32} << 20;

template <std::unsigned_integral T>
void append(std::vector<uint8_t>& bytes, T value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof value);
  base::store_big(std::span(bytes), at, value);
}
void append(std::vector<uint8_t>& bytes, std::string_view text) {
  bytes.insert(bytes.end(), text.begin(), text.end());
}

// The fields of an option, one after the other; nothing: it is shorter.
class Fields {
 public:
  explicit Fields(std::span<const uint8_t> bytes) : rest_(bytes) {}

  template <typename T>
  std::optional<T> number() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    const T value = base::load_big<T>(rest_);
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  // With its length before it.
  std::optional<std::string_view> text() {
    const auto length = number<uint32_t>();
    if (!length || *length > rest_.size() || *length > kMaxString) return std::nullopt;
    const std::string_view found(reinterpret_cast<const char*>(rest_.data()), *length);
    rest_ = rest_.subspan(*length);
    return found;
  }
  bool at_end() const { return rest_.empty(); }
  size_t left() const { return rest_.size(); }

 private:
  std::span<const uint8_t> rest_;
};

// Whether a client that lists contexts, and says `query`, means this one.
bool is_listed(std::string_view name, std::string_view query) {
  const bool open = query == "base:" || query == "qemu:" || query == "qemu:dirty-bitmap:";
  return open ? name.starts_with(query) : name == query;
}

struct ContextQuery {
  std::string_view export_name;
  std::vector<std::string_view> queries;
};

std::optional<ContextQuery> parse_context_query(std::span<const uint8_t> bytes) {
  Fields fields(bytes);
  ContextQuery parsed;
  const auto name = fields.text();
  const auto count = fields.number<uint32_t>();
  // Each has its length at least.
  if (!name || !count || *count > fields.left() / sizeof(uint32_t)) return std::nullopt;
  parsed.export_name = *name;
  for (uint32_t i = 0; i < *count; ++i) {
    const auto query = fields.text();
    if (!query) return std::nullopt;
    parsed.queries.push_back(*query);
  }
  if (!fields.at_end()) return std::nullopt;
  return parsed;
}

}  // namespace

// ---- What comes

io::Task<Result<bool>> Negotiation::greet() {
  std::vector<uint8_t> greeting;
  append(greeting, kServerMagic);
  append(greeting, kOptionMagic);
  append(greeting, static_cast<uint16_t>(kFixedNewstyle | kNoZeroes));
  PLATTER_CO_TRY(co_await stream_->send_all(greeting));
  std::array<uint8_t, 4> answered;
  PLATTER_CO_ASSIGN(const bool there, co_await stream_->receive_all(answered));
  if (!there) co_return false;
  const auto flags = base::load_big<uint32_t>(answered);
  if ((flags & ~(kFixedNewstyle | kNoZeroes)) != 0)
    co_return fail(EPROTO, fmt::format("unknown client flags {:#x}", flags));
  if ((flags & kFixedNewstyle) == 0)
    co_return fail(EPROTO, "the client does not speak the fixed newstyle protocol");
  no_zeroes_ = (flags & kNoZeroes) != 0;
  co_return true;
}

io::Task<Result<void>> Negotiation::skip(uint64_t bytes) {
  std::array<uint8_t, 4096> scratch;
  while (bytes != 0) {
    const auto piece = std::span(scratch).first(std::min<uint64_t>(bytes, scratch.size()));
    PLATTER_CO_ASSIGN(const bool there, co_await stream_->receive_all(piece));
    if (!there) co_return fail(EPROTO, "an option that is cut short");
    bytes -= piece.size();
  }
  co_return Result<void>();
}

io::Task<Result<std::optional<Negotiation::Asked>>> Negotiation::receive_option() {
  std::array<uint8_t, kOptionHeader> header;
  PLATTER_CO_ASSIGN(const bool there, co_await stream_->receive_all(header));
  if (!there) co_return std::nullopt;
  if (base::load_big<uint64_t>(header) != kOptionMagic)
    co_return fail(EPROTO, "an option that does not begin as one");
  Asked asked{.option = static_cast<Option>(base::load_big<uint32_t>(header, 8)), .bytes = {}};
  const auto length = base::load_big<uint32_t>(header, 12);
  if (length > kMaxSkipped) co_return fail(EPROTO, fmt::format("an option of {} bytes", length));
  asked.too_big = length > kMaxOption;
  if (asked.too_big) {
    PLATTER_CO_TRY(co_await skip(length));
  } else if (length != 0) {
    asked.bytes.resize(length);
    PLATTER_CO_ASSIGN(const bool whole, co_await stream_->receive_all(asked.bytes));
    if (!whole) co_return fail(EPROTO, "an option that is cut short");
  }
  co_return asked;
}

io::Task<Result<std::optional<Agreement>>> Negotiation::run() {
  PLATTER_CO_ASSIGN(const bool there, co_await greet());
  if (!there) co_return std::nullopt;
  for (;;) {
    PLATTER_CO_ASSIGN(std::optional<Asked> asked, co_await receive_option());
    if (!asked) co_return std::nullopt;
    answer_.clear();
    PLATTER_CO_ASSIGN(const Next next, co_await answer(std::move(*asked)));
    // A client that leaves need not wait for the answer.
    const Result<void> sent = co_await stream_->send_all(answer_);
    if (next == Next::kEnd) co_return std::nullopt;
    PLATTER_CO_TRY(sent);
    if (next == Next::kTransmission) co_return std::move(agreement_);
  }
}

// ---- What is answered

io::Task<Result<Negotiation::Next>> Negotiation::answer(Asked asked) {
  const bool without_data = asked.option == Option::kStructuredReply ||
                            asked.option == Option::kExtendedHeaders ||
                            asked.option == Option::kStartTls || asked.option == Option::kList;
  if (asked.option == Option::kAbort) {
    reply(asked.option, OptionReply::kAck);
    co_return Next::kEnd;
  }
  if (host_.has_tls() && !secured_ && asked.option != Option::kStartTls) {
    if (asked.option == Option::kExportName)
      co_return fail(EPROTO, "the client asks for an export without TLS");
    refuse(asked.option, OptionReply::kTlsRequired, "this server speaks TLS only");
  } else if (asked.option == Option::kExportName) {
    co_return choose_export(asked);
  } else if (asked.too_big) {
    refuse(asked.option, OptionReply::kTooBig, "the option is too long");
  } else if (without_data && !asked.bytes.empty()) {
    refuse(asked.option, OptionReply::kInvalid, "the option has no data");
  } else {
    switch (asked.option) {
      case Option::kList: list(asked); break;
      case Option::kStartTls: co_return co_await start_tls(asked);
      case Option::kInfo:
      case Option::kGo: co_return go(asked);
      case Option::kStructuredReply: frame(asked, Framing::kStructured); break;
      case Option::kExtendedHeaders: frame(asked, Framing::kExtended); break;
      case Option::kListMetaContext:
      case Option::kSetMetaContext: meta_contexts(asked); break;
      default: refuse(asked.option, OptionReply::kUnsupported, "unknown option"); break;
    }
  }
  co_return Next::kAnotherOption;
}

void Negotiation::reply(Option option, OptionReply type, std::span<const uint8_t> payload) {
  append(answer_, kOptionReplyMagic);
  append(answer_, static_cast<uint32_t>(option));
  append(answer_, static_cast<uint32_t>(type));
  append(answer_, static_cast<uint32_t>(payload.size()));
  answer_.insert(answer_.end(), payload.begin(), payload.end());
}

void Negotiation::refuse(Option option, OptionReply type, std::string_view why) {
  reply(option, type, {reinterpret_cast<const uint8_t*>(why.data()), why.size()});
}

void Negotiation::frame(const Asked& asked, Framing framing) {
  if (framing == framing_) {
    refuse(asked.option, OptionReply::kInvalid, "it has been agreed on already");
  } else if (framing < framing_) {
    refuse(asked.option, OptionReply::kExtendedHeadersRequired, "headers are extended already");
  } else {
    framing_ = framing;
    reply(asked.option, OptionReply::kAck);
  }
}

void Negotiation::list(const Asked& asked) {
  for (const Export* one : host_.exports()) {
    std::vector<uint8_t> payload;
    append(payload, static_cast<uint32_t>(one->name().size()));
    append(payload, one->name());
    append(payload, one->description());
    reply(asked.option, OptionReply::kServer, payload);
  }
  reply(asked.option, OptionReply::kAck);
}

io::Task<Result<Negotiation::Next>> Negotiation::start_tls(const Asked& asked) {
  if (!host_.has_tls()) {
    refuse(asked.option, OptionReply::kPolicy, "this server has no TLS");
    co_return Next::kAnotherOption;
  }
  if (secured_) {
    refuse(asked.option, OptionReply::kInvalid, "TLS has begun already");
    co_return Next::kAnotherOption;
  }
  reply(asked.option, OptionReply::kAck);
  PLATTER_CO_TRY(co_await stream_->send_all(std::exchange(answer_, {})));
  PLATTER_CO_ASSIGN(stream_, co_await host_.start_tls());
  secured_ = true;
  // What was said before could have been said by anybody.
  framing_ = Framing::kSimple;
  contexts_of_.clear();
  context_names_.clear();
  co_return Next::kAnotherOption;
}

// ---- Exports

void Negotiation::agree(Export& served) {
  agreement_.emplace(Agreement{.served = &served, .framing = framing_});
  if (contexts_of_ != served.name()) return;
  const auto& contexts = served.contexts();
  for (uint32_t id = 0; id < contexts.size(); ++id) {
    if (std::ranges::find(context_names_, contexts[id].name) != context_names_.end())
      agreement_->contexts.push_back(id);
  }
}

// There is no way to refuse but to leave.
Result<Negotiation::Next> Negotiation::choose_export(const Asked& asked) {
  const std::string_view name(reinterpret_cast<const char*>(asked.bytes.data()),
                              asked.bytes.size());
  Export* found = asked.too_big || name.size() > kMaxString ? nullptr : host_.claim(name);
  if (found == nullptr) return fail(EPROTO, "the client asks for an export that is not here");
  append(answer_, found->size());
  append(answer_, found->flags(framing_, host_.multi_connection()));
  if (!no_zeroes_) answer_.resize(answer_.size() + kReservedZeroes);
  agree(*found);
  return Next::kTransmission;
}

Negotiation::Next Negotiation::go(const Asked& asked) {
  Fields fields(asked.bytes);
  const auto name = fields.text();
  const auto count = fields.number<uint16_t>();
  std::vector<uint16_t> wanted;
  while (count && wanted.size() < *count) {
    const auto info = fields.number<uint16_t>();
    if (!info) break;
    wanted.push_back(*info);
  }
  if (!name || !count || wanted.size() != *count || !fields.at_end()) {
    refuse(asked.option, OptionReply::kInvalid, "the option's data makes no sense");
    return Next::kAnotherOption;
  }
  Export* found = host_.find(*name);
  if (found == nullptr) {
    refuse(asked.option, OptionReply::kUnknown, fmt::format("export '{}' not present", *name));
    return Next::kAnotherOption;
  }
  tell_export(asked.option, *found, wanted);
  const bool will_align =
      std::ranges::find(wanted, static_cast<uint16_t>(Info::kBlockSize)) != wanted.end();
  if (asked.option == Option::kInfo && !will_align && found->block_sizes().least > 1) {
    refuse(asked.option, OptionReply::kBlockSizeRequired, "requests need to be aligned");
    return Next::kAnotherOption;
  }
  reply(asked.option, OptionReply::kAck);
  if (asked.option == Option::kInfo) return Next::kAnotherOption;
  host_.claim(*name);
  agree(*found);
  return Next::kTransmission;
}

void Negotiation::tell_export(Option option, Export& named, std::span<const uint16_t> wanted) {
  auto wants = [&](Info info) {
    return std::ranges::find(wanted, static_cast<uint16_t>(info)) != wanted.end();
  };
  auto tell = [&](Info info, auto... values) {
    std::vector<uint8_t> payload;
    append(payload, static_cast<uint16_t>(info));
    (append(payload, values), ...);
    reply(option, OptionReply::kInfo, payload);
  };
  if (wants(Info::kName)) tell(Info::kName, std::string_view(named.name()));
  if (wants(Info::kDescription) && !named.description().empty())
    tell(Info::kDescription, std::string_view(named.description()));
  const BlockSizes sizes = named.block_sizes();
  // Who has not asked may ask for anything.
  tell(Info::kBlockSize, wants(Info::kBlockSize) ? sizes.least : uint32_t{1}, sizes.preferred,
       sizes.most);
  tell(Info::kExport, named.size(), named.flags(framing_, host_.multi_connection()));
}

// ---- Metadata contexts

void Negotiation::meta_contexts(const Asked& asked) {
  const bool sets = asked.option == Option::kSetMetaContext;
  if (sets) {
    contexts_of_.clear();
    context_names_.clear();
  }
  if (framing_ == Framing::kSimple)
    return refuse(asked.option, OptionReply::kInvalid, "structured replies come first");
  const auto query = parse_context_query(asked.bytes);
  if (!query)
    return refuse(asked.option, OptionReply::kInvalid, "the option's data makes no sense");
  const Export* found = host_.find(query->export_name);
  if (found == nullptr) {
    return refuse(asked.option, OptionReply::kUnknown,
                  fmt::format("export '{}' not present", query->export_name));
  }
  const auto& contexts = found->contexts();
  for (uint32_t id = 0; id < contexts.size(); ++id) {
    const std::string& name = contexts[id].name;
    const bool meant = std::ranges::any_of(query->queries, [&](std::string_view one) {
      return sets ? name == one : is_listed(name, one);
    });
    if (!meant && (sets || !query->queries.empty())) continue;
    std::vector<uint8_t> payload;
    // A list is for reading only: its ids mean nothing.
    append(payload, sets ? id : uint32_t{0});
    append(payload, std::string_view(name));
    reply(asked.option, OptionReply::kMetaContext, payload);
    if (sets) context_names_.push_back(name);
  }
  if (sets) contexts_of_ = query->export_name;
  reply(asked.option, OptionReply::kAck);
}

}  // namespace platter::nbd
