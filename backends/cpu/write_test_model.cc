// write_test_model FILE TYPE: writes the small synthetic model, its matrices of a GGUF type such as
// Q8_0, for tests that open a device by path; and beside it two adapters for it, FILE.lora1 and
// FILE.lora2.
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "models/synthetic.h"
#include "models/synthetic_lora.h"

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
    absl::Status status = reticle::models::WriteSyntheticLlama(options, argv[1]);
    for (const uint64_t seed : {1, 2}) {
      reticle::models::SyntheticLoraOptions lora;
      lora.config = options.config;
      lora.seed = seed;
      const std::string path = argv[1] + (".lora" + std::to_string(seed));
      status.Update(reticle::models::WriteSyntheticLora(lora, path));
    }
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return status.ok() ? 0 : 1;
  }
  std::fprintf(stderr, "no tensor type is called %s\n", argv[2]);
  return 2;
}
