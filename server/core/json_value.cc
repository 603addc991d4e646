#include "server/core/json_value.h"

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <utility>

#include "base/status.h"

namespace reticle::server {
namespace {

namespace dom = simdjson::dom;
using tokenizer::jinja::Value;

Value Convert(const dom::element& element) {
  switch (element.type()) {
    case dom::element_type::ARRAY: {
      Value::List list;
      for (dom::element item : dom::array(element)) list.push_back(Convert(item));
      return Value(std::move(list));
    }
    case dom::element_type::OBJECT: {
      Value::Object object;
      for (dom::key_value_pair field : dom::object(element)) {
        object.emplace_back(std::string(field.key), Convert(field.value));
      }
      return Value(std::move(object));
    }
    case dom::element_type::INT64:
      return Value(int64_t{element.get_int64().value_unsafe()});
    case dom::element_type::UINT64:
      return Value(static_cast<double>(element.get_uint64().value_unsafe()));
    case dom::element_type::DOUBLE:
      return Value(double{element.get_double().value_unsafe()});
    case dom::element_type::STRING:
      return Value(std::string(std::string_view(element.get_string().value_unsafe())));
    case dom::element_type::BOOL:
      return Value(bool{element.get_bool().value_unsafe()});
    case dom::element_type::NULL_VALUE:
      break;
  }
  return Value(Value::None{});
}

}  // namespace

absl::StatusOr<Value> ParseJsonValue(std::string_view json) {
  constexpr size_t kMaxDepth = 64;
  dom::parser parser;
  if (const auto error = parser.allocate(json.size(), kMaxDepth)) {
    return ResourceExhaustedError("no memory to parse %d bytes of JSON: %s", json.size(),
                                  simdjson::error_message(error));
  }
  dom::element root;
  if (const auto error = parser.parse(json.data(), json.size()).get(root)) {
    return InvalidArgumentError("invalid JSON: %s", simdjson::error_message(error));
  }
  return Convert(root);
}

}  // namespace reticle::server
