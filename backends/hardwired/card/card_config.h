// What a card is: profile, content and limits, from options; and the parts that it is made of.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_CARD_CONFIG_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_CARD_CONFIG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"
#include "backends/hardwired/card/content.h"
#include "backends/hardwired/profiles/profile.h"
#include "backends/hardwired/timing/timing_model.h"

namespace reticle::backends::hardwired {

// The card's own options; driver/hardwired_device.h says what each means.
struct CardConfig {
  std::string profile_name = "taalas-hc1";
  bool replay = false;
  bool synthetic = false;
  bool virtual_clock = false;
  bool strict_sampling = false;
  bool ignores_parameters = false;
  std::string image_path;
  uint32_t vocab_size = 256;
  std::vector<uint32_t> replay_text;
  uint32_t replay_tokens = 0;
  uint32_t replay_kv_bytes = 0;
  uint32_t scrub_ms = 10'000;
  // As in reticle_device_config; 0: the device's own.
  uint32_t context_limit = 0;
  uint32_t max_sequences = 0;
  uint32_t threads = 0;
  uint64_t kv_bytes = 0;
  std::vector<std::pair<std::string, std::string>> overrides;  // numbers of the profile

  // Takes one option; false when its name is none of the card's. INVALID_ARGUMENT for a bad value.
  absl::StatusOr<bool> Set(const std::string& name, const std::string& value);
  // All of it as options, for a card process.
  std::vector<std::pair<std::string, std::string>> ToOptions() const;
};

// Reads numbers off `text`; INVALID_ARGUMENT names the option and the limits.
absl::StatusOr<uint64_t> ParseOption(std::string_view name, std::string_view value, uint64_t min,
                                     uint64_t max);

// What a card is made of, apart from its memory. Movable.
struct CardParts {
  Profile profile;
  TimingModel timing;
  std::unique_ptr<Content> content;
  reticle_capabilities capabilities{};
  uint32_t device_top_k = 0;
};

// Opens profile and content. The statuses of LoadProfile and of opening the image;
// INVALID_ARGUMENT when context_limit is beyond the device's.
absl::StatusOr<CardParts> BuildCard(const CardConfig& config);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_CARD_CONFIG_H_
