// Opens a device image for a card.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_IMAGE_CONTENT_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_IMAGE_CONTENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backends/hardwired/card/content.h"

namespace reticle::backends::hardwired {

struct ImageRequest {
  std::string path;
  uint32_t slots = 1;
  uint32_t context_limit = 0;  // 0: as long as the image allows
  uint32_t threads = 0;        // 0: one
};

// Opens the image, its seal included. The statuses of OpenEtchedModel.
absl::StatusOr<std::unique_ptr<Content>> OpenImageContent(const ImageRequest& request);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_IMAGE_CONTENT_H_
