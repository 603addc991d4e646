// What people without a key may do: apply for one, and fetch it once the application is approved.
// As a page for people (/apply) and as an API (/v1/apply, /v1/apply/claim).
#ifndef RETICLE_SERVER_HTTP_ACCOUNT_PAGES_H_
#define RETICLE_SERVER_HTTP_ACCOUNT_PAGES_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/core/gate.h"
#include "server/http/handler.h"

namespace reticle::server::http {

struct AccountReply {
  int status = 200;
  std::string content_type;
  std::string body;
  std::string headers;  // whole lines
};

// GET /apply: the form. Plain HTML; its policy lets nothing be loaded, run or framed.
AccountReply ApplyPage();
// POST /apply, urlencoded: "action" is "apply" or "claim". Always a page, also for errors. Waits
// for the store.
AccountReply SubmitApplyPage(const HttpRequest& request, Gate& gate);
// POST /v1/apply {"email","name","use_case","terms":true}: 202 {"object":"application","claim":..}.
absl::StatusOr<AccountReply> ApplyJson(const HttpRequest& request, Gate& gate);
// POST /v1/apply/claim {"claim":..}: 200 {"object":"api_key","key":..}, or 202 while it waits.
absl::StatusOr<AccountReply> ClaimJson(const HttpRequest& request, Gate& gate);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_ACCOUNT_PAGES_H_
