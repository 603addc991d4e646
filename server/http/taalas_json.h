// The HC1 service's own API beside OpenAI's: POST /generate, GET /health, GET /models, with bodies
// and errors as its published contract has them. A reply of /generate is that of a chat completion,
// which the contract leaves open.
#ifndef RETICLE_SERVER_HTTP_TAALAS_JSON_H_
#define RETICLE_SERVER_HTTP_TAALAS_JSON_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/model.h"
#include "server/http/request_json.h"
#include "server/http/response_writer.h"

namespace reticle::server::http {

// The model that the service serves when none is named; here: whatever this server has.
inline constexpr std::string_view kTaalasModel = "llama3.1-8B";

// All that is wrong with a body is reported at once: an INVALID_ARGUMENT for SendTaalasError.
// Guided fields are refused by name; further fields, which the contract allows, are not looked at.
absl::StatusOr<CompletionBody> ParseTaalasBody(std::string_view json);
absl::StatusOr<std::shared_ptr<const ModelEntry>> FindTaalasModel(const ModelRegistry& models,
                                                                  const std::string& name);

// 422 {"detail":[{"loc":["body","topk"],"msg":..,"type":..}]} for what is wrong with the body, else
// {"detail":"..."} with the status of `error`.
void SendTaalasError(ResponseWriter& writer, const absl::Status& error);
// {"detail":"Unauthorized"}, or with why when a key was sent.
std::string TaalasUnauthorized(bool key_sent);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_TAALAS_JSON_H_
