#include "server/cli/keys.h"

#include <simdjson.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "server/cli/chat_client.h"
#include "server/cli/chat_session.h"
#include "server/cli/serve_options.h"
#include "server/http/json_writer.h"
#include "server/tenants/account_store.h"
#include "server/tenants/database.h"
#include "server/tenants/key_admin.h"

namespace reticle::server::cli {
namespace {

namespace dom = simdjson::dom;

constexpr char kHelp[] =
    "Usage: reticle keys COMMAND [NAME=VALUE ...] [--store STORE | --admin ADDRESS] [--json]\n"
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
    "On the store; a server that runs on it follows within a second:\n"
    "  --store STORE      SQLite file, or postgresql://... (default reticle-tenants.db)\n"
    "  --secret FILE      secret of the keys' digests (default: beside the store)\n"
    "\n"
    "Through the admin listener of a running server, in force at once:\n"
    "  --admin ADDRESS    PORT, HOST:PORT, http://HOST:PORT or https://HOST:PORT\n"
    "  --token-file FILE  holds the listener's token; or --token TOKEN, or the variable\n"
    "                     RETICLE_ADMIN_TOKEN\n"
    "\n"
    "  --config FILE      the server's own: its admin listener if it has one, else its store;\n"
    "                     limits are shown as it sets them\n"
    "  --json             print JSON\n";

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
  std::string store;
  std::string secret;
  std::string admin;  // the listener's URL; empty: the store itself is used
  std::string token;
  tenants::TierTable tiers;
  bool json = false;
};

// The options as given; empty: not given.
struct Flags {
  std::string store, secret, admin, token, token_file, config;
};

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  std::ifstream file(path);
  std::string token;
  if (!file || !std::getline(file, token)) {
    return InvalidArgumentError("the token file %s cannot be read", path);
  }
  while (!token.empty() && (token.back() == '\r' || token.back() == ' ')) token.pop_back();
  return token;
}

// Where the accounts are: flags first, then the configuration file of the server.
absl::Status Locate(const Flags& flags, Invocation& made) {
  ServeOptions server;
  if (!flags.config.empty()) {
    const auto exit = ParseServeArguments({"--config", flags.config}, server);
    if (exit.has_value()) return InvalidArgumentError("--config: %s", exit->output);
    for (const std::string& limit : server.tier_limits) RETURN_IF_ERROR(made.tiers.Set(limit));
  }
  if (!flags.admin.empty() && !(flags.store.empty() && flags.secret.empty())) {
    return InvalidArgumentError("--admin asks a server, --store and --secret do without one");
  }
  std::string admin = flags.admin;
  if (admin.empty() && flags.store.empty() && server.admin != "none") admin = server.admin;
  if (admin.empty()) {
    made.store = flags.store.empty() ? server.tenants_store : flags.store;
    made.secret =
        flags.secret.empty() && flags.store.empty() ? server.tenants_secret : flags.secret;
    return absl::OkStatus();
  }
  if (admin.find("://") == std::string::npos) {
    ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(admin));
    const bool v6 = listen.host.find(':') != std::string::npos;
    const bool tls = flags.admin.empty() && !server.http_options.tls_cert.empty();
    admin = absl::StrFormat("%s://%s%s%s:%d", tls ? "https" : "http", v6 ? "[" : "", listen.host,
                            v6 ? "]" : "", listen.port);
  }
  made.admin = admin;
  made.token = flags.token;
  const std::string& file = flags.token_file.empty() ? server.admin_token_file : flags.token_file;
  if (made.token.empty() && !file.empty()) {
    ASSIGN_OR_RETURN(made.token, ReadToken(file));
  }
  if (made.token.empty()) made.token = server.admin_token;
  if (const char* known = std::getenv("RETICLE_ADMIN_TOKEN"); made.token.empty() && known) {
    made.token = known;
  }
  return absl::OkStatus();
}

absl::StatusOr<Invocation> ParseInvocation(const std::vector<std::string>& arguments) {
  Invocation made;
  Flags flags;
  const std::pair<std::string_view, std::string*> known[] = {
      {"--store", &flags.store}, {"--secret", &flags.secret},         {"--admin", &flags.admin},
      {"--token", &flags.token}, {"--token-file", &flags.token_file}, {"--config", &flags.config}};
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const auto* const flag =
        std::find_if(std::begin(known), std::end(known),
                     [&](const auto& candidate) { return candidate.first == argument; });
    if (argument == "--json") {
      made.json = true;
    } else if (flag != std::end(known)) {
      if (i + 1 == arguments.size()) return InvalidArgumentError("%s needs a value", argument);
      *flag->second = arguments[++i];
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
  RETURN_IF_ERROR(Locate(flags, made));
  return made;
}

// By the admin listener of a running server.
absl::StatusOr<std::string> AskServer(const Invocation& invocation) {
  ASSIGN_OR_RETURN(ChatUrl url, ParseChatUrl(invocation.admin));
  const ChatClient client(std::move(url), invocation.token);
  std::string body = "{";
  for (const auto& [name, value] : invocation.arguments) {
    if (body.size() > 1) body.push_back(',');
    http::AppendJsonString(body, name);
    body.push_back(':');
    http::AppendJsonString(body, value);
  }
  body.push_back('}');
  const std::atomic<bool> stop{false};
  const absl::StatusOr<ChatReply> reply =
      client.Send("/admin/keys/" + invocation.verb, body, nullptr, stop);
  if (!reply.ok()) {
    return UnavailableError("no answer from the admin listener %s: %s", client.Address(),
                            reply.status().message());
  }
  if (reply->status == 200) return reply->body;
  std::string message = PlainText(ErrorMessageOf(reply->body));
  if (message.empty()) message = absl::StrFormat("the server answered %d", reply->status);
  if (reply->status == 400) return InvalidArgumentError("%s", message);
  if (reply->status == 401) return UnauthenticatedError("%s; give it by --token-file", message);
  return FailedPreconditionError("%s", message);
}

absl::StatusOr<std::string> UseStore(const Invocation& invocation) {
  const std::string secret =
      invocation.secret.empty() ? tenants::SecretFileOf(invocation.store) : invocation.secret;
  ASSIGN_OR_RETURN(const std::unique_ptr<tenants::KeyHasher> hasher,
                   tenants::KeyHasher::Open(secret));
  ASSIGN_OR_RETURN(std::unique_ptr<tenants::Database> database,
                   tenants::OpenDatabase(invocation.store));
  ASSIGN_OR_RETURN(const std::unique_ptr<tenants::AccountStore> store,
                   tenants::AccountStore::Open(std::move(database), *hasher));
  return tenants::RunKeyCommand(*store, invocation.tiers, invocation.verb, invocation.arguments,
                                UnixSeconds());
}

absl::StatusOr<std::string> Execute(const Invocation& invocation) {
  RETURN_IF_ERROR(tenants::CheckKeyCommand(invocation.verb));
  return invocation.admin.empty() ? UseStore(invocation) : AskServer(invocation);
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
