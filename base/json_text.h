// Text as JSON has it. For everyone who writes JSON by appending: replies, reports, the log.
#ifndef RETICLE_BASE_JSON_TEXT_H_
#define RETICLE_BASE_JSON_TEXT_H_

#include <string>
#include <string_view>

namespace reticle {

// Appends `text` as the inside of a JSON string: quotes, backslashes and control characters are
// escaped; bytes that are no UTF-8 become U+FFFD.
void AppendJsonEscaped(std::string& out, std::string_view text);
// Likewise, with the quotes around it.
void AppendJsonString(std::string& out, std::string_view text);

}  // namespace reticle

#endif  // RETICLE_BASE_JSON_TEXT_H_
