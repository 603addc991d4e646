// The parsed template. Immutable after parsing, so any number of renderings may share it.
#ifndef RETICLE_TOKENIZER_JINJA_AST_H_
#define RETICLE_TOKENIZER_JINJA_AST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer/jinja/lexer.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;         // *args, or null
  ExprPtr double_star;  // **kwargs, or null
};

struct Expr {
  enum class Kind : uint8_t {
    kConstant,   // value
    kName,       // name_id
    kList,       // children
    kTuple,      // children
    kDict,       // children: key, value, key, value..
    kAttribute,  // children[0].value
    kItem,       // children[0][children[1]]
    kSlice,      // children[0][children[1]:children[2]:children[3]], null where left out
    kCall,       // children[0](arguments)
    kFilter,     // children[0] | builtin(arguments); children[0] is null in a filter block
    kTest,       // children[0] is builtin(arguments)
    kBinary,     // children[0] operators[0] children[1]
    kCompare,    // children[0] operators[0] children[1] operators[1] children[2]..
    kAnd,        // children[0] and children[1]
    kOr,
    kNot,          // not children[0]
    kNegate,       // -children[0]
    kPlus,         // +children[0]
    kConcatenate,  // children[0] ~ children[1] ~..
    kConditional,  // children[0] if children[1] else children[2], which may be null
  };

  Kind kind = Kind::kConstant;
  Position position;
  int depth = 1;              // of the tree below, counting this
  uint32_t name_id = 0;       // into Ast::names
  Value value;                // constant; name of the attribute, filter or test
  Builtin builtin = nullptr;  // null if there is no filter or test of that name
  std::vector<Operator> operators;
  std::vector<ExprPtr> children;
  std::unique_ptr<Arguments> arguments;  // null if there are none
};

// What a value is assigned to.
struct Target {
  enum class Kind : uint8_t { kName, kTuple, kNamespace };
  Kind kind = Kind::kName;
  Position position;
  uint32_t name_id = 0;       // of the variable or the namespace
  Value attribute;            // kNamespace
  std::vector<Target> items;  // kTuple
};

struct Stmt;
using Body = std::vector<Stmt>;

struct Parameter {
  uint32_t name_id = 0;
  ExprPtr default_value;  // or null
};

// A macro, or the body of a call block.
struct MacroDefinition {
  Value name;
  std::vector<Parameter> parameters;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
  Body body;
};

struct Stmt {
  enum class Kind : uint8_t {
    kText,         // text
    kPrint,        // expr
    kIf,           // branches: expr (null in else), body
    kFor,          // target in expr if filter: body, else_body
    kSet,          // target = expr
    kSetBlock,     // target = body, through expr (a filter) unless it is null
    kMacro,        // macro, bound to target
    kCall,         // expr, a call, with macro as its caller
    kFilterBlock,  // body through expr
    kWith,         // assignments, body
    kScope,        // body with variables of its own
    kBreak,
    kContinue,
  };

  Kind kind = Kind::kText;
  Position position;
  Value text;
  ExprPtr expr;
  ExprPtr filter;
  Target target;
  bool recursive = false;
  bool uses_loop = false;
  Body body;
  Body else_body;
  std::vector<std::pair<ExprPtr, Body>> branches;
  std::vector<std::pair<Target, ExprPtr>> assignments;
  std::unique_ptr<MacroDefinition> macro;
};

struct Ast {
  // Ids that every template has.
  static constexpr uint32_t kLoop = 0, kCaller = 1, kKwargs = 2, kVarargs = 3;

  Body body;
  std::vector<Value> names;  // by id
};

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_AST_H_
