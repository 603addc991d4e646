// JSON text to values and back.
#ifndef RETICLE_TOKENIZER_JINJA_JSON_H_
#define RETICLE_TOKENIZER_JINJA_JSON_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer::jinja {

struct JsonOptions {
  int max_depth = 64;      // nested arrays and objects
  bool untrusted = false;  // marks every string, keys too
};

// Parses one JSON value (RFC 8259). Objects keep their order, the last of equal keys wins;
// integers keep all their digits, other numbers are read exactly rounded. INVALID_ARGUMENT with the
// offset for anything else, invalid UTF-8 and lone surrogates included.
absl::StatusOr<Value> ParseJson(std::string_view text, const JsonOptions& options = {});

struct JsonFormat {
  bool ensure_ascii = false;
  bool is_indented = false;
  std::string indent;  // for one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

// Appends what Python's json.dumps writes. INVALID_ARGUMENT for values that it refuses.
absl::Status WriteJson(Runtime& runtime, const Value& value, const JsonFormat& format, Text& out);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_JSON_H_
