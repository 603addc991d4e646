#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "base/status.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/operators.h"

namespace reticle::tokenizer::jinja::filters {
namespace {

bool IsSet(const Value* value) { return value != nullptr && Runtime::IsTrue(*value); }

// What the order and grouping filters compare by.
struct Key {
  bool case_sensitive = false;
  const Value* attribute = nullptr;  // null or none: the item itself
  const Value* fallback = nullptr;

  absl::StatusOr<Value> Of(Runtime& runtime, const Value& item) const {
    Value value = item;
    if (attribute != nullptr) {
      ASSIGN_OR_RETURN(value, AttributeOf(runtime, item, *attribute, fallback));
    }
    return case_sensitive ? absl::StatusOr<Value>(std::move(value))
                          : IgnoreCase(runtime, std::move(value));
  }

  // The same for an attribute with commas, which names several: a list.
  absl::StatusOr<Value> OfSeveral(Runtime& runtime, const Value& item) const {
    if (attribute == nullptr || !attribute->is_string()) return Of(runtime, item);
    std::vector<Value> keys;
    const std::string_view names = attribute->view();
    for (size_t begin = 0; begin <= names.size();) {
      const size_t end = std::min(names.find(',', begin), names.size());
      const Value name(std::string(names.substr(begin, end - begin)));
      const Key single{case_sensitive, &name, fallback};
      ASSIGN_OR_RETURN(Value key, single.Of(runtime, item));
      keys.push_back(std::move(key));
      begin = end + 1;
    }
    return Value(std::move(keys));
  }
};

struct Keyed {
  Value key;
  Value item;
};

absl::Status SortKeyed(Runtime& runtime, std::vector<Keyed>& items, bool reverse) {
  absl::Status status;
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    if (!status.ok()) return false;
    const auto less = reverse ? runtime.Less(b.key, a.key) : runtime.Less(a.key, b.key);
    if (!less.ok()) status = less.status();
    return less.ok() && *less;
  });
  return status;
}

absl::StatusOr<std::vector<Keyed>> WithKeys(Runtime& runtime, const Value& self, const Key& key,
                                            bool several) {
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  RETURN_IF_ERROR(runtime.Allocate(items->items.size() * sizeof(Keyed)));
  std::vector<Keyed> keyed;
  keyed.reserve(items->items.size());
  for (const Value& item : items->items) {
    RETURN_IF_ERROR(runtime.Step());
    ASSIGN_OR_RETURN(Value of_item, several ? key.OfSeveral(runtime, item) : key.Of(runtime, item));
    keyed.push_back({std::move(of_item), item});
  }
  return keyed;
}

absl::StatusOr<Value> Extreme(Runtime& runtime, const Value& self, const CallArgs& args,
                              const char* name, bool is_max) {
  static constexpr const char* kNames[] = {"case_sensitive", "attribute"};
  ASSIGN_OR_RETURN(const auto bound, Bind(name, args, kNames));
  ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                   WithKeys(runtime, self, Key{IsSet(bound[0]), bound[1]}, false));
  if (keyed.empty()) return Runtime::UndefinedHint("No aggregated item, sequence was empty.");
  const Keyed* best = &keyed[0];
  for (const Keyed& candidate : keyed) {
    if (&candidate == best) continue;
    ASSIGN_OR_RETURN(const bool better, is_max ? runtime.Less(best->key, candidate.key, ">")
                                               : runtime.Less(candidate.key, best->key));
    if (better) best = &candidate;
  }
  return best->item;
}

}  // namespace

absl::StatusOr<Value> Sort(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"reverse", "case_sensitive", "attribute"};
  ASSIGN_OR_RETURN(const auto bound, Bind("sort", args, kNames));
  ASSIGN_OR_RETURN(std::vector<Keyed> keyed,
                   WithKeys(runtime, self, Key{IsSet(bound[1]), bound[2]}, true));
  RETURN_IF_ERROR(SortKeyed(runtime, keyed, IsSet(bound[0])));
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (Keyed& entry : keyed) items.push_back(std::move(entry.item));
  return runtime.List(std::move(items));
}

absl::StatusOr<Value> DictSort(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"case_sensitive", "by", "reverse"};
  ASSIGN_OR_RETURN(const auto bound, Bind("dictsort", args, kNames));
  bool by_value = false;
  if (bound[1] != nullptr) {
    ASSIGN_OR_RETURN(const Text* by, StringArgument(*bound[1], "by"));
    by_value = by->view() == "value";
    if (!by_value && by->view() != "key") {
      return InvalidArgumentError("You can only sort by either \"key\" or \"value\"");
    }
  }
  if (self.is_undefined()) return UndefinedError(self);
  if (!self.is_dict()) {
    return InvalidArgumentError("'%s' object has no attribute 'items'", self.TypeName());
  }
  std::vector<Keyed> keyed;
  for (const auto& [key, value] : self.dict().items()) {
    Value by = by_value ? value : key;
    if (!IsSet(bound[0])) {
      ASSIGN_OR_RETURN(by, IgnoreCase(runtime, std::move(by)));
    }
    ASSIGN_OR_RETURN(Value pair, runtime.Tuple({key, value}));
    keyed.push_back({std::move(by), std::move(pair)});
  }
  RETURN_IF_ERROR(SortKeyed(runtime, keyed, IsSet(bound[2])));
  std::vector<Value> pairs;
  pairs.reserve(keyed.size());
  for (Keyed& entry : keyed) pairs.push_back(std::move(entry.item));
  return runtime.List(std::move(pairs));
}

absl::StatusOr<Value> GroupBy(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"attribute", "default", "case_sensitive"};
  ASSIGN_OR_RETURN(const auto bound, Bind("groupby", args, kNames, 1));
  const Value* const fallback = bound[1] != nullptr && !bound[1]->is_none() ? bound[1] : nullptr;
  const Key key{IsSet(bound[2]), bound[0], fallback};
  ASSIGN_OR_RETURN(std::vector<Keyed> keyed, WithKeys(runtime, self, key, false));
  RETURN_IF_ERROR(SortKeyed(runtime, keyed, false));
  std::vector<Value> groups;
  for (size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> group = {keyed[begin].item};
    size_t end = begin + 1;
    for (; end < keyed.size(); ++end) {
      ASSIGN_OR_RETURN(const bool same, runtime.Equal(keyed[begin].key, keyed[end].key));
      if (!same) break;
      group.push_back(keyed[end].item);
    }
    ASSIGN_OR_RETURN(Value grouper, AttributeOf(runtime, group[0], *bound[0], fallback));
    ASSIGN_OR_RETURN(Value list, runtime.List(std::move(group)));
    ASSIGN_OR_RETURN(Value pair,
                     runtime.List({std::move(grouper), std::move(list)}, Sequence::Type::kGroup));
    groups.push_back(std::move(pair));
    begin = end;
  }
  return runtime.List(std::move(groups));
}

absl::StatusOr<Value> Unique(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"case_sensitive", "attribute"};
  ASSIGN_OR_RETURN(const auto bound, Bind("unique", args, kNames));
  ASSIGN_OR_RETURN(const std::vector<Keyed> keyed,
                   WithKeys(runtime, self, Key{IsSet(bound[0]), bound[1]}, false));
  std::vector<Value> items;
  absl::flat_hash_set<std::string> seen_strings;
  std::vector<Value> seen;
  for (const Keyed& entry : keyed) {
    if (entry.key.is_string()) {
      if (seen_strings.insert(entry.key.text().str()).second) items.push_back(entry.item);
      continue;
    }
    bool is_new = true;
    for (size_t i = 0; is_new && i < seen.size(); ++i) {
      ASSIGN_OR_RETURN(const bool equal, runtime.Equal(seen[i], entry.key));
      is_new = !equal;
    }
    if (!is_new) continue;
    seen.push_back(entry.key);
    items.push_back(entry.item);
  }
  return runtime.Iterator(std::move(items));
}

absl::StatusOr<Value> Min(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Extreme(runtime, self, args, "min", false);
}

absl::StatusOr<Value> Max(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Extreme(runtime, self, args, "max", true);
}

absl::StatusOr<Value> Sum(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"attribute", "start"};
  ASSIGN_OR_RETURN(const auto bound, Bind("sum", args, kNames));
  Value total = bound[1] != nullptr ? *bound[1] : Value(int64_t{0});
  if (total.is_string()) return InvalidArgumentError("sum() can't sum strings");
  ASSIGN_OR_RETURN(const auto items, runtime.SharedItems(self));
  for (const Value& item : items->items) {
    RETURN_IF_ERROR(runtime.Step());
    Value term = item;
    if (bound[0] != nullptr) {
      ASSIGN_OR_RETURN(term, AttributeOf(runtime, item, *bound[0]));
    }
    ASSIGN_OR_RETURN(total, Arithmetic(runtime, Operator::kAdd, total, term));
  }
  return total;
}

}  // namespace reticle::tokenizer::jinja::filters
