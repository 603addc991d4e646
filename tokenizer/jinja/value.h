// The dynamic value of the template engine: Python's undefined (Jinja's own), None, bool, int,
// float, str, list and its relatives, dict (insertion-ordered), and objects of the engine.
//
// Cheap to copy: strings, sequences and dicts are shared and never change once they are in a Value,
// so a Value may be read from several threads. Objects of the engine (class Native) live in one
// rendering only.
#ifndef RETICLE_TOKENIZER_JINJA_VALUE_H_
#define RETICLE_TOKENIZER_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "tokenizer/jinja/text.h"

namespace reticle::tokenizer::jinja {

class Dict;
class Native;
class Runtime;
class Value;
struct CallArgs;
struct Sequence;

// Why a value is undefined: becomes the message of the error when it is used.
struct UndefinedInfo {
  enum class Reason : uint8_t { kVariable, kAttribute, kElement, kUnsafe, kHint };
  Reason reason = Reason::kHint;
  const char* of = "";               // type of the object that lacks it, in static storage
  std::shared_ptr<const Text> name;  // of the variable or attribute, or the whole hint

  std::string Message() const;
};

class Value {
 public:
  using List = std::vector<Value>;
  using Object = std::vector<std::pair<std::string, Value>>;  // in insertion order

  // In the order of the variant below.
  enum class Kind : uint8_t {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kBigInt,
    kFloat,
    kString,
    kSequence,
    kDict,
    kNative
  };
  struct Undefined {
    std::shared_ptr<const UndefinedInfo> info;  // may be null
  };
  struct None {};
  // An integer beyond 64 bits, as its digits: it can be printed and compared, not calculated with.
  struct BigInt {
    std::shared_ptr<const std::string> digits;
  };

  Value() = default;                                   // undefined
  Value(Undefined value) : data_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Value(None) : data_(None{}) {}                       // NOLINT(google-explicit-constructor)
  Value(bool value) : data_(value) {}                  // NOLINT(google-explicit-constructor)
  Value(int value) : data_(int64_t{value}) {}          // NOLINT(google-explicit-constructor)
  Value(int64_t value) : data_(value) {}               // NOLINT(google-explicit-constructor)
  Value(double value) : data_(value) {}                // NOLINT(google-explicit-constructor)
  Value(BigInt value) : data_(std::move(value)) {}     // NOLINT(google-explicit-constructor)
  // Strings made this way are trusted; see MarkUntrusted.
  Value(std::string value)  // NOLINT(google-explicit-constructor)
      : data_(std::make_shared<const Text>(std::move(value))) {}
  Value(const char* value) : Value(std::string(value)) {}  // NOLINT(google-explicit-constructor)
  Value(Text value)                                        // NOLINT(google-explicit-constructor)
      : data_(std::make_shared<const Text>(std::move(value))) {}
  Value(List value);    // NOLINT(google-explicit-constructor)
  Value(Object value);  // NOLINT(google-explicit-constructor)
  Value(Dict value);    // NOLINT(google-explicit-constructor)
  // A pointer would silently become a bool.
  template <typename T>
  Value(T* pointer) = delete;  // NOLINT(google-explicit-constructor)
  explicit Value(Sequence value);
  explicit Value(std::shared_ptr<const Text> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<const Sequence> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<const Dict> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<Native> value) : data_(std::move(value)) {}

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_sequence() const { return kind() == Kind::kSequence; }
  bool is_dict() const { return kind() == Kind::kDict; }
  bool is_native() const { return kind() == Kind::kNative; }
  // int or bool, as Python's bool is an int.
  bool is_integral() const { return kind() == Kind::kInt || kind() == Kind::kBool; }
  bool is_number() const { return is_integral() || kind() == Kind::kFloat; }

  // Each requires the matching kind.
  bool boolean() const { return *std::get_if<bool>(&data_); }
  // int or bool.
  int64_t integer() const {
    return is_bool() ? static_cast<int64_t>(boolean()) : *std::get_if<int64_t>(&data_);
  }
  // Any number.
  double number() const {
    return kind() == Kind::kFloat ? *std::get_if<double>(&data_) : static_cast<double>(integer());
  }
  const std::string& big_digits() const { return *std::get_if<BigInt>(&data_)->digits; }
  const Text& text() const { return **std::get_if<std::shared_ptr<const Text>>(&data_); }
  std::string_view view() const { return text().view(); }
  const std::shared_ptr<const Text>& shared_text() const {
    return *std::get_if<std::shared_ptr<const Text>>(&data_);
  }
  const Sequence& sequence() const {
    return **std::get_if<std::shared_ptr<const Sequence>>(&data_);
  }
  const std::shared_ptr<const Sequence>& shared_sequence() const {
    return *std::get_if<std::shared_ptr<const Sequence>>(&data_);
  }
  const std::vector<Value>& items() const;
  const Dict& dict() const { return **std::get_if<std::shared_ptr<const Dict>>(&data_); }
  Native& native() const { return **std::get_if<std::shared_ptr<Native>>(&data_); }
  const std::shared_ptr<Native>& shared_native() const {
    return *std::get_if<std::shared_ptr<Native>>(&data_);
  }
  std::string UndefinedMessage() const;

  // Python's name of the type: "str", "NoneType", "Undefined".
  const char* TypeName() const;
  // How deep containers nest in it: 0 for a scalar.
  int depth() const;

 private:
  std::variant<Undefined, None, bool, int64_t, BigInt, double, std::shared_ptr<const Text>,
               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
               std::shared_ptr<Native>>
      data_;
};

// list, tuple, and the read-only views of dict and range.
struct Sequence {
  enum class Type : uint8_t { kList, kTuple, kRange, kKeys, kValues, kItems, kGroup };
  Type type = Type::kList;
  std::vector<Value> items;
  int64_t range_start = 0, range_stop = 0, range_step = 1;  // kRange, for its repr
  int depth = 1;                                            // set by Value(Sequence)

  bool is_tuple() const { return type == Type::kTuple || type == Type::kGroup; }
  bool is_view() const {
    return type == Type::kKeys || type == Type::kValues || type == Type::kItems;
  }
};

// An insertion-ordered dict. Keys are strings, numbers or None.
class Dict {
 public:
  using Item = std::pair<Value, Value>;

  static bool IsKey(const Value& key);

  const std::vector<Item>& items() const { return items_; }
  size_t size() const { return items_.size(); }
  // The value, or null. Valid until the next Set.
  const Value* Find(std::string_view key) const;
  const Value* Find(const Value& key) const;
  // Adds, or replaces in place; `key` must satisfy IsKey.
  void Set(Value key, Value value);
  int depth() const { return depth_; }

 private:
  static constexpr size_t kIndexedSize = 16;
  static constexpr size_t kNone = static_cast<size_t>(-1);

  size_t Position(std::string_view key) const;
  size_t Position(const Value& key) const;

  std::vector<Item> items_;
  // Position by string key; empty while there are few items. The views point into the keys' texts,
  // which are shared by copies of this dict and never move.
  absl::flat_hash_map<std::string_view, uint32_t> index_;
  int depth_ = 1;
};

// An object of the engine: functions, macros, bound methods, namespaces, iterators, `loop`.
class Native {
 public:
  virtual ~Native() = default;
  virtual const char* TypeName() const = 0;
  virtual std::string Repr() const;
  virtual bool IsCallable() const { return false; }
  virtual absl::StatusOr<Value> Call(Runtime& runtime, const CallArgs& args);
  // Sets `out` and returns true if there is such an attribute.
  virtual absl::StatusOr<bool> GetAttribute(Runtime& runtime, std::string_view name, Value& out) {
    return false;
  }
  virtual bool IsIterable() const { return false; }
  // The remaining items; an iterator is exhausted afterwards.
  virtual std::vector<Value> TakeItems() { return {}; }
  virtual int depth() const { return 0; }
  // Drops references to other values, to break cycles at the end of a rendering.
  virtual void Clear() {}
};

inline const std::vector<Value>& Value::items() const { return sequence().items; }

// A copy in which every string is untrusted, keys too.
Value MarkUntrusted(const Value& value);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_VALUE_H_
