// write-test-adapters MODEL.gguf OUT: writes two made-up adapters for the shape of a model, OUT.1
// and OUT.2.
#include <cstdint>
#include <cstdio>
#include <string>

#include "models/gguf.h"
#include "models/llama_config.h"
#include "models/synthetic_lora.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: write-test-adapters MODEL.gguf OUT\n");
    return 2;
  }
  const auto model = reticle::models::GgufFile::Open(argv[1]);
  absl::Status status = model.status();
  if (status.ok()) {
    const auto config = reticle::models::ReadLlamaConfig(**model);
    status = config.status();
    for (uint64_t seed = 1; seed <= 2 && status.ok(); ++seed) {
      reticle::models::SyntheticLoraOptions options;
      options.config = *config;
      options.seed = seed;
      status = reticle::models::WriteSyntheticLora(options, argv[2] + ("." + std::to_string(seed)));
    }
  }
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
