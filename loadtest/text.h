// Small readers of numbers and writers of JSON text, shared by everything in this folder.
#ifndef RETICLE_LOADTEST_TEXT_H_
#define RETICLE_LOADTEST_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/json_text.h"

namespace reticle::loadtest {

std::vector<std::string_view> Split(std::string_view text, char separator);
std::string_view Trim(std::string_view text);

// The whole text must be a finite number.
bool ParseDouble(std::string_view text, double& out);
bool ParseInteger(std::string_view text, int64_t& out);
// "250us", "20ms", "1.5s", "2m", "1h"; a bare number is seconds. Not negative.
absl::StatusOr<int64_t> ParseDurationNs(std::string_view text);
// Three digits and the unit that suits: "59.0 us", "1.32 ms", "12.0 s". For people.
std::string FormatNs(double ns);
// "1.25M", "17.0k", "250".
std::string FormatCount(double value);

using reticle::AppendJsonString;
// Undoes the escapes of the inside of a JSON string. A lone surrogate becomes U+FFFD.
void AppendJsonUnescaped(std::string& out, std::string_view escaped);
void AppendInteger(std::string& out, int64_t value);
// The shortest text that reads back as `value`; null for what JSON cannot express.
void AppendDouble(std::string& out, double value);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_TEXT_H_
