// Evaluates one parsed template once.
#ifndef RETICLE_TOKENIZER_JINJA_INTERPRETER_H_
#define RETICLE_TOKENIZER_JINJA_INTERPRETER_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer::jinja {

// The variables of one scope below the top level: of a loop's iteration, a macro's call, a `with`.
struct Frame final : public Native {
  explicit Frame(std::shared_ptr<Frame> parent_frame) : parent(std::move(parent_frame)) {}
  const char* TypeName() const override { return "frame"; }
  void Clear() override { variables.clear(); }

  const std::shared_ptr<Frame> parent;  // null below the top level
  absl::InlinedVector<std::pair<uint32_t, Value>, 4> variables;
  bool kept = false;  // a macro refers to it
};

class Interpreter final : public Runtime {
 public:
  // `ast` must outlive this.
  Interpreter(const Ast& ast, const Limits& limits, int64_t now_unix_s);

  // A variable of the top level; call before Run.
  void SetGlobal(uint32_t name_id, Value value);
  absl::StatusOr<Text> Run();

  // For macros and loops, which call back.
  absl::StatusOr<Value> CallMacro(const MacroDefinition& macro,
                                  const std::shared_ptr<Frame>& definition_frame,
                                  const CallArgs& args);
  absl::StatusOr<Value> RecurseLoop(const Stmt& loop, const std::shared_ptr<Frame>& frame,
                                    const Value& iterable, int depth0);
  absl::StatusOr<bool> AcceptsItem(const Stmt& loop, const std::shared_ptr<Frame>& frame,
                                   const Value& item);

 private:
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };
  // Counts nested evaluation, within the limit.
  class Depth;

  absl::Status Execute(const Body& body);
  absl::Status ExecuteOne(const Stmt& statement);
  absl::Status ExecuteIf(const Stmt& statement);
  absl::Status ExecuteFor(const Stmt& statement);
  absl::Status RunLoop(const Stmt& statement, const Value& iterable, int depth0);
  absl::Status ExecuteSetBlock(const Stmt& statement);
  absl::Status ExecuteMacro(const Stmt& statement);
  absl::Status ExecuteCall(const Stmt& statement);
  absl::Status ExecuteFilterBlock(const Stmt& statement);
  absl::Status ExecuteWith(const Stmt& statement);
  // Runs `body` with variables of its own.
  absl::Status ExecuteScope(const Body& body);
  // The same, into a text.
  absl::StatusOr<Text> CaptureScope(const Body& body);
  absl::Status Print(const Value& value);
  absl::Status CheckOutput() const;

  absl::StatusOr<Value> Evaluate(const Expr& expr);
  absl::StatusOr<Value> EvaluateNode(const Expr& expr);
  absl::StatusOr<Value> EvaluateList(const Expr& expr);
  absl::StatusOr<Value> EvaluateDict(const Expr& expr);
  absl::StatusOr<Value> EvaluateItem(const Expr& expr);
  absl::StatusOr<Value> EvaluateSlice(const Expr& expr);
  absl::StatusOr<Value> EvaluateCall(const Expr& expr);
  absl::StatusOr<Value> CallWith(const Expr& expr, const CallArgs& extra);
  absl::StatusOr<Value> EvaluateFilter(const Expr& expr);
  absl::StatusOr<Value> EvaluateTest(const Expr& expr);
  absl::StatusOr<Value> EvaluateBinary(const Expr& expr);
  absl::StatusOr<Value> EvaluateCompare(const Expr& expr);
  absl::StatusOr<Value> EvaluateConcatenate(const Expr& expr);
  absl::StatusOr<Value> EvaluateConditional(const Expr& expr);
  absl::Status EvaluateArguments(const Arguments* arguments, CallArgs& out);

  absl::StatusOr<Value> Lookup(uint32_t name_id);
  void SetVariable(uint32_t name_id, Value value);
  absl::Status Assign(const Target& target, Value value);
  // Called when something refers to the current frame beyond its statement.
  void KeepFrame();
  absl::Status Located(absl::Status status, Position position);

  const Ast& ast_;
  std::vector<std::pair<bool, Value>> top_;  // (is set, value) by name
  std::shared_ptr<Frame> frame_;             // null at the top level
  Text* out_ = nullptr;
  Value filter_input_;  // what the innermost filter of a filter block takes
  Flow flow_ = Flow::kNormal;
  int depth_ = 0;
  uint32_t error_line_ = 0;  // where the first error was seen, 0 if none
};

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_INTERPRETER_H_
