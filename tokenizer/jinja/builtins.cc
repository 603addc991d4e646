// The tables of filters, tests and global functions.

#include <algorithm>
#include <iterator>
#include <memory>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/is_tests.h"
#include "tokenizer/jinja/namespace_object.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/strftime.h"

namespace reticle::tokenizer::jinja {
namespace {

struct Entry {
  std::string_view name;
  Builtin function;
};

// Sorted by name.
constexpr Entry kFilters[] = {
    {"abs", filters::Abs},
    {"attr", filters::Attr},
    {"batch", filters::Batch},
    {"capitalize", filters::Capitalize},
    {"center", filters::Center},
    {"count", filters::Length},
    {"d", filters::Default},
    {"default", filters::Default},
    {"dictsort", filters::DictSort},
    {"e", filters::Escape},
    {"escape", filters::Escape},
    {"first", filters::First},
    {"float", filters::Float},
    {"forceescape", filters::ForceEscape},
    {"format", filters::Format},
    {"groupby", filters::GroupBy},
    {"indent", filters::Indent},
    {"int", filters::Int},
    {"items", filters::Items},
    {"join", filters::Join},
    {"last", filters::Last},
    {"length", filters::Length},
    {"list", filters::List},
    {"lower", filters::Lower},
    {"map", filters::Map},
    {"max", filters::Max},
    {"min", filters::Min},
    {"reject", filters::Reject},
    {"rejectattr", filters::RejectAttr},
    {"replace", filters::Replace},
    {"reverse", filters::Reverse},
    {"round", filters::Round},
    {"safe", filters::Safe},
    {"select", filters::Select},
    {"selectattr", filters::SelectAttr},
    {"slice", filters::Slice},
    {"sort", filters::Sort},
    {"string", filters::String},
    {"sum", filters::Sum},
    {"title", filters::Title},
    {"tojson", filters::ToJson},
    {"trim", filters::Trim},
    {"truncate", filters::Truncate},
    {"unique", filters::Unique},
    {"upper", filters::Upper},
    {"wordcount", filters::WordCount},
};

constexpr Entry kTests[] = {
    {"!=", is_tests::NotEqual},
    {"<", is_tests::Less},
    {"<=", is_tests::LessEqual},
    {"==", is_tests::Equal},
    {">", is_tests::Greater},
    {">=", is_tests::GreaterEqual},
    {"boolean", is_tests::Boolean},
    {"callable", is_tests::Callable},
    {"defined", is_tests::Defined},
    {"divisibleby", is_tests::DivisibleBy},
    {"eq", is_tests::Equal},
    {"equalto", is_tests::Equal},
    {"escaped", is_tests::Escaped},
    {"even", is_tests::Even},
    {"false", is_tests::False},
    {"filter", is_tests::Filter},
    {"float", is_tests::Float},
    {"ge", is_tests::GreaterEqual},
    {"greaterthan", is_tests::Greater},
    {"gt", is_tests::Greater},
    {"in", is_tests::In},
    {"integer", is_tests::Integer},
    {"iterable", is_tests::Iterable},
    {"le", is_tests::LessEqual},
    {"lessthan", is_tests::Less},
    {"lower", is_tests::Lower},
    {"lt", is_tests::Less},
    {"mapping", is_tests::Mapping},
    {"ne", is_tests::NotEqual},
    {"none", is_tests::None},
    {"number", is_tests::Number},
    {"odd", is_tests::Odd},
    {"sameas", is_tests::SameAs},
    {"sequence", is_tests::Sequence},
    {"string", is_tests::String},
    {"test", is_tests::Test},
    {"true", is_tests::True},
    {"undefined", is_tests::Undefined},
    {"upper", is_tests::Upper},
};

template <size_t N>
Builtin Find(const Entry (&table)[N], std::string_view name) {
  const auto* const found =
      std::lower_bound(std::begin(table), std::end(table), name,
                       [](const Entry& entry, std::string_view key) { return entry.name < key; });
  return found != std::end(table) && found->name == name ? found->function : nullptr;
}

absl::StatusOr<Value> Range(Runtime& runtime, const Value&, const CallArgs& args) {
  constexpr uint64_t kMaxSize = 100'000;
  if (!args.named.empty() || args.positional.empty() || args.positional.size() > 3) {
    return InvalidArgumentError("range expected 1 to 3 positional arguments, got %d",
                                args.positional.size());
  }
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < args.positional.size(); ++i) {
    ASSIGN_OR_RETURN(bounds[i], IntegerArgument(args.positional[i], "an argument of range"));
  }
  if (args.positional.size() == 1) std::swap(bounds[0], bounds[1]);
  const auto [start, stop, step] = std::tie(bounds[0], bounds[1], bounds[2]);
  if (step == 0) return InvalidArgumentError("range() arg 3 must not be zero");
  uint64_t size = 0;
  const auto unsigned_start = static_cast<uint64_t>(start);
  const auto unsigned_stop = static_cast<uint64_t>(stop);
  if (step > 0 && start < stop) {
    size = (unsigned_stop - unsigned_start - 1) / static_cast<uint64_t>(step) + 1;
  } else if (step < 0 && start > stop) {
    size = (unsigned_start - unsigned_stop - 1) / (uint64_t{0} - static_cast<uint64_t>(step)) + 1;
  }
  if (size > kMaxSize) {
    return OutOfRangeError("range has %d items; the limit is %d", size, kMaxSize);
  }
  RETURN_IF_ERROR(runtime.Allocate(size * sizeof(Value)));
  Sequence range{Sequence::Type::kRange, {}, start, stop, step};
  range.items.reserve(size);
  for (uint64_t i = 0; i < size; ++i) {
    range.items.emplace_back(
        static_cast<int64_t>(unsigned_start + i * static_cast<uint64_t>(step)));
  }
  return Value(std::move(range));
}

// dict(mapping or pairs, name=value..), also for namespace().
absl::StatusOr<Dict> BuildDict(Runtime& runtime, const char* name, const CallArgs& args) {
  Dict dict;
  if (args.positional.size() > 1) {
    return InvalidArgumentError("%s expected at most 1 argument, got %d", name,
                                args.positional.size());
  }
  if (!args.positional.empty() && args.positional[0].is_dict()) {
    dict = args.positional[0].dict();
  } else if (!args.positional.empty()) {
    ASSIGN_OR_RETURN(const auto pairs, runtime.SharedItems(args.positional[0]));
    for (const Value& pair : pairs->items) {
      ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(pair));
      if (items->items.size() != 2 || !Dict::IsKey(items->items[0])) {
        return InvalidArgumentError("%s needs pairs of a key and a value", name);
      }
      if (!items->items[0].is_string()) RETURN_IF_ERROR(runtime.Step(dict.size() / 16));
      dict.Set(items->items[0], items->items[1]);
    }
  }
  for (const auto& [key, value] : args.named) dict.Set(Value(key), value);
  RETURN_IF_ERROR(runtime.Allocate(dict.size() * sizeof(Dict::Item)));
  return dict;
}

absl::StatusOr<Value> MakeDict(Runtime& runtime, const Value&, const CallArgs& args) {
  ASSIGN_OR_RETURN(Dict dict, BuildDict(runtime, "dict", args));
  return runtime.Object(std::move(dict));
}

absl::StatusOr<Value> MakeNamespace(Runtime& runtime, const Value&, const CallArgs& args) {
  ASSIGN_OR_RETURN(Dict dict, BuildDict(runtime, "namespace", args));
  RETURN_IF_ERROR(runtime.Allocate(sizeof(Namespace)));
  auto object = std::make_shared<Namespace>(std::move(dict));
  runtime.Keep(object);
  return Value(std::shared_ptr<Native>(std::move(object)));
}

absl::StatusOr<Value> RaiseException(Runtime& runtime, const Value&, const CallArgs& args) {
  static constexpr const char* kNames[] = {"message"};
  ASSIGN_OR_RETURN(const auto bound, Bind("raise_exception", args, kNames, 1));
  ASSIGN_OR_RETURN(const Text message, runtime.ToText(*bound[0]));
  return InvalidArgumentError("%s", message.view());
}

absl::StatusOr<Value> StrftimeNow(Runtime& runtime, const Value&, const CallArgs& args) {
  static constexpr const char* kNames[] = {"format"};
  ASSIGN_OR_RETURN(const auto bound, Bind("strftime_now", args, kNames, 1));
  ASSIGN_OR_RETURN(const Text* format, StringArgument(*bound[0], "format"));
  RETURN_IF_ERROR(runtime.Allocate(format->size() * 8));
  return runtime.String(FormatTime(format->view(), runtime.now_unix_s()), format->has_untrusted());
}

class Joiner final : public Native {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  const char* TypeName() const override { return "Joiner"; }
  bool IsCallable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime&, const CallArgs& args) override {
    RETURN_IF_ERROR(ExpectNoArguments("joiner", args));
    return std::exchange(used_, true) ? separator_ : Value("");
  }
  int depth() const override { return separator_.depth() + 1; }

 private:
  const Value separator_;
  bool used_ = false;
};

absl::StatusOr<Value> MakeJoiner(Runtime& runtime, const Value&, const CallArgs& args) {
  static constexpr const char* kNames[] = {"sep"};
  ASSIGN_OR_RETURN(const auto bound, Bind("joiner", args, kNames));
  RETURN_IF_ERROR(runtime.Allocate(sizeof(Joiner)));
  return Value(std::make_shared<Joiner>(bound[0] != nullptr ? *bound[0] : Value(", ")));
}

class Cycler final : public Native {
 public:
  explicit Cycler(Value items) : items_(std::move(items)) {}
  const char* TypeName() const override { return "Cycler"; }
  absl::StatusOr<bool> GetAttribute(Runtime& runtime, std::string_view name, Value& out) override {
    if (name == "current") {
      out = items_.items()[position_];
    } else if (name == "next" || name == "reset") {
      out = Value(std::make_shared<Step>(self_.lock(), name == "next"));
    } else {
      return false;
    }
    return true;
  }
  int depth() const override { return items_.depth() + 1; }

  static Value Make(Value items) {
    auto cycler = std::make_shared<Cycler>(std::move(items));
    cycler->self_ = cycler;
    return Value(std::shared_ptr<Native>(std::move(cycler)));
  }

 private:
  class Step final : public Native {
   public:
    Step(std::shared_ptr<Cycler> cycler, bool advances)
        : cycler_(std::move(cycler)), advances_(advances) {}
    const char* TypeName() const override { return "method"; }
    bool IsCallable() const override { return true; }
    absl::StatusOr<Value> Call(Runtime&, const CallArgs& args) override {
      RETURN_IF_ERROR(ExpectNoArguments(advances_ ? "next" : "reset", args));
      const auto& items = cycler_->items_.items();
      if (!advances_) {
        cycler_->position_ = 0;
        return Value(Value::None{});
      }
      const size_t current =
          std::exchange(cycler_->position_, (cycler_->position_ + 1) % items.size());
      return items[current];
    }
    int depth() const override { return cycler_->depth() + 1; }

   private:
    const std::shared_ptr<Cycler> cycler_;
    const bool advances_;
  };

  const Value items_;
  size_t position_ = 0;
  std::weak_ptr<Cycler> self_;
};

absl::StatusOr<Value> MakeCycler(Runtime& runtime, const Value&, const CallArgs& args) {
  if (args.positional.empty() || !args.named.empty()) {
    return InvalidArgumentError("at least one item has to be provided");
  }
  RETURN_IF_ERROR(runtime.Allocate(sizeof(Cycler)));
  ASSIGN_OR_RETURN(Value items, runtime.Tuple(std::vector<Value>(args.positional.begin(),
                                                                 args.positional.end())));
  return Cycler::Make(std::move(items));
}

}  // namespace

Builtin FindFilter(std::string_view name) { return Find(kFilters, name); }

Builtin FindTest(std::string_view name) { return Find(kTests, name); }

std::vector<std::pair<const char*, Value>> Globals() {
  std::vector<std::pair<const char*, Value>> globals;
  const auto add = [&globals](const char* name, Builtin function) {
    globals.emplace_back(name, MakeFunction(name, function));
  };
  add("cycler", MakeCycler);
  add("dict", MakeDict);
  add("joiner", MakeJoiner);
  add("namespace", MakeNamespace);
  add("raise_exception", RaiseException);
  add("range", Range);
  add("strftime_now", StrftimeNow);
  return globals;
}

}  // namespace reticle::tokenizer::jinja
