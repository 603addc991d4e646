// What `reticle tapeout` prints.
#include <cmath>
#include <string>

#include "backends/hardwired/profiles/profile.h"
#include "base/status.h"
#include "server/cli/tapeout.h"
#include "server/http/json_writer.h"

namespace reticle::server::cli {
namespace {

namespace hardwired = backends::hardwired;
using backends::hardwired::RomEncoding;
using backends::hardwired::TapeoutReport;

std::string Cited(const hardwired::Quantity& quantity) {
  return absl::StrFormat("%g (%c: %s)", *quantity.simulated(),
                         hardwired::ProvenanceLetter(quantity.simulated_provenance()),
                         quantity.value.has_value() ? quantity.source : quantity.assumption);
}

// Whether the profile says how many weights of how many bits one die holds.
bool HasDensity(const hardwired::Profile& profile) {
  return profile.is_hardwired && profile[hardwired::Key::kParameters].simulated().has_value() &&
         profile[hardwired::Key::kWeightBits].simulated().has_value();
}

std::string Bytes(double bytes) {
  if (bytes < 1e6) return absl::StrFormat("%.1f kB", bytes / 1e3);
  if (bytes < 1e9) return absl::StrFormat("%.2f MB", bytes / 1e6);
  return absl::StrFormat("%.2f GB", bytes / 1e9);
}

std::string Member(std::string_view name, std::string_view text) {
  std::string out;
  http::AppendJsonString(out, name);
  out += ": ";
  http::AppendJsonString(out, text);
  return out;
}

std::string Number(std::string_view name, double value) {
  return absl::StrFormat("\"%s\": %.17g", name, value);
}
std::string Number(std::string_view name, uint64_t value) {
  return absl::StrFormat("\"%s\": %d", name, value);
}

// Bits of one role's matrix in each layer, such as "attn_q     3333".
std::string RoleLine(const TapeoutReport& report, const std::string& role) {
  std::string digits;
  for (const TapeoutReport::Tensor& tensor : report.tensors) {
    if (!tensor.name.ends_with("." + role + ".weight") && tensor.name != role + ".weight") continue;
    digits += tensor.encoding == RomEncoding::kThreeBit ? '3'
              : tensor.encoding == RomEncoding::kSixBit ? '6'
                                                        : '8';
  }
  if (digits.empty()) return "";
  return absl::StrFormat("  %-12s %s\n", role, digits);
}

}  // namespace

absl::StatusOr<DieDensity> FindDieDensity(const std::string& name) {
  const absl::StatusOr<hardwired::Profile> profile = hardwired::LoadProfile(name);
  if (!profile.ok()) {
    return absl::Status(profile.status().code(),
                        absl::StrFormat("--profile: %s", profile.status().message()));
  }
  if (!HasDensity(*profile)) {
    std::string names;
    for (const std::string& other : hardwired::BuiltInProfileNames()) {
      if (HasDensity(*hardwired::LoadProfile(other))) names += (names.empty() ? "" : ", ") + other;
    }
    return NotFoundError("--profile is \"%s\"; how much a die holds is known for %s", name, names);
  }
  const hardwired::Quantity& weights = (*profile)[hardwired::Key::kParameters];
  const hardwired::Quantity& bits = (*profile)[hardwired::Key::kWeightBits];
  DieDensity density;
  density.profile = profile->name;
  density.weights_per_die = std::round(*weights.simulated() * 1e9);
  density.bits_per_weight = *bits.simulated();
  density.source =
      absl::StrFormat("1e9 weights on a die: %s; bits of each: %s", Cited(weights), Cited(bits));
  return density;
}

uint64_t DiesFor(const DieDensity& density, double weight_bits) {
  const double bits = density.weights_per_die * density.bits_per_weight;
  return static_cast<uint64_t>(std::ceil(weight_bits / bits));
}

std::string TapeoutSummary(const TapeoutReport& report, const DieDensity& density,
                           uint32_t context) {
  const double weight_bits = 8.0 * static_cast<double>(report.weight_bytes);
  std::string out = absl::StrFormat(
      "model      %s, %d weights, %s\n"
      "types      %s: %.3f bits a weight with scales and norms, %s\n"
      "bits of each layer's matrices\n",
      report.config.name.empty() ? "(no name)" : report.config.name, report.config.parameters(),
      Bytes(static_cast<double>(report.source_bytes)), report.types, report.bits_per_weight,
      Bytes(static_cast<double>(report.weight_bytes)));
  for (const char* role : {"token_embd", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate",
                           "ffn_up", "ffn_down", "output"}) {
    out += RoleLine(report, role);
  }
  const TapeoutReport::Quality& q = report.quality;
  if (q.tokens > 0) {
    out += absl::StrFormat(
        "held out   %d tokens: perplexity %.4f of the source, %.4f of the image\n"
        "           KL divergence %.5f nats a token, same likeliest token %.2f %%\n",
        q.tokens, q.source_perplexity, q.image_perplexity, q.kl_divergence,
        100.0 * q.same_top_token);
  }
  out += absl::StrFormat(
      "dies       %d of %s (%.3g of the first one's weights); our inference (N) from: %s\n",
      DiesFor(density, weight_bits), density.profile,
      weight_bits / (density.weights_per_die * density.bits_per_weight), density.source);
  out +=
      absl::StrFormat("SRAM       %s of 16-bit KV for a context of %d tokens",
                      Bytes(static_cast<double>(report.kv_bytes_per_token_f16) * context), context);
  if (report.kv_bytes_per_token_int8 > 0) {
    out += absl::StrFormat(", %s of 8-bit KV",
                           Bytes(static_cast<double>(report.kv_bytes_per_token_int8) * context));
  }
  out += absl::StrFormat("\nsealed     %s\n", report.image_hash);
  return out;
}

std::string TapeoutJson(const TapeoutReport& report, const DieDensity& density, uint32_t context) {
  const double weight_bits = 8.0 * static_cast<double>(report.weight_bytes);
  const TapeoutReport::Quality& q = report.quality;
  std::string out = "{\n  " + Member("model", report.config.name) + ",\n  " +
                    Member("types", report.types) + ",\n  " +
                    Member("source_sha256", report.source_hash) + ",\n  " +
                    Member("image_sha256", report.image_hash) + ",\n  " +
                    Number("parameters", report.config.parameters()) + ",\n  " +
                    Number("source_bytes", report.source_bytes) + ",\n  " +
                    Number("image_bytes", report.image_bytes) + ",\n  " +
                    Number("weight_bytes", report.weight_bytes) + ",\n  " +
                    Number("bits_per_weight", report.bits_per_weight) + ",\n  " +
                    Number("calibration_tokens", report.calibration_tokens) + ",\n  " +
                    Number("sensitivity_tokens", report.sensitivity_tokens);
  if (q.tokens > 0) {
    out += ",\n  \"held_out\": {" + Number("tokens", q.tokens) + ", " +
           Number("source_perplexity", q.source_perplexity) + ", " +
           Number("image_perplexity", q.image_perplexity) + ", " +
           Number("kl_divergence", q.kl_divergence) + ", " +
           Number("same_top_token", q.same_top_token) + "}";
  }
  out += ",\n  \"dies\": {" + Member("profile", density.profile) + ", " +
         Number("count", DiesFor(density, weight_bits)) + ", " +
         Number("weights_per_die", density.weights_per_die) + ", " +
         Number("bits_per_weight", density.bits_per_weight) + ", " + Member("from", "N") + ", " +
         Member("source", density.source) + "},\n  \"sram\": {" +
         Number("context", uint64_t{context}) + ", " +
         Number("kv_bytes_per_token_f16", report.kv_bytes_per_token_f16) + ", " +
         Number("kv_bytes_per_token_int8", report.kv_bytes_per_token_int8) + "},\n  \"tensors\": [";
  for (size_t i = 0; i < report.tensors.size(); ++i) {
    const TapeoutReport::Tensor& tensor = report.tensors[i];
    out += std::string(i == 0 ? "\n" : ",\n") + "    {" + Member("name", tensor.name) + ", " +
           Member("encoding", RomEncodingName(tensor.encoding)) + ", " +
           Number("weights", tensor.weights) + ", " + Number("bytes", tensor.bytes) + ", " +
           Number("bits_per_weight", tensor.bits_per_weight);
    if (tensor.kl_at_3 >= 0.0) {
      out += ", " + Number("kl_at_3", tensor.kl_at_3) + ", " + Number("kl_at_6", tensor.kl_at_6);
    }
    out += "}";
  }
  return out + "\n  ]\n}\n";
}

}  // namespace reticle::server::cli
