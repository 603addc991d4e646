// JSON text to the template engine's value, for fronts that carry JSON inside strings (arguments of
// tool calls, tool definitions of gRPC requests).
#ifndef RETICLE_SERVER_CORE_JSON_VALUE_H_
#define RETICLE_SERVER_CORE_JSON_VALUE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer/jinja/value.h"

namespace reticle::server {

// INVALID_ARGUMENT with the reason when `json` is not one valid JSON document, nests deeper than 64
// levels or holds an integer beyond 64 bits.
absl::StatusOr<tokenizer::jinja::Value> ParseJsonValue(std::string_view json);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_JSON_VALUE_H_
