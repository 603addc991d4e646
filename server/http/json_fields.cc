#include "server/http/json_fields.h"

#include <cmath>
#include <limits>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"

namespace reticle::server::http {
namespace {

namespace dom = simdjson::dom;
using tokenizer::jinja::Value;

constexpr size_t kMaxDepth = 64;
// Bodies up to this size share one parser for each thread, whose memory stays.
constexpr size_t kSharedParserBytes = size_t{256} << 10;

std::string_view TypeName(const Json& value) {
  switch (value.type()) {
    case dom::element_type::ARRAY:
      return "a list";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::INT64:
    case dom::element_type::UINT64:
      return "an integer";
    case dom::element_type::DOUBLE:
      return "a number";
    case dom::element_type::STRING:
      return "a string";
    case dom::element_type::BOOL:
      return "a boolean";
    case dom::element_type::NULL_VALUE:
      return "null";
  }
  return "something else";
}

std::optional<int64_t> AsInt(const Json& value) {
  if (int64_t integer; value.get_int64().get(integer) == simdjson::SUCCESS) return integer;
  if (double number; value.get_double().get(number) == simdjson::SUCCESS) {
    if (std::abs(number) < 9e15 && number == std::trunc(number)) {
      return static_cast<int64_t>(number);
    }
  }
  return std::nullopt;
}

std::string Item(std::string_view name, size_t index) {
  return absl::StrFormat("%s[%d]", name, index);
}

absl::Status ParseError(simdjson::error_code error) {
  switch (error) {
    case simdjson::UTF8_ERROR:
      return WithCode(InvalidArgumentError("The request body is not valid UTF-8"), "invalid_utf8");
    case simdjson::EMPTY:
      return WithCode(InvalidArgumentError("The request body is empty; it must be a JSON object"),
                      "invalid_json");
    case simdjson::DEPTH_ERROR:
      return WithCode(
          InvalidArgumentError("The request body nests deeper than %d levels", kMaxDepth),
          "invalid_json");
    case simdjson::NUMBER_ERROR:
      return WithCode(InvalidArgumentError("The request body holds a number that is malformed or "
                                           "out of range: integers have 64 bits, other numbers "
                                           "are finite doubles"),
                      "invalid_json");
    case simdjson::CAPACITY:
    case simdjson::MEMALLOC:
      return ResourceExhaustedError("no memory to parse the request body");
    default:
      return WithCode(InvalidArgumentError("The request body is not valid JSON: %s",
                                           simdjson::error_message(error)),
                      "invalid_json");
  }
}

absl::Status ParseWith(dom::parser& parser, std::string_view json,
                       const std::function<absl::Status(const dom::object&)>& read) {
  if (parser.capacity() < json.size() || parser.max_depth() != kMaxDepth) {
    if (const auto error = parser.allocate(json.size(), kMaxDepth)) return ParseError(error);
  }
  Json root;
  if (const auto error = parser.parse(json.data(), json.size()).get(root)) return ParseError(error);
  dom::object object;
  if (root.get_object().get(object) != simdjson::SUCCESS) {
    return WithCode(
        InvalidArgumentError("The request body must be a JSON object, not %s", TypeName(root)),
        "invalid_json");
  }
  return read(object);
}

}  // namespace

absl::Status FieldError(std::string_view name, std::string message) {
  return WithParam(absl::InvalidArgumentError(message), name);
}

absl::Status TypeError(std::string_view name, const Json& value, std::string_view wanted) {
  return WithCode(
      FieldError(name, absl::StrFormat("%s must be %s, not %s", name, wanted, TypeName(value))),
      "invalid_type");
}

absl::Status UnsupportedField(std::string_view name, std::string_view why) {
  std::string message = absl::StrFormat("%s is not supported by this server", name);
  if (!why.empty()) message.append(": ").append(why);
  return WithCode(FieldError(name, std::move(message)), "unsupported_parameter");
}

absl::Status ReadBool(std::string_view name, const Json& value, bool& out) {
  if (value.is_null()) return absl::OkStatus();
  if (value.get_bool().get(out) != simdjson::SUCCESS) return TypeError(name, value, "a boolean");
  return absl::OkStatus();
}

absl::Status ReadInt(std::string_view name, const Json& value, std::optional<int64_t>& out) {
  if (value.is_null()) return absl::OkStatus();
  const std::optional<int64_t> integer = AsInt(value);
  if (!integer.has_value()) {
    if (value.is_uint64()) {
      return FieldError(name, absl::StrFormat("%s is beyond a 64-bit signed integer", name));
    }
    return TypeError(name, value, "an integer");
  }
  out = integer;
  return absl::OkStatus();
}

absl::Status ReadDouble(std::string_view name, const Json& value, std::optional<double>& out) {
  if (value.is_null()) return absl::OkStatus();
  double number;
  if (value.get_double().get(number) != simdjson::SUCCESS)
    return TypeError(name, value, "a number");
  out = number;
  return absl::OkStatus();
}

absl::Status ReadString(std::string_view name, const Json& value, std::string& out) {
  if (value.is_null()) return absl::OkStatus();
  std::string_view text;
  if (value.get_string().get(text) != simdjson::SUCCESS) return TypeError(name, value, "a string");
  out.assign(text);
  return absl::OkStatus();
}

absl::Status ReadIntList(std::string_view name, const Json& value, std::vector<int64_t>& out) {
  if (value.is_null()) return absl::OkStatus();
  dom::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) {
    return TypeError(name, value, "a list of integers");
  }
  for (const Json item : array) {
    std::optional<int64_t> integer;
    if (item.is_null()) return TypeError(Item(name, out.size()), item, "an integer");
    RETURN_IF_ERROR(ReadInt(Item(name, out.size()), item, integer));
    out.push_back(*integer);
  }
  return absl::OkStatus();
}

absl::Status ReadTokenList(std::string_view name, const Json& value, std::vector<TokenId>& out) {
  dom::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) {
    return TypeError(name, value, "a list of token ids");
  }
  for (const Json item : array) {
    const std::optional<int64_t> token = AsInt(item);
    if (!token.has_value()) return TypeError(Item(name, out.size()), item, "a token id");
    if (*token < 0 || *token > std::numeric_limits<TokenId>::max()) {
      return FieldError(
          name, absl::StrFormat("%s is %d, which is no token id", Item(name, out.size()), *token));
    }
    out.push_back(static_cast<TokenId>(*token));
  }
  return absl::OkStatus();
}

absl::Status ReadStringOrList(std::string_view name, const Json& value,
                              std::vector<std::string>& out) {
  if (value.is_null()) return absl::OkStatus();
  dom::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) {
    if (!value.is_string()) return TypeError(name, value, "a string or a list of strings");
    return ReadString(name, value, out.emplace_back());
  }
  for (const Json item : array) {
    if (!item.is_string()) return TypeError(Item(name, out.size()), item, "a string");
    RETURN_IF_ERROR(ReadString(name, item, out.emplace_back()));
  }
  return absl::OkStatus();
}

Value ToTemplateValue(const Json& value) {
  switch (value.type()) {
    case dom::element_type::ARRAY: {
      Value::List list;
      for (const Json item : dom::array(value)) list.push_back(ToTemplateValue(item));
      return Value(std::move(list));
    }
    case dom::element_type::OBJECT: {
      Value::Object object;
      for (const dom::key_value_pair member : dom::object(value)) {
        object.emplace_back(std::string(member.key), ToTemplateValue(member.value));
      }
      return Value(std::move(object));
    }
    case dom::element_type::INT64:
      return Value(int64_t{value.get_int64().value_unsafe()});
    case dom::element_type::UINT64:
      return Value(static_cast<double>(value.get_uint64().value_unsafe()));
    case dom::element_type::DOUBLE:
      return Value(double{value.get_double().value_unsafe()});
    case dom::element_type::STRING:
      return Value(std::string(value.get_string().value_unsafe()));
    case dom::element_type::BOOL:
      return Value(bool{value.get_bool().value_unsafe()});
    case dom::element_type::NULL_VALUE:
      break;
  }
  return Value(Value::None{});
}

absl::Status WithJsonObject(std::string_view json,
                            const std::function<absl::Status(const dom::object&)>& read) {
  if (json.size() <= kSharedParserBytes) {
    thread_local dom::parser shared;
    return ParseWith(shared, json, read);
  }
  dom::parser parser;
  return ParseWith(parser, json, read);
}

}  // namespace reticle::server::http
