#include <toml++/toml.h>

#include "base/file.h"
#include "base/status.h"
#include "loadtest/embedded_files.h"
#include "loadtest/scenario.h"

namespace reticle::loadtest {
namespace {

// A scalar as the text that a flag would have.
std::optional<std::string> ScalarText(const toml::node& node) {
  if (const auto text = node.value_exact<std::string>()) return *text;
  if (const auto integer = node.value_exact<int64_t>()) return std::to_string(*integer);
  if (const auto number = node.value_exact<double>()) return absl::StrFormat("%.17g", *number);
  if (const auto flag = node.value_exact<bool>()) return *flag ? "true" : "false";
  return std::nullopt;
}

absl::Status LoadTable(const toml::table& table, const std::string& prefix,
                       const std::string& origin, std::vector<Setting>& settings) {
  for (const auto& [name, node] : table) {
    const std::string key = prefix + std::string(name.str());
    if (const toml::table* section = node.as_table(); section != nullptr && prefix.empty()) {
      RETURN_IF_ERROR(LoadTable(*section, key + ".", origin, settings));
      continue;
    }
    const auto line = node.source().begin.line;
    Setting* found = nullptr;
    for (Setting& setting : settings) {
      if (setting.key == key) found = &setting;
    }
    if (found == nullptr) {
      return InvalidArgumentError("%s, line %d: there is no setting \"%s\"", origin, line, key);
    }
    std::vector<std::string> texts;
    if (const toml::array* list = node.as_array(); list != nullptr && found->is_list) {
      for (const toml::node& item : *list) {
        if (const auto text = ScalarText(item)) texts.push_back(*text);
      }
    } else if (const auto text = ScalarText(node)) {
      texts.push_back(*text);
    }
    if (texts.empty()) {
      return InvalidArgumentError("%s, line %d: the value of \"%s\" has the wrong type", origin,
                                  line, key);
    }
    for (const std::string& text : texts) {
      if (const absl::Status status = found->set(text); !status.ok()) {
        return InvalidArgumentError("%s, line %d: %s: %s", origin, line, key, status.message());
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

const std::vector<BuiltInScenario>& BuiltInScenarios() {
  static const std::vector<BuiltInScenario> scenarios = [] {
    constexpr std::string_view kEnding = ".toml";
    std::vector<BuiltInScenario> found;
    for (const EmbeddedFile& file : EmbeddedFiles()) {
      if (!file.name.ends_with(kEnding)) continue;
      found.push_back({file.name.substr(0, file.name.size() - kEnding.size()), file.text});
    }
    return found;
  }();
  return scenarios;
}

absl::Status LoadScenario(std::string_view toml, const std::string& origin, Scenario& scenario) {
  std::vector<Setting> settings = ScenarioSettings(scenario);
  try {
    return LoadTable(toml::parse(toml), "", origin, settings);
  } catch (const toml::parse_error& error) {
    return InvalidArgumentError("%s, line %d: %s", origin, error.source().begin.line,
                                error.description());
  }
}

absl::Status LoadScenarioByName(const std::string& name_or_path, Scenario& scenario) {
  if (name_or_path.find('/') == std::string::npos && !name_or_path.ends_with(".toml")) {
    std::string names;
    for (const BuiltInScenario& built_in : BuiltInScenarios()) {
      if (built_in.name == name_or_path) {
        return LoadScenario(built_in.toml, "scenario " + name_or_path, scenario);
      }
      names.append(names.empty() ? "" : ", ").append(built_in.name);
    }
    return NotFoundError("there is no scenario \"%s\"; there are %s, or the path of a .toml file",
                         name_or_path, names);
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile("scenario file", name_or_path));
  return LoadScenario(text, name_or_path, scenario);
}

}  // namespace reticle::loadtest
