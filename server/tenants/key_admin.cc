#include "server/tenants/key_admin.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <utility>
#include <vector>

#include "base/status.h"

namespace reticle::server::tenants {
namespace {

constexpr int64_t kSecondsPerDay = 86'400;

// JSON text, built member by member.
class Json {
 public:
  Json& Text(std::string_view name, std::string_view value) {
    Name(name);
    Quote(value);
    return *this;
  }
  Json& Number(std::string_view name, int64_t value) {
    Name(name);
    text_ += std::to_string(value);
    return *this;
  }
  std::string Take() { return "{" + std::move(text_) + "}"; }

 private:
  void Name(std::string_view name) {
    if (!text_.empty()) text_ += ',';
    Quote(name);
    text_ += ':';
  }
  void Quote(std::string_view value) {
    text_ += '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') {
        text_ += '\\';
        text_ += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        text_ += absl::StrFormat("\\u%04x", static_cast<int>(c));
      } else {
        text_ += c;
      }
    }
    text_ += '"';
  }
  std::string text_;
};

std::string List(const std::vector<std::string>& items) {
  std::string text = R"({"object":"list","data":[)";
  for (size_t i = 0; i < items.size(); ++i) text.append(i > 0 ? "," : "").append(items[i]);
  return text + "]}";
}

class Command {
 public:
  Command(AccountStore& store, const TierTable& tiers, const KeyArguments& arguments, int64_t now)
      : store_(store), tiers_(tiers), arguments_(arguments), now_(now) {}

  absl::Status Check(std::initializer_list<std::string_view> known, bool limits = false) const {
    for (const auto& [name, value] : arguments_) {
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      TierLimits probe;
      if (limits && probe.Set(name, value).ok()) continue;
      if (limits) RETURN_IF_ERROR(probe.Set(name, value));
      return InvalidArgumentError("there is no argument \"%s\" here", name.substr(0, 100));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Keys() {
    RETURN_IF_ERROR(Check({"organisation"}));
    ASSIGN_OR_RETURN(const std::vector<KeyRecord> keys, store_.KeysSince(0));
    std::vector<std::string> items;
    for (const KeyRecord& key : keys) {
      if (Has("organisation") && key.organisation != Get("organisation")) continue;
      items.push_back(KeyJson(key).Take());
    }
    return List(items);
  }

  absl::StatusOr<std::string> Applications() {
    RETURN_IF_ERROR(Check({"state"}));
    const std::string state = Has("state") ? Get("state") : "pending";
    ASSIGN_OR_RETURN(const auto applications, store_.Applications(state == "all" ? "" : state));
    std::vector<std::string> items;
    for (const Application& application : applications) {
      items.push_back(Json()
                          .Text("id", application.id)
                          .Text("email", application.email)
                          .Text("name", application.name)
                          .Text("use_case", application.use_case)
                          .Text("state", application.state)
                          .Text("organisation", application.organisation)
                          .Number("created_at", application.created_at)
                          .Take());
    }
    return List(items);
  }

  absl::StatusOr<std::string> Organisations() {
    RETURN_IF_ERROR(Check({}));
    ASSIGN_OR_RETURN(const auto organisations, store_.Organisations());
    std::vector<std::string> items;
    for (const Organisation& organisation : organisations) {
      ASSIGN_OR_RETURN(std::string item, OrganisationJson(organisation));
      items.push_back(std::move(item));
    }
    return List(items);
  }

  absl::StatusOr<std::string> Approve() {
    RETURN_IF_ERROR(Check({"id", "tier"}));
    ASSIGN_OR_RETURN(const std::string id, Need("id"));
    ASSIGN_OR_RETURN(const TierKind tier, Tier(TierKind::kFree));
    ASSIGN_OR_RETURN(const Organisation organisation, store_.Approve(id, tier, now_));
    return OrganisationJson(organisation);
  }

  absl::StatusOr<std::string> Refuse() {
    RETURN_IF_ERROR(Check({"id"}));
    ASSIGN_OR_RETURN(const std::string id, Need("id"));
    RETURN_IF_ERROR(store_.Refuse(id));
    return Json().Text("id", id).Text("state", "refused").Take();
  }

  absl::StatusOr<std::string> Create() {
    RETURN_IF_ERROR(Check({"organisation", "name", "email", "tier", "label", "expires_in"}));
    ASSIGN_OR_RETURN(const int64_t expires_in, Number("expires_in", 0));
    std::string organisation = Get("organisation");
    if (organisation.empty()) {
      ASSIGN_OR_RETURN(const std::string name, Need("name"));
      ASSIGN_OR_RETURN(const std::string email, Need("email"));
      ASSIGN_OR_RETURN(const TierKind tier, Tier(TierKind::kFree));
      ASSIGN_OR_RETURN(const Organisation made, store_.CreateOrganisation(name, email, tier, now_));
      organisation = made.id;
    } else if (Has("name") || Has("email") || Has("tier")) {
      return InvalidArgumentError(
          "name, email and tier are those of a new organisation; this key "
          "is for %s",
          organisation);
    }
    const std::string label = Has("label") ? Get("label") : "key";
    ASSIGN_OR_RETURN(
        const NewKey key,
        store_.CreateKey(organisation, label, expires_in == 0 ? 0 : now_ + expires_in, now_));
    return KeyJson(key.record).Text("key", key.key).Take();
  }

  absl::StatusOr<std::string> Revoke() {
    RETURN_IF_ERROR(Check({"key"}));
    ASSIGN_OR_RETURN(const std::string key, Need("key"));
    RETURN_IF_ERROR(store_.RevokeKey(key, now_));
    return Json().Text("id", key).Text("state", "revoked").Take();
  }

  absl::StatusOr<std::string> Rotate() {
    RETURN_IF_ERROR(Check({"key", "grace"}));
    ASSIGN_OR_RETURN(const std::string key, Need("key"));
    ASSIGN_OR_RETURN(const int64_t grace, Number("grace", 0));
    ASSIGN_OR_RETURN(const NewKey made, store_.RotateKey(key, grace, now_));
    return KeyJson(made.record).Text("key", made.key).Take();
  }

  absl::StatusOr<std::string> Limits() {
    RETURN_IF_ERROR(Check({"organisation", "tier", "reset"}, /*limits=*/true));
    ASSIGN_OR_RETURN(const std::string id, Need("organisation"));
    ASSIGN_OR_RETURN(Organisation organisation, store_.FindOrganisation(id));
    ASSIGN_OR_RETURN(organisation.tier, Tier(organisation.tier));
    if (Get("reset") == "true") organisation.overrides.clear();
    bool changed = Has("tier") || Has("reset");
    for (const auto& [name, value] : arguments_) {
      if (name == "organisation" || name == "tier" || name == "reset") continue;
      changed = true;
      // The last of several settings of one limit counts.
      organisation.overrides += name + "=" + value + ";";
    }
    if (changed) {
      RETURN_IF_ERROR(store_.SetLimits(organisation.id, organisation.tier, organisation.overrides));
    }
    return OrganisationJson(organisation);
  }

  absl::StatusOr<std::string> Usage() {
    RETURN_IF_ERROR(Check({"organisation", "days"}));
    ASSIGN_OR_RETURN(const int64_t days, Number("days", 30));
    std::string organisation;
    if (Has("organisation")) {
      ASSIGN_OR_RETURN(const Organisation found, store_.FindOrganisation(Get("organisation")));
      organisation = found.id;
    }
    ASSIGN_OR_RETURN(const auto rows, store_.Usage(organisation, now_ / kSecondsPerDay - days + 1));
    std::vector<std::string> items;
    for (const UsageRow& row : rows) {
      items.push_back(Json()
                          .Number("day", row.day * kSecondsPerDay)
                          .Text("organisation", row.organisation)
                          .Text("key", row.key)
                          .Number("requests", row.counts.requests)
                          .Number("prompt_tokens", row.counts.prompt_tokens)
                          .Number("cached_tokens", row.counts.cached_tokens)
                          .Number("completion_tokens", row.counts.output_tokens)
                          .Take());
    }
    return List(items);
  }

 private:
  bool Has(std::string_view name) const { return arguments_.find(name) != arguments_.end(); }
  std::string Get(std::string_view name) const {
    const auto found = arguments_.find(name);
    return found == arguments_.end() ? std::string() : found->second;
  }
  absl::StatusOr<std::string> Need(std::string_view name) const {
    if (!Has(name) || Get(name).empty()) return InvalidArgumentError("%s is missing", name);
    return Get(name);
  }
  absl::StatusOr<TierKind> Tier(TierKind otherwise) const {
    return Has("tier") ? ParseTier(Get("tier")) : absl::StatusOr<TierKind>(otherwise);
  }
  absl::StatusOr<int64_t> Number(std::string_view name, int64_t otherwise) const {
    if (!Has(name)) return otherwise;
    const std::string text = Get(name);
    int64_t number = 0;
    constexpr int64_t kMost = 4'000'000'000;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || number < 0 ||
        number > kMost) {
      return InvalidArgumentError("%s is \"%s\"; it must be a number from 0 to %d", name,
                                  text.substr(0, 100), kMost);
    }
    return number;
  }
  Json KeyJson(const KeyRecord& key) const {
    const bool expired = key.expires_at != 0 && key.expires_at <= now_;
    Json json;
    json.Text("id", key.id)
        .Text("prefix", key.prefix)
        .Text("state", key.revoked_at != 0 ? "revoked"
                       : expired           ? "expired"
                                           : "active")
        .Text("organisation", key.organisation)
        .Text("tier", TierName(key.tier))
        .Text("label", key.label)
        .Number("created_at", key.created_at)
        .Number("expires_at", key.expires_at);
    return json;
  }
  absl::StatusOr<std::string> OrganisationJson(const Organisation& organisation) const {
    ASSIGN_OR_RETURN(const TierLimits limits,
                     EffectiveLimits(tiers_, organisation.tier, organisation.overrides));
    return Json()
        .Text("id", organisation.id)
        .Text("name", organisation.name)
        .Text("email", organisation.email)
        .Text("tier", TierName(organisation.tier))
        .Text("limits", limits.ToText())
        .Number("created_at", organisation.created_at)
        .Take();
  }

  AccountStore& store_;
  const TierTable& tiers_;
  const KeyArguments& arguments_;
  const int64_t now_;
};

struct Verb {
  std::string_view name;
  absl::StatusOr<std::string> (Command::*run)();
};
constexpr Verb kVerbs[] = {
    {"list", &Command::Keys},
    {"applications", &Command::Applications},
    {"organisations", &Command::Organisations},
    {"approve", &Command::Approve},
    {"refuse", &Command::Refuse},
    {"create", &Command::Create},
    {"revoke", &Command::Revoke},
    {"rotate", &Command::Rotate},
    {"limits", &Command::Limits},
    {"usage", &Command::Usage},
};

const Verb* FindVerb(std::string_view name) {
  const Verb* const end = std::end(kVerbs);
  const Verb* const found =
      std::find_if(std::begin(kVerbs), end, [&](const Verb& verb) { return verb.name == name; });
  return found == end ? nullptr : found;
}

absl::StatusOr<KeyArguments> ParseArguments(std::string_view body) {
  KeyArguments arguments;
  if (body.empty()) return arguments;
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(body.data(), body.size()).get_object().get(object) != simdjson::SUCCESS) {
    return InvalidArgumentError("the body must be a JSON object");
  }
  for (const simdjson::dom::key_value_pair member : object) {
    const std::string name(member.key);
    std::string_view text;
    int64_t number = 0;
    bool flag = false;
    if (member.value.get_string().get(text) == simdjson::SUCCESS) {
      arguments[name] = std::string(text);
    } else if (member.value.get_int64().get(number) == simdjson::SUCCESS) {
      arguments[name] = std::to_string(number);
    } else if (member.value.get_bool().get(flag) == simdjson::SUCCESS) {
      arguments[name] = flag ? "true" : "false";
    } else {
      return InvalidArgumentError("%s must be a string, an integer or a boolean",
                                  name.substr(0, 100));
    }
  }
  return arguments;
}

}  // namespace

absl::Status CheckKeyCommand(std::string_view verb) {
  if (FindVerb(verb) != nullptr) return absl::OkStatus();
  std::string names;
  for (const Verb& known : kVerbs) names.append(names.empty() ? "" : ", ").append(known.name);
  return InvalidArgumentError("there is no command \"%s\"; there are %s", verb.substr(0, 100),
                              names);
}

absl::StatusOr<std::string> RunKeyCommand(AccountStore& store, const TierTable& tiers,
                                          std::string_view verb, const KeyArguments& arguments,
                                          int64_t now) {
  const Verb* const found = FindVerb(verb);
  if (found == nullptr) return CheckKeyCommand(verb);
  Command command(store, tiers, arguments, now);
  return (command.*found->run)();
}

absl::StatusOr<std::string> HandleKeyAdmin(Accounts& accounts, std::string_view verb,
                                           std::string_view body) {
  ASSIGN_OR_RETURN(const KeyArguments arguments, ParseArguments(body));
  std::string answer;
  RETURN_IF_ERROR(accounts.OnStore([&](AccountStore& store) -> absl::Status {
    ASSIGN_OR_RETURN(answer,
                     RunKeyCommand(store, accounts.tiers(), verb, arguments, accounts.now()));
    return absl::OkStatus();
  }));
  return answer;
}

}  // namespace reticle::server::tenants
