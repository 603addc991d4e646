#include "tokenizer/jinja/interpreter.h"

#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "tokenizer/jinja/loop.h"
#include "tokenizer/jinja/namespace_object.h"

namespace reticle::tokenizer::jinja {
namespace {

class Macro final : public Native {
 public:
  Macro(Interpreter& interpreter, const MacroDefinition& definition, std::shared_ptr<Frame> frame)
      : interpreter_(interpreter), definition_(definition), frame_(std::move(frame)) {}

  const char* TypeName() const override { return "Macro"; }
  std::string Repr() const override {
    return absl::StrFormat("<Macro '%s'>", definition_.name.view());
  }
  bool IsCallable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const CallArgs& args) override {
    return interpreter_.CallMacro(definition_, frame_, args);
  }
  absl::StatusOr<bool> GetAttribute(Runtime& runtime, std::string_view name, Value& out) override {
    if (name != "name") return false;
    out = definition_.name;
    return true;
  }

 private:
  Interpreter& interpreter_;
  const MacroDefinition& definition_;
  const std::shared_ptr<Frame> frame_;
};

}  // namespace

class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) { ++interpreter_.depth_; }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

  absl::Status status() const {
    const int limit = interpreter_.limits().max_depth;
    if (interpreter_.depth_ <= limit) return absl::OkStatus();
    return ResourceExhaustedError("evaluation nests deeper than the limit of %d", limit);
  }

 private:
  Interpreter& interpreter_;
};

Interpreter::Interpreter(const Ast& ast, const Limits& limits, int64_t now_unix_s)
    : Runtime(limits, now_unix_s), ast_(ast), top_(ast.names.size()) {}

void Interpreter::SetGlobal(uint32_t name_id, Value value) {
  top_[name_id] = {true, std::move(value)};
}

absl::StatusOr<Text> Interpreter::Run() {
  Text out;
  out_ = &out;
  absl::Status status = Execute(ast_.body);
  if (status.ok()) return out;
  return absl::Status(status.code(),
                      absl::StrFormat("line %d: %s", error_line_, std::string(status.message())));
}

absl::Status Interpreter::Located(absl::Status status, Position position) {
  if (!status.ok() && error_line_ == 0) error_line_ = position.line;
  return status;
}

absl::Status Interpreter::Execute(const Body& body) {
  for (const Stmt& statement : body) {
    if (statement.kind == Stmt::Kind::kText) {
      RETURN_IF_ERROR(Located(Step(), statement.position));
      out_->Append(statement.text.text());
      RETURN_IF_ERROR(Located(CheckOutput(), statement.position));
      continue;
    }
    RETURN_IF_ERROR(Located(ExecuteOne(statement), statement.position));
    if (flow_ != Flow::kNormal) return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteOne(const Stmt& statement) {
  const Depth depth(*this);
  RETURN_IF_ERROR(depth.status());
  RETURN_IF_ERROR(Step());
  switch (statement.kind) {
    case Stmt::Kind::kText:
      return absl::OkStatus();
    case Stmt::Kind::kPrint: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expr));
      return Print(value);
    }
    case Stmt::Kind::kIf:
      return ExecuteIf(statement);
    case Stmt::Kind::kFor:
      return ExecuteFor(statement);
    case Stmt::Kind::kSet: {
      ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expr));
      return Assign(statement.target, std::move(value));
    }
    case Stmt::Kind::kSetBlock:
      return ExecuteSetBlock(statement);
    case Stmt::Kind::kMacro:
      return ExecuteMacro(statement);
    case Stmt::Kind::kCall:
      return ExecuteCall(statement);
    case Stmt::Kind::kFilterBlock:
      return ExecuteFilterBlock(statement);
    case Stmt::Kind::kWith:
      return ExecuteWith(statement);
    case Stmt::Kind::kScope:
      return ExecuteScope(statement.body);
    case Stmt::Kind::kBreak:
      flow_ = Flow::kBreak;
      return absl::OkStatus();
    case Stmt::Kind::kContinue:
      flow_ = Flow::kContinue;
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status Interpreter::CheckOutput() const {
  if (out_->size() <= limits().max_output_bytes) return absl::OkStatus();
  return ResourceExhaustedError("output is larger than the limit of %d bytes",
                                limits().max_output_bytes);
}

absl::Status Interpreter::Print(const Value& value) {
  RETURN_IF_ERROR(AppendString(value, *out_));
  return CheckOutput();
}

absl::Status Interpreter::ExecuteIf(const Stmt& statement) {
  for (const auto& [condition, body] : statement.branches) {
    if (condition != nullptr) {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*condition));
      if (!IsTrue(value)) continue;
    }
    return Execute(body);
  }
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteFor(const Stmt& statement) {
  ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.expr));
  return RunLoop(statement, iterable, 0);
}

absl::Status Interpreter::RunLoop(const Stmt& statement, const Value& iterable, int depth0) {
  ASSIGN_OR_RETURN(auto items, SharedItems(iterable));
  const std::shared_ptr<Frame> outer = frame_;
  RETURN_IF_ERROR(Allocate(sizeof(Loop)));
  const auto loop = std::make_shared<Loop>(*this, statement, outer, std::move(items), depth0);
  absl::Status status;
  // As in Jinja2, `else` also runs when every iteration was left by break or continue.
  bool completed = false;
  std::shared_ptr<Frame> frame;
  while (status.ok()) {
    Value item;
    const absl::StatusOr<bool> has_item = loop->Next(item);
    if (!has_item.ok()) status = has_item.status();
    if (!status.ok() || !*has_item) break;
    status = Step();
    if (!status.ok()) break;
    if (frame == nullptr || frame->kept || frame.use_count() > 2) {
      status = Allocate(sizeof(Frame));
      if (!status.ok()) break;
      frame = std::make_shared<Frame>(outer);
    } else {
      frame->variables.clear();
    }
    frame_ = frame;
    if (statement.uses_loop) SetVariable(Ast::kLoop, Value(std::shared_ptr<Native>(loop)));
    status = Assign(statement.target, std::move(item));
    if (status.ok()) status = Execute(statement.body);
    if (flow_ == Flow::kBreak) {
      flow_ = Flow::kNormal;
      break;
    }
    if (flow_ == Flow::kNormal) completed = true;
    flow_ = Flow::kNormal;
  }
  frame_ = outer;
  if (frame != nullptr && !frame->kept) frame->variables.clear();
  if (loop.use_count() > 1) Keep(loop);
  RETURN_IF_ERROR(status);
  return completed ? absl::OkStatus() : ExecuteScope(statement.else_body);
}

absl::StatusOr<Value> Interpreter::RecurseLoop(const Stmt& loop,
                                               const std::shared_ptr<Frame>& frame,
                                               const Value& iterable, int depth0) {
  const Depth depth(*this);
  RETURN_IF_ERROR(depth.status());
  Text out;
  Text* const outer_out = std::exchange(out_, &out);
  const std::shared_ptr<Frame> caller_frame = std::exchange(frame_, frame);
  absl::Status status = RunLoop(loop, iterable, depth0);
  frame_ = caller_frame;
  out_ = outer_out;
  RETURN_IF_ERROR(status);
  return String(std::move(out));
}

absl::StatusOr<bool> Interpreter::AcceptsItem(const Stmt& loop, const std::shared_ptr<Frame>& frame,
                                              const Value& item) {
  const std::shared_ptr<Frame> caller_frame = std::exchange(frame_, std::make_shared<Frame>(frame));
  absl::Status status = Assign(loop.target, item);
  absl::StatusOr<Value> accepted = Value();
  if (status.ok()) accepted = Evaluate(*loop.filter);
  frame_ = caller_frame;
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(accepted.status());
  return IsTrue(*accepted);
}

absl::Status Interpreter::ExecuteScope(const Body& body) {
  if (body.empty()) return absl::OkStatus();
  const std::shared_ptr<Frame> outer = frame_;
  frame_ = std::make_shared<Frame>(outer);
  absl::Status status = Execute(body);
  frame_ = outer;
  return status;
}

absl::StatusOr<Text> Interpreter::CaptureScope(const Body& body) {
  Text out;
  Text* const outer_out = std::exchange(out_, &out);
  absl::Status status = ExecuteScope(body);
  out_ = outer_out;
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(Allocate(out.size()));
  return out;
}

absl::Status Interpreter::ExecuteSetBlock(const Stmt& statement) {
  ASSIGN_OR_RETURN(Text text, CaptureScope(statement.body));
  if (flow_ != Flow::kNormal) return absl::OkStatus();
  Value value(std::move(text));
  if (statement.expr != nullptr) {
    filter_input_ = std::move(value);
    ASSIGN_OR_RETURN(value, Evaluate(*statement.expr));
  }
  return Assign(statement.target, std::move(value));
}

absl::Status Interpreter::ExecuteFilterBlock(const Stmt& statement) {
  ASSIGN_OR_RETURN(Text text, CaptureScope(statement.body));
  if (flow_ != Flow::kNormal) return absl::OkStatus();
  filter_input_ = Value(std::move(text));
  ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expr));
  return Print(value);
}

absl::Status Interpreter::ExecuteWith(const Stmt& statement) {
  const std::shared_ptr<Frame> outer = frame_;
  const auto frame = std::make_shared<Frame>(outer);
  // The values see the variables outside, not each other.
  for (const auto& [target, expr] : statement.assignments) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expr));
    frame->variables.emplace_back(target.name_id, std::move(value));
  }
  frame_ = frame;
  absl::Status status = Execute(statement.body);
  frame_ = outer;
  return status;
}

void Interpreter::KeepFrame() {
  if (frame_ == nullptr || frame_->kept) return;
  frame_->kept = true;
  Keep(frame_);
}

absl::Status Interpreter::ExecuteMacro(const Stmt& statement) {
  KeepFrame();
  RETURN_IF_ERROR(Allocate(sizeof(Macro)));
  SetVariable(statement.target.name_id,
              Value(std::make_shared<Macro>(*this, *statement.macro, frame_)));
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteCall(const Stmt& statement) {
  KeepFrame();
  RETURN_IF_ERROR(Allocate(sizeof(Macro)));
  CallArgs extra;
  extra.named.emplace_back("caller",
                           Value(std::make_shared<Macro>(*this, *statement.macro, frame_)));
  ASSIGN_OR_RETURN(const Value value, CallWith(*statement.expr, extra));
  return Print(value);
}

absl::StatusOr<Value> Interpreter::CallMacro(const MacroDefinition& macro,
                                             const std::shared_ptr<Frame>& definition_frame,
                                             const CallArgs& args) {
  const Depth depth(*this);
  RETURN_IF_ERROR(depth.status());
  RETURN_IF_ERROR(Allocate(sizeof(Frame)));
  const auto frame = std::make_shared<Frame>(definition_frame);
  Dict unused;
  std::vector<Value> extra;
  std::vector<bool> given(macro.parameters.size(), false);
  for (size_t i = 0; i < args.positional.size(); ++i) {
    if (i < macro.parameters.size()) {
      given[i] = true;
      frame->variables.emplace_back(macro.parameters[i].name_id, args.positional[i]);
    } else {
      extra.push_back(args.positional[i]);
    }
  }
  bool has_caller_parameter = false;
  for (const Parameter& parameter : macro.parameters) {
    has_caller_parameter |= parameter.name_id == Ast::kCaller;
  }
  for (const auto& [name, value] : args.named) {
    size_t i = 0;
    while (i < macro.parameters.size() &&
           (given[i] || ast_.names[macro.parameters[i].name_id].view() != name)) {
      ++i;
    }
    if (i < macro.parameters.size()) {
      given[i] = true;
      frame->variables.emplace_back(macro.parameters[i].name_id, value);
    } else if (name == "caller" && macro.uses_caller && !has_caller_parameter) {
      frame->variables.emplace_back(Ast::kCaller, value);
    } else if (macro.uses_kwargs) {
      unused.Set(Value(name), value);
    } else {
      return InvalidArgumentError("macro '%s' takes no keyword argument '%s'", macro.name.view(),
                                  name);
    }
  }
  if (!extra.empty() && !macro.uses_varargs) {
    return InvalidArgumentError("macro '%s' takes not more than %d argument(s)", macro.name.view(),
                                macro.parameters.size());
  }
  if (macro.uses_caller && !has_caller_parameter) {
    // Behind the one that was passed, if any: the last one set is found first.
    frame->variables.insert(frame->variables.begin(),
                            {Ast::kCaller, UndefinedHint("No caller defined")});
  }
  if (macro.uses_kwargs) {
    ASSIGN_OR_RETURN(Value kwargs, Object(std::move(unused)));
    frame->variables.emplace_back(Ast::kKwargs, std::move(kwargs));
  }
  if (macro.uses_varargs) {
    ASSIGN_OR_RETURN(Value varargs, Tuple(std::move(extra)));
    frame->variables.emplace_back(Ast::kVarargs, std::move(varargs));
  }

  const std::shared_ptr<Frame> caller_frame = std::exchange(frame_, frame);
  Text out;
  Text* const outer_out = std::exchange(out_, &out);
  absl::Status status;
  for (size_t i = 0; i < macro.parameters.size() && status.ok(); ++i) {
    if (given[i]) continue;
    const Parameter& parameter = macro.parameters[i];
    absl::StatusOr<Value> value = UndefinedHint("a parameter was not provided");
    if (parameter.default_value != nullptr) value = Evaluate(*parameter.default_value);
    status = value.status();
    if (status.ok()) SetVariable(parameter.name_id, *std::move(value));
  }
  if (status.ok()) status = Execute(macro.body);
  out_ = outer_out;
  frame_ = caller_frame;
  RETURN_IF_ERROR(status);
  return String(std::move(out));
}

absl::StatusOr<Value> Interpreter::Lookup(uint32_t name_id) {
  size_t scanned = 0;
  for (const Frame* frame = frame_.get(); frame != nullptr; frame = frame->parent.get()) {
    const auto& variables = frame->variables;
    scanned += variables.size();
    for (size_t i = variables.size(); i-- > 0;) {
      if (variables[i].first == name_id) return variables[i].second;
    }
  }
  if (scanned > 16) RETURN_IF_ERROR(Step(scanned / 16));
  const auto& [is_set, value] = top_[name_id];
  if (is_set) return value;
  return MakeUndefined(UndefinedInfo::Reason::kVariable, "", ast_.names[name_id]);
}

void Interpreter::SetVariable(uint32_t name_id, Value value) {
  if (frame_ == nullptr) {
    top_[name_id] = {true, std::move(value)};
    return;
  }
  for (auto& variable : frame_->variables) {
    if (variable.first == name_id) {
      variable.second = std::move(value);
      return;
    }
  }
  frame_->variables.emplace_back(name_id, std::move(value));
}

absl::Status Interpreter::Assign(const Target& target, Value value) {
  switch (target.kind) {
    case Target::Kind::kName:
      if (frame_ != nullptr) RETURN_IF_ERROR(Step(frame_->variables.size() / 16));
      SetVariable(target.name_id, std::move(value));
      return absl::OkStatus();
    case Target::Kind::kNamespace: {
      ASSIGN_OR_RETURN(const Value object, Lookup(target.name_id));
      auto* const space = object.is_native() ? dynamic_cast<Namespace*>(&object.native()) : nullptr;
      if (space == nullptr) {
        return InvalidArgumentError("cannot assign attribute on non-namespace object");
      }
      RETURN_IF_ERROR(Allocate(sizeof(Dict::Item)));
      space->Set(target.attribute, std::move(value));
      return absl::OkStatus();
    }
    case Target::Kind::kTuple: {
      ASSIGN_OR_RETURN(const auto items, SharedItems(value));
      if (items->items.size() != target.items.size()) {
        return InvalidArgumentError(
            "%s values to unpack (expected %d, got %d)",
            items->items.size() < target.items.size() ? "not enough" : "too many",
            target.items.size(), items->items.size());
      }
      for (size_t i = 0; i < target.items.size(); ++i) {
        RETURN_IF_ERROR(Assign(target.items[i], items->items[i]));
      }
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

}  // namespace reticle::tokenizer::jinja
