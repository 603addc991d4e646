#include "server/http/json_writer.h"

#include <charconv>
#include <cmath>

namespace reticle::server::http {

void AppendInt(std::string& out, int64_t value) {
  char digits[24];
  const auto result = std::to_chars(digits, digits + sizeof(digits), value);
  out.append(digits, result.ptr);
}

void AppendFloat(std::string& out, float value) {
  if (std::isnan(value)) {
    out.append("null");
  } else if (std::isinf(value)) {
    out.append(value < 0 ? "-9999.0" : "9999.0");
  } else {
    char digits[32];
    const auto result = std::to_chars(digits, digits + sizeof(digits), value);
    out.append(digits, result.ptr);
  }
}

void AppendMillis(std::string& out, int64_t nanos) {
  char digits[48];
  const auto result = std::to_chars(digits, digits + sizeof(digits),
                                    static_cast<double>(nanos) / 1e6, std::chars_format::fixed, 3);
  out.append(digits, result.ptr);
}

}  // namespace reticle::server::http
