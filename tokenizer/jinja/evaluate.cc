// The expressions of the interpreter.

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/operators.h"

namespace reticle::tokenizer::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Expr& expr) {
  if (expr.kind == Expr::Kind::kConstant) return expr.value;
  absl::Status status = Step();
  if (status.ok() && ++depth_ > limits().max_depth) {
    status =
        ResourceExhaustedError("evaluation nests deeper than the limit of %d", limits().max_depth);
  }
  if (!status.ok()) return Located(std::move(status), expr.position);
  absl::StatusOr<Value> value = EvaluateNode(expr);
  --depth_;
  if (!value.ok() && error_line_ == 0) error_line_ = expr.position.line;
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const Expr& expr) {
  switch (expr.kind) {
    case Expr::Kind::kConstant:
      return expr.value;
    case Expr::Kind::kName:
      return Lookup(expr.name_id);
    case Expr::Kind::kList:
    case Expr::Kind::kTuple:
      return EvaluateList(expr);
    case Expr::Kind::kDict:
      return EvaluateDict(expr);
    case Expr::Kind::kAttribute: {
      ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.children[0]));
      return GetAttribute(object, expr.value);
    }
    case Expr::Kind::kItem:
      return EvaluateItem(expr);
    case Expr::Kind::kSlice:
      return EvaluateSlice(expr);
    case Expr::Kind::kCall:
      return EvaluateCall(expr);
    case Expr::Kind::kFilter:
      return EvaluateFilter(expr);
    case Expr::Kind::kTest:
      return EvaluateTest(expr);
    case Expr::Kind::kBinary:
      return EvaluateBinary(expr);
    case Expr::Kind::kCompare:
      return EvaluateCompare(expr);
    case Expr::Kind::kAnd:
    case Expr::Kind::kOr: {
      ASSIGN_OR_RETURN(Value left, Evaluate(*expr.children[0]));
      if (IsTrue(left) == (expr.kind == Expr::Kind::kOr)) return left;
      return Evaluate(*expr.children[1]);
    }
    case Expr::Kind::kNot: {
      ASSIGN_OR_RETURN(const Value operand, Evaluate(*expr.children[0]));
      return Value(!IsTrue(operand));
    }
    case Expr::Kind::kNegate:
    case Expr::Kind::kPlus: {
      ASSIGN_OR_RETURN(const Value operand, Evaluate(*expr.children[0]));
      return expr.kind == Expr::Kind::kNegate ? Negate(operand) : Plus(operand);
    }
    case Expr::Kind::kConcatenate:
      return EvaluateConcatenate(expr);
    case Expr::Kind::kConditional:
      return EvaluateConditional(expr);
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::EvaluateList(const Expr& expr) {
  std::vector<Value> items;
  items.reserve(expr.children.size());
  for (const ExprPtr& child : expr.children) {
    ASSIGN_OR_RETURN(Value item, Evaluate(*child));
    items.push_back(std::move(item));
  }
  return List(std::move(items),
              expr.kind == Expr::Kind::kTuple ? Sequence::Type::kTuple : Sequence::Type::kList);
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i < expr.children.size(); i += 2) {
    ASSIGN_OR_RETURN(Value key, Evaluate(*expr.children[i]));
    ASSIGN_OR_RETURN(Value value, Evaluate(*expr.children[i + 1]));
    if (!Dict::IsKey(key)) {
      return InvalidArgumentError("unhashable type for a key: '%s'", key.TypeName());
    }
    if (!key.is_string()) RETURN_IF_ERROR(Step(dict.size() / 16));
    dict.Set(std::move(key), std::move(value));
  }
  return Object(std::move(dict));
}

absl::StatusOr<Value> Interpreter::EvaluateItem(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.children[0]));
  ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.children[1]));
  return GetItem(object, key);
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.children[0]));
  Value bounds[3] = {Value::None{}, Value::None{}, Value::None{}};
  for (size_t i = 0; i < 3; ++i) {
    if (expr.children[i + 1] == nullptr) continue;
    ASSIGN_OR_RETURN(bounds[i], Evaluate(*expr.children[i + 1]));
  }
  return Slice(object, bounds[0], bounds[1], bounds[2]);
}

absl::Status Interpreter::EvaluateArguments(const Arguments* arguments, CallArgs& out) {
  if (arguments == nullptr) return absl::OkStatus();
  for (const ExprPtr& child : arguments->positional) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*child));
    out.positional.push_back(std::move(value));
  }
  for (const auto& [name, child] : arguments->named) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*child));
    out.named.emplace_back(name, std::move(value));
  }
  if (arguments->star != nullptr) {
    ASSIGN_OR_RETURN(const Value star, Evaluate(*arguments->star));
    ASSIGN_OR_RETURN(const auto items, SharedItems(star));
    RETURN_IF_ERROR(Allocate(items->items.size() * sizeof(Value)));
    out.positional.insert(out.positional.end(), items->items.begin(), items->items.end());
  }
  if (arguments->double_star != nullptr) {
    ASSIGN_OR_RETURN(const Value named, Evaluate(*arguments->double_star));
    if (!named.is_dict()) {
      return InvalidArgumentError("argument after ** must be a mapping, not %s", named.TypeName());
    }
    RETURN_IF_ERROR(Allocate(named.dict().size() * sizeof(Dict::Item)));
    for (const auto& [key, value] : named.dict().items()) {
      if (!key.is_string()) return InvalidArgumentError("keywords must be strings");
      out.named.emplace_back(key.text().str(), value);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expr& expr) {
  return CallWith(expr, CallArgs());
}

absl::StatusOr<Value> Interpreter::CallWith(const Expr& expr, const CallArgs& extra) {
  const Expr& callee = *expr.children[0];
  // A method of a string or container is called without making an object for it.
  Builtin method = nullptr;
  Value target;
  if (callee.kind == Expr::Kind::kAttribute) {
    ASSIGN_OR_RETURN(target, Evaluate(*callee.children[0]));
    if (!target.is_undefined() && !target.is_native()) {
      bool unsafe = false;
      method = FindMethod(target, callee.value.view(), &unsafe);
    }
    if (method == nullptr) {
      ASSIGN_OR_RETURN(target, GetAttribute(target, callee.value));
    }
  } else {
    ASSIGN_OR_RETURN(target, Evaluate(callee));
  }
  CallArgs args;
  RETURN_IF_ERROR(EvaluateArguments(expr.arguments.get(), args));
  args.named.insert(args.named.end(), extra.named.begin(), extra.named.end());
  return method != nullptr ? method(*this, target, args) : Call(target, args);
}

absl::StatusOr<Value> Interpreter::EvaluateFilter(const Expr& expr) {
  Value input;
  if (expr.children[0] == nullptr) {
    input = std::exchange(filter_input_, Value());
  } else {
    ASSIGN_OR_RETURN(input, Evaluate(*expr.children[0]));
  }
  if (expr.builtin == nullptr) {
    return InvalidArgumentError("No filter named '%s'.", expr.value.view());
  }
  CallArgs args;
  RETURN_IF_ERROR(EvaluateArguments(expr.arguments.get(), args));
  return expr.builtin(*this, input, args);
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value input, Evaluate(*expr.children[0]));
  if (expr.builtin == nullptr) {
    return InvalidArgumentError("No test named '%s'.", expr.value.view());
  }
  CallArgs args;
  RETURN_IF_ERROR(EvaluateArguments(expr.arguments.get(), args));
  return expr.builtin(*this, input, args);
}

absl::StatusOr<Value> Interpreter::EvaluateBinary(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value left, Evaluate(*expr.children[0]));
  ASSIGN_OR_RETURN(const Value right, Evaluate(*expr.children[1]));
  return Arithmetic(*this, expr.operators[0], left, right);
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expr& expr) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*expr.children[0]));
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Evaluate(*expr.children[i + 1]));
    ASSIGN_OR_RETURN(const bool holds, Compare(*this, expr.operators[i], left, right));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Value> Interpreter::EvaluateConcatenate(const Expr& expr) {
  Text out;
  for (const ExprPtr& child : expr.children) {
    ASSIGN_OR_RETURN(const Value value, Evaluate(*child));
    RETURN_IF_ERROR(AppendString(value, out));
  }
  return Value(std::move(out));
}

absl::StatusOr<Value> Interpreter::EvaluateConditional(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value condition, Evaluate(*expr.children[1]));
  if (IsTrue(condition)) return Evaluate(*expr.children[0]);
  if (expr.children[2] != nullptr) return Evaluate(*expr.children[2]);
  return UndefinedHint(
      "the inline if-expression evaluated to false and no else section was defined.");
}

}  // namespace reticle::tokenizer::jinja
