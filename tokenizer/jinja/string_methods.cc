#include "tokenizer/jinja/string_methods.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/is_tests.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/strings.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja::str {
namespace {

constexpr size_t kNpos = std::string_view::npos;

bool IsGiven(const Value* value) { return value != nullptr && !value->is_none(); }

absl::StatusOr<Value> Mapped(Runtime& runtime, const Value& self, const CallArgs& args,
                             const char* name, std::string (*map)(std::string_view)) {
  RETURN_IF_ERROR(ExpectNoArguments(name, args));
  return MapText(runtime, self.text(), map);
}

// Whether there is a character and all satisfy `holds`.
absl::StatusOr<Value> AllCharacters(Runtime& runtime, const Value& self, const CallArgs& args,
                                    const char* name, bool (*holds)(char32_t)) {
  RETURN_IF_ERROR(ExpectNoArguments(name, args));
  const std::string_view text = self.view();
  RETURN_IF_ERROR(runtime.Read(text.size() * 4));
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = CharacterAt(text, pos);
    if (!holds(DecodeCharacter(character))) return Value(false);
    pos += character.size();
  }
  return Value(!text.empty());
}

absl::StatusOr<Value> Part(Runtime& runtime, const Text& text, size_t begin, size_t end) {
  return runtime.String(text.Substr(begin, end - begin));
}

absl::StatusOr<Value> Stripped(Runtime& runtime, const Value& self, const CallArgs& args,
                               const char* name, Side side) {
  static constexpr const char* kNames[] = {"chars"};
  ASSIGN_OR_RETURN(const auto bound, Bind(name, args, kNames));
  std::optional<std::string_view> chars;
  if (IsGiven(bound[0])) {
    ASSIGN_OR_RETURN(const Text* given, StringArgument(*bound[0], "chars"));
    RETURN_IF_ERROR(runtime.Read(self.text().size() * (1 + given->size() / 16)));
    chars = given->view();
  }
  RETURN_IF_ERROR(runtime.Read(self.text().size()));
  const auto [begin, end] = StripRange(self.view(), side, chars);
  if (begin == 0 && end == self.text().size()) return self;
  return Part(runtime, self.text(), begin, end);
}

// The part of a string that optional `start` and `end` arguments select, in bytes.
struct Window {
  size_t begin = 0;
  size_t end = 0;
  bool is_empty = false;  // start is behind the end, so that not even "" is in it
};

absl::StatusOr<Window> SelectWindow(Runtime& runtime, std::string_view text, const Value* start,
                                    const Value* end) {
  Window window{0, text.size(), false};
  if (!IsGiven(start) && !IsGiven(end)) return window;
  RETURN_IF_ERROR(runtime.Read(text.size()));
  const auto size = static_cast<int64_t>(CountCharacters(text));
  int64_t first = 0;
  int64_t last = size;
  if (IsGiven(start)) {
    ASSIGN_OR_RETURN(first, IntegerArgument(*start, "start"));
  }
  if (IsGiven(end)) {
    ASSIGN_OR_RETURN(last, IntegerArgument(*end, "end"));
  }
  if (first < 0) first = first < -size ? 0 : first + size;
  if (last < 0) last = last < -size ? 0 : last + size;
  last = std::min(last, size);
  window.is_empty = first > last;
  if (window.is_empty) return window;
  window.begin = SkipCharacters(text, 0, static_cast<size_t>(first));
  window.end = SkipCharacters(text, window.begin, static_cast<size_t>(last - first));
  return window;
}

constexpr const char* kSearchNames[] = {"sub", "start", "end"};

// The character index of the first or last occurrence, -1 if there is none.
absl::StatusOr<int64_t> Search(Runtime& runtime, const Value& self, const CallArgs& args,
                               const char* name, bool from_right) {
  ASSIGN_OR_RETURN(const auto bound, Bind(name, args, kSearchNames, 1));
  ASSIGN_OR_RETURN(const Text* wanted, StringArgument(*bound[0], "sub"));
  const std::string_view text = self.view();
  ASSIGN_OR_RETURN(const Window window, SelectWindow(runtime, text, bound[1], bound[2]));
  if (window.is_empty) return -1;
  RETURN_IF_ERROR(runtime.Read(text.size() * (1 + wanted->size() / 16)));
  const std::string_view part = text.substr(window.begin, window.end - window.begin);
  const size_t found = from_right ? part.rfind(wanted->view()) : part.find(wanted->view());
  if (found == kNpos) return -1;
  return static_cast<int64_t>(CountCharacters(text.substr(0, window.begin + found)));
}

absl::StatusOr<Value> Matches(Runtime& runtime, const Value& self, const CallArgs& args,
                              const char* name, bool at_end) {
  ASSIGN_OR_RETURN(const auto bound, Bind(name, args, kSearchNames, 1));
  ASSIGN_OR_RETURN(const Window window, SelectWindow(runtime, self.view(), bound[1], bound[2]));
  if (window.is_empty) return Value(false);
  const std::string_view part = self.view().substr(window.begin, window.end - window.begin);
  const auto matches = [&](std::string_view affix) {
    if (affix.size() > part.size()) return false;
    return part.substr(at_end ? part.size() - affix.size() : 0, affix.size()) == affix;
  };
  if (bound[0]->is_sequence() && bound[0]->sequence().is_tuple()) {
    for (const Value& affix : bound[0]->items()) {
      RETURN_IF_ERROR(runtime.Step());
      ASSIGN_OR_RETURN(const Text* text, StringArgument(affix, name));
      RETURN_IF_ERROR(runtime.Read(text->size()));
      if (matches(text->view())) return Value(true);
    }
    return Value(false);
  }
  ASSIGN_OR_RETURN(const Text* affix, StringArgument(*bound[0], name));
  RETURN_IF_ERROR(runtime.Read(affix->size()));
  return Value(matches(affix->view()));
}

absl::StatusOr<Value> Justified(Runtime& runtime, const Value& self, const CallArgs& args,
                                const char* name, Side side) {
  static constexpr const char* kNames[] = {"width", "fillchar"};
  ASSIGN_OR_RETURN(const auto bound, Bind(name, args, kNames, 1));
  ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(*bound[0], "width"));
  Text fill(std::string(" "));
  if (bound[1] != nullptr) {
    ASSIGN_OR_RETURN(const Text* given, StringArgument(*bound[1], "fillchar"));
    if (CountCharacters(given->view()) != 1) {
      return InvalidArgumentError("The fill character must be exactly one character long");
    }
    fill = *given;
  }
  ASSIGN_OR_RETURN(Text out, Pad(runtime, self.text(), width, side, fill));
  return Value(std::move(out));
}

absl::StatusOr<Value> Divided(Runtime& runtime, const Value& self, const CallArgs& args,
                              const char* name, bool from_right) {
  static constexpr const char* kNames[] = {"sep"};
  ASSIGN_OR_RETURN(const auto bound, Bind(name, args, kNames, 1));
  ASSIGN_OR_RETURN(const Text* separator, StringArgument(*bound[0], "sep"));
  if (separator->empty()) return InvalidArgumentError("empty separator");
  const Text& text = self.text();
  RETURN_IF_ERROR(runtime.Read(text.size() * (1 + separator->size() / 16)));
  const size_t found =
      from_right ? text.view().rfind(separator->view()) : text.view().find(separator->view());
  if (found == kNpos) {
    return from_right ? runtime.Tuple({Value(""), Value(""), self})
                      : runtime.Tuple({self, Value(""), Value("")});
  }
  ASSIGN_OR_RETURN(Value head, Part(runtime, text, 0, found));
  ASSIGN_OR_RETURN(Value tail, Part(runtime, text, found + separator->size(), text.size()));
  return runtime.Tuple({std::move(head), *bound[0], std::move(tail)});
}

using Ranges = std::vector<std::pair<size_t, size_t>>;

void SplitAtSpace(std::string_view text, uint64_t limit, Ranges& parts) {
  size_t pos = StripRange(text, Side::kLeft, std::nullopt).first;
  while (pos < text.size()) {
    if (parts.size() == limit) {
      parts.emplace_back(pos, text.size());
      return;
    }
    size_t end = pos;
    while (end < text.size() && !jinja::IsSpace(DecodeCharacter(CharacterAt(text, end)))) {
      end = SkipCharacters(text, end, 1);
    }
    parts.emplace_back(pos, end);
    pos = end + StripRange(text.substr(end), Side::kLeft, std::nullopt).first;
  }
}

// The parts come last first.
void SplitAtSpaceFromRight(std::string_view text, uint64_t limit, Ranges& parts) {
  size_t end = StripRange(text, Side::kRight, std::nullopt).second;
  while (end > 0) {
    if (parts.size() == limit) {
      parts.emplace_back(0, end);
      return;
    }
    size_t begin = end;
    while (begin > 0) {
      const size_t previous = SkipCharactersBack(text, begin, 1);
      if (jinja::IsSpace(DecodeCharacter(text.substr(previous, begin - previous)))) break;
      begin = previous;
    }
    parts.emplace_back(begin, end);
    end = StripRange(text.substr(0, begin), Side::kRight, std::nullopt).second;
  }
}

absl::StatusOr<Value> SplitText(Runtime& runtime, const Value& self, const CallArgs& args,
                                const char* name, bool from_right) {
  static constexpr const char* kNames[] = {"sep", "maxsplit"};
  ASSIGN_OR_RETURN(const auto bound, Bind(name, args, kNames));
  uint64_t limit = std::numeric_limits<uint64_t>::max();
  if (bound[1] != nullptr) {
    ASSIGN_OR_RETURN(const int64_t given, IntegerArgument(*bound[1], "maxsplit"));
    if (given >= 0) limit = static_cast<uint64_t>(given);
  }
  const Text& text = self.text();
  const std::string_view view = text.view();
  RETURN_IF_ERROR(runtime.Read(text.size() * 4));
  Ranges parts;
  if (!IsGiven(bound[0])) {
    from_right ? SplitAtSpaceFromRight(view, limit, parts) : SplitAtSpace(view, limit, parts);
  } else {
    ASSIGN_OR_RETURN(const Text* separator, StringArgument(*bound[0], "sep"));
    if (separator->empty()) return InvalidArgumentError("empty separator");
    RETURN_IF_ERROR(runtime.Read(text.size() * (1 + separator->size() / 16)));
    if (from_right) {
      size_t end = view.size();
      while (parts.size() < limit && end >= separator->size()) {
        const size_t found = view.rfind(separator->view(), end - separator->size());
        if (found == kNpos) break;
        parts.emplace_back(found + separator->size(), end);
        end = found;
      }
      parts.emplace_back(0, end);
    } else {
      size_t begin = 0;
      while (parts.size() < limit) {
        const size_t found = view.find(separator->view(), begin);
        if (found == kNpos) break;
        parts.emplace_back(begin, found);
        begin = found + separator->size();
      }
      parts.emplace_back(begin, view.size());
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  RETURN_IF_ERROR(runtime.Allocate(parts.size() * sizeof(Text)));
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const auto& [begin, end] : parts) {
    ASSIGN_OR_RETURN(Value part, Part(runtime, text, begin, end));
    items.push_back(std::move(part));
  }
  return runtime.List(std::move(items));
}

absl::StatusOr<Value> WithoutAffix(Runtime& runtime, const Value& self, const CallArgs& args,
                                   const char* name, bool at_end) {
  static constexpr const char* kNames[] = {"affix"};
  ASSIGN_OR_RETURN(const auto bound, Bind(name, args, kNames, 1));
  ASSIGN_OR_RETURN(const Text* affix, StringArgument(*bound[0], name));
  const std::string_view text = self.view();
  const size_t size = affix->size();
  if (size == 0 || size > text.size()) return self;
  if (text.substr(at_end ? text.size() - size : 0, size) != affix->view()) return self;
  return at_end ? Part(runtime, self.text(), 0, text.size() - size)
                : Part(runtime, self.text(), size, text.size());
}

}  // namespace

#define RETICLE_METHOD(Name, ...)                                                         \
  absl::StatusOr<Value> Name(Runtime& runtime, const Value& self, const CallArgs& args) { \
    return __VA_ARGS__;                                                                   \
  }

RETICLE_METHOD(Capitalize, Mapped(runtime, self, args, "capitalize", jinja::Capitalize))
RETICLE_METHOD(Lower, Mapped(runtime, self, args, "lower", ToLower))
RETICLE_METHOD(SwapCase, Mapped(runtime, self, args, "swapcase", jinja::SwapCase))
RETICLE_METHOD(Title, Mapped(runtime, self, args, "title", ToTitle))
RETICLE_METHOD(Upper, Mapped(runtime, self, args, "upper", ToUpper))
RETICLE_METHOD(IsAlnum, AllCharacters(runtime, self, args, "isalnum", IsAlphanumeric))
RETICLE_METHOD(IsAlpha, AllCharacters(runtime, self, args, "isalpha", IsAlphabetic))
RETICLE_METHOD(IsDecimal, AllCharacters(runtime, self, args, "isdecimal", jinja::IsDecimal))
RETICLE_METHOD(IsDigit, AllCharacters(runtime, self, args, "isdigit", jinja::IsDigit))
RETICLE_METHOD(IsNumeric, AllCharacters(runtime, self, args, "isnumeric", jinja::IsNumeric))
RETICLE_METHOD(IsSpace, AllCharacters(runtime, self, args, "isspace", jinja::IsSpace))
RETICLE_METHOD(IsLower, is_tests::Lower(runtime, self, args))
RETICLE_METHOD(IsUpper, is_tests::Upper(runtime, self, args))
RETICLE_METHOD(Strip, Stripped(runtime, self, args, "strip", Side::kBoth))
RETICLE_METHOD(LeftStrip, Stripped(runtime, self, args, "lstrip", Side::kLeft))
RETICLE_METHOD(RightStrip, Stripped(runtime, self, args, "rstrip", Side::kRight))
RETICLE_METHOD(StartsWith, Matches(runtime, self, args, "startswith", false))
RETICLE_METHOD(EndsWith, Matches(runtime, self, args, "endswith", true))
RETICLE_METHOD(Center, Justified(runtime, self, args, "center", Side::kBoth))
RETICLE_METHOD(LeftJustify, Justified(runtime, self, args, "ljust", Side::kLeft))
RETICLE_METHOD(RightJustify, Justified(runtime, self, args, "rjust", Side::kRight))
RETICLE_METHOD(Partition, Divided(runtime, self, args, "partition", false))
RETICLE_METHOD(RightPartition, Divided(runtime, self, args, "rpartition", true))
RETICLE_METHOD(Split, SplitText(runtime, self, args, "split", false))
RETICLE_METHOD(RightSplit, SplitText(runtime, self, args, "rsplit", true))
RETICLE_METHOD(RemovePrefix, WithoutAffix(runtime, self, args, "removeprefix", false))
RETICLE_METHOD(RemoveSuffix, WithoutAffix(runtime, self, args, "removesuffix", true))
RETICLE_METHOD(Format, BraceFormat(runtime, self.text(), args))

#undef RETICLE_METHOD

absl::StatusOr<Value> IsAscii(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("isascii", args));
  RETURN_IF_ERROR(runtime.Read(self.text().size()));
  return Value(std::all_of(self.view().begin(), self.view().end(),
                           [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
}

absl::StatusOr<Value> Find(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const int64_t index, Search(runtime, self, args, "find", false));
  return Value(index);
}

absl::StatusOr<Value> RightFind(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const int64_t index, Search(runtime, self, args, "rfind", true));
  return Value(index);
}

absl::StatusOr<Value> Index(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const int64_t index, Search(runtime, self, args, "index", false));
  if (index < 0) return InvalidArgumentError("substring not found");
  return Value(index);
}

absl::StatusOr<Value> RightIndex(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const int64_t index, Search(runtime, self, args, "rindex", true));
  if (index < 0) return InvalidArgumentError("substring not found");
  return Value(index);
}

absl::StatusOr<Value> Count(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("count", args, kSearchNames, 1));
  ASSIGN_OR_RETURN(const Text* wanted, StringArgument(*bound[0], "sub"));
  ASSIGN_OR_RETURN(const Window window, SelectWindow(runtime, self.view(), bound[1], bound[2]));
  if (window.is_empty) return Value(int64_t{0});
  RETURN_IF_ERROR(runtime.Read(self.text().size() * (1 + wanted->size() / 16)));
  const std::string_view part = self.view().substr(window.begin, window.end - window.begin);
  if (wanted->empty()) return Value(static_cast<int64_t>(CountCharacters(part)) + 1);
  int64_t count = 0;
  for (size_t pos = part.find(wanted->view()); pos != kNpos;
       pos = part.find(wanted->view(), pos + wanted->size())) {
    ++count;
  }
  return Value(count);
}

absl::StatusOr<Value> Replace(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"old", "new", "count"};
  ASSIGN_OR_RETURN(const auto bound, Bind("replace", args, kNames, 2));
  ASSIGN_OR_RETURN(const Text* old_part, StringArgument(*bound[0], "old"));
  ASSIGN_OR_RETURN(const Text* new_part, StringArgument(*bound[1], "new"));
  int64_t count = -1;
  if (bound[2] != nullptr) {
    ASSIGN_OR_RETURN(count, IntegerArgument(*bound[2], "count"));
  }
  ASSIGN_OR_RETURN(Text out, jinja::Replace(runtime, self.text(), *old_part, *new_part, count));
  return Value(std::move(out));
}

absl::StatusOr<Value> Join(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"iterable"};
  ASSIGN_OR_RETURN(const auto bound, Bind("join", args, kNames, 1));
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(*bound[0]));
  return JoinItems(runtime, self.text(), items->items, false);
}

absl::StatusOr<Value> SplitLines(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"keepends"};
  ASSIGN_OR_RETURN(const auto bound, Bind("splitlines", args, kNames));
  RETURN_IF_ERROR(runtime.Read(self.text().size() * 4));
  const auto lines =
      jinja::SplitLines(self.view(), bound[0] != nullptr && Runtime::IsTrue(*bound[0]));
  RETURN_IF_ERROR(runtime.Allocate(lines.size() * sizeof(Text)));
  std::vector<Value> items;
  for (const auto& [begin, end] : lines) {
    ASSIGN_OR_RETURN(Value line, Part(runtime, self.text(), begin, end));
    items.push_back(std::move(line));
  }
  return runtime.List(std::move(items));
}

absl::StatusOr<Value> ZeroFill(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"width"};
  ASSIGN_OR_RETURN(const auto bound, Bind("zfill", args, kNames, 1));
  ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(*bound[0], "width"));
  const Text& text = self.text();
  const bool has_sign = !text.empty() && (text.str()[0] == '-' || text.str()[0] == '+');
  const Text digits = has_sign ? text.Substr(1, text.size() - 1) : text;
  if (width == std::numeric_limits<int64_t>::min()) return self;
  ASSIGN_OR_RETURN(const Text filled, Pad(runtime, digits, width - (has_sign ? 1 : 0), Side::kRight,
                                          Text(std::string("0"))));
  Text out = has_sign ? text.Substr(0, 1) : Text();
  out.Append(filled);
  return Value(std::move(out));
}

absl::StatusOr<Value> ExpandTabs(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"tabsize"};
  ASSIGN_OR_RETURN(const auto bound, Bind("expandtabs", args, kNames));
  ASSIGN_OR_RETURN(const int64_t size,
                   bound[0] == nullptr ? int64_t{8} : IntegerArgument(*bound[0], "tabsize"));
  const Text& text = self.text();
  RETURN_IF_ERROR(runtime.Allocate(text.size()));
  Text out;
  int64_t column = 0;
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = CharacterAt(text.view(), pos);
    if (character == "\t") {
      if (size > 0) {
        const int64_t spaces = size - column % size;
        RETURN_IF_ERROR(runtime.Allocate(static_cast<size_t>(spaces)));
        out.Append(std::string(static_cast<size_t>(spaces), ' '));
        column += spaces;
      }
    } else {
      out.Append(text, pos, character.size());
      column = character == "\n" || character == "\r" ? 0 : column + 1;
    }
    pos += character.size();
  }
  return Value(std::move(out));
}

}  // namespace reticle::tokenizer::jinja::str
