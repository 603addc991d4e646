#include "server/http/account_pages.h"

#include <simdjson.h>

#include <map>
#include <optional>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"
#include "server/http/json_fields.h"
#include "server/http/json_writer.h"

namespace reticle::server::http {
namespace {

constexpr size_t kMaxFormBytes = size_t{16} << 10;
constexpr char kHtml[] = "text/html; charset=utf-8";
constexpr char kNoStore[] = "Cache-Control: no-store\r\n";

std::string Escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

constexpr char kPageStart[] =
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
    "content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light "
    "dark\"><title>API keys</title></head><body><main><h1>API keys</h1>";
constexpr char kPageEnd[] = "</main></body></html>";

constexpr char kForms[] =
    "<h2>Apply for a key</h2><form method=\"post\" action=\"/apply\"><input type=\"hidden\" "
    "name=\"action\" value=\"apply\">"
    "<p><label for=\"email\">E-mail</label><br><input id=\"email\" name=\"email\" type=\"email\" "
    "required maxlength=\"254\" autocomplete=\"email\"></p>"
    "<p><label for=\"name\">Name, or organisation</label><br><input id=\"name\" name=\"name\" "
    "required maxlength=\"200\" autocomplete=\"name\"></p>"
    "<p><label for=\"use_case\">What will you use it for?</label><br><textarea id=\"use_case\" "
    "name=\"use_case\" required maxlength=\"4000\" rows=\"5\" cols=\"50\"></textarea></p>"
    "<p><input id=\"terms\" name=\"terms\" type=\"checkbox\" value=\"yes\" required> <label "
    "for=\"terms\">I accept the terms: the service comes as it is, within the limits of its free "
    "tier, and may end at any time. I keep my key to myself.</label></p>"
    "<p><button type=\"submit\">Apply</button></p></form>"
    "<h2>Fetch your key</h2><form method=\"post\" action=\"/apply\"><input type=\"hidden\" "
    "name=\"action\" value=\"claim\"><p><label for=\"claim\">Claim code</label><br><input "
    "id=\"claim\" name=\"claim\" required maxlength=\"64\" autocomplete=\"off\" "
    "spellcheck=\"false\"></p><p><button type=\"submit\">Fetch</button></p></form>";

AccountReply Page(int status, std::string_view content, std::string headers = "") {
  AccountReply reply;
  reply.status = status;
  reply.content_type = kHtml;
  reply.body.append(kPageStart).append(content).append(kPageEnd);
  // Nothing may be loaded, run or framed.
  reply.headers =
      "Content-Security-Policy: default-src 'none'; form-action 'self'; base-uri 'none'; "
      "frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: "
      "no-referrer\r\n"
      "Cache-Control: no-store\r\n";
  reply.headers += headers;
  return reply;
}

AccountReply ErrorPage(const absl::Status& error) {
  const ErrorInfo info = DescribeError(error);
  std::string headers;
  AppendRetryAfter(headers, info);
  return Page(info.http_status,
              "<p role=\"alert\">" + Escape(info.message) + "</p>" + std::string(kForms), headers);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// application/x-www-form-urlencoded; nullopt when it is malformed, no UTF-8, or names a field
// twice.
std::optional<std::map<std::string, std::string>> ParseForm(std::string_view body) {
  std::map<std::string, std::string> fields;
  while (!body.empty()) {
    const size_t end = body.find('&');
    const std::string_view pair = body.substr(0, end);
    std::string parts[2];
    size_t part = 0;
    for (size_t i = 0; i < pair.size(); ++i) {
      if (pair[i] == '=' && part == 0) {
        part = 1;
      } else if (pair[i] == '+') {
        parts[part].push_back(' ');
      } else if (pair[i] == '%') {
        const int high = i + 2 < pair.size() ? HexDigit(pair[i + 1]) : -1;
        const int low = i + 2 < pair.size() ? HexDigit(pair[i + 2]) : -1;
        if (high < 0 || low < 0) return std::nullopt;
        parts[part].push_back(static_cast<char>(high * 16 + low));
        i += 2;
      } else {
        parts[part].push_back(pair[i]);
      }
    }
    if (!simdjson::validate_utf8(parts[1].data(), parts[1].size())) return std::nullopt;
    if (!fields.emplace(parts[0], parts[1]).second) return std::nullopt;
    if (end == std::string_view::npos) break;
    body.remove_prefix(end + 1);
  }
  return fields;
}

AccountReply JsonReply(int status, std::string body) {
  AccountReply reply;
  reply.status = status;
  reply.content_type = "application/json";
  reply.body = std::move(body);
  reply.headers = kNoStore;
  return reply;
}

constexpr Field<ApplicationForm> kApplyFields[] = {
    {"email", [](std::string_view name, const Json& value,
                 ApplicationForm& form) { return ReadString(name, value, form.email); }},
    {"name", [](std::string_view name, const Json& value,
                ApplicationForm& form) { return ReadString(name, value, form.name); }},
    {"use_case", [](std::string_view name, const Json& value,
                    ApplicationForm& form) { return ReadString(name, value, form.use_case); }},
    {"terms", [](std::string_view name, const Json& value,
                 ApplicationForm& form) { return ReadBool(name, value, form.terms); }},
};
constexpr Field<std::string> kClaimFields[] = {
    {"claim", [](std::string_view name, const Json& value,
                 std::string& claim) { return ReadString(name, value, claim); }},
};

absl::Status CheckSize(const HttpRequest& request) {
  if (request.body.size() <= kMaxFormBytes) return absl::OkStatus();
  return WithHttpStatus(InvalidArgumentError("the form has %d bytes; the limit is %d",
                                             request.body.size(), kMaxFormBytes),
                        413);
}

AccountReply ApplyByPage(std::map<std::string, std::string>& fields, const HttpRequest& request,
                         Gate& gate) {
  ApplicationForm form;
  form.email = fields["email"];
  form.name = fields["name"];
  form.use_case = fields["use_case"];
  form.terms = fields["terms"] == "yes";
  const absl::StatusOr<std::string> claim = gate.Apply(form, request.peer);
  if (!claim.ok()) return ErrorPage(claim.status());
  return Page(202,
              "<h2>Your application is in</h2><p>Keep this claim code; it is shown only here, and "
              "your key is fetched with it once the application is approved:</p><p><code>" +
                  Escape(*claim) + "</code></p><p><a href=\"/apply\">Fetch the key</a></p>");
}

AccountReply ClaimByPage(std::map<std::string, std::string>& fields, const HttpRequest& request,
                         Gate& gate) {
  const absl::StatusOr<std::string> key = gate.Claim(fields["claim"], request.peer);
  if (!key.ok()) return ErrorPage(key.status());
  return Page(200,
              "<h2>Your key</h2><p>It is shown this once; we keep no copy that could be read:</p>"
              "<p><code>" +
                  Escape(*key) + "</code></p>");
}

}  // namespace

AccountReply ApplyPage() { return Page(200, kForms); }

AccountReply SubmitApplyPage(const HttpRequest& request, Gate& gate) {
  if (absl::Status status = CheckSize(request); !status.ok()) return ErrorPage(status);
  auto fields = request.content_type.starts_with("application/x-www-form-urlencoded")
                    ? ParseForm(request.body)
                    : std::nullopt;
  if (!fields.has_value()) return ErrorPage(InvalidArgumentError("the form cannot be read"));
  return (*fields)["action"] == "claim" ? ClaimByPage(*fields, request, gate)
                                        : ApplyByPage(*fields, request, gate);
}

absl::StatusOr<AccountReply> ApplyJson(const HttpRequest& request, Gate& gate) {
  RETURN_IF_ERROR(CheckSize(request));
  ApplicationForm form;
  RETURN_IF_ERROR(WithJsonObject(request.body, [&](const simdjson::dom::object& object) {
    return ReadFields<ApplicationForm>(object, form, {kApplyFields});
  }));
  ASSIGN_OR_RETURN(const std::string claim, gate.Apply(form, request.peer));
  std::string body = R"({"object":"application","claim":)";
  AppendJsonString(body, claim);
  return JsonReply(202, body + "}");
}

absl::StatusOr<AccountReply> ClaimJson(const HttpRequest& request, Gate& gate) {
  RETURN_IF_ERROR(CheckSize(request));
  std::string claim;
  RETURN_IF_ERROR(WithJsonObject(request.body, [&](const simdjson::dom::object& object) {
    return ReadFields<std::string>(object, claim, {kClaimFields});
  }));
  const absl::StatusOr<std::string> key = gate.Claim(claim, request.peer);
  if (absl::IsFailedPrecondition(key.status())) {
    return JsonReply(202, R"({"object":"application","status":"pending"})");
  }
  RETURN_IF_ERROR(key.status());
  std::string body = R"({"object":"api_key","key":)";
  AppendJsonString(body, *key);
  return JsonReply(200, body + "}");
}

}  // namespace reticle::server::http
