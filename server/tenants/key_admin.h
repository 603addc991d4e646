// What operators do with accounts, in one form for the command line and the admin API: a verb and
// named arguments in, JSON out.
//
//   list          keys (organisation=)          applications  waiting ones (state=, "all")
//   organisations                                usage         (organisation=, days=)
//   approve       id= (tier=)                    refuse        id=
//   create        organisation=, or name= and email= (tier=); label=, expires_in=SECONDS
//   revoke        key=                           rotate        key= (grace=SECONDS)
//   limits        organisation= (tier=, any limit of tier.h; reset=true)
#ifndef RETICLE_SERVER_TENANTS_KEY_ADMIN_H_
#define RETICLE_SERVER_TENANTS_KEY_ADMIN_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/tenants/account_store.h"
#include "server/tenants/accounts.h"

namespace reticle::server::tenants {

using KeyArguments = std::map<std::string, std::string, std::less<>>;

// An object, {"object":"list","data":[..]} for several. A key in clear is in the answers to create
// and rotate, and nowhere else. INVALID_ARGUMENT for an unknown verb or argument.
absl::StatusOr<std::string> RunKeyCommand(AccountStore& store, const TierTable& tiers,
                                          std::string_view verb, const KeyArguments& arguments,
                                          int64_t now);

// INVALID_ARGUMENT, naming those there are, when `verb` is none.
absl::Status CheckKeyCommand(std::string_view verb);

// The admin API's POST /admin/keys/VERB: `body` is a JSON object of the arguments, or empty. Takes
// effect in `accounts` before it returns. May wait for the store.
absl::StatusOr<std::string> HandleKeyAdmin(Accounts& accounts, std::string_view verb,
                                           std::string_view body);

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_KEY_ADMIN_H_
