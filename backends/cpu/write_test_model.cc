// write_test_model FILE TYPE: writes the small synthetic model, its matrices of a GGUF type such as
// Q8_0, for tests that open a device by path.
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "models/synthetic.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: write_test_model FILE TYPE\n");
    return 2;
  }
  reticle::models::SyntheticLlamaOptions options;
  options.config = reticle::models::SmallWideLlamaConfig();
  for (uint32_t number = 0; number < 64; ++number) {
    const auto traits = reticle::models::GetTensorTypeTraits(number);
    if (!traits.has_value() || traits->name != std::string_view(argv[2])) continue;
    options.matrix_type = static_cast<reticle::models::TensorType>(number);
    const absl::Status status = reticle::models::WriteSyntheticLlama(options, argv[1]);
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return status.ok() ? 0 : 1;
  }
  std::fprintf(stderr, "no tensor type is called %s\n", argv[2]);
  return 2;
}
