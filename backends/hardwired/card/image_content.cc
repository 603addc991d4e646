#include "backends/hardwired/card/image_content.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "backends/hardwired/card/functional_content.h"
#include "backends/hardwired/etched/etched_model.h"
#include "backends/hardwired/rom/rom_file.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

// Larger images are compared with their seal when they are opened, not while they serve: reading
// them would hold the card up.
constexpr uint64_t kMaxScrubBytes = 64u << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Content>> OpenImageContent(const ImageRequest& request) {
  EtchedOptions options;
  options.slots = request.slots;
  options.context_limit = request.context_limit;
  if (request.threads > 0) options.threads = request.threads;
  ASSIGN_OR_RETURN(std::unique_ptr<Compute> compute, OpenEtchedModel(request.path, options));
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(request.path, error);
  std::function<absl::Status()> check_seal;
  if (!error && bytes <= kMaxScrubBytes) {
    check_seal = [path = request.path] { return ReadRomInfo(path).status(); };
  }
  return std::make_unique<FunctionalContent>(std::move(compute), std::move(check_seal));
}

}  // namespace reticle::backends::hardwired
