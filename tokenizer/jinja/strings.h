// Parts of Python's str that both filters and methods need. All keep the marks of Text.
#ifndef RETICLE_TOKENIZER_JINJA_STRINGS_H_
#define RETICLE_TOKENIZER_JINJA_STRINGS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/text.h"

namespace reticle::tokenizer::jinja {

enum class Side : uint8_t { kLeft = 1, kRight = 2, kBoth = 3 };

// [begin, end) of what strip() leaves: of white space, or of the characters in `chars`.
std::pair<size_t, size_t> StripRange(std::string_view text, Side side,
                                     std::optional<std::string_view> chars);
// [begin, end) of each line, without its end.
std::vector<std::pair<size_t, size_t>> SplitLines(std::string_view text, bool keep_ends);
// str.replace; a negative count replaces all.
absl::StatusOr<Text> Replace(Runtime& runtime, const Text& text, const Text& old_part,
                             const Text& new_part, int64_t count);
// Fills `text` up to `width` characters. A side is where the text goes; kBoth centres it.
absl::StatusOr<Text> Pad(Runtime& runtime, const Text& text, int64_t width, Side side,
                         const Text& fill);
// Escaped for HTML, and marked as such (Text::is_markup).
absl::StatusOr<Text> EscapeHtml(Runtime& runtime, const Text& text);
// A whole-text mapping such as upper: untrusted if any of the input is.
absl::StatusOr<Value> MapText(Runtime& runtime, const Text& text,
                              std::string (*map)(std::string_view));
// separator.join(items), each as by str() if `convert`, else strings only.
absl::StatusOr<Value> JoinItems(Runtime& runtime, const Text& separator,
                                const std::vector<Value>& items, bool convert);

// Python's int(text, base) and float(text); nothing if the text is not a number.
std::optional<int64_t> ParseInteger(std::string_view text, int base);
std::optional<double> ParseFloat(std::string_view text);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_STRINGS_H_
