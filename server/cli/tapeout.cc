#include "server/cli/tapeout.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string_view>

#include "backends/kernels/thread_pool.h"
#include "base/file.h"
#include "base/status.h"
#include "models/gguf.h"
#include "server/cli/embedded_model.h"
#include "server/cli/tapeout_texts.h"
#include "tokenizer/tokenizer.h"

namespace reticle::server::cli {
namespace {

namespace hardwired = backends::hardwired;
using hardwired::TapeoutOptions;
using hardwired::TapeoutReport;

// Tokens of one piece of text: as far as a prediction can look back.
constexpr size_t kPieceTokens = 512;

// One line on a terminal, rewritten as the work goes on; nothing elsewhere.
class ProgressBar {
 public:
  ProgressBar() : shown_(isatty(fileno(stderr)) != 0) {}
  ~ProgressBar() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }
  void Show(std::string_view stage, double share) {
    const int percent = static_cast<int>(share * 100.0);
    if (!shown_ || (stage == stage_ && percent == percent_)) return;
    stage_ = stage;
    percent_ = percent;
    constexpr int kWidth = 30;
    std::string bar(kWidth, '.');
    std::fill_n(bar.begin(), std::clamp(percent * kWidth / 100, 0, kWidth), '#');
    std::fprintf(stderr, "\r\033[K%-22s [%s] %3d %%", stage_.c_str(), bar.c_str(), percent);
    std::fflush(stderr);
  }

 private:
  const bool shown_;
  std::string stage_;
  int percent_ = -1;
};

absl::Status FillTexts(const TapeoutCommand& command, const models::GgufFile& model,
                       TapeoutOptions& options) {
  ASSIGN_OR_RETURN(const auto tokenizer, tokenizer::Tokenizer::Create(model));
  ASSIGN_OR_RETURN(const models::LlamaConfig config, models::ReadLlamaConfig(model));
  const size_t piece = std::min<size_t>(kPieceTokens, config.context_length);
  const bool house = command.model.empty() && !HouseCalibrationText().empty();
  const auto tokens = [&](const std::string& path, std::string_view built_in,
                          std::vector<hardwired::TokenText>& out) -> absl::Status {
    if (path.empty()) {
      out = TokenizeTexts(built_in, *tokenizer, piece);
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const std::string text, ReadFile("text file", path));
    out = TokenizeTexts(text, *tokenizer, piece);
    if (out.empty()) return InvalidArgumentError("'%s' holds no text of two tokens", path);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(tokens(command.calibration,
                         house ? HouseCalibrationText() : GeneralCalibrationText(),
                         options.calibration));
  return tokens(command.held_out, house ? HouseHeldOutText() : GeneralHeldOutText(),
                options.held_out);
}

absl::Status WriteJson(const std::string& path, const std::string& json) {
  std::FILE* const file = path == "-" ? stdout : std::fopen(path.c_str(), "wb");
  if (file == nullptr) return InternalError("cannot write '%s'", path);
  bool written = std::fwrite(json.data(), 1, json.size(), file) == json.size();
  written &= (path == "-" ? std::fflush(file) : std::fclose(file)) == 0;
  return written ? absl::OkStatus() : InternalError("cannot write '%s'", path);
}

absl::Status Run(const TapeoutCommand& command) {
  ASSIGN_OR_RETURN(const DieDensity density, FindDieDensity(command.profile));
  TapeoutOptions options;
  ASSIGN_OR_RETURN(options.types, hardwired::ParseTypes(command.types));
  if (command.bits != 0.0) options.bits_per_weight = command.bits;
  options.threads =
      command.threads == 0 ? backends::kernels::AvailableCpus() : static_cast<int>(command.threads);
  std::string path = command.model;
  if (path.empty()) {
    ASSIGN_OR_RETURN(path, EmbeddedModelPath());
  }
  ASSIGN_OR_RETURN(const auto model, models::GgufFile::Open(path));
  RETURN_IF_ERROR(FillTexts(command, *model, options));

  auto bar = std::make_unique<ProgressBar>();
  options.progress = [&](std::string_view stage, double share) { bar->Show(stage, share); };
  auto report = hardwired::TapeOut(*model, command.out, options);
  bar = nullptr;
  if (!report.ok()) return report.status();
  const uint32_t context = command.context == 0 ? report->config.context_length : command.context;
  std::FILE* const to = command.json == "-" ? stderr : stdout;
  std::fputs(TapeoutSummary(*report, density, context).c_str(), to);
  std::fprintf(to, "image      %s\n", command.out.c_str());
  if (command.json.empty()) return absl::OkStatus();
  return WriteJson(command.json, TapeoutJson(*report, density, context));
}

}  // namespace

std::optional<CommandLineExit> ParseTapeoutArguments(const std::vector<std::string>& arguments,
                                                     TapeoutCommand& command) {
  CLI::App app("Makes a device image of a model: quantised, laid out for the kernels, sealed",
               "reticle tapeout");
  app.add_option("--model", command.model, "GGUF model file; without it the house model");
  app.add_option("--out", command.out, "Image file to write")->required();
  app.add_option("--types", command.types,
                 "3/6 (3 bits, and 6 where they matter most), 3, 6, or 8 (faithful)")
      ->capture_default_str();
  app.add_option("--bits", command.bits,
                 "With 3/6: bits a weight that the matrices may take on average, scales included")
      ->check(CLI::Range(3.0, 8.0))
      ->default_str("4");
  app.add_option(
         "--profile", command.profile,
         "Hardwired device profile whose dies are counted (reticle devices), or a TOML file")
      ->capture_default_str();
  app.add_option(
      "--calibration", command.calibration,
      "Text that shows what the model's weights are fed with; without it a built-in one");
  app.add_option("--held-out", command.held_out,
                 "Text on which model and image are compared; without it a built-in one");
  app.add_option("--context", command.context,
                 "Tokens of context to count SRAM for; 0: the model's");
  app.add_option("--json", command.json, "File for the report; - for standard output");
  app.add_option("--threads", command.threads, "Threads that compute; 0: one for each CPU")
      ->check(CLI::Range(0, 256));
  if (auto exit = ParseArguments(app, arguments); exit.has_value()) return exit;
  if (const auto types = hardwired::ParseTypes(command.types); !types.ok()) {
    return Mistake(app, InvalidArgumentError("--%s", types.status().message()));
  }
  return std::nullopt;
}

int RunTapeout(const TapeoutCommand& command) {
  const absl::Status status = Run(command);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reticle tapeout: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace reticle::server::cli
