#include "backends/hardwired/card/image_content.h"

#include "base/status.h"

namespace reticle::backends::hardwired {

absl::StatusOr<std::unique_ptr<Content>> OpenImageContent(const ImageRequest& request) {
  return UnimplementedError("%s: this build has no kernels for device images", request.path);
}

}  // namespace reticle::backends::hardwired
