// Profiles of devices: what is known, claimed, inferred or unknown of each, number by number.
//
//   ASSIGN_OR_RETURN(Profile profile, LoadProfile("taalas-hc1"));      // or a path: "./mine.toml"
//   const Quantity& rate = profile[Key::kDecodeRate];
//   Print(rate.value, rate.unit, ProvenanceLetter(rate.provenance), rate.source);
//
// A number that nobody published is kUnknown and has no `value`. Where the simulation needs one,
// the profile states an assumption beside it, which is our inference and is never shown as more.
// Plain data; a const Profile may be read by any thread.
#ifndef RETICLE_BACKENDS_HARDWIRED_PROFILES_PROFILE_H_
#define RETICLE_BACKENDS_HARDWIRED_PROFILES_PROFILE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::backends::hardwired {

// Where a number comes from.
enum class Provenance : char {
  kVendor = 'V',       // the vendor's claim
  kIndependent = 'I',  // an independent measurement
  kPress = 'S',        // press or forum
  kInferred = 'N',     // our inference
  kUnknown = 'U'       // nobody says
};
inline char ProvenanceLetter(Provenance provenance) { return static_cast<char>(provenance); }
// "vendor", "independent", "press", "inferred", "unknown".
std::string_view ProvenanceName(Provenance provenance);

// One number of a profile.
struct Quantity {
  std::optional<double> value;  // in `unit`; absent: unknown
  std::string unit;
  Provenance provenance = Provenance::kUnknown;
  std::string source;  // who says so, in a few words
  // Only where provenance is kUnknown: what the simulation takes instead (our inference), and why.
  std::optional<double> assumed;
  std::string assumption;

  // What a simulation calculates with, or nothing.
  std::optional<double> simulated() const { return value.has_value() ? value : assumed; }
  double simulated_or(double other) const { return simulated().value_or(other); }
  // The letter of simulated(): kInferred for an assumption.
  Provenance simulated_provenance() const {
    return value.has_value() || !assumed.has_value() ? provenance : Provenance::kInferred;
  }
};

// A fact in words, such as the way of cooling.
struct Fact {
  std::string name;
  std::string text;
  Provenance provenance = Provenance::kUnknown;
  std::string source;
};

// The numbers that a profile may give. KeyInfo() has name, unit and meaning of each.
enum class Key : uint8_t {
  kDecodeRate,       // timing.decode_rate: tokens/s of one stream alone
  kAggregateRate,    // timing.aggregate_rate: tokens/s of all streams of a saturated device
  kPipelineDepth,    // timing.pipeline_depth: streams in flight at full speed
  kContextTerm,      // timing.context_term: ns more per token and position
  kPrefillFixed,     // timing.prefill_fixed: us
  kPrefillPerToken,  // timing.prefill_per_token: us
  kPrefillChunk,     // timing.prefill_chunk: prompt tokens between two decode steps
  kAdapterSwap,      // timing.adapter_swap: us
  kLinkLatency,      // timing.link_latency: us, one way
  kHostSampling,     // timing.host_sampling: us more for a token that the host samples
  kContext,          // limits.context: tokens
  kMaxSequences,     // limits.max_sequences
  kRunAhead,         // limits.run_ahead: decode credits that one sequence may hold
  kMaxTopK,          // limits.max_top_k: on the device; 0: any
  kAdapters,         // limits.adapters: loaded at once
  kKvMemory,         // limits.kv_memory: MiB for KV on the device
  kParameters,       // chip.parameters: 1e9 weights that one chip holds (hardwired chips)
  kChips,            // chip.chips: chips that the figures above are for
  kWeightBits,       // chip.weight_bits: bits a weight
  kMemory,           // chip.memory: GB
  kBandwidth,        // chip.bandwidth: TB/s
  kProcess,          // chip.process: nm
  kDieArea,          // chip.die_area: mm2
  kTransistors,      // chip.transistors: 1e9
  kIdlePower,        // power.idle: W of one device
  kActivePower,      // power.active: W of one device
  kEnergyPerToken,   // power.energy_per_token: J, as published; not used by the simulation
  kPrice,            // price.device: USD
  kListInput,        // price.list_input: USD per million tokens
  kListOutput,       // price.list_output: USD per million tokens
  kClaimedCost,      // price.claimed_cost: USD per million tokens
  kServerCards,      // server.cards: devices in one server
  kServerPower,      // server.power: W of the whole server
  kServerPrice,      // server.price: USD of the server without its devices
  kMeasuredRate,     // published.decode_rate: another figure for the rate of one stream
  kTtft,             // published.ttft: ms on the device
  kAggregate1k1k,    // published.aggregate_1k_1k: tokens/s out at 1,000 in and 1,000 out
  kAggregate128In,   // published.aggregate_128_2048
  kAggregate2kIn,    // published.aggregate_2048_128
};
inline constexpr size_t kKeyCount = static_cast<size_t>(Key::kAggregate2kIn) + 1;

struct KeyInfo {
  Key key;
  const char* name;  // "timing.decode_rate": the table and key of the TOML file
  const char* unit;
  double min;
  double max;
  bool is_integer;
  const char* meaning;
};
// By key, in the order of the enumeration.
std::span<const KeyInfo> KeyInfos();
const KeyInfo& InfoOf(Key key);

// How speed depends on the number of streams.
enum class Batching : uint8_t {
  // Up to pipeline_depth streams at full per-user speed; beyond it they share.
  kPipelined,
  // Steps over all streams: the per-user rate falls with each, the aggregate saturates.
  kBatched,
  // No time passes at all.
  kUnlimited
};
std::string_view BatchingName(Batching batching);

struct Profile {
  std::string name;    // "taalas-hc1"
  std::string title;   // "Taalas HC1"
  std::string vendor;  // "Taalas"
  std::string summary;
  std::string source;  // the file, or "built in"
  Batching batching = Batching::kPipelined;
  bool is_hardwired = false;  // the model is the device
  // Whether the host may sample where the device's own sampler is too narrow.
  bool host_sampling = true;
  std::array<Quantity, kKeyCount> quantities;
  std::vector<Fact> facts;

  const Quantity& operator[](Key key) const { return quantities[static_cast<size_t>(key)]; }
  Quantity& operator[](Key key) { return quantities[static_cast<size_t>(key)]; }
};

// A built-in profile by name, or, when the name has a '/' or ends in ".toml", one of a file.
// NOT_FOUND names the built-in ones; INVALID_ARGUMENT names file, key and value.
absl::StatusOr<Profile> LoadProfile(std::string_view name_or_path);
// The same from the text of a file; `origin` stands in messages and in Profile::source.
absl::StatusOr<Profile> ParseProfile(std::string_view toml, std::string_view origin);
// In the order in which they are listed.
std::vector<std::string> BuiltInProfileNames();

// Replaces one number, as an operator does with an option such as timing.pipeline_depth=4. It is
// kInferred from then on. INVALID_ARGUMENT for an unknown name or a value out of range.
absl::Status OverrideQuantity(std::string_view name, std::string_view value, Profile* profile);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_PROFILES_PROFILE_H_
