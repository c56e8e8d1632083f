#include "monitor/authorization.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/absolute_path.h"
#include "base/try.h"
#include "crypto/tls_files.h"
#include "monitor/arguments.h"
#include "monitor/objects.h"

namespace platter::monitor {
namespace {

// Past the character of UTF-8 that begins at `at`.
size_t next_character(std::string_view text, size_t at) {
  do {
    ++at;
  } while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
  return at;
}

// `values` have the properties of an authz-list.
AccessList list_of(const base::Json& values) {
  const Arguments given(values);
  AccessList list;
  list.allow_others = given.text("policy") == "allow";
  for (const base::Json& rule : given.array("rules")) {
    const Arguments its(rule);
    list.rules.push_back({.match = its.text("match"),
                          .allow = its.text("policy") == "allow",
                          .glob = its.text_or_empty("format") == "glob"});
  }
  return list;
}

Result<AccessList> read_list(const std::string& path) {
  PLATTER_ASSIGN(const auto text, crypto::read_tls_file(path, "Unable to read"));
  auto values = base::Json::parse(text.view());
  if (values) values = read_access_list(*values);
  if (!values)
    return std::unexpected(std::move(values).error().with_context(fmt::format("'{}'", path)));
  return list_of(*values);
}

}  // namespace

bool matches_glob(std::string_view pattern, std::string_view text) {
  size_t at = 0, in = 0;
  size_t star = pattern.npos, resume = 0;  // after the last '*', and where in `text` it may end
  while (in < text.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = ++at;
      resume = in;
    } else if (at < pattern.size() && pattern[at] == '?') {
      ++at;
      in = next_character(text, in);
    } else if (at < pattern.size() && pattern[at] == text[in]) {
      ++at;
      ++in;
    } else if (star != pattern.npos) {
      at = star;
      in = resume = next_character(text, resume);
    } else {
      return false;
    }
  }
  while (at < pattern.size() && pattern[at] == '*') ++at;
  return at == pattern.size();
}

bool AccessList::allows(std::string_view identity) const {
  for (const AccessRule& rule : rules) {
    if (rule.glob ? matches_glob(rule.match, identity) : rule.match == identity) return rule.allow;
  }
  return allow_others;
}

Result<std::shared_ptr<const AccessControl>> AccessControl::make(std::string_view kind,
                                                                 const base::Json& values) {
  const Arguments given(values);
  auto made = std::make_shared<AccessControl>();
  if (kind == "authz-simple") {
    made->list_.rules.push_back({.match = given.text("identity"), .allow = true});
  } else if (kind == "authz-list") {
    made->list_ = list_of(values);
  } else {
    PLATTER_ASSIGN(made->list_, read_list(given.text("filename")));
    if (given.flag("refresh")) {
      PLATTER_ASSIGN(made->file_, base::absolute_path(given.text("filename")));
    }
  }
  return made;
}

Result<void> AccessControl::allows(std::string_view identity) const {
  bool allowed = false;
  if (file_.empty()) {
    allowed = list_.allows(identity);
  } else {
    // Each time: who looks for a change may miss one.
    PLATTER_ASSIGN(const AccessList now, read_list(file_));
    allowed = now.allows(identity);
  }
  if (allowed) return {};
  return fail(EACCES, identity.empty() ? "access is denied to a peer without a name"
                                       : fmt::format("access is denied to '{}'", identity));
}

Result<void> Authorization::allows(std::string_view identity) const {
  const auto control = objects_->access_control(id_);
  if (control == nullptr) return fail(EACCES, fmt::format("There is no authorization '{}'", id_));
  auto allowed = control->allows(identity);
  if (!allowed) allowed.error().add_context(fmt::format("Authorization '{}'", id_));
  return allowed;
}

}  // namespace platter::monitor
