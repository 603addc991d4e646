// Profiles from TOML. The files of this folder are examples of the format.
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>

#include "backends/hardwired/profiles/built_in_profiles.h"
#include "backends/hardwired/profiles/profile.h"
#include "base/file.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr int kMaxInheritance = 8;

const BuiltInProfile* FindBuiltIn(std::string_view name) {
  for (const BuiltInProfile& profile : BuiltInProfiles()) {
    if (name == profile.name) return &profile;
  }
  return nullptr;
}

// "nvidia-h100.toml: timing.decode_rate" and so on, for messages.
struct Place {
  std::string_view origin;
  std::string key;

  Place Below(std::string_view name) const {
    return {origin, key.empty() ? std::string(name) : key + "." + std::string(name)};
  }
  template <typename... Args>
  absl::Status Error(const absl::FormatSpec<Args...>& format, const Args&... args) const {
    return InvalidArgumentError("%s: %s %s", origin, key, absl::StrFormat(format, args...));
  }
};

absl::Status ReadText(const toml::node& node, const Place& place, std::string* text) {
  const auto value = node.value<std::string_view>();
  if (!node.is_string() || !value.has_value()) return place.Error("must be a text in quotes");
  *text = *value;
  return absl::OkStatus();
}

absl::Status ReadBool(const toml::node& node, const Place& place, bool* flag) {
  if (!node.is_boolean()) return place.Error("must be true or false");
  *flag = *node.value<bool>();
  return absl::OkStatus();
}

absl::Status ReadNumber(const toml::node& node, const Place& place, const KeyInfo& info,
                        std::optional<double>* number) {
  if (!node.is_number()) return place.Error("must be a number");
  const double value = *node.value<double>();
  if (!(value >= info.min) || !(value <= info.max)) {
    return place.Error("is %g; it must be in %g .. %g %s", value, info.min, info.max, info.unit);
  }
  if (info.is_integer && value != std::floor(value)) {
    return place.Error("is %g; it must be a whole number", value);
  }
  *number = value;
  return absl::OkStatus();
}

absl::Status ReadProvenance(const toml::node& node, const Place& place, Provenance* provenance) {
  std::string letter;
  RETURN_IF_ERROR(ReadText(node, place, &letter));
  if (letter.size() != 1 || std::strchr("VISNU", letter[0]) == nullptr) {
    return place.Error("is '%s'; it must be V, I, S, N or U", letter);
  }
  *provenance = static_cast<Provenance>(letter[0]);
  return absl::OkStatus();
}

absl::Status CheckQuantity(const Quantity& quantity, const Place& place, bool has_unit,
                           bool has_provenance) {
  if (!has_unit) return place.Error("lacks its unit");
  if (!has_provenance) return place.Error("lacks from: V, I, S, N or U");
  const bool unknown = quantity.provenance == Provenance::kUnknown;
  if (unknown && quantity.value.has_value()) {
    return place.Error("is unknown (U) and has a value; what is not known has none");
  }
  if (!unknown && !quantity.value.has_value()) return place.Error("lacks its value");
  if (!unknown && quantity.source.empty()) return place.Error("lacks its source");
  if (!unknown && quantity.assumed.has_value()) {
    return place.Error("has a value and an assumption; an assumption is for what is unknown (U)");
  }
  if (quantity.assumed.has_value() && quantity.assumption.empty()) {
    return place.Error("assumes a value and does not say why (assumption)");
  }
  return absl::OkStatus();
}

absl::Status ReadQuantity(const toml::node& node, const KeyInfo& info, std::string_view origin,
                          Quantity* quantity) {
  const Place place{origin, info.name};
  const toml::table* const table = node.as_table();
  if (table == nullptr) return place.Error("must be a table of value, unit, from and source");
  *quantity = Quantity();
  quantity->unit = info.unit;
  bool has_provenance = false;
  bool has_unit = false;
  for (const auto& [key, item] : *table) {
    const Place below = place.Below(key.str());
    if (key == "value") {
      RETURN_IF_ERROR(ReadNumber(item, below, info, &quantity->value));
    } else if (key == "assumed") {
      RETURN_IF_ERROR(ReadNumber(item, below, info, &quantity->assumed));
    } else if (key == "unit") {
      std::string unit;
      RETURN_IF_ERROR(ReadText(item, below, &unit));
      if (unit != info.unit) return below.Error("is '%s'; it must be '%s'", unit, info.unit);
      has_unit = true;
    } else if (key == "from") {
      RETURN_IF_ERROR(ReadProvenance(item, below, &quantity->provenance));
      has_provenance = true;
    } else if (key == "source") {
      RETURN_IF_ERROR(ReadText(item, below, &quantity->source));
    } else if (key == "assumption") {
      RETURN_IF_ERROR(ReadText(item, below, &quantity->assumption));
    } else {
      return below.Error("is not known; value, unit, from, source, assumed and assumption are");
    }
  }
  return CheckQuantity(*quantity, place, has_unit, has_provenance);
}

absl::Status ReadSection(const toml::table& section, std::string_view name, std::string_view origin,
                         Profile* profile) {
  for (const auto& [key, node] : section) {
    const std::string path = std::string(name) + "." + std::string(key.str());
    const std::span<const KeyInfo> infos = KeyInfos();
    const auto info = std::find_if(infos.begin(), infos.end(), [&](const KeyInfo& candidate) {
      return path == candidate.name;
    });
    if (info == infos.end()) return Place{origin, path}.Error("is not known");
    RETURN_IF_ERROR(ReadQuantity(node, *info, origin, &(*profile)[info->key]));
  }
  return absl::OkStatus();
}

absl::Status ReadFacts(const toml::node& node, std::string_view origin, Profile* profile) {
  const Place place{origin, "fact"};
  const toml::array* const array = node.as_array();
  if (array == nullptr) return place.Error("must be tables [[fact]]");
  for (const toml::node& item : *array) {
    const toml::table* const table = item.as_table();
    if (table == nullptr) return place.Error("must be tables [[fact]]");
    Fact fact;
    bool has_provenance = false;
    for (const auto& [key, value] : *table) {
      const Place below = place.Below(key.str());
      if (key == "from") {
        RETURN_IF_ERROR(ReadProvenance(value, below, &fact.provenance));
        has_provenance = true;
        continue;
      }
      std::string* const text = key == "name"     ? &fact.name
                                : key == "text"   ? &fact.text
                                : key == "source" ? &fact.source
                                                  : nullptr;
      if (text == nullptr) return below.Error("is not known; name, text, from and source are");
      RETURN_IF_ERROR(ReadText(value, below, text));
    }
    if (fact.name.empty() || fact.text.empty() || !has_provenance) {
      return place.Error("lacks its name, its text or from");
    }
    std::erase_if(profile->facts, [&](const Fact& other) { return other.name == fact.name; });
    profile->facts.push_back(std::move(fact));
  }
  return absl::OkStatus();
}

absl::Status ReadBatching(const toml::node& node, std::string_view origin, Profile* profile) {
  const Place place{origin, "batching"};
  std::string text;
  RETURN_IF_ERROR(ReadText(node, place, &text));
  for (const Batching batching : {Batching::kPipelined, Batching::kBatched, Batching::kUnlimited}) {
    if (text != BatchingName(batching)) continue;
    profile->batching = batching;
    return absl::OkStatus();
  }
  return place.Error("is '%s'; it must be pipelined, batched or unlimited", text);
}

absl::StatusOr<Profile> Parse(std::string_view text, std::string_view origin, int depth);

// Begins with what `table` inherits.
absl::StatusOr<Profile> Inherit(const toml::table& table, std::string_view origin, int depth) {
  Profile profile;
  for (const KeyInfo& info : KeyInfos()) profile[info.key].unit = info.unit;
  const toml::node* const node = table.get("inherits");
  if (node == nullptr) return profile;
  const Place place{origin, "inherits"};
  std::string base;
  RETURN_IF_ERROR(ReadText(*node, place, &base));
  const BuiltInProfile* const found = FindBuiltIn(base);
  if (found == nullptr) return place.Error("is '%s', which is no built-in profile", base);
  if (depth >= kMaxInheritance) return place.Error("goes deeper than %d", kMaxInheritance);
  return Parse(found->toml, base, depth + 1);
}

absl::Status ReadEntry(std::string_view key, const toml::node& node, std::string_view origin,
                       Profile* profile) {
  const Place place{origin, std::string(key)};
  if (key == "inherits") return absl::OkStatus();
  if (key == "name") return ReadText(node, place, &profile->name);
  if (key == "title") return ReadText(node, place, &profile->title);
  if (key == "vendor") return ReadText(node, place, &profile->vendor);
  if (key == "summary") return ReadText(node, place, &profile->summary);
  if (key == "batching") return ReadBatching(node, origin, profile);
  if (key == "hardwired") return ReadBool(node, place, &profile->is_hardwired);
  if (key == "host_sampling") return ReadBool(node, place, &profile->host_sampling);
  if (key == "fact") return ReadFacts(node, origin, profile);
  const toml::table* const section = node.as_table();
  if (section == nullptr) return place.Error("is not known");
  return ReadSection(*section, key, origin, profile);
}

absl::StatusOr<Profile> Parse(std::string_view text, std::string_view origin, int depth) {
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return InvalidArgumentError("%s:%d: %s", origin, error.source().begin.line,
                                error.description());
  }
  ASSIGN_OR_RETURN(Profile profile, Inherit(table, origin, depth));
  for (const auto& [key, node] : table) {
    RETURN_IF_ERROR(ReadEntry(key.str(), node, origin, &profile));
  }
  if (profile.name.empty()) return Place{origin, "name"}.Error("is missing");
  profile.source = origin;
  const bool unlimited = profile.batching == Batching::kUnlimited;
  const auto needs = [&](Key key) -> absl::Status {
    if (profile[key].simulated().has_value()) return absl::OkStatus();
    return Place{origin, InfoOf(key).name}.Error(
        "is missing: a profile that is %s needs a value or an assumption",
        BatchingName(profile.batching));
  };
  if (!unlimited) RETURN_IF_ERROR(needs(Key::kDecodeRate));
  if (profile.batching == Batching::kPipelined) RETURN_IF_ERROR(needs(Key::kPipelineDepth));
  if (profile.batching == Batching::kBatched) {
    RETURN_IF_ERROR(needs(Key::kAggregateRate));
    const double aggregate = *profile[Key::kAggregateRate].simulated();
    if (aggregate < *profile[Key::kDecodeRate].simulated()) {
      return Place{origin, InfoOf(Key::kAggregateRate).name}.Error(
          "is %g; it must be at least decode_rate, %g", aggregate,
          *profile[Key::kDecodeRate].simulated());
    }
  }
  return profile;
}

}  // namespace

absl::StatusOr<Profile> ParseProfile(std::string_view toml, std::string_view origin) {
  return Parse(toml, origin, 0);
}

absl::StatusOr<Profile> LoadProfile(std::string_view name_or_path) {
  if (name_or_path.find('/') == std::string_view::npos && !name_or_path.ends_with(".toml")) {
    if (const BuiltInProfile* const found = FindBuiltIn(name_or_path)) {
      auto profile = ParseProfile(found->toml, found->name);
      if (profile.ok()) profile->source = "built in";
      return profile;
    }
    std::string names;
    for (const BuiltInProfile& profile : BuiltInProfiles()) {
      names += std::string(names.empty() ? "" : ", ") + profile.name;
    }
    return NotFoundError("profile \"%s\" is not known; it must be the path of a .toml file or %s",
                         name_or_path, names);
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile("profile", std::string(name_or_path)));
  return ParseProfile(text, name_or_path);
}

std::vector<std::string> BuiltInProfileNames() {
  std::vector<std::string> names;
  for (const BuiltInProfile& profile : BuiltInProfiles()) names.emplace_back(profile.name);
  return names;
}

}  // namespace reticle::backends::hardwired
