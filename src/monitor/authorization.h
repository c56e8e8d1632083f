// Authorization: which peers are let in, as objects of the kinds authz-simple, authz-list and
// authz-listfile say. What is not known is denied. Any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "platter/error.h"

namespace platter::monitor {

class Objects;

struct AccessRule {
  std::string match;
  bool allow = false;
  bool glob = false;  // '*': any text, '?': any character; or else the whole text as it is
};

// The first rule that matches decides, or else the policy.
struct AccessList {
  bool allow_others = false;
  std::vector<AccessRule> rules;

  bool allows(std::string_view identity) const;
};

bool matches_glob(std::string_view pattern, std::string_view text);

// What an object holds.
class AccessControl {
 public:
  // From the values of its kind's properties; reads its file.
  static Result<std::shared_ptr<const AccessControl>> make(std::string_view kind,
                                                           const base::Json& values);
  // EACCES: no. Blocks for the file that is to be read anew: what is wrong with it denies, too.
  Result<void> allows(std::string_view identity) const;

 private:
  std::string file_;  // absolute; empty: list_ stays as it is
  AccessList list_;
};

// An object by its id, which may come and go.
class Authorization {
 public:
  Authorization(const Objects& objects, std::string id) : objects_(&objects), id_(std::move(id)) {}
  // As AccessControl::allows(). EACCES also: there is no such object.
  Result<void> allows(std::string_view identity) const;

 private:
  const Objects* objects_;
  std::string id_;
};

}  // namespace platter::monitor
