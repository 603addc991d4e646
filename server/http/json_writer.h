// JSON by appending to a string: what the token path needs, without a document in between.
#ifndef RETICLE_SERVER_HTTP_JSON_WRITER_H_
#define RETICLE_SERVER_HTTP_JSON_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json_text.h"

namespace reticle::server::http {

using reticle::AppendJsonEscaped;
using reticle::AppendJsonString;

void AppendInt(std::string& out, int64_t value);
// The shortest text that reads back as `value`. JSON has no infinities and no NaN: they become
// -9999, 9999 and null. -9999 is what OpenAI's API reports for a probability of nothing.
void AppendFloat(std::string& out, float value);
// Fixed notation with three digits behind the point, for times in ms.
void AppendMillis(std::string& out, int64_t nanos);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_JSON_WRITER_H_
