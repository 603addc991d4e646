// libFuzzer target of the GGUF reader and of what reads the metadata. An empty corpus folder is
// filled with valid files first:
//   cmake --preset asan -DRETICLE_FUZZ=ON && ninja -C build/asan models_gguf_fuzz
//   build/asan/bin/models_gguf_fuzz -max_total_time=300 -max_len=8192 CORPUS_FOLDER
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "models/gguf_exercise.h"

namespace {

void WriteSample(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::filesystem::path folder = (*argv)[*argc - 1];
  if (std::filesystem::is_directory(folder) && std::filesystem::is_empty(folder)) {
    WriteSample(folder / "llama.gguf", reticle::models::SampleTinyLlama());
    WriteSample(folder / "values.gguf", reticle::models::SampleOfEveryValueType());
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const std::vector<std::byte> aligned(bytes.begin(), bytes.end());
  reticle::models::ExerciseGguf(aligned);
  return 0;
}
