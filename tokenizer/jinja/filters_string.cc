#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/json.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/strings.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja::filters {
namespace {

absl::StatusOr<Value> Mapped(Runtime& runtime, const Value& self, const CallArgs& args,
                             const char* name, std::string (*map)(std::string_view)) {
  RETURN_IF_ERROR(ExpectNoArguments(name, args));
  ASSIGN_OR_RETURN(const Text text, runtime.ToText(self));
  return MapText(runtime, text, map);
}

bool IsGiven(const Value* value) { return value != nullptr && !value->is_none(); }

}  // namespace

absl::StatusOr<Value> Capitalize(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Mapped(runtime, self, args, "capitalize", jinja::Capitalize);
}

absl::StatusOr<Value> Lower(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Mapped(runtime, self, args, "lower", ToLower);
}

absl::StatusOr<Value> Upper(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Mapped(runtime, self, args, "upper", ToUpper);
}

absl::StatusOr<Value> Title(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Mapped(runtime, self, args, "title", JinjaTitle);
}

absl::StatusOr<Value> String(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("string", args));
  if (self.is_string()) return self;
  ASSIGN_OR_RETURN(Text text, runtime.ToText(self));
  return Value(std::move(text));
}

absl::StatusOr<Value> Trim(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"chars"};
  ASSIGN_OR_RETURN(const auto bound, Bind("trim", args, kNames));
  std::optional<std::string_view> chars;
  if (IsGiven(bound[0])) {
    ASSIGN_OR_RETURN(const Text* given, StringArgument(*bound[0], "chars"));
    chars = given->view();
  }
  Value holder = self;
  if (!self.is_string()) {
    ASSIGN_OR_RETURN(holder, String(runtime, self, CallArgs()));
  }
  const Text& text = holder.text();
  RETURN_IF_ERROR(runtime.Read(text.size() * (1 + (chars ? chars->size() / 16 : 0))));
  const auto [begin, end] = StripRange(text.view(), Side::kBoth, chars);
  if (begin == 0 && end == text.size()) return holder;
  return runtime.String(text.Substr(begin, end - begin));
}

absl::StatusOr<Value> Center(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"width"};
  ASSIGN_OR_RETURN(const auto bound, Bind("center", args, kNames));
  ASSIGN_OR_RETURN(const int64_t width,
                   bound[0] == nullptr ? int64_t{80} : IntegerArgument(*bound[0], "width"));
  ASSIGN_OR_RETURN(const Text text, runtime.ToText(self));
  ASSIGN_OR_RETURN(Text out, Pad(runtime, text, width, Side::kBoth, Text(" ")));
  return Value(std::move(out));
}

absl::StatusOr<Value> Escape(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("escape", args));
  ASSIGN_OR_RETURN(const Text text, runtime.ToText(self));
  if (text.is_markup()) return Value(text);
  ASSIGN_OR_RETURN(Text out, EscapeHtml(runtime, text));
  return Value(std::move(out));
}

absl::StatusOr<Value> ForceEscape(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("forceescape", args));
  ASSIGN_OR_RETURN(const Text text, runtime.ToText(self));
  ASSIGN_OR_RETURN(Text out, EscapeHtml(runtime, text));
  return Value(std::move(out));
}

absl::StatusOr<Value> Safe(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("safe", args));
  ASSIGN_OR_RETURN(Text text, runtime.ToText(self));
  text.set_markup(true);
  return Value(std::move(text));
}

absl::StatusOr<Value> Replace(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"old", "new", "count"};
  ASSIGN_OR_RETURN(const auto bound, Bind("replace", args, kNames, 2));
  int64_t count = -1;
  if (IsGiven(bound[2])) {
    ASSIGN_OR_RETURN(count, IntegerArgument(*bound[2], "count"));
  }
  ASSIGN_OR_RETURN(const Text text, runtime.ToText(self));
  ASSIGN_OR_RETURN(const Text old_part, runtime.ToText(*bound[0]));
  ASSIGN_OR_RETURN(const Text new_part, runtime.ToText(*bound[1]));
  ASSIGN_OR_RETURN(Text out, jinja::Replace(runtime, text, old_part, new_part, count));
  return Value(std::move(out));
}

absl::StatusOr<Value> Indent(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"width", "first", "blank"};
  ASSIGN_OR_RETURN(const auto bound, Bind("indent", args, kNames));
  ASSIGN_OR_RETURN(const Text* source, StringArgument(self, "what indent is applied to"));
  Text indention(std::string(4, ' '));
  if (bound[0] != nullptr && bound[0]->is_string()) {
    indention = bound[0]->text();
  } else if (bound[0] != nullptr) {
    ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(*bound[0], "width"));
    ASSIGN_OR_RETURN(indention, Pad(runtime, Text(), width, Side::kLeft, Text(" ")));
  }
  const bool first = bound[1] != nullptr && Runtime::IsTrue(*bound[1]);
  const bool blank = bound[2] != nullptr && Runtime::IsTrue(*bound[2]);
  RETURN_IF_ERROR(runtime.Allocate(source->size()));
  Text text = *source;
  text.Append("\n");
  const auto lines = SplitLines(text.view(), false);
  RETURN_IF_ERROR(runtime.Step(lines.size()));
  Text out;
  out.set_markup(source->is_markup());
  if (first) out.Append(indention);
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto [begin, end] = lines[i];
    RETURN_IF_ERROR(runtime.Allocate(end - begin + indention.size() + 1));
    if (i > 0) {
      out.Append("\n");
      if (blank || end > begin) out.Append(indention);
    }
    out.Append(text, begin, end - begin);
  }
  return Value(std::move(out));
}

absl::StatusOr<Value> Truncate(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"length", "killwords", "end", "leeway"};
  ASSIGN_OR_RETURN(const auto bound, Bind("truncate", args, kNames));
  ASSIGN_OR_RETURN(const Text* text, StringArgument(self, "what truncate is applied to"));
  ASSIGN_OR_RETURN(const int64_t length,
                   bound[0] == nullptr ? int64_t{255} : IntegerArgument(*bound[0], "length"));
  const bool kill_words = bound[1] != nullptr && Runtime::IsTrue(*bound[1]);
  Text end(std::string("..."));
  if (bound[2] != nullptr) {
    ASSIGN_OR_RETURN(const Text* given, StringArgument(*bound[2], "end"));
    end = *given;
  }
  int64_t leeway = 5;
  if (IsGiven(bound[3])) {
    ASSIGN_OR_RETURN(leeway, IntegerArgument(*bound[3], "leeway"));
  }
  const auto end_size = static_cast<int64_t>(CountCharacters(end.view()));
  if (length < end_size || leeway < 0) {
    return InvalidArgumentError("expected length >= %d and leeway >= 0, got %d and %d", end_size,
                                length, leeway);
  }
  ASSIGN_OR_RETURN(const int64_t size, runtime.Length(self));
  if (size - leeway <= length) return self;
  size_t cut = SkipCharacters(text->view(), 0, static_cast<size_t>(length - end_size));
  if (!kill_words) {
    const size_t space = text->view().substr(0, cut).rfind(' ');
    if (space != std::string_view::npos) cut = space;
  }
  Text out = text->Substr(0, cut);
  out.Append(end);
  return runtime.String(std::move(out));
}

absl::StatusOr<Value> WordCount(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("wordcount", args));
  ASSIGN_OR_RETURN(const Text text, runtime.ToText(self));
  RETURN_IF_ERROR(runtime.Read(text.size() * 4));
  int64_t words = 0;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = CharacterAt(text.view(), pos);
    const char32_t c = DecodeCharacter(character);
    const bool is_word = c == '_' || IsAlphanumeric(c);
    if (is_word && !in_word) ++words;
    in_word = is_word;
    pos += character.size();
  }
  return Value(words);
}

absl::StatusOr<Value> Format(Runtime& runtime, const Value& self, const CallArgs& args) {
  if (!args.positional.empty() && !args.named.empty()) {
    return InvalidArgumentError(
        "format cannot handle positional and keyword arguments at the same time");
  }
  ASSIGN_OR_RETURN(const Text format, runtime.ToText(self));
  if (!args.named.empty()) {
    Dict named;
    for (const auto& [name, value] : args.named) named.Set(Value(name), value);
    return PercentFormat(runtime, format, Value(std::move(named)));
  }
  ASSIGN_OR_RETURN(const Value tuple, runtime.Tuple(std::vector<Value>(args.positional.begin(),
                                                                       args.positional.end())));
  return PercentFormat(runtime, format, tuple);
}

absl::StatusOr<Value> ToJson(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
  ASSIGN_OR_RETURN(const auto bound, Bind("tojson", args, kNames));
  JsonFormat format;
  format.ensure_ascii = bound[0] != nullptr && Runtime::IsTrue(*bound[0]);
  if (IsGiven(bound[1])) {
    format.is_indented = true;
    format.item_separator = ",";
    if (bound[1]->is_string()) {
      format.indent = bound[1]->text().str();
    } else {
      ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(*bound[1], "indent"));
      if (width > 256) return InvalidArgumentError("indent is %d; it must be at most 256", width);
      format.indent.assign(width < 0 ? 0 : static_cast<size_t>(width), ' ');
    }
  }
  if (IsGiven(bound[2])) {
    ASSIGN_OR_RETURN(const auto separators, runtime.SharedItems(*bound[2]));
    if (separators->items.size() != 2 || !separators->items[0].is_string() ||
        !separators->items[1].is_string()) {
      return InvalidArgumentError("separators must be two strings");
    }
    format.item_separator = separators->items[0].text().str();
    format.key_separator = separators->items[1].text().str();
  }
  format.sort_keys = bound[3] != nullptr && Runtime::IsTrue(*bound[3]);
  Text out;
  RETURN_IF_ERROR(WriteJson(runtime, self, format, out));
  if (out.has_untrusted()) out.Taint();
  return Value(std::move(out));
}

}  // namespace reticle::tokenizer::jinja::filters
