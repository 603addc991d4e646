// The filters, in the order of files that hold them. All have the signature of Builtin.
#ifndef RETICLE_TOKENIZER_JINJA_FILTERS_H_
#define RETICLE_TOKENIZER_JINJA_FILTERS_H_

#include "absl/status/statusor.h"
#include "tokenizer/jinja/runtime.h"

namespace reticle::tokenizer::jinja::filters {

#define RETICLE_DECLARE_FILTER(Name) \
  absl::StatusOr<Value> Name(Runtime& runtime, const Value& self, const CallArgs& args);

// filters_string.cc
RETICLE_DECLARE_FILTER(Capitalize)
RETICLE_DECLARE_FILTER(Center)
RETICLE_DECLARE_FILTER(Escape)
RETICLE_DECLARE_FILTER(ForceEscape)
RETICLE_DECLARE_FILTER(Format)
RETICLE_DECLARE_FILTER(Indent)
RETICLE_DECLARE_FILTER(Lower)
RETICLE_DECLARE_FILTER(Replace)
RETICLE_DECLARE_FILTER(Safe)
RETICLE_DECLARE_FILTER(String)
RETICLE_DECLARE_FILTER(Title)
RETICLE_DECLARE_FILTER(ToJson)
RETICLE_DECLARE_FILTER(Trim)
RETICLE_DECLARE_FILTER(Truncate)
RETICLE_DECLARE_FILTER(Upper)
RETICLE_DECLARE_FILTER(WordCount)

// filters_number.cc
RETICLE_DECLARE_FILTER(Abs)
RETICLE_DECLARE_FILTER(Float)
RETICLE_DECLARE_FILTER(Int)
RETICLE_DECLARE_FILTER(Round)

// filters_sequence.cc
RETICLE_DECLARE_FILTER(Attr)
RETICLE_DECLARE_FILTER(Batch)
RETICLE_DECLARE_FILTER(Default)
RETICLE_DECLARE_FILTER(First)
RETICLE_DECLARE_FILTER(Items)
RETICLE_DECLARE_FILTER(Join)
RETICLE_DECLARE_FILTER(Last)
RETICLE_DECLARE_FILTER(Length)
RETICLE_DECLARE_FILTER(List)
RETICLE_DECLARE_FILTER(Map)
RETICLE_DECLARE_FILTER(Reject)
RETICLE_DECLARE_FILTER(RejectAttr)
RETICLE_DECLARE_FILTER(Reverse)
RETICLE_DECLARE_FILTER(Select)
RETICLE_DECLARE_FILTER(SelectAttr)
RETICLE_DECLARE_FILTER(Slice)

// filters_order.cc
RETICLE_DECLARE_FILTER(DictSort)
RETICLE_DECLARE_FILTER(GroupBy)
RETICLE_DECLARE_FILTER(Max)
RETICLE_DECLARE_FILTER(Min)
RETICLE_DECLARE_FILTER(Sort)
RETICLE_DECLARE_FILTER(Sum)
RETICLE_DECLARE_FILTER(Unique)

#undef RETICLE_DECLARE_FILTER

// item.a.0.b for the attribute "a.0.b" or a number; `fallback` (null for none) replaces what is
// undefined on the way.
absl::StatusOr<Value> AttributeOf(Runtime& runtime, const Value& item, const Value& attribute,
                                  const Value* fallback = nullptr);
// Lower case for a string, anything else as it is.
absl::StatusOr<Value> IgnoreCase(Runtime& runtime, Value value);

}  // namespace reticle::tokenizer::jinja::filters

#endif  // RETICLE_TOKENIZER_JINJA_FILTERS_H_
