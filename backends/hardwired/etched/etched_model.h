// Computes the model that an image (rom/rom_file.h) holds.
#ifndef RETICLE_BACKENDS_HARDWIRED_ETCHED_ETCHED_MODEL_H_
#define RETICLE_BACKENDS_HARDWIRED_ETCHED_ETCHED_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backends/hardwired/compute.h"

namespace reticle::backends::hardwired {

enum class EtchedKvType { kF16, kInt8 };

struct EtchedOptions {
  uint32_t slots = 1;          // sequences whose KV is kept; memory is taken as it is used
  uint32_t context_limit = 0;  // tokens a slot holds; 0: as many as the model was trained for
  EtchedKvType kv_type = EtchedKvType::kF16;
  uint32_t threads = 1;  // that compute, the caller of Feed among them
  // The kernels for any shape, although there are some for this model's: the same bits, slower.
  bool generic_kernels = false;
  // Compares every byte with the image's seal. Without it only what the seal's header covers is
  // checked: for an image that this process has verified before.
  bool verify_seal = true;
};

// Maps the image and checks it. The errors of RomFile::Open; INVALID_ARGUMENT naming an option that
// is out of its limits; RESOURCE_EXHAUSTED when the KV memory cannot be had.
absl::StatusOr<std::unique_ptr<Compute>> OpenEtchedModel(const std::string& rom_path,
                                                         const EtchedOptions& options);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ETCHED_ETCHED_MODEL_H_
