#include "server/tenants/tier.h"

#include <charconv>
#include <utility>

#include "base/status.h"

namespace reticle::server::tenants {
namespace {

constexpr int64_t kMaxLimit = 1'000'000'000;

struct NumberField {
  std::string_view name;
  int64_t TierLimits::*member;
};
constexpr NumberField kNumberFields[] = {
    {"requests_per_minute", &TierLimits::requests_per_minute},
    {"requests_per_day", &TierLimits::requests_per_day},
    {"tokens_per_minute", &TierLimits::tokens_per_minute},
    {"tokens_per_day", &TierLimits::tokens_per_day},
    {"concurrent", &TierLimits::concurrent},
    {"max_context", &TierLimits::max_context},
    {"max_output", &TierLimits::max_output},
};

// Each piece of `text` between separators; empty ones are left out.
std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t end = text.find(separator);
    if (end != 0) parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return parts;
}

absl::StatusOr<std::pair<std::string_view, std::string_view>> SplitAssignment(
    std::string_view text) {
  const size_t sign = text.find('=');
  if (sign == std::string_view::npos || sign == 0) {
    return InvalidArgumentError("\"%s\" is no assignment such as requests_per_minute=30",
                                text.substr(0, 100));
  }
  return std::pair(text.substr(0, sign), text.substr(sign + 1));
}

}  // namespace

absl::Status TierLimits::Set(std::string_view name, std::string_view value) {
  if (name == "models") {
    models.clear();
    for (const std::string_view model : Split(value, ',')) models.emplace_back(model);
    return absl::OkStatus();
  }
  for (const NumberField& field : kNumberFields) {
    if (field.name != name) continue;
    int64_t number = 0;
    const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
    if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size() || number < 0 ||
        number > kMaxLimit) {
      return InvalidArgumentError("%s is \"%s\"; it must be a number from 0 (no limit) to %d", name,
                                  value.substr(0, 100), kMaxLimit);
    }
    this->*field.member = number;
    return absl::OkStatus();
  }
  return InvalidArgumentError(
      "there is no limit \"%s\"; there are requests_per_minute, requests_per_day, "
      "tokens_per_minute, tokens_per_day, concurrent, max_context, max_output and models",
      name.substr(0, 100));
}

absl::Status TierLimits::Apply(std::string_view overrides) {
  for (const std::string_view part : Split(overrides, ';')) {
    ASSIGN_OR_RETURN(const auto assignment, SplitAssignment(part));
    RETURN_IF_ERROR(Set(assignment.first, assignment.second));
  }
  return absl::OkStatus();
}

std::string TierLimits::ToText() const {
  std::string text;
  for (const NumberField& field : kNumberFields) {
    text.append(field.name).append("=").append(std::to_string(this->*field.member)).append(";");
  }
  text.append("models=");
  for (size_t i = 0; i < models.size(); ++i) text.append(i > 0 ? "," : "").append(models[i]);
  return text;
}

absl::StatusOr<TierKind> ParseTier(std::string_view name) {
  for (int i = 0; i < 3; ++i) {
    if (kTierNames[i] == name) return static_cast<TierKind>(i);
  }
  return InvalidArgumentError("tier is \"%s\"; it must be free, paid or operator",
                              name.substr(0, 100));
}

TierTable::TierTable() {
  TierLimits& free = limits[static_cast<int>(TierKind::kFree)];
  free.requests_per_minute = 30;
  free.requests_per_day = 14'400;
  free.tokens_per_minute = 60'000;
  free.tokens_per_day = 2'000'000;
  free.concurrent = 4;
  free.max_output = 2048;
  TierLimits& paid = limits[static_cast<int>(TierKind::kPaid)];
  paid.requests_per_minute = 3'000;
  paid.tokens_per_minute = 10'000'000;
  paid.concurrent = 256;
}

absl::Status TierTable::Set(std::string_view assignment) {
  const size_t dot = assignment.find('.');
  if (dot == std::string_view::npos) {
    return InvalidArgumentError("\"%s\" is no assignment such as free.requests_per_minute=30",
                                assignment.substr(0, 100));
  }
  ASSIGN_OR_RETURN(const TierKind tier, ParseTier(assignment.substr(0, dot)));
  ASSIGN_OR_RETURN(const auto parts, SplitAssignment(assignment.substr(dot + 1)));
  return limits[static_cast<int>(tier)].Set(parts.first, parts.second);
}

absl::StatusOr<ServiceClass> ChooseServiceClass(TierKind tier, std::string_view requested) {
  const bool free = tier == TierKind::kFree;
  if (requested.empty() || requested == "auto" || requested == "default") {
    return ServiceClass{free ? 40 : 0, "default"};
  }
  if (requested == "flex") return ServiceClass{free ? 60 : 20, "flex"};
  if (requested == "priority") {
    return free ? ServiceClass{40, "default"} : ServiceClass{-20, "priority"};
  }
  return InvalidArgumentError("service_tier is \"%s\"; it must be auto, default, flex or priority",
                              requested.substr(0, 100));
}

}  // namespace reticle::server::tenants
