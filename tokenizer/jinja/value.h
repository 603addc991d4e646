// The dynamic value of the template engine: none, undefined, bool, int, float, string, list, object
// (insertion-ordered). Cheap to copy: strings, lists and objects are shared. Not thread-safe while
// it is changed.
#ifndef RETICLE_TOKENIZER_JINJA_VALUE_H_
#define RETICLE_TOKENIZER_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace reticle::tokenizer::jinja {

class Value {
 public:
  using List = std::vector<Value>;
  using Object = std::vector<std::pair<std::string, Value>>;  // in insertion order

  struct Undefined {};
  struct None {};

  Value() : data_(Undefined{}) {}
  Value(None) : data_(None{}) {}          // NOLINT(google-explicit-constructor)
  Value(bool value) : data_(value) {}     // NOLINT(google-explicit-constructor)
  Value(int64_t value) : data_(value) {}  // NOLINT(google-explicit-constructor)
  Value(double value) : data_(value) {}   // NOLINT(google-explicit-constructor)
  Value(std::string value)                // NOLINT(google-explicit-constructor)
      : data_(std::make_shared<const std::string>(std::move(value))) {}
  Value(const char* value) : Value(std::string(value)) {}  // NOLINT(google-explicit-constructor)
  Value(List value) : data_(std::make_shared<List>(std::move(value))) {}      // NOLINT
  Value(Object value) : data_(std::make_shared<Object>(std::move(value))) {}  // NOLINT

  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                   std::shared_ptr<List>, std::shared_ptr<Object>>;
  const Data& data() const { return data_; }

 private:
  Data data_;
};

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_VALUE_H_
