// Tokens per second of etched models: decode of one stream on one thread, greedy sampling included,
// and prefill. Rates are of CPU time, so that other load on the machine counts less.
//
//   etched_benchmark --benchmark_filter=house
//   RETICLE_BENCH_ROM=model.rom etched_benchmark --benchmark_filter=file
//   RETICLE_BENCH_TARGET=AVX2 etched_benchmark ...       another instruction set, as Highway calls
//                                                        it; with RETICLE_BENCH_VNNI=0 without VNNI
//
// house:3/6 is the image that ships (models/house/house.rom). The others are taped out here; their
// calibration is of random tokens, which changes what they say but not how long it takes. "generic"
// computes with the kernels for any shape.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/hardwired/etched/etched_model.h"
#include "backends/hardwired/rom/tapeout.h"
#include "backends/kernels/kernels.h"
#include "backends/sampling/sampler.h"
#include "base/check.h"
#include "benchmark/benchmark.h"
#include "hwy/highway.h"
#include "models/gguf.h"

namespace reticle::backends::hardwired {
namespace {

constexpr char kHouseImage[] = "models/house/house.rom";
constexpr uint32_t kContext = 1024;
// Tokens decoded before the context starts anew.
constexpr uint32_t kStretch = 64;

// The image file of a type, made once and removed at the end.
class Images {
 public:
  ~Images() {
    for (const auto& [type, path] : paths_) {
      if (path != kHouseImage) std::remove(path.c_str());
    }
  }
  const std::string& Path(const std::string& type) {
    std::string& path = paths_[type];
    if (type == "3/6") path = kHouseImage;
    if (!path.empty()) return path;
    path = "/tmp/etched_benchmark." + std::to_string(getpid()) + "." +
           std::to_string(paths_.size()) + ".rom";
    const auto source = models::GgufFile::Open("models/house/house.gguf");
    RETICLE_CHECK(source.ok());
    TapeoutOptions options;
    options.types = *ParseTypes(type);
    TokenText& text = options.calibration.emplace_back();
    for (uint32_t i = 0; i < 64; ++i) text.tokens.push_back(i * 2654435761u % 2048);
    text.counts.assign(text.tokens.size(), true);
    RETICLE_CHECK(TapeOut(**source, path, options).ok());
    return path;
  }

 private:
  std::map<std::string, std::string> paths_;
};

std::unique_ptr<Compute> Open(const std::string& type, EtchedKvType kv_type, bool generic) {
  static Images images;
  EtchedOptions options;
  options.context_limit = kContext;
  options.kv_type = kv_type;
  options.generic_kernels = generic;
  auto model = OpenEtchedModel(
      type == "file" ? std::getenv("RETICLE_BENCH_ROM") : images.Path(type), options);
  RETICLE_CHECK(model.ok());
  return *std::move(model);
}

std::vector<uint32_t> Prompt(const Compute& model, uint32_t length) {
  std::vector<uint32_t> tokens(length);
  for (uint32_t i = 0; i < length; ++i) tokens[i] = (i * 31 + 7) % model.vocab_size();
  return tokens;
}

void Decode(benchmark::State& state, const std::string& type, EtchedKvType kv_type, bool generic,
            uint32_t context) {
  const std::unique_ptr<Compute> model = Open(type, kv_type, generic);
  model->Feed(0, 0, Prompt(*model, context), 0, {});
  sampling::Sampler sampler(model->vocab_size());
  sampling::SequenceSampling greedy;
  greedy.Set(reticle_sampling{});
  std::vector<float> logits(model->vocab_size());
  uint32_t position = context;
  uint32_t token = 1;
  for (auto _ : state) {
    model->Feed(0, position, {&token, 1}, 0, logits);
    token = sampler.Sample(logits, greedy, position + 1)->token;
    if (++position == context + kStretch) position = context;
  }
  state.counters["tok/s"] = benchmark::Counter(1, benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(kernels::KernelTarget());
}

void Prefill(benchmark::State& state, const std::string& type) {
  const std::unique_ptr<Compute> model = Open(type, EtchedKvType::kF16, false);
  const std::vector<uint32_t> prompt = Prompt(*model, 512);
  std::vector<float> logits(model->vocab_size());
  for (auto _ : state) model->Feed(0, 0, prompt, 0, logits);
  state.counters["tok/s"] = benchmark::Counter(static_cast<double>(prompt.size()),
                                               benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(kernels::KernelTarget());
}

void Register(const std::string& name, const std::string& type) {
  const auto add = [&](const std::string& what, auto function) {
    benchmark::RegisterBenchmark((name + "/" + what).c_str(), function)
        ->Unit(benchmark::kMicrosecond);
  };
  for (const bool generic : {false, true}) {
    for (const uint32_t context : {16u, 512u}) {
      const std::string suffix = std::to_string(context) + (generic ? "/generic" : "");
      add("decode/context:" + suffix, [=](benchmark::State& state) {
        Decode(state, type, EtchedKvType::kF16, generic, context);
      });
    }
  }
  add("decode/kv:int8/context:512",
      [=](benchmark::State& state) { Decode(state, type, EtchedKvType::kInt8, false, 512); });
  add("prefill512", [=](benchmark::State& state) { Prefill(state, type); });
}

void ChooseTarget() {
  if (const char* const vnni = std::getenv("RETICLE_BENCH_VNNI"); vnni != nullptr) {
    kernels::DisableVnni(std::string_view(vnni) == "0");
  }
  const char* const wanted = std::getenv("RETICLE_BENCH_TARGET");
  if (wanted == nullptr) return;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (std::string_view(hwy::TargetName(target)) != wanted) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return;
  }
  RETICLE_CHECK(false);  // this machine does not have the instruction set
}

const bool registered = [] {
  ChooseTarget();
  for (const char* type : {"8", "6", "3/6", "3"}) Register(std::string("house:") + type, type);
  if (std::getenv("RETICLE_BENCH_ROM") != nullptr) Register("file", "file");
  return true;
}();

}  // namespace
}  // namespace reticle::backends::hardwired
