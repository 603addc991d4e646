// Typed readers of JSON fields whose errors name the field and both types. Internal to the parsers
// of request bodies: includes simdjson.
#ifndef RETICLE_SERVER_HTTP_JSON_FIELDS_H_
#define RETICLE_SERVER_HTTP_JSON_FIELDS_H_

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "tokenizer/jinja/value.h"

namespace reticle::server::http {

using Json = simdjson::dom::element;

// INVALID_ARGUMENT with `name` as param.
absl::Status FieldError(std::string_view name, std::string message);
// "<name> must be <wanted>, not <what it is>"
absl::Status TypeError(std::string_view name, const Json& value, std::string_view wanted);
// The field is known but this server does not do it.
absl::Status UnsupportedField(std::string_view name, std::string_view why = {});

// Each leaves `out` as it is for null.
absl::Status ReadBool(std::string_view name, const Json& value, bool& out);
// Also takes 5.0.
absl::Status ReadInt(std::string_view name, const Json& value, std::optional<int64_t>& out);
absl::Status ReadDouble(std::string_view name, const Json& value, std::optional<double>& out);
absl::Status ReadString(std::string_view name, const Json& value, std::string& out);
absl::Status ReadIntList(std::string_view name, const Json& value, std::vector<int64_t>& out);
absl::Status ReadTokenList(std::string_view name, const Json& value, std::vector<TokenId>& out);
// A string or a list of strings.
absl::Status ReadStringOrList(std::string_view name, const Json& value,
                              std::vector<std::string>& out);

tokenizer::jinja::Value ToTemplateValue(const Json& value);

// Parses `json` and hands its root, an object, to `read`.
absl::Status WithJsonObject(std::string_view json,
                            const std::function<absl::Status(const simdjson::dom::object&)>& read);

// A table of fields: what to do with each name.
template <typename Body>
struct Field {
  std::string_view name;
  absl::Status (*read)(std::string_view name, const Json& value, Body& body);
};

// Hands each member of `object` to its entry in one of `tables`. A name without one is refused, and
// so is one that comes twice: readers of JSON disagree on which of the two counts.
template <typename Body>
absl::Status ReadFields(const simdjson::dom::object& object, Body& body,
                        std::initializer_list<std::span<const Field<Body>>> tables) {
  std::vector<const Field<Body>*> seen;
  for (const simdjson::dom::key_value_pair member : object) {
    const std::string_view name = member.key;
    const Field<Body>* found = nullptr;
    for (std::span<const Field<Body>> table : tables) {
      for (const Field<Body>& field : table) {
        if (field.name == name) found = &field;
      }
    }
    if (found == nullptr) {
      const std::string shown(name.substr(0, 100));
      return FieldError(shown, "Unrecognized request field: " + shown);
    }
    if (std::find(seen.begin(), seen.end(), found) != seen.end()) {
      const std::string shown(name);
      return FieldError(shown, shown + " is given twice");
    }
    seen.push_back(found);
    if (absl::Status status = found->read(name, member.value, body); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// The object `json` by one table; an empty text is an empty object.
template <typename Body>
absl::StatusOr<Body> ParseFields(std::string_view json, std::span<const Field<Body>> fields) {
  Body body;
  if (json.empty()) return body;
  const absl::Status status = WithJsonObject(json, [&](const simdjson::dom::object& object) {
    return ReadFields<Body>(object, body, {fields});
  });
  if (!status.ok()) return status;
  return body;
}

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_JSON_FIELDS_H_
