// What one rendering shares between the evaluator and the built-in functions: the budget, and
// Python's rules for truth, equality, order, iteration and conversion to text.
//
// A rendering belongs to one thread.
#ifndef RETICLE_TOKENIZER_JINJA_RUNTIME_H_
#define RETICLE_TOKENIZER_JINJA_RUNTIME_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer::jinja {

// Each passed limit ends the rendering with RESOURCE_EXHAUSTED.
struct Limits {
  // Evaluated nodes, plus one for every 64 bytes that a built-in reads.
  uint64_t max_steps = 4'000'000;
  // All memory that values asked for during the rendering, freed or not, bytes.
  size_t max_allocated_bytes = size_t{256} << 20;
  size_t max_output_bytes = size_t{32} << 20;
  // Nested evaluations: what bounds the stack. Ten or so for each level of macro recursion.
  int max_depth = 800;
};

struct CallArgs {
  absl::InlinedVector<Value, 4> positional;
  std::vector<std::pair<std::string, Value>> named;

  bool empty() const { return positional.empty() && named.empty(); }
};

class Runtime {
 public:
  // Containers may not nest deeper, whoever made them.
  static constexpr int kMaxValueDepth = 200;

  Runtime(const Limits& limits, int64_t now_unix_s) : limits_(limits), now_unix_s_(now_unix_s) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime();

  const Limits& limits() const { return limits_; }
  int64_t now_unix_s() const { return now_unix_s_; }
  uint64_t steps() const { return steps_; }

  absl::Status Step(uint64_t count = 1) {
    steps_ += count;
    return steps_ > limits_.max_steps ? StepsExhausted() : absl::OkStatus();
  }
  // Accounts for reading `bytes` bytes.
  absl::Status Read(size_t bytes) { return Step(bytes / 64); }
  // Accounts for memory before it is taken.
  absl::Status Allocate(size_t bytes) {
    allocated_ += bytes;
    return allocated_ > limits_.max_allocated_bytes || bytes > limits_.max_allocated_bytes
               ? MemoryExhausted()
               : absl::OkStatus();
  }

  // Values whose memory is accounted for; containers that nest too deep are refused.
  absl::StatusOr<Value> String(Text text);
  absl::StatusOr<Value> String(std::string text, bool untrusted);
  absl::StatusOr<Value> List(std::vector<Value> items, Sequence::Type type = Sequence::Type::kList);
  absl::StatusOr<Value> Tuple(std::vector<Value> items) {
    return List(std::move(items), Sequence::Type::kTuple);
  }
  absl::StatusOr<Value> Object(Dict dict);
  // A generator over `items`: it can be read once.
  absl::StatusOr<Value> Iterator(std::vector<Value> items, const char* type_name = "generator");

  // Holds an object that may be part of a cycle, and clears it when the rendering ends.
  void Keep(std::shared_ptr<Native> object) { kept_.push_back(std::move(object)); }

  static bool IsTrue(const Value& value);
  absl::StatusOr<bool> Equal(const Value& a, const Value& b);
  // Python's <; a type error for values without an order. `op` is for its message.
  absl::StatusOr<bool> Less(const Value& a, const Value& b, const char* op = "<");
  // Python's `needle in haystack`.
  absl::StatusOr<bool> Contains(const Value& haystack, const Value& needle);
  // Python's len().
  absl::StatusOr<int64_t> Length(const Value& value);
  // The items of anything that can be iterated over, as Python's list().
  absl::StatusOr<std::vector<Value>> Items(const Value& value);
  // The same without a copy where there is a sequence already.
  absl::StatusOr<std::shared_ptr<const Sequence>> SharedItems(const Value& value);

  // Python's str() and repr(), appended to `out`.
  absl::Status AppendString(const Value& value, Text& out);
  absl::StatusOr<Text> ToText(const Value& value);
  absl::Status AppendRepr(const Value& value, Text& out);

  // obj.name, obj[key], obj[start:stop:step], with Jinja's fall-backs between the first two.
  absl::StatusOr<Value> GetAttribute(const Value& object, const Value& name);
  absl::StatusOr<Value> GetItem(const Value& object, const Value& key);
  absl::StatusOr<Value> Slice(const Value& object, const Value& start, const Value& stop,
                              const Value& step);
  absl::StatusOr<Value> Call(const Value& callee, const CallArgs& args);

  static Value MakeUndefined(UndefinedInfo::Reason reason, const char* of, const Value& name);
  static Value UndefinedHint(const char* hint);

 private:
  absl::Status StepsExhausted() const;
  absl::Status MemoryExhausted() const;
  absl::StatusOr<bool> EqualDicts(const Dict& a, const Dict& b);

  const Limits limits_;
  const int64_t now_unix_s_;
  uint64_t steps_ = 0;
  size_t allocated_ = 0;
  std::vector<std::shared_ptr<Native>> kept_;
};

// A built-in: a filter (`self` is what it is applied to), a test, a method or a global function
// (`self` is undefined).
using Builtin = absl::StatusOr<Value> (*)(Runtime& runtime, const Value& self,
                                          const CallArgs& args);

// The built-ins by name, or null.
Builtin FindFilter(std::string_view name);
Builtin FindTest(std::string_view name);
// Methods of str, list, tuple and dict. `*unsafe` is set if there is one that the sandbox forbids.
Builtin FindMethod(const Value& object, std::string_view name, bool* unsafe);
// range, dict, namespace and so on: all that templates find without being given it.
std::vector<std::pair<const char*, Value>> Globals();

// A callable for a built-in; `self` is bound.
Value MakeFunction(std::string name, Builtin function, Value self = Value());

// Binds arguments to parameters as Python does; those not given are null. The first `required` ones
// must be given.
absl::Status BindArguments(std::string_view function, const CallArgs& args,
                           const char* const* names, size_t count, size_t required,
                           const Value** out);

template <size_t N>
absl::StatusOr<std::array<const Value*, N>> Bind(std::string_view function, const CallArgs& args,
                                                 const char* const (&names)[N],
                                                 size_t required = 0) {
  std::array<const Value*, N> bound;
  absl::Status status = BindArguments(function, args, names, N, required, bound.data());
  if (!status.ok()) return status;
  return bound;
}

// An error unless no arguments were given.
absl::Status ExpectNoArguments(std::string_view function, const CallArgs& args);
// The integer value of an argument, or a type error that names it.
absl::StatusOr<int64_t> IntegerArgument(const Value& value, std::string_view what);
absl::StatusOr<const Text*> StringArgument(const Value& value, std::string_view what);
// The error of using an undefined value.
absl::Status UndefinedError(const Value& value);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_RUNTIME_H_
