#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/strings.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja::filters {
namespace {

bool IsGiven(const Value* value) { return value != nullptr && !value->is_none(); }

// The arguments after the first `count` positional ones.
CallArgs Rest(const CallArgs& args, size_t count) {
  CallArgs rest;
  rest.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(count),
                         args.positional.end());
  rest.named = args.named;
  return rest;
}

// The items that `select` or `reject` keep; with `by_attribute` the test sees an attribute.
absl::StatusOr<Value> Filtered(Runtime& runtime, const Value& self, const CallArgs& args,
                               bool by_attribute, bool keeps) {
  if (!Runtime::IsTrue(self)) return runtime.Iterator({});
  const size_t offset = by_attribute ? 1 : 0;
  if (args.positional.size() < offset) {
    return InvalidArgumentError("missing parameter for attribute name");
  }
  Builtin test = nullptr;
  CallArgs test_args;
  if (args.positional.size() > offset) {
    ASSIGN_OR_RETURN(const Text* name,
                     StringArgument(args.positional[offset], "the name of a test"));
    test = FindTest(name->view());
    if (test == nullptr) return InvalidArgumentError("No test named '%s'.", name->view());
    test_args = Rest(args, offset + 1);
  }
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  std::vector<Value> kept;
  for (const Value& item : items->items) {
    RETURN_IF_ERROR(runtime.Step());
    Value subject = item;
    if (by_attribute) {
      ASSIGN_OR_RETURN(subject, AttributeOf(runtime, item, args.positional[0]));
    }
    if (test != nullptr) {
      ASSIGN_OR_RETURN(subject, test(runtime, subject, test_args));
    }
    if (Runtime::IsTrue(subject) == keeps) kept.push_back(item);
  }
  return runtime.Iterator(std::move(kept));
}

}  // namespace

absl::StatusOr<Value> AttributeOf(Runtime& runtime, const Value& item, const Value& attribute,
                                  const Value* fallback) {
  if (attribute.is_none()) return item;
  const auto step = [&](const Value& from, const Value& part) -> absl::StatusOr<Value> {
    ASSIGN_OR_RETURN(Value found, runtime.GetItem(from, part));
    if (fallback != nullptr && found.is_undefined()) return *fallback;
    return found;
  };
  if (!attribute.is_string()) return step(item, attribute);
  const std::string_view path = attribute.view();
  Value value = item;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    const bool is_number =
        !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    const auto number = is_number ? ParseInteger(part, 10) : std::nullopt;
    Value key = number.has_value() ? Value(*number) : Value(std::string(part));
    ASSIGN_OR_RETURN(value, step(value, key));
    begin = end + 1;
  }
  return value;
}

absl::StatusOr<Value> IgnoreCase(Runtime& runtime, Value value) {
  if (!value.is_string()) return value;
  return MapText(runtime, value.text(), ToLower);
}

absl::StatusOr<Value> Length(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("length", args));
  ASSIGN_OR_RETURN(const int64_t length, runtime.Length(self));
  return Value(length);
}

absl::StatusOr<Value> Default(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"default_value", "boolean"};
  ASSIGN_OR_RETURN(const auto bound, Bind("default", args, kNames));
  const bool boolean = bound[1] != nullptr && Runtime::IsTrue(*bound[1]);
  if (!self.is_undefined() && !(boolean && !Runtime::IsTrue(self))) return self;
  return bound[0] != nullptr ? *bound[0] : Value("");
}

absl::StatusOr<Value> List(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("list", args));
  ASSIGN_OR_RETURN(std::vector<Value> items, runtime.Items(self));
  return runtime.List(std::move(items));
}

absl::StatusOr<Value> First(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("first", args));
  if (self.is_string() && !self.text().empty()) return runtime.GetItem(self, Value(int64_t{0}));
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  if (items->items.empty()) return Runtime::UndefinedHint("No first item, sequence was empty.");
  return items->items.front();
}

absl::StatusOr<Value> Last(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("last", args));
  if (self.is_string() && !self.text().empty()) return runtime.GetItem(self, Value(int64_t{-1}));
  if (self.is_native() || self.is_undefined()) {
    return InvalidArgumentError("'%s' object is not reversible", self.TypeName());
  }
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  if (items->items.empty()) return Runtime::UndefinedHint("No last item, sequence was empty.");
  return items->items.back();
}

absl::StatusOr<Value> Join(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"d", "attribute"};
  ASSIGN_OR_RETURN(const auto bound, Bind("join", args, kNames));
  Text separator;
  if (bound[0] != nullptr) {
    ASSIGN_OR_RETURN(separator, runtime.ToText(*bound[0]));
  }
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  if (!IsGiven(bound[1])) return JoinItems(runtime, separator, items->items, true);
  std::vector<Value> attributes;
  for (const Value& item : items->items) {
    ASSIGN_OR_RETURN(Value attribute, AttributeOf(runtime, item, *bound[1]));
    attributes.push_back(std::move(attribute));
  }
  return JoinItems(runtime, separator, attributes, true);
}

absl::StatusOr<Value> Items(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("items", args));
  if (self.is_undefined()) return runtime.Iterator({});
  if (!self.is_dict()) return InvalidArgumentError("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  pairs.reserve(self.dict().size());
  for (const auto& [key, value] : self.dict().items()) {
    ASSIGN_OR_RETURN(Value pair, runtime.Tuple({key, value}));
    pairs.push_back(std::move(pair));
  }
  return runtime.Iterator(std::move(pairs));
}

absl::StatusOr<Value> Reverse(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("reverse", args));
  if (self.is_string()) {
    return runtime.Slice(self, Value(Value::None{}), Value(Value::None{}), Value(int64_t{-1}));
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, runtime.Items(self));
  std::vector<Value> reversed(std::make_move_iterator(items.rbegin()),
                              std::make_move_iterator(items.rend()));
  if (self.is_native() || self.is_undefined()) return runtime.List(std::move(reversed));
  return runtime.Iterator(std::move(reversed), "list_reverseiterator");
}

absl::StatusOr<Value> Map(Runtime& runtime, const Value& self, const CallArgs& args) {
  std::vector<Value> mapped;
  if (!Runtime::IsTrue(self)) return runtime.Iterator({});
  if (args.positional.empty()) {
    static constexpr const char* kNames[] = {"attribute", "default"};
    ASSIGN_OR_RETURN(const auto bound, Bind("map", args, kNames));
    if (bound[0] == nullptr) return InvalidArgumentError("map requires a filter argument");
    ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
    const Value* const fallback = IsGiven(bound[1]) ? bound[1] : nullptr;
    for (const Value& item : items->items) {
      RETURN_IF_ERROR(runtime.Step());
      ASSIGN_OR_RETURN(Value value, AttributeOf(runtime, item, *bound[0], fallback));
      mapped.push_back(std::move(value));
    }
    return runtime.Iterator(std::move(mapped));
  }
  ASSIGN_OR_RETURN(const Text* name, StringArgument(args.positional[0], "the name of a filter"));
  const Builtin filter = FindFilter(name->view());
  if (filter == nullptr) return InvalidArgumentError("No filter named '%s'.", name->view());
  const CallArgs rest = Rest(args, 1);
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  for (const Value& item : items->items) {
    RETURN_IF_ERROR(runtime.Step());
    ASSIGN_OR_RETURN(Value value, filter(runtime, item, rest));
    mapped.push_back(std::move(value));
  }
  return runtime.Iterator(std::move(mapped));
}

absl::StatusOr<Value> Select(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Filtered(runtime, self, args, false, true);
}

absl::StatusOr<Value> Reject(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Filtered(runtime, self, args, false, false);
}

absl::StatusOr<Value> SelectAttr(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Filtered(runtime, self, args, true, true);
}

absl::StatusOr<Value> RejectAttr(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Filtered(runtime, self, args, true, false);
}

absl::StatusOr<Value> Batch(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"linecount", "fill_with"};
  ASSIGN_OR_RETURN(const auto bound, Bind("batch", args, kNames, 1));
  ASSIGN_OR_RETURN(const int64_t size, IntegerArgument(*bound[0], "linecount"));
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (const Value& item : items->items) {
    if (static_cast<int64_t>(batch.size()) == size) {
      ASSIGN_OR_RETURN(Value list, runtime.List(std::exchange(batch, {})));
      batches.push_back(std::move(list));
    }
    batch.push_back(item);
  }
  if (!batch.empty()) {
    const auto have = static_cast<int64_t>(batch.size());
    if (IsGiven(bound[1]) && have < size) {
      const auto missing = static_cast<size_t>(size - have);
      RETURN_IF_ERROR(runtime.Step(missing));
      RETURN_IF_ERROR(runtime.Allocate(missing));
      batch.insert(batch.end(), missing, *bound[1]);
    }
    ASSIGN_OR_RETURN(Value list, runtime.List(std::move(batch)));
    batches.push_back(std::move(list));
  }
  return runtime.Iterator(std::move(batches));
}

absl::StatusOr<Value> Slice(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"slices", "fill_with"};
  ASSIGN_OR_RETURN(const auto bound, Bind("slice", args, kNames, 1));
  ASSIGN_OR_RETURN(const int64_t slices, IntegerArgument(*bound[0], "slices"));
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  if (slices == 0) return InvalidArgumentError("integer division or modulo by zero");
  if (slices < 0) return runtime.Iterator({});
  RETURN_IF_ERROR(runtime.Step(static_cast<uint64_t>(slices)));
  const size_t each = items->items.size() / static_cast<size_t>(slices);
  const size_t with_extra = items->items.size() % static_cast<size_t>(slices);
  std::vector<Value> out;
  auto next = items->items.begin();
  for (size_t i = 0; i < static_cast<size_t>(slices); ++i) {
    const auto count = static_cast<std::ptrdiff_t>(each + (i < with_extra ? 1 : 0));
    std::vector<Value> part(next, next + count);
    next += count;
    if (IsGiven(bound[1]) && i >= with_extra) part.push_back(*bound[1]);
    ASSIGN_OR_RETURN(Value list, runtime.List(std::move(part)));
    out.push_back(std::move(list));
  }
  return runtime.Iterator(std::move(out));
}

absl::StatusOr<Value> Attr(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"name"};
  ASSIGN_OR_RETURN(const auto bound, Bind("attr", args, kNames, 1));
  RETURN_IF_ERROR(StringArgument(*bound[0], "name").status());
  if (!self.is_dict()) return runtime.GetAttribute(self, *bound[0]);
  // Attributes proper only, not the items of a dict.
  bool unsafe = false;
  const Builtin method = FindMethod(self, bound[0]->view(), &unsafe);
  if (method != nullptr) return MakeFunction(bound[0]->text().str(), method, self);
  return Runtime::MakeUndefined(UndefinedInfo::Reason::kAttribute, self.TypeName(), *bound[0]);
}

}  // namespace reticle::tokenizer::jinja::filters
