// Methods of containers, and the lookup of all methods.

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/string_methods.h"

namespace reticle::tokenizer::jinja {
namespace {

struct Method {
  std::string_view name;
  Builtin function;  // null: the sandbox forbids it
};

absl::StatusOr<Value> DictView(Runtime& runtime, const Value& self, const CallArgs& args,
                               Sequence::Type type) {
  RETURN_IF_ERROR(ExpectNoArguments("the method", args));
  std::vector<Value> items;
  items.reserve(self.dict().size());
  for (const auto& [key, value] : self.dict().items()) {
    if (type == Sequence::Type::kItems) {
      ASSIGN_OR_RETURN(Value pair, runtime.Tuple({key, value}));
      items.push_back(std::move(pair));
    } else {
      items.push_back(type == Sequence::Type::kKeys ? key : value);
    }
  }
  return runtime.List(std::move(items), type);
}

absl::StatusOr<Value> DictItems(Runtime& runtime, const Value& self, const CallArgs& args) {
  return DictView(runtime, self, args, Sequence::Type::kItems);
}

absl::StatusOr<Value> DictKeys(Runtime& runtime, const Value& self, const CallArgs& args) {
  return DictView(runtime, self, args, Sequence::Type::kKeys);
}

absl::StatusOr<Value> DictValues(Runtime& runtime, const Value& self, const CallArgs& args) {
  return DictView(runtime, self, args, Sequence::Type::kValues);
}

absl::StatusOr<Value> DictGet(Runtime& runtime, const Value& self, const CallArgs& args) {
  if (!args.named.empty() || args.positional.empty() || args.positional.size() > 2) {
    return InvalidArgumentError("get expected 1 or 2 positional arguments, got %d",
                                args.positional.size());
  }
  const Value& key = args.positional[0];
  if (!Dict::IsKey(key) && (key.is_sequence() || key.is_dict())) {
    return InvalidArgumentError("unhashable type: '%s'", key.TypeName());
  }
  if (!key.is_string()) RETURN_IF_ERROR(runtime.Step(self.dict().size() / 8));
  const Value* const found = Dict::IsKey(key) ? self.dict().Find(key) : nullptr;
  if (found != nullptr) return *found;
  return args.positional.size() > 1 ? args.positional[1] : Value(Value::None{});
}

absl::StatusOr<Value> Copy(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("copy", args));
  return self;
}

absl::StatusOr<Value> ListCount(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"value"};
  ASSIGN_OR_RETURN(const auto bound, Bind("count", args, kNames, 1));
  int64_t count = 0;
  for (const Value& item : self.items()) {
    ASSIGN_OR_RETURN(const bool equal, runtime.Equal(item, *bound[0]));
    count += equal ? 1 : 0;
  }
  return Value(count);
}

absl::StatusOr<Value> ListIndex(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"value"};
  ASSIGN_OR_RETURN(const auto bound, Bind("index", args, kNames, 1));
  for (size_t i = 0; i < self.items().size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, runtime.Equal(self.items()[i], *bound[0]));
    if (equal) return Value(static_cast<int64_t>(i));
  }
  return InvalidArgumentError("the value is not in the list");
}

constexpr Method kDictMethods[] = {
    {"clear", nullptr},  {"copy", Copy},         {"get", DictGet},     {"items", DictItems},
    {"keys", DictKeys},  {"pop", nullptr},       {"popitem", nullptr}, {"setdefault", nullptr},
    {"update", nullptr}, {"values", DictValues},
};

constexpr Method kListMethods[] = {
    {"append", nullptr}, {"clear", nullptr},   {"copy", Copy},      {"count", ListCount},
    {"extend", nullptr}, {"index", ListIndex}, {"insert", nullptr}, {"pop", nullptr},
    {"remove", nullptr}, {"reverse", nullptr}, {"sort", nullptr},
};

constexpr Method kTupleMethods[] = {{"count", ListCount}, {"index", ListIndex}};

constexpr Method kStringMethods[] = {
    {"capitalize", str::Capitalize},
    {"casefold", str::Lower},
    {"center", str::Center},
    {"count", str::Count},
    {"endswith", str::EndsWith},
    {"expandtabs", str::ExpandTabs},
    {"find", str::Find},
    {"format", str::Format},
    {"index", str::Index},
    {"isalnum", str::IsAlnum},
    {"isalpha", str::IsAlpha},
    {"isascii", str::IsAscii},
    {"isdecimal", str::IsDecimal},
    {"isdigit", str::IsDigit},
    {"islower", str::IsLower},
    {"isnumeric", str::IsNumeric},
    {"isspace", str::IsSpace},
    {"isupper", str::IsUpper},
    {"join", str::Join},
    {"ljust", str::LeftJustify},
    {"lower", str::Lower},
    {"lstrip", str::LeftStrip},
    {"partition", str::Partition},
    {"removeprefix", str::RemovePrefix},
    {"removesuffix", str::RemoveSuffix},
    {"replace", str::Replace},
    {"rfind", str::RightFind},
    {"rindex", str::RightIndex},
    {"rjust", str::RightJustify},
    {"rpartition", str::RightPartition},
    {"rsplit", str::RightSplit},
    {"rstrip", str::RightStrip},
    {"split", str::Split},
    {"splitlines", str::SplitLines},
    {"startswith", str::StartsWith},
    {"strip", str::Strip},
    {"swapcase", str::SwapCase},
    {"title", str::Title},
    {"upper", str::Upper},
    {"zfill", str::ZeroFill},
};

template <size_t N>
Builtin Find(const Method (&table)[N], std::string_view name, bool* unsafe) {
  const auto* const found =
      std::lower_bound(std::begin(table), std::end(table), name,
                       [](const Method& entry, std::string_view key) { return entry.name < key; });
  if (found == std::end(table) || found->name != name) return nullptr;
  *unsafe = found->function == nullptr;
  return found->function;
}

}  // namespace

Builtin FindMethod(const Value& object, std::string_view name, bool* unsafe) {
  switch (object.kind()) {
    case Value::Kind::kString:
      return Find(kStringMethods, name, unsafe);
    case Value::Kind::kDict:
      return Find(kDictMethods, name, unsafe);
    case Value::Kind::kSequence:
      if (object.sequence().type == Sequence::Type::kList) return Find(kListMethods, name, unsafe);
      if (object.sequence().is_view()) return nullptr;
      return Find(kTupleMethods, name, unsafe);
    default:
      return nullptr;
  }
}

}  // namespace reticle::tokenizer::jinja
