// namespace(): the one value that a template can change.
#ifndef RETICLE_TOKENIZER_JINJA_NAMESPACE_OBJECT_H_
#define RETICLE_TOKENIZER_JINJA_NAMESPACE_OBJECT_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer::jinja {

class Namespace final : public Native {
 public:
  explicit Namespace(Dict attributes) : attributes_(std::move(attributes)) {}
  const char* TypeName() const override { return "Namespace"; }
  absl::StatusOr<bool> GetAttribute(Runtime& runtime, std::string_view name, Value& out) override {
    const Value* found = attributes_.Find(name);
    if (found == nullptr) return false;
    out = *found;
    return true;
  }
  void Set(const Value& name, Value value) { attributes_.Set(name, std::move(value)); }
  void Clear() override { attributes_ = Dict(); }

 private:
  Dict attributes_;
};

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_NAMESPACE_OBJECT_H_
