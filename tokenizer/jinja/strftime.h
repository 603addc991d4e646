// strftime in UTC and in English, whatever the process's locale.
#ifndef RETICLE_TOKENIZER_JINJA_STRFTIME_H_
#define RETICLE_TOKENIZER_JINJA_STRFTIME_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace reticle::tokenizer::jinja {

// Conversions of C99 and "%-d" (without padding); an unknown one is kept as it stands. Times that
// gmtime cannot represent give the epoch.
std::string FormatTime(std::string_view format, int64_t unix_s);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_STRFTIME_H_
