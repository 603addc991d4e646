#include "tokenizer/jinja/value.h"

#include <algorithm>

#include "base/status.h"
#include "tokenizer/jinja/runtime.h"

namespace reticle::tokenizer::jinja {

std::string UndefinedInfo::Message() const {
  const std::string_view shown = name == nullptr ? std::string_view() : name->view();
  switch (reason) {
    case Reason::kVariable:
      return absl::StrFormat("'%s' is undefined", shown);
    case Reason::kAttribute:
      return absl::StrFormat("'%s object' has no attribute '%s'", of, shown);
    case Reason::kElement:
      return absl::StrFormat("%s object has no element %s", of, shown);
    case Reason::kUnsafe:
      return absl::StrFormat("access to attribute '%s' of '%s' object is unsafe.", shown, of);
    case Reason::kHint:
      break;
  }
  return std::string(shown);
}

Value::Value(List value) : Value(Sequence{Sequence::Type::kList, std::move(value)}) {}

Value::Value(Sequence value) {
  int depth = 0;
  for (const Value& item : value.items) depth = std::max(depth, item.depth());
  value.depth = depth + 1;
  data_ = std::make_shared<const Sequence>(std::move(value));
}

Value::Value(Dict value) : data_(std::make_shared<const Dict>(std::move(value))) {}

Value::Value(Object value) {
  Dict dict;
  for (auto& [key, item] : value) dict.Set(Value(std::move(key)), std::move(item));
  data_ = std::make_shared<const Dict>(std::move(dict));
}

std::string Value::UndefinedMessage() const {
  const auto& info = std::get_if<Undefined>(&data_)->info;
  return info == nullptr ? std::string("the value is undefined") : info->Message();
}

const char* Value::TypeName() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
    case Kind::kBigInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kSequence:
      switch (sequence().type) {
        case Sequence::Type::kList:
          return "list";
        case Sequence::Type::kTuple:
        case Sequence::Type::kGroup:
          return "tuple";
        case Sequence::Type::kRange:
          return "range";
        case Sequence::Type::kKeys:
          return "dict_keys";
        case Sequence::Type::kValues:
          return "dict_values";
        case Sequence::Type::kItems:
          return "dict_items";
      }
      return "list";
    case Kind::kDict:
      return "dict";
    case Kind::kNative:
      return native().TypeName();
  }
  return "object";
}

int Value::depth() const {
  switch (kind()) {
    case Kind::kSequence:
      return sequence().depth;
    case Kind::kDict:
      return dict().depth();
    case Kind::kNative:
      return native().depth();
    default:
      return 0;
  }
}

bool Dict::IsKey(const Value& key) {
  return key.is_string() || key.is_number() || key.is_none() || key.kind() == Value::Kind::kBigInt;
}

size_t Dict::Position(std::string_view key) const {
  if (!index_.empty()) {
    const auto found = index_.find(key);
    return found == index_.end() ? kNone : found->second;
  }
  for (size_t i = 0; i < items_.size(); ++i) {
    if (items_[i].first.is_string() && items_[i].first.view() == key) return i;
  }
  return kNone;
}

size_t Dict::Position(const Value& key) const {
  if (key.is_string()) return Position(key.view());
  for (size_t i = 0; i < items_.size(); ++i) {
    const Value& other = items_[i].first;
    if (key.is_number() && other.is_number()) {
      if (key.is_integral() && other.is_integral() ? key.integer() == other.integer()
                                                   : key.number() == other.number()) {
        return i;
      }
    } else if (key.kind() == other.kind() &&
               (key.is_none() ||
                (key.kind() == Value::Kind::kBigInt && key.big_digits() == other.big_digits()))) {
      return i;
    }
  }
  return kNone;
}

const Value* Dict::Find(std::string_view key) const {
  const size_t position = Position(key);
  return position == kNone ? nullptr : &items_[position].second;
}

const Value* Dict::Find(const Value& key) const {
  const size_t position = Position(key);
  return position == kNone ? nullptr : &items_[position].second;
}

void Dict::Set(Value key, Value value) {
  depth_ = std::max(depth_, value.depth() + 1);
  const size_t position = Position(key);
  if (position != kNone) {
    items_[position].second = std::move(value);
    return;
  }
  items_.emplace_back(std::move(key), std::move(value));
  if (items_.size() < kIndexedSize) return;
  const size_t first = index_.empty() ? 0 : items_.size() - 1;
  for (size_t i = first; i < items_.size(); ++i) {
    if (items_[i].first.is_string()) {
      index_.emplace(items_[i].first.view(), static_cast<uint32_t>(i));
    }
  }
}

std::string Native::Repr() const { return absl::StrFormat("<%s object>", TypeName()); }

absl::StatusOr<Value> Native::Call(Runtime& runtime, const CallArgs& args) {
  return InvalidArgumentError("'%s' object is not callable", TypeName());
}

Value MarkUntrusted(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kString:
      return Value(Text(value.text().str(), true));
    case Value::Kind::kSequence: {
      Sequence copy = value.sequence();
      for (Value& item : copy.items) item = MarkUntrusted(item);
      return Value(std::move(copy));
    }
    case Value::Kind::kDict: {
      Dict copy;
      for (const auto& [key, item] : value.dict().items()) {
        copy.Set(MarkUntrusted(key), MarkUntrusted(item));
      }
      return Value(std::move(copy));
    }
    default:
      return value;
  }
}

}  // namespace reticle::tokenizer::jinja
