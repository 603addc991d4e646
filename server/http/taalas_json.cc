#include "server/http/taalas_json.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/http/chat_json.h"
#include "server/http/json_fields.h"
#include "server/http/json_writer.h"

namespace reticle::server::http {
namespace {

namespace dom = simdjson::dom;

constexpr char kDetailUrl[] = "reticle/taalas_detail";
constexpr size_t kMaxStops = 4;

// What is wrong with a body, in the contract's form.
class Findings {
 public:
  void Add(std::string_view field, std::string_view message, std::string_view type) {
    if (!json_.empty()) json_.push_back(',');
    json_.append(R"({"loc":["body")");
    while (!field.empty()) {
      const size_t dot = field.find('.');
      json_.push_back(',');
      AppendJsonString(json_, field.substr(0, dot));
      field = dot == std::string_view::npos ? std::string_view() : field.substr(dot + 1);
    }
    json_.append(R"(],"msg":)");
    AppendJsonString(json_, message);
    json_.append(R"(,"type":)");
    AppendJsonString(json_, type);
    json_.push_back('}');
  }
  bool empty() const { return json_.empty(); }
  absl::Status ToStatus() const {
    absl::Status status = InvalidArgumentError("the request body is not valid");
    status.SetPayload(kDetailUrl, absl::Cord("[" + json_ + "]"));
    return status;
  }

 private:
  std::string json_;
};

class Reader {
 public:
  Reader(const dom::object& object, Findings& findings) : object_(object), findings_(findings) {}

  // The field, unless it is absent or null.
  std::optional<Json> Find(std::string_view name) const {
    Json value;
    if (object_[name].get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
    return value;
  }
  // As Find, but null is wrong.
  std::optional<Json> FindSet(std::string_view name, std::string_view wanted) {
    Json value;
    if (object_[name].get(value) != simdjson::SUCCESS) return std::nullopt;
    if (value.is_null()) return Wrong(name, wanted);
    return value;
  }

  std::optional<int64_t> Int(std::string_view name, int64_t low, int64_t high) {
    const std::optional<Json> value = FindSet(name, "integer");
    if (!value.has_value()) return std::nullopt;
    std::optional<int64_t> number;
    if (!ReadInt(name, *value, number).ok() || !number.has_value()) {
      Wrong(name, "integer");
      return std::nullopt;
    }
    return CheckBounds(name, *number, low, high) ? number : std::nullopt;
  }

  bool Bool(std::string_view name, bool nullable) {
    const std::optional<Json> value = nullable ? Find(name) : FindSet(name, "boolean");
    bool set = false;
    if (value.has_value() && value->get_bool().get(set) != simdjson::SUCCESS) {
      Wrong(name, "boolean");
    }
    return set;
  }

  std::string String(std::string_view name, std::string_view otherwise) {
    const std::optional<Json> value = FindSet(name, "string");
    std::string_view text = otherwise;
    if (value.has_value() && value->get_string().get(text) != simdjson::SUCCESS) {
      Wrong(name, "string");
    }
    return std::string(text);
  }

  std::optional<Json> Wrong(std::string_view name, std::string_view wanted) {
    findings_.Add(name, absl::StrFormat("Input should be a valid %s", wanted),
                  absl::StrFormat("%s_type", wanted == "boolean"      ? "bool"
                                             : wanted == "integer"    ? "int"
                                             : wanted == "dictionary" ? "dict"
                                                                      : wanted));
    return std::nullopt;
  }

  bool CheckBounds(std::string_view name, double value, double low, double high) {
    if (value < low) {
      findings_.Add(name, absl::StrFormat("Input should be greater than or equal to %g", low),
                    "greater_than_equal");
    } else if (value > high) {
      findings_.Add(name, absl::StrFormat("Input should be less than or equal to %g", high),
                    "less_than_equal");
    }
    return value >= low && value <= high;
  }

  void Refuse(std::string_view name, std::string_view why) {
    findings_.Add(name, why, "unsupported");
  }

  // Hands the field to `read`, whose error becomes a finding.
  void With(std::string_view name, absl::Status (*read)(std::string_view, const Json&, ChatPrompt&),
            ChatPrompt& chat) {
    const std::optional<Json> value = Find(name);
    if (!value.has_value()) return;
    if (const absl::Status status = read(name, *value, chat); !status.ok()) {
      findings_.Add(name, std::string(status.message()), "value_error");
    }
  }

 private:
  const dom::object& object_;
  Findings& findings_;
};

void ReadPrompt(Reader& reader, Findings& findings, ChatPrompt& chat) {
  const std::optional<Json> prompt = reader.FindSet("prompt", "list");
  dom::array items;
  if (!prompt.has_value()) {
    if (findings.empty()) findings.Add("prompt", "Field required", "missing");
    return;
  }
  if (prompt->get_array().get(items) != simdjson::SUCCESS) {
    reader.Wrong("prompt", "list");
    return;
  }
  reader.With(
      "prompt",
      [](std::string_view name, const Json& value, ChatPrompt& into) {
        return ReadMessages(name, value, into.messages);
      },
      chat);
}

void ReadSampling(Reader& reader, Findings& findings, GenerateParams& params) {
  params.top_k = reader.Int("topk", 1, 8).value_or(1);
  if (const std::optional<Json> value = reader.Find("temperature")) {
    double temperature = 0;
    if (value->get_double().get(temperature) != simdjson::SUCCESS) {
      reader.Wrong("temperature", "number");
    } else if (reader.CheckBounds("temperature", temperature, 0, 2)) {
      params.temperature = temperature;
    }
  }
  // Of one candidate, the temperature changes nothing: asked so, every device can do it.
  if (params.top_k == 1) {
    params.temperature = 0;
    params.top_k = std::nullopt;
  }
  const std::optional<Json> stop = reader.Find("stop");
  if (!stop.has_value()) return;
  if (!ReadStringOrList("stop", *stop, params.stop).ok()) {
    findings.Add("stop", "Input should be a valid string or list of strings", "string_type");
  } else if (params.stop.size() > kMaxStops) {
    findings.Add("stop", absl::StrFormat("At most %d sequences are taken", kMaxStops), "too_long");
  }
}

void ReadLengths(Reader& reader, Findings& findings, GenerateParams& params) {
  constexpr int64_t kMost = int64_t{1} << 31;
  const int64_t least = reader.Int("min_output_tokens", 0, kMost).value_or(0);
  const int64_t most = reader.Int("max_output_tokens", 0, kMost).value_or(0);
  if (least > 0) params.min_tokens = least;
  // 0 stands for "as many as fit".
  if (most > 0) params.max_tokens = most;
  if (most > 0 && least > most) {
    findings.Add(
        "min_output_tokens",
        absl::StrFormat("Input should be less than or equal to max_output_tokens (%d)", most),
        "less_than_equal");
  }
  params.ignore_eos = reader.Bool("ignore_eos", false);
}

void ReadReports(Reader& reader, CompletionBody& body) {
  GenerateParams& params = body.params;
  params.stream = reader.Bool("stream", true);
  params.echo = reader.Bool("echo", false);
  params.echo_conversation = params.echo;
  const bool logprobs = reader.Bool("logprobs", false);
  const std::optional<int64_t> top = reader.Int("top_logprobs", 0, 20);
  if (logprobs) params.logprobs = top.value_or(0);
  const std::optional<Json> options = reader.Find("stream_options");
  if (!options.has_value()) return;
  dom::object object;
  if (options->get_object().get(object) != simdjson::SUCCESS) {
    reader.Wrong("stream_options", "dictionary");
    return;
  }
  Json value;
  for (const char* const name : {"include_usage", "include_obfuscation"}) {
    bool set = false;
    if (object[name].get(value) != simdjson::SUCCESS || value.is_null()) continue;
    if (value.get_bool().get(set) != simdjson::SUCCESS) {
      reader.Wrong(absl::StrFormat("stream_options.%s", name), "boolean");
    } else if (name == std::string_view("include_usage")) {
      body.include_usage = set && params.stream;
    } else if (set) {
      reader.Refuse("stream_options.include_obfuscation", "obfuscation is not offered");
    }
  }
}

void ReadTools(Reader& reader, ChatPrompt& chat) {
  reader.With(
      "tools",
      [](std::string_view name, const Json& value, ChatPrompt& into) {
        return http::ReadTools(name, value, into.tools);
      },
      chat);
  const std::optional<Json> choice = reader.Find("tool_choice");
  if (!choice.has_value()) return;
  std::string_view text;
  if (choice->get_string().get(text) != simdjson::SUCCESS) {
    reader.Wrong("tool_choice", "string");
  } else if (text == "none") {
    chat.tools = tokenizer::jinja::Value();
  } else if (text != "auto") {
    reader.Refuse("tool_choice", "a tool cannot be forced; use \"auto\" or \"none\"");
  }
}

// What would change the output and is not offered.
void RefuseOthers(Reader& reader) {
  if (const std::optional<Json> value = reader.Find("guided_json")) {
    value->is_object() ? reader.Refuse("guided_json", "guided generation is not offered")
                       : static_cast<void>(reader.Wrong("guided_json", "dictionary"));
  }
  if (const std::optional<Json> value = reader.Find("guided_regex")) {
    value->is_string() ? reader.Refuse("guided_regex", "guided generation is not offered")
                       : static_cast<void>(reader.Wrong("guided_regex", "string"));
  }
  if (const std::optional<Json> value = reader.Find("response_format")) {
    std::string_view type;
    if (!value->is_object()) {
      reader.Wrong("response_format", "dictionary");
    } else if ((*value)["type"].get_string().get(type) != simdjson::SUCCESS || type != "text") {
      reader.Refuse("response_format", "only {\"type\":\"text\"} is offered");
    }
  }
  if (const std::optional<Json> value = reader.Find("metadata"); value && !value->is_object()) {
    reader.Wrong("metadata", "dictionary");
  }
  if (reader.String("system_prompt_version", "offline") != "offline") {
    reader.Refuse("system_prompt_version", "the server has no system prompts of its own");
  }
  for (const char* const name : {"tool_name", "context_for_tool"}) {
    if (!reader.String(name, "").empty()) {
      reader.Refuse(name, "the server does not route tools; put it into the prompt");
    }
  }
}

// The name under which a parameter came in.
std::string_view FieldOf(std::string_view param) {
  if (param == "top_k") return "topk";
  if (param == "max_tokens") return "max_output_tokens";
  if (param == "min_tokens") return "min_output_tokens";
  if (param.starts_with("messages")) return "prompt";
  return param;
}

}  // namespace

absl::StatusOr<CompletionBody> ParseTaalasBody(std::string_view json) {
  CompletionBody body;
  body.chat = true;
  ChatPrompt chat;
  Findings findings;
  const absl::Status parsed = WithJsonObject(json, [&](const dom::object& object) {
    Reader reader(object, findings);
    ReadPrompt(reader, findings, chat);
    body.params.model = reader.String("model", kTaalasModel);
    ReadLengths(reader, findings, body.params);
    ReadSampling(reader, findings, body.params);
    ReadReports(reader, body);
    ReadTools(reader, chat);
    RefuseOthers(reader);
    return absl::OkStatus();
  });
  if (!parsed.ok()) findings.Add("", std::string(parsed.message()), "json_invalid");
  if (!findings.empty()) return findings.ToStatus();
  body.params.prompts.emplace_back(std::move(chat));
  return body;
}

absl::StatusOr<std::shared_ptr<const ModelEntry>> FindTaalasModel(const ModelRegistry& models,
                                                                  const std::string& name) {
  absl::StatusOr<std::shared_ptr<const ModelEntry>> model = models.Find(name);
  return model.ok() || name != kTaalasModel ? std::move(model) : models.Find("");
}

void SendTaalasError(ResponseWriter& writer, const absl::Status& error) {
  const ErrorInfo info = DescribeError(error);
  std::string headers;
  AppendRetryAfter(headers, info);
  std::string body = R"({"detail":)";
  if (const auto detail = error.GetPayload(kDetailUrl); detail.has_value()) {
    body.append(std::string(*detail)).push_back('}');
    return writer.Send(422, "application/json", body, headers);
  }
  if (info.http_status == 400) {
    const std::string type = info.code.empty() ? "value_error" : info.code;
    body.append(R"([{"loc":["body")");
    if (!info.param.empty()) {
      body.push_back(',');
      AppendJsonString(body, FieldOf(info.param));
    }
    body.append(R"(],"msg":)");
    AppendJsonString(body, info.message);
    body.append(R"(,"type":)");
    AppendJsonString(body, type);
    body.append("}]}");
    return writer.Send(422, "application/json", body, headers);
  }
  AppendJsonString(body, info.message);
  body.push_back('}');
  writer.Send(info.http_status, "application/json", body, headers);
}

std::string TaalasUnauthorized(bool key_sent) {
  return key_sent ? R"({"detail":"Unauthorized: Invalid API Key"})"
                  : R"({"detail":"Unauthorized"})";
}

}  // namespace reticle::server::http
