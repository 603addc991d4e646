// `reticle tapeout`: makes a device image of a model and reports how good it is.
#ifndef RETICLE_SERVER_CLI_TAPEOUT_H_
#define RETICLE_SERVER_CLI_TAPEOUT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/hardwired/rom/tapeout.h"
#include "server/cli/command_line.h"

namespace reticle::server::cli {

struct TapeoutCommand {
  std::string model;  // GGUF file; empty: the embedded house model
  std::string out;
  std::string types = "3/6";
  double bits = 0.0;  // with 3/6: bits a weight on average; 0: the default of TapeoutOptions
  std::string profile = "taalas-hc1";  // whose dies are counted
  std::string calibration;             // text file; empty: the built-in text
  std::string held_out;                // text file; empty: the built-in text
  std::string json;                    // file for the report; "-": standard output
  uint32_t context = 0;                // tokens of context to count SRAM for; 0: the model's
  uint32_t threads = 0;                // 0: as many as there are CPUs
};

// `arguments`: those behind "tapeout". As ParseServeArguments.
std::optional<CommandLineExit> ParseTapeoutArguments(const std::vector<std::string>& arguments,
                                                     TapeoutCommand& command);

// Runs it, reporting to standard output and errors to standard error; returns the exit status.
int RunTapeout(const TapeoutCommand& command);

// Dies that hold an image of `weight_bits` bits at a profile's density. The vendors publish how
// many weights a die holds, and not always of how many bits; what follows from that for others is
// our inference.
struct DieDensity {
  std::string profile;
  double weights_per_die = 0.0;
  double bits_per_weight = 0.0;  // of these weights
  std::string source;            // of both, with provenance letters
};
// `name`: a built-in profile or the path of a TOML file. NOT_FOUND naming the profiles whose
// density is known.
absl::StatusOr<DieDensity> FindDieDensity(const std::string& name);
uint64_t DiesFor(const DieDensity& density, double weight_bits);

std::string TapeoutJson(const backends::hardwired::TapeoutReport& report, const DieDensity& density,
                        uint32_t context);
std::string TapeoutSummary(const backends::hardwired::TapeoutReport& report,
                           const DieDensity& density, uint32_t context);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_TAPEOUT_H_
