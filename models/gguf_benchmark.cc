// Opening a file with the header of an 8B model (291 tensors, 128,256 tokens, 280,147 merges) and
// the reference codecs.
//   build/release/bin/models_gguf_benchmark
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "models/gguf.h"
#include "models/gguf_writer.h"
#include "models/llama_config.h"
#include "models/quantization.h"
#include "models/synthetic.h"

namespace reticle::models {
namespace {

constexpr size_t kTokens = 128256;
constexpr size_t kMerges = 280147;

// The file is sparse: its header is on disk, its 4.9 GB of weights are a hole.
class EightBillionFile {
 public:
  EightBillionFile() {
    const int fd = mkstemp(path_.data());
    RETICLE_CHECK(fd >= 0);
    close(fd);
    SyntheticLlamaOptions options;
    options.config = Llama31Shape8B();
    options.matrix_type = TensorType::kQ4_K;
    options.output_type = TensorType::kQ6_K;
    options.llama3_rope = Llama3RopeScaling();
    options.with_tokenizer = false;
    GgufWriter writer = SyntheticLlama(options).value();
    std::vector<std::string> tokens;
    std::vector<std::string> merges;
    for (size_t i = 0; i < kTokens; ++i) tokens.push_back("token" + std::to_string(i));
    for (size_t i = 0; i < kMerges; ++i) merges.push_back("left" + std::to_string(i) + " right");
    writer.AddStringArray("tokenizer.ggml.tokens", tokens);
    writer.AddStringArray("tokenizer.ggml.merges", merges);
    writer.AddInt32Array("tokenizer.ggml.token_type", std::vector<int32_t>(kTokens, 1));
    RETICLE_CHECK(writer.WriteSparseFile(path_).ok());
  }
  ~EightBillionFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/reticle_gguf_benchmark.XXXXXX";
};

const EightBillionFile& File() {
  static const EightBillionFile file;
  return file;
}

void Open8B(benchmark::State& state) {
  const std::string& path = File().path();
  for (auto _ : state) {
    const auto file = GgufFile::Open(path);
    RETICLE_CHECK(file.ok() && (*file)->tensors().size() == 292);
    state.counters["header_MB"] = static_cast<double>((*file)->data_offset()) / 1e6;
    state.counters["file_GB"] = static_cast<double>((*file)->size_bytes()) / 1e9;
  }
}
BENCHMARK(Open8B)->Unit(benchmark::kMillisecond);

// With the header dropped from the page cache before each time.
void Open8BCold(benchmark::State& state) {
  const std::string& path = File().path();
  for (auto _ : state) {
    state.PauseTiming();
    const int fd = open(path.c_str(), O_RDONLY);
    RETICLE_CHECK(fd >= 0 && fdatasync(fd) == 0 &&
                  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    close(fd);
    state.ResumeTiming();
    RETICLE_CHECK(GgufFile::Open(path).ok());
  }
}
BENCHMARK(Open8BCold)->Unit(benchmark::kMillisecond);

void OpenAndBind8BWithVocabulary(benchmark::State& state) {
  const std::string& path = File().path();
  for (auto _ : state) {
    const auto file = GgufFile::Open(path);
    const auto config = ReadLlamaConfig(**file);
    const auto weights = BindLlamaWeights(**file, *config);
    const auto tokens = (*file)->GetStringArray("tokenizer.ggml.tokens");
    const auto merges = (*file)->GetStringArray("tokenizer.ggml.merges");
    RETICLE_CHECK(weights.ok() && tokens->size() == kTokens && merges->size() == kMerges);
  }
}
BENCHMARK(OpenAndBind8BWithVocabulary)->Unit(benchmark::kMillisecond);

std::vector<float> Values() {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(1 << 16);
  for (float& value : values) value = normal(generator);
  return values;
}

void Encode(benchmark::State& state) {
  const TensorType type = AllTensorTypes()[static_cast<size_t>(state.range(0))];
  const std::vector<float> values = Values();
  for (auto _ : state) benchmark::DoNotOptimize(Quantize(type, values));
  state.SetLabel(std::string(TensorTypeName(type)));
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(values.size()));
}
BENCHMARK(Encode)->DenseRange(0, 10);

void Decode(benchmark::State& state) {
  const TensorType type = AllTensorTypes()[static_cast<size_t>(state.range(0))];
  std::vector<float> values = Values();
  const auto encoded = Quantize(type, values).value();
  for (auto _ : state) {
    Dequantize(type, encoded, values);
    benchmark::DoNotOptimize(values.data());
  }
  state.SetLabel(std::string(TensorTypeName(type)));
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(values.size()));
}
BENCHMARK(Decode)->DenseRange(0, 10);

}  // namespace
}  // namespace reticle::models
