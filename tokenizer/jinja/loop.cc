#include "tokenizer/jinja/loop.h"

#include <utility>

#include "base/status.h"

namespace reticle::tokenizer::jinja {
namespace {

absl::StatusOr<Value> CycleMethod(Runtime& runtime, const Value& self, const CallArgs& args) {
  return static_cast<Loop&>(self.native()).Cycle(args);
}

absl::StatusOr<Value> ChangedMethod(Runtime& runtime, const Value& self, const CallArgs& args) {
  return static_cast<Loop&>(self.native()).Changed(args);
}

}  // namespace

absl::StatusOr<bool> Loop::Draw(Value& item) {
  while (drawn_ < items_->items.size()) {
    const Value& candidate = items_->items[drawn_++];
    if (filtered_) {
      ASSIGN_OR_RETURN(const bool accepted,
                       interpreter_.AcceptsItem(statement_, frame_, candidate));
      if (!accepted) continue;
    }
    item = candidate;
    return true;
  }
  return false;
}

absl::StatusOr<bool> Loop::Peek() {
  if (!has_after_) {
    ASSIGN_OR_RETURN(has_after_, Draw(after_));
  }
  return has_after_;
}

absl::StatusOr<bool> Loop::Next(Value& item) {
  if (has_after_) {
    item = std::exchange(after_, Value());
    has_after_ = false;
  } else {
    ASSIGN_OR_RETURN(const bool drawn, Draw(item));
    if (!drawn) return false;
  }
  ++index0_;
  before_ = std::exchange(current_, item);
  return true;
}

absl::StatusOr<int64_t> Loop::CountItems() {
  if (length_ >= 0) return length_;
  if (!filtered_) {
    length_ = static_cast<int64_t>(items_->items.size());
    return length_;
  }
  auto rest = std::make_shared<Sequence>();
  Value item;
  for (;;) {
    ASSIGN_OR_RETURN(const bool drawn, Draw(item));
    if (!drawn) break;
    rest->items.push_back(item);
  }
  rest->depth = items_->depth;
  length_ = static_cast<int64_t>(rest->items.size()) + index0_ + 1 + (has_after_ ? 1 : 0);
  items_ = std::move(rest);
  drawn_ = 0;
  filtered_ = false;
  return length_;
}

absl::StatusOr<bool> Loop::GetAttribute(Runtime& runtime, std::string_view name, Value& out) {
  if (name == "index0") {
    out = index0_;
  } else if (name == "index") {
    out = index0_ + 1;
  } else if (name == "first") {
    out = index0_ == 0;
  } else if (name == "last") {
    ASSIGN_OR_RETURN(const bool more, Peek());
    out = !more;
  } else if (name == "length" || name == "revindex" || name == "revindex0") {
    ASSIGN_OR_RETURN(const int64_t length, CountItems());
    out = name == "length" ? length : name == "revindex" ? length - index0_ : length - index0_ - 1;
  } else if (name == "previtem") {
    out = index0_ == 0 ? Runtime::UndefinedHint("there is no previous item") : before_;
  } else if (name == "nextitem") {
    ASSIGN_OR_RETURN(const bool more, Peek());
    out = more ? after_ : Runtime::UndefinedHint("there is no next item");
  } else if (name == "depth0") {
    out = int64_t{depth0_};
  } else if (name == "depth") {
    out = int64_t{depth0_} + 1;
  } else if (name == "cycle" || name == "changed") {
    Value self{std::shared_ptr<Native>(shared_from_this())};
    out = name == "cycle" ? MakeFunction("cycle", CycleMethod, std::move(self))
                          : MakeFunction("changed", ChangedMethod, std::move(self));
  } else {
    return false;
  }
  return true;
}

absl::StatusOr<Value> Loop::Cycle(const CallArgs& args) const {
  if (args.positional.empty()) return InvalidArgumentError("no items for cycling given");
  return args.positional[static_cast<size_t>(index0_) % args.positional.size()];
}

absl::StatusOr<Value> Loop::Changed(const CallArgs& args) {
  bool changed = !has_changed_value_ || changed_value_.size() != args.positional.size();
  for (size_t i = 0; !changed && i < changed_value_.size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, interpreter_.Equal(changed_value_[i], args.positional[i]));
    changed = !equal;
  }
  if (changed) {
    has_changed_value_ = true;
    changed_value_.assign(args.positional.begin(), args.positional.end());
  }
  return Value(changed);
}

absl::StatusOr<Value> Loop::Call(Runtime& runtime, const CallArgs& args) {
  static constexpr const char* kNames[] = {"iterable"};
  ASSIGN_OR_RETURN(const auto bound, Bind("loop", args, kNames, 1));
  if (!statement_.recursive) {
    return InvalidArgumentError(
        "The loop must have the 'recursive' marker to be called recursively.");
  }
  return interpreter_.RecurseLoop(statement_, frame_, *bound[0], depth0_ + 1);
}

void Loop::Clear() {
  after_ = current_ = before_ = Value();
  changed_value_.clear();
  items_ = std::make_shared<const Sequence>();
  frame_.reset();
}

}  // namespace reticle::tokenizer::jinja
