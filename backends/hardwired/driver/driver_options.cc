#include "backends/hardwired/driver/driver_options.h"

#include <algorithm>

#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

absl::StatusOr<CardPlace> ParsePlace(const std::string& value) {
  if (value == "inline") return CardPlace::kInline;
  if (value == "thread") return CardPlace::kThread;
  if (value == "process") return CardPlace::kProcess;
  if (value == "socket") return CardPlace::kSocket;
  return InvalidArgumentError("option card is '%s'; it must be inline, thread, process or socket",
                              value);
}

// The options of the card that a host may give to one that somebody else started.
bool IsForAnyCard(const std::string& name) { return name == "sampling"; }

}  // namespace

absl::StatusOr<DriverOptions> DriverOptions::FromConfig(const reticle_device_config& config) {
  DriverOptions options;
  options.device_index = config.device_index;
  options.name = absl::StrFormat("card%u", config.device_index);
  if (config.option_count > 0 && config.options == nullptr) {
    return InvalidArgumentError("options is NULL with an option_count of %u", config.option_count);
  }
  bool has_place = false;
  std::vector<std::string> card_names;
  for (size_t i = 0; i < config.option_count; ++i) {
    if (config.options[i].name == nullptr || config.options[i].value == nullptr) {
      return InvalidArgumentError("options[%u] has a NULL name or value", i);
    }
    const std::string name = config.options[i].name;
    const std::string value = config.options[i].value;
    if (name == "card") {
      ASSIGN_OR_RETURN(options.place, ParsePlace(value));
      has_place = true;
    } else if (name == "card_program") {
      options.card_program = value;
    } else if (name == "card_socket") {
      options.card_socket = value;
    } else if (name == "virtual_clock") {
      options.virtual_clock = value;
    } else if (name == "watchdog_ms") {
      ASSIGN_OR_RETURN(const uint64_t number, ParseOption(name, value, 1, 3'600'000));
      options.watchdog_ms = static_cast<uint32_t>(number);
    } else if (name == "fault_file") {
      options.fault_file = value;
    } else if (name == "name") {
      options.name = value;
    } else {
      ASSIGN_OR_RETURN(const bool taken, options.card.Set(name, value));
      if (!taken) return InvalidArgumentError("option '%s' is not known to this device", name);
      card_names.push_back(name);
      if (IsForAnyCard(name)) options.host_options.emplace_back(name, value);
    }
  }
  CardConfig& card = options.card;
  if (config.model_path != nullptr && *config.model_path != '\0') {
    card.image_path = config.model_path;
  }
  if (config.context_limit != 0) card.context_limit = config.context_limit;
  if (config.max_sequences != 0) card.max_sequences = config.max_sequences;
  if (config.kv_bytes != 0) card.kv_bytes = config.kv_bytes;
  if (config.threads != 0) card.threads = config.threads;
  options.host_options.emplace_back("context_limit", std::to_string(card.context_limit));
  options.host_options.emplace_back("max_sequences", std::to_string(card.max_sequences));
  options.host_options.emplace_back("kv_bytes", std::to_string(card.kv_bytes));
  if (!has_place) {
    options.place = card.replay || card.virtual_clock ? CardPlace::kInline : CardPlace::kThread;
  }
  if (!options.virtual_clock.empty() &&
      (!card.virtual_clock || options.place != CardPlace::kInline)) {
    return InvalidArgumentError(
        "option virtual_clock is '%s'; it needs clock=virtual and card=inline",
        options.virtual_clock);
  }
  if (options.place == CardPlace::kSocket) {
    if (options.card_socket.empty()) {
      return InvalidArgumentError("card=socket needs card_socket, the path of a card's socket");
    }
    for (const std::string& name : card_names) {
      if (IsForAnyCard(name)) continue;
      return InvalidArgumentError(
          "option %s: the card at %s has its own configuration; give it there", name,
          options.card_socket);
    }
  }
  for (const auto& [name, value] : card.ToOptions()) {
    if (value.find('\n') != std::string::npos) {
      return InvalidArgumentError("option %s holds a line break", name);
    }
  }
  return options;
}

}  // namespace reticle::backends::hardwired
