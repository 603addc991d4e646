// The variable `loop` of a for statement, and the iteration behind it.
#ifndef RETICLE_TOKENIZER_JINJA_LOOP_H_
#define RETICLE_TOKENIZER_JINJA_LOOP_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer::jinja {

// Items are drawn one at a time, so that the condition of `for .. if` sees what the body has done;
// loop.last looks one item ahead and loop.length draws all, as in Jinja2.
class Loop final : public Native, public std::enable_shared_from_this<Loop> {
 public:
  Loop(Interpreter& interpreter, const Stmt& statement, std::shared_ptr<Frame> frame,
       std::shared_ptr<const Sequence> items, int depth0)
      : interpreter_(interpreter),
        statement_(statement),
        frame_(std::move(frame)),
        items_(std::move(items)),
        filtered_(statement.filter != nullptr),
        depth0_(depth0) {}

  // Sets `item` to the next one; false at the end.
  absl::StatusOr<bool> Next(Value& item);

  const char* TypeName() const override { return "LoopContext"; }
  bool IsCallable() const override { return true; }
  // Renders the loop's body over other items (`recursive`).
  absl::StatusOr<Value> Call(Runtime& runtime, const CallArgs& args) override;
  absl::StatusOr<bool> GetAttribute(Runtime& runtime, std::string_view name, Value& out) override;
  int depth() const override { return items_->depth + 1; }
  void Clear() override;

  absl::StatusOr<Value> Cycle(const CallArgs& args) const;
  absl::StatusOr<Value> Changed(const CallArgs& args);

 private:
  absl::StatusOr<bool> Draw(Value& item);
  absl::StatusOr<bool> Peek();
  absl::StatusOr<int64_t> CountItems();

  Interpreter& interpreter_;
  const Stmt& statement_;
  std::shared_ptr<Frame> frame_;  // around the loop
  std::shared_ptr<const Sequence> items_;
  size_t drawn_ = 0;
  bool filtered_;
  bool has_after_ = false;
  Value after_;
  int64_t index0_ = -1;
  int64_t length_ = -1;
  Value current_, before_;
  const int depth0_;
  bool has_changed_value_ = false;
  std::vector<Value> changed_value_;
};

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_LOOP_H_
