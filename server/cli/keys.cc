#include "server/cli/keys.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "server/tenants/account_store.h"
#include "server/tenants/database.h"
#include "server/tenants/key_admin.h"

namespace reticle::server::cli {
namespace {

namespace dom = simdjson::dom;

constexpr char kHelp[] =
    "Usage: reticle keys COMMAND [NAME=VALUE ...] [--store STORE] [--secret FILE] [--json]\n"
    "\n"
    "  list           keys (organisation=ID)\n"
    "  applications   those that wait (state=pending|approved|refused|all)\n"
    "  organisations  accounts with their limits\n"
    "  approve        id=APPLICATION (tier=free|paid|operator); the applicant fetches the key\n"
    "  refuse         id=APPLICATION\n"
    "  create         organisation=ID, or name=NAME email=ADDRESS (tier=...) for a new one;\n"
    "                 label=TEXT, expires_in=SECONDS; prints the key, this once\n"
    "  revoke         key=ID or PREFIX\n"
    "  rotate         key=ID (grace=SECONDS that the old one stays good); prints the new key\n"
    "  limits         organisation=ID; tier=..., requests_per_minute=, requests_per_day=,\n"
    "                 tokens_per_minute=, tokens_per_day=, concurrent=, max_context=, "
    "max_output=,\n"
    "                 models=A,B; reset=true goes back to those of the tier\n"
    "  usage          (organisation=ID, days=30)\n"
    "\n"
    "  --store STORE   SQLite file, or postgresql://... (default reticle-tenants.db)\n"
    "  --secret FILE   secret of the keys' digests (default: beside the store)\n"
    "  --json          print JSON\n"
    "\n"
    "A server that runs on the same store follows within a second.\n";

std::string TextOf(const dom::element& value) {
  std::string_view text;
  if (value.get_string().get(text) == simdjson::SUCCESS) return std::string(text);
  return simdjson::minify(value);
}

// Rows under a line of names, each column as wide as it must be.
void PrintTable(const dom::array& rows) {
  std::vector<std::vector<std::string>> lines;
  for (const dom::element row : rows) {
    const dom::object object = row.get_object().value();
    std::vector<std::string> names, values;
    for (const dom::key_value_pair member : object) {
      names.emplace_back(member.key);
      values.push_back(TextOf(member.value));
    }
    if (lines.empty()) lines.push_back(std::move(names));
    lines.push_back(std::move(values));
  }
  std::vector<size_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const auto& line : lines) {
    std::string text;
    for (size_t i = 0; i < line.size(); ++i) {
      text += line[i];
      if (i + 1 < line.size()) text.append(widths[i] - line[i].size() + 2, ' ');
    }
    std::printf("%s\n", text.c_str());
  }
  if (lines.empty()) std::printf("(none)\n");
}

void Print(const std::string& json, bool as_json) {
  dom::parser parser;
  dom::object object;
  dom::array rows;
  if (as_json || parser.parse(json).get_object().get(object) != simdjson::SUCCESS) {
    std::printf("%s\n", json.c_str());
    return;
  }
  if (object["data"].get_array().get(rows) == simdjson::SUCCESS) return PrintTable(rows);
  for (const dom::key_value_pair member : object) {
    std::printf("%-13s %s\n", std::string(member.key).c_str(), TextOf(member.value).c_str());
  }
}

struct Invocation {
  std::string verb;
  tenants::KeyArguments arguments;
  std::string store = "reticle-tenants.db";
  std::string secret;
  bool json = false;
};

absl::StatusOr<Invocation> ParseInvocation(const std::vector<std::string>& arguments) {
  Invocation made;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--json") {
      made.json = true;
    } else if (argument == "--store" || argument == "--secret") {
      if (i + 1 == arguments.size()) return InvalidArgumentError("%s needs a value", argument);
      (argument == "--store" ? made.store : made.secret) = arguments[++i];
    } else if (argument.starts_with("-")) {
      return InvalidArgumentError("there is no option %s", argument);
    } else if (made.verb.empty()) {
      made.verb = argument;
    } else if (const size_t sign = argument.find('='); sign != std::string::npos && sign > 0) {
      made.arguments[argument.substr(0, sign)] = argument.substr(sign + 1);
    } else {
      return InvalidArgumentError("\"%s\" is no NAME=VALUE", argument);
    }
  }
  if (made.verb.empty()) return InvalidArgumentError("a command is missing");
  return made;
}

absl::StatusOr<std::string> Execute(const Invocation& invocation) {
  const std::string secret =
      invocation.secret.empty() ? tenants::SecretFileOf(invocation.store) : invocation.secret;
  ASSIGN_OR_RETURN(const std::unique_ptr<tenants::KeyHasher> hasher,
                   tenants::KeyHasher::Open(secret));
  ASSIGN_OR_RETURN(std::unique_ptr<tenants::Database> database,
                   tenants::OpenDatabase(invocation.store));
  ASSIGN_OR_RETURN(const std::unique_ptr<tenants::AccountStore> store,
                   tenants::AccountStore::Open(std::move(database), *hasher));
  return tenants::RunKeyCommand(*store, tenants::TierTable(), invocation.verb, invocation.arguments,
                                UnixSeconds());
}

}  // namespace

int RunKeys(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument != "--help" && argument != "-h") continue;
    std::fputs(kHelp, stdout);
    return 0;
  }
  const absl::StatusOr<Invocation> invocation = ParseInvocation(arguments);
  if (!invocation.ok()) {
    std::fprintf(stderr, "reticle keys: %s\n\n%s",
                 std::string(invocation.status().message()).c_str(), kHelp);
    return 2;
  }
  const absl::StatusOr<std::string> answer = Execute(*invocation);
  if (!answer.ok()) {
    std::fprintf(stderr, "reticle keys: %s\n", std::string(answer.status().message()).c_str());
    return absl::IsInvalidArgument(answer.status()) ? 2 : 1;
  }
  Print(*answer, invocation->json);
  return 0;
}

}  // namespace reticle::server::cli
