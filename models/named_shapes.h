// Synthetic models named after published ones: their shapes with random weights, so that speed can
// be measured and compared without a download.
//
//   ASSIGN_OR_RETURN(SyntheticLlamaOptions options, ParseSyntheticModel("llama-3.2-1b:q4_0"));
#ifndef RETICLE_MODELS_NAMED_SHAPES_H_
#define RETICLE_MODELS_NAMED_SHAPES_H_

#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/synthetic.h"
#include "models/tensor_type.h"

namespace reticle::models {

struct NamedShape {
  std::string_view name;
  std::string_view help;  // what it is the shape of
};

// What ParseSyntheticModel knows, in the order in which a help text lists it.
std::span<const NamedShape> NamedShapes();

// Options of the model "SHAPE:TYPE" or "SHAPE:TYPE+OUTPUT": TYPE is that of the layers' matrices,
// OUTPUT that of the output matrix (of the embedding where the two are tied). Without OUTPUT the
// output of a type below six bits is Q6_K, as files in circulation have it, else TYPE. Types are
// named as by TensorTypeName, in any case. Where a row is no whole number of 256 values, a K type
// becomes the next one with blocks of 32 (Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0). INVALID_ARGUMENT
// names what is not known and what there is.
absl::StatusOr<SyntheticLlamaOptions> ParseSyntheticModel(std::string_view text);

// The type of that name in any case ("q4_k"). INVALID_ARGUMENT lists those that there are.
absl::StatusOr<TensorType> ParseTensorType(std::string_view name);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_NAMED_SHAPES_H_
