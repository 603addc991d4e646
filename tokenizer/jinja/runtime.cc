#include "tokenizer/jinja/runtime.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja {
namespace {

class Generator final : public Native {
 public:
  Generator(std::vector<Value> items, const char* type_name)
      : items_(std::move(items)), type_name_(type_name) {
    for (const Value& item : items_) depth_ = std::max(depth_, item.depth() + 1);
  }
  const char* TypeName() const override { return type_name_; }
  bool IsIterable() const override { return true; }
  std::vector<Value> TakeItems() override { return std::exchange(items_, {}); }
  int depth() const override { return depth_; }

 private:
  std::vector<Value> items_;
  const char* type_name_;
  int depth_ = 1;
};

class Function final : public Native {
 public:
  Function(std::string name, Builtin function, Value self)
      : name_(std::move(name)), function_(function), self_(std::move(self)) {}
  const char* TypeName() const override { return "function"; }
  std::string Repr() const override { return absl::StrFormat("<function %s>", name_); }
  bool IsCallable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const CallArgs& args) override {
    return function_(runtime, self_, args);
  }
  int depth() const override { return self_.depth() + 1; }

 private:
  const std::string name_;
  const Builtin function_;
  const Value self_;
};

}  // namespace

Runtime::~Runtime() {
  for (const auto& object : kept_) object->Clear();
}

absl::Status Runtime::StepsExhausted() const {
  return ResourceExhaustedError("rendering takes more than the limit of %d steps",
                                limits_.max_steps);
}

absl::Status Runtime::MemoryExhausted() const {
  return ResourceExhaustedError("rendering takes more memory than the limit of %d bytes",
                                limits_.max_allocated_bytes);
}

absl::StatusOr<Value> Runtime::String(Text text) {
  RETURN_IF_ERROR(Allocate(text.size()));
  return Value(std::move(text));
}

absl::StatusOr<Value> Runtime::String(std::string text, bool untrusted) {
  return String(Text(std::move(text), untrusted));
}

absl::StatusOr<Value> Runtime::List(std::vector<Value> items, Sequence::Type type) {
  RETURN_IF_ERROR(Allocate(items.size() * sizeof(Value)));
  Value list(Sequence{type, std::move(items)});
  if (list.depth() > kMaxValueDepth) {
    return ResourceExhaustedError("containers nest deeper than the limit of %d", kMaxValueDepth);
  }
  return list;
}

absl::StatusOr<Value> Runtime::Object(Dict dict) {
  RETURN_IF_ERROR(Allocate(dict.size() * sizeof(Dict::Item)));
  if (dict.depth() > kMaxValueDepth) {
    return ResourceExhaustedError("containers nest deeper than the limit of %d", kMaxValueDepth);
  }
  return Value(std::move(dict));
}

absl::StatusOr<Value> Runtime::Iterator(std::vector<Value> items, const char* type_name) {
  RETURN_IF_ERROR(Allocate(items.size() * sizeof(Value)));
  Value iterator(std::make_shared<Generator>(std::move(items), type_name));
  if (iterator.depth() > kMaxValueDepth) {
    return ResourceExhaustedError("containers nest deeper than the limit of %d", kMaxValueDepth);
  }
  return iterator;
}

bool Runtime::IsTrue(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return false;
    case Value::Kind::kBool:
    case Value::Kind::kInt:
      return value.integer() != 0;
    case Value::Kind::kFloat:
      return value.number() != 0;
    case Value::Kind::kString:
      return !value.text().empty();
    case Value::Kind::kSequence:
      return !value.items().empty();
    case Value::Kind::kDict:
      return value.dict().size() != 0;
    case Value::Kind::kBigInt:
    case Value::Kind::kNative:
      return true;
  }
  return true;
}

absl::StatusOr<bool> Runtime::EqualDicts(const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.items()) {
    const Value* other = b.Find(key);
    if (other == nullptr) return false;
    ASSIGN_OR_RETURN(const bool equal, Equal(value, *other));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> Runtime::Equal(const Value& a, const Value& b) {
  RETURN_IF_ERROR(Step());
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kString:
      if (a.text().size() != b.text().size()) return false;
      RETURN_IF_ERROR(Read(a.text().size()));
      return a.view() == b.view();
    case Value::Kind::kBigInt:
      return a.big_digits() == b.big_digits();
    case Value::Kind::kSequence: {
      const Sequence& left = a.sequence();
      const Sequence& right = b.sequence();
      if (&left == &right) return true;
      if (left.type != right.type && !(left.is_tuple() && right.is_tuple())) return false;
      if (left.items.size() != right.items.size()) return false;
      for (size_t i = 0; i < left.items.size(); ++i) {
        ASSIGN_OR_RETURN(const bool equal, Equal(left.items[i], right.items[i]));
        if (!equal) return false;
      }
      return true;
    }
    case Value::Kind::kDict:
      return &a.dict() == &b.dict() ? absl::StatusOr<bool>(true) : EqualDicts(a.dict(), b.dict());
    case Value::Kind::kNative:
      return &a.native() == &b.native();
    default:
      return true;
  }
}

absl::StatusOr<bool> Runtime::Less(const Value& a, const Value& b, const char* op) {
  RETURN_IF_ERROR(Step());
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
    return a.number() < b.number();
  }
  if (a.is_string() && b.is_string()) {
    RETURN_IF_ERROR(Read(std::min(a.text().size(), b.text().size())));
    return a.view() < b.view();
  }
  if (a.is_sequence() && b.is_sequence() &&
      ((a.sequence().is_tuple() && b.sequence().is_tuple()) ||
       (a.sequence().type == Sequence::Type::kList &&
        b.sequence().type == Sequence::Type::kList))) {
    const auto& left = a.items();
    const auto& right = b.items();
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      ASSIGN_OR_RETURN(const bool equal, Equal(left[i], right[i]));
      if (!equal) return Less(left[i], right[i], op);
    }
    return left.size() < right.size();
  }
  return InvalidArgumentError("'%s' not supported between instances of '%s' and '%s'", op,
                              a.TypeName(), b.TypeName());
}

absl::StatusOr<bool> Runtime::Contains(const Value& haystack, const Value& needle) {
  if (haystack.is_string()) {
    if (needle.is_undefined()) return UndefinedError(needle);
    if (!needle.is_string()) {
      return InvalidArgumentError("'in <string>' requires string as left operand, not %s",
                                  needle.TypeName());
    }
    // The search compares as much as the product of both sizes at worst.
    RETURN_IF_ERROR(Read(haystack.text().size() * (1 + needle.text().size() / 16)));
    return haystack.view().find(needle.view()) != std::string_view::npos;
  }
  if (haystack.is_dict()) {
    if (!Dict::IsKey(needle)) {
      if (needle.is_undefined() || needle.is_native()) return false;
      return InvalidArgumentError("unhashable type: '%s'", needle.TypeName());
    }
    if (!needle.is_string()) RETURN_IF_ERROR(Step(haystack.dict().size()));
    return haystack.dict().Find(needle) != nullptr;
  }
  ASSIGN_OR_RETURN(const auto items, SharedItems(haystack));
  for (const Value& item : items->items) {
    ASSIGN_OR_RETURN(const bool equal, Equal(item, needle));
    if (equal) return true;
  }
  return false;
}

absl::StatusOr<int64_t> Runtime::Length(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return 0;
    case Value::Kind::kString:
      RETURN_IF_ERROR(Read(value.text().size()));
      return static_cast<int64_t>(CountCharacters(value.view()));
    case Value::Kind::kSequence:
      return static_cast<int64_t>(value.items().size());
    case Value::Kind::kDict:
      return static_cast<int64_t>(value.dict().size());
    default:
      return InvalidArgumentError("object of type '%s' has no len()", value.TypeName());
  }
}

absl::StatusOr<std::shared_ptr<const Sequence>> Runtime::SharedItems(const Value& value) {
  if (value.is_sequence()) return value.shared_sequence();
  auto sequence = std::make_shared<Sequence>();
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      break;
    case Value::Kind::kString: {
      const Text& text = value.text();
      RETURN_IF_ERROR(Allocate(CountCharacters(text.view()) * (sizeof(Value) + sizeof(Text))));
      for (size_t pos = 0; pos < text.size();) {
        const size_t size = CharacterAt(text.view(), pos).size();
        sequence->items.emplace_back(text.Substr(pos, size));
        pos += size;
      }
      break;
    }
    case Value::Kind::kDict:
      RETURN_IF_ERROR(Allocate(value.dict().size() * sizeof(Value)));
      for (const auto& [key, item] : value.dict().items()) sequence->items.push_back(key);
      break;
    case Value::Kind::kNative:
      if (value.native().IsIterable()) {
        sequence->items = value.native().TakeItems();
        break;
      }
      [[fallthrough]];
    default:
      return InvalidArgumentError("'%s' object is not iterable", value.TypeName());
  }
  return std::shared_ptr<const Sequence>(std::move(sequence));
}

absl::StatusOr<std::vector<Value>> Runtime::Items(const Value& value) {
  ASSIGN_OR_RETURN(const auto sequence, SharedItems(value));
  RETURN_IF_ERROR(Allocate(sequence->items.size() * sizeof(Value)));
  return sequence->items;
}

Value Runtime::MakeUndefined(UndefinedInfo::Reason reason, const char* of, const Value& name) {
  auto info = std::make_shared<UndefinedInfo>();
  info->reason = reason;
  info->of = of;
  if (name.is_string()) {
    info->name = name.shared_text();
  } else if (name.is_integral()) {
    info->name = std::make_shared<const Text>(std::to_string(name.integer()));
  } else {
    info->name = std::make_shared<const Text>(std::string(name.TypeName()));
  }
  return Value(Value::Undefined{std::move(info)});
}

Value Runtime::UndefinedHint(const char* hint) {
  return MakeUndefined(UndefinedInfo::Reason::kHint, "", Value(hint));
}

absl::StatusOr<Value> Runtime::GetAttribute(const Value& object, const Value& name) {
  const std::string_view attribute = name.view();
  bool unsafe = false;
  if (object.is_undefined()) return UndefinedError(object);
  if (object.is_native()) {
    Value found;
    ASSIGN_OR_RETURN(const bool has, object.native().GetAttribute(*this, attribute, found));
    if (has) return found;
  } else if (Builtin method = FindMethod(object, attribute, &unsafe); method != nullptr) {
    return MakeFunction(name.text().str(), method, object);
  } else if (unsafe) {
    return MakeUndefined(UndefinedInfo::Reason::kUnsafe, object.TypeName(), name);
  } else if (object.is_dict()) {
    const Value* found = object.dict().Find(attribute);
    if (found != nullptr) return *found;
  } else if (object.is_sequence() && object.sequence().type == Sequence::Type::kGroup) {
    if (attribute == "grouper") return object.items()[0];
    if (attribute == "list") return object.items()[1];
  }
  return MakeUndefined(UndefinedInfo::Reason::kAttribute, object.TypeName(), name);
}

absl::StatusOr<Value> Runtime::GetItem(const Value& object, const Value& key) {
  if (object.is_undefined()) return UndefinedError(object);
  if (object.is_dict()) {
    if (!key.is_string()) RETURN_IF_ERROR(Step(object.dict().size() / 8));
    const Value* found = object.dict().Find(key);
    if (found != nullptr) return *found;
  } else if (key.is_integral() && object.is_sequence() && !object.sequence().is_view()) {
    const auto& items = object.items();
    int64_t index = key.integer();
    const auto size = static_cast<int64_t>(items.size());
    if (index < 0) index += size;
    if (index >= 0 && index < size) return items[static_cast<size_t>(index)];
  } else if (key.is_integral() && object.is_string()) {
    const Text& text = object.text();
    const int64_t index = key.integer();
    RETURN_IF_ERROR(
        Read(std::min<uint64_t>(text.size(), index < 0 ? uint64_t{0} - static_cast<uint64_t>(index)
                                                       : static_cast<uint64_t>(index))));
    const size_t pos = index >= 0 ? SkipCharacters(text.view(), 0, static_cast<size_t>(index))
                                  : SkipCharactersBack(text.view(), text.size(),
                                                       size_t{0} - static_cast<size_t>(index));
    if (pos < text.size()) return String(text.Substr(pos, CharacterAt(text.view(), pos).size()));
  }
  if (key.is_string()) return GetAttribute(object, key);
  return MakeUndefined(UndefinedInfo::Reason::kElement, object.TypeName(), key);
}

absl::StatusOr<Value> Runtime::Slice(const Value& object, const Value& start_value,
                                     const Value& stop_value, const Value& step_value) {
  if (object.is_undefined()) return UndefinedError(object);
  const bool is_string = object.is_string();
  if (!is_string && (!object.is_sequence() || object.sequence().is_view())) {
    return InvalidArgumentError("'%s' object cannot be sliced", object.TypeName());
  }
  for (const Value* bound : {&start_value, &stop_value, &step_value}) {
    if (!bound->is_none() && !bound->is_integral()) {
      return InvalidArgumentError("slice indices must be integers or None, not %s",
                                  bound->TypeName());
    }
  }
  const int64_t step = step_value.is_none() ? 1 : step_value.integer();
  if (step == 0) return InvalidArgumentError("slice step cannot be zero");
  ASSIGN_OR_RETURN(const int64_t size, Length(object));
  const auto clamp = [&](const Value& bound, int64_t missing) {
    if (bound.is_none()) return missing;
    int64_t index = bound.integer();
    if (index < 0) index += size;
    return step > 0 ? std::clamp<int64_t>(index, 0, size)
                    : std::clamp<int64_t>(index, -1, size - 1);
  };
  const int64_t start = clamp(start_value, step > 0 ? 0 : size - 1);
  const int64_t stop = clamp(stop_value, step > 0 ? size : -1);
  uint64_t count = 0;
  if (step > 0 && start < stop) {
    count = (static_cast<uint64_t>(stop - start) - 1) / static_cast<uint64_t>(step) + 1;
  } else if (step < 0 && start > stop) {
    count =
        (static_cast<uint64_t>(start - stop) - 1) / (uint64_t{0} - static_cast<uint64_t>(step)) + 1;
  }
  const auto at = [&](uint64_t i) {
    return static_cast<size_t>(static_cast<uint64_t>(start) + i * static_cast<uint64_t>(step));
  };
  if (is_string) {
    const Text& text = object.text();
    const bool ascii = static_cast<size_t>(size) == text.size();
    if (step == 1) {
      const size_t from = ascii ? static_cast<size_t>(start)
                                : SkipCharacters(text.view(), 0, static_cast<size_t>(start));
      const size_t to = ascii ? from + count : SkipCharacters(text.view(), from, count);
      return String(text.Substr(from, to - from));
    }
    std::vector<size_t> positions;
    RETURN_IF_ERROR(Allocate(static_cast<size_t>(size) * sizeof(size_t)));
    for (size_t pos = 0; pos < text.size(); pos = SkipCharacters(text.view(), pos, 1)) {
      positions.push_back(pos);
    }
    Text out;
    for (uint64_t i = 0; i < count; ++i) {
      const size_t pos = positions[at(i)];
      out.Append(text, pos, CharacterAt(text.view(), pos).size());
    }
    return String(std::move(out));
  }
  const Sequence& sequence = object.sequence();
  RETURN_IF_ERROR(Allocate(count * sizeof(Value)));
  std::vector<Value> items;
  items.reserve(count);
  for (uint64_t i = 0; i < count; ++i) items.push_back(sequence.items[at(i)]);
  if (sequence.type == Sequence::Type::kRange) {
    const auto bound = [&](int64_t index) {
      return static_cast<int64_t>(static_cast<uint64_t>(sequence.range_start) +
                                  static_cast<uint64_t>(index) *
                                      static_cast<uint64_t>(sequence.range_step));
    };
    return Value(Sequence{sequence.type, std::move(items), bound(start), bound(stop),
                          static_cast<int64_t>(static_cast<uint64_t>(sequence.range_step) *
                                               static_cast<uint64_t>(step))});
  }
  return List(std::move(items), sequence.is_tuple() ? Sequence::Type::kTuple : sequence.type);
}

absl::StatusOr<Value> Runtime::Call(const Value& callee, const CallArgs& args) {
  if (callee.is_undefined()) return UndefinedError(callee);
  if (!callee.is_native()) {
    return InvalidArgumentError("'%s' object is not callable", callee.TypeName());
  }
  RETURN_IF_ERROR(Step());
  // The callee may drop its last other reference while it runs.
  const std::shared_ptr<Native> held = callee.shared_native();
  return held->Call(*this, args);
}

Value MakeFunction(std::string name, Builtin function, Value self) {
  return Value(std::make_shared<Function>(std::move(name), function, std::move(self)));
}

absl::Status BindArguments(std::string_view function, const CallArgs& args,
                           const char* const* names, size_t count, size_t required,
                           const Value** out) {
  std::fill(out, out + count, nullptr);
  if (args.positional.size() > count) {
    return InvalidArgumentError("%s() takes at most %d arguments (%d given)", function, count,
                                args.positional.size());
  }
  for (size_t i = 0; i < args.positional.size(); ++i) out[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    size_t i = 0;
    while (i < count && name != names[i]) ++i;
    if (i == count) {
      return InvalidArgumentError("%s() got an unexpected keyword argument '%s'", function, name);
    }
    if (out[i] != nullptr) {
      return InvalidArgumentError("%s() got multiple values for argument '%s'", function, name);
    }
    out[i] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (out[i] == nullptr) {
      return InvalidArgumentError("%s() misses its argument '%s'", function, names[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status ExpectNoArguments(std::string_view function, const CallArgs& args) {
  if (args.empty()) return absl::OkStatus();
  return InvalidArgumentError("%s() takes no arguments", function);
}

absl::StatusOr<int64_t> IntegerArgument(const Value& value, std::string_view what) {
  if (value.is_integral()) return value.integer();
  if (value.is_undefined()) return UndefinedError(value);
  return InvalidArgumentError("%s must be an integer, not %s", what, value.TypeName());
}

absl::StatusOr<const Text*> StringArgument(const Value& value, std::string_view what) {
  if (value.is_string()) return &value.text();
  if (value.is_undefined()) return UndefinedError(value);
  return InvalidArgumentError("%s must be a string, not %s", what, value.TypeName());
}

absl::Status UndefinedError(const Value& value) {
  return InvalidArgumentError("%s", value.UndefinedMessage());
}

}  // namespace reticle::tokenizer::jinja
