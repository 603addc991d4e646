#include "backends/cpu/cpu_device.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "backends/abi/driver_table.h"
#include "backends/cpu/engine.h"
#include "backends/cpu/open_plan.h"
#include "backends/cpu/packed_file.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/cpu_count.h"
#include "backends/kernels/forward.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/model.h"
#include "backends/kernels/thread_pool.h"
#include "base/clock.h"
#include "base/status.h"
#include "models/gguf.h"

namespace reticle::backends::cpu {
namespace {

template <size_t kSize>
void CopyText(std::string_view text, char (&out)[kSize]) {
  size_t length = std::min(text.size(), kSize - 1);
  if (length < text.size()) {
    while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
  }
  std::memcpy(out, text.data(), length);
  out[length] = '\0';
}

constexpr uint32_t kMaxDecodeCredits = 16;
constexpr uint32_t kMaxListedTokens = 128;
constexpr uint32_t kMaxStopIds = 1024;
constexpr uint32_t kMaxAdapters = 64;

class CpuDevice {
 public:
  static absl::StatusOr<std::unique_ptr<CpuDevice>> Open(const reticle_host& host,
                                                         const reticle_device_config& config);

  // The verbs of the C table.
  const reticle_capabilities& capabilities() const { return engine_->capabilities(); }
  absl::Status Submit(const reticle_work* work, size_t stride, size_t count, size_t* accepted);
  absl::Status Poll(reticle_completion* completions, size_t stride, size_t capacity,
                    size_t* count) {
    *count = engine_->Poll(completions, stride, capacity);
    return absl::OkStatus();
  }
  bool Arm() { return engine_->Arm(); }
  absl::Status Cancel(uint64_t sequence) { return engine_->Cancel(sequence); }
  absl::Status LoadAdapter(uint64_t adapter, const char* path, float scale) {
    return engine_->LoadAdapter(adapter, path, scale);
  }
  absl::Status UnloadAdapter(uint64_t adapter) { return engine_->UnloadAdapter(adapter); }
  reticle_stats Stats() const;
  reticle_health Health() const;
  absl::Status Reset() {
    engine_->Reset();
    return absl::OkStatus();
  }

 private:
  CpuDevice() = default;
  // Names the model and packs its weights.
  absl::Status LoadModel();
  // Maps packed weights if there are some, or else loads and has them written.
  absl::Status LoadModelByPackedFile(const reticle_host& host, const std::string& folder,
                                     const std::string& model_path, uint64_t weight_bytes);
  reticle_capabilities Describe(const OpenPlan& plan) const;

  std::unique_ptr<models::GgufFile> file_;
  std::string identity_;  // of the file
  std::unique_ptr<kernels::ThreadPool> pool_;
  PackedFile packed_;
  std::unique_ptr<kernels::Model> model_;
  std::unique_ptr<PackedFileWriter> packed_writer_;
  kernels::AlignedMemory kv_memory_;
  std::unique_ptr<kernels::Forward> forward_;
  std::unique_ptr<Engine> engine_;
};

void Log(const reticle_host& host, int32_t level, std::string_view message) {
  if (host.log == nullptr) return;
  host.log(host.context, level, message.data(), message.size());
}

absl::Status CpuDevice::LoadModel() {
  // Whatever computes later: until then nothing else wants the CPUs.
  kernels::ThreadPool loaders(std::max(pool_->threads(), kernels::AvailableCpus()));
  identity_ = file_->Identity([&](size_t count, absl::FunctionRef<void(size_t)> body) {
    std::atomic<size_t> taken{0};
    loaders.Run([&](int) {
      for (size_t next = taken++; next < count; next = taken++) body(next);
    });
  });
  ASSIGN_OR_RETURN(model_, kernels::Model::Load(*file_, loaders));
  return absl::OkStatus();
}

absl::Status CpuDevice::LoadModelByPackedFile(const reticle_host& host, const std::string& folder,
                                              const std::string& model_path,
                                              uint64_t weight_bytes) {
  const std::string path = PackedPath(folder, model_path);
  // Looked at before the weights are: a file that is written to meanwhile is another source.
  ASSIGN_OR_RETURN(const PackedSource source, PackedSource::Of(model_path));
  auto packed = PackedFile::Open(path, source, weight_bytes);
  if (packed.ok()) {
    packed_ = *std::move(packed);
    identity_ = packed_.identity();
    ASSIGN_OR_RETURN(model_, kernels::Model::Map(*file_, packed_.weights()));
    Log(host, RETICLE_LOG_INFO, "packed weights are mapped from " + path);
    return absl::OkStatus();
  }
  if (!absl::IsNotFound(packed.status())) {
    Log(host, RETICLE_LOG_WARNING, std::string(packed.status().message()));
  }
  RETURN_IF_ERROR(LoadModel());
  packed_writer_ = std::make_unique<PackedFileWriter>(
      path, source, identity_, model_->packed_weights(), [host, path](const absl::Status& status) {
        if (status.ok()) {
          Log(host, RETICLE_LOG_INFO, "packed weights are stored in " + path);
        } else {
          Log(host, RETICLE_LOG_WARNING,
              "packed weights are not stored: " + std::string(status.message()));
        }
      });
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CpuDevice>> CpuDevice::Open(const reticle_host& host,
                                                           const reticle_device_config& config) {
  if (config.model_path == nullptr || config.model_path[0] == '\0') {
    return InvalidArgumentError("model_path is empty; the cpu device needs a GGUF file");
  }
  std::unique_ptr<CpuDevice> device(new CpuDevice());
  ASSIGN_OR_RETURN(device->file_, models::GgufFile::Open(config.model_path));
  ASSIGN_OR_RETURN(const models::LlamaConfig model, models::ReadLlamaConfig(*device->file_));
  ASSIGN_OR_RETURN(const uint64_t weight_bytes, kernels::Model::WeightBytes(*device->file_));
  ASSIGN_OR_RETURN(const OpenPlan plan,
                   MakeOpenPlan(config, model, weight_bytes, AvailableMemory()));
  device->pool_ = std::make_unique<kernels::ThreadPool>(plan.threads);
  if (plan.packed_folder.empty()) {
    RETURN_IF_ERROR(device->LoadModel());
  } else {
    RETURN_IF_ERROR(
        device->LoadModelByPackedFile(host, plan.packed_folder, config.model_path, weight_bytes));
  }
  ASSIGN_OR_RETURN(device->kv_memory_, kernels::AlignedMemory::Allocate(plan.kv_bytes()));
  if (plan.populate_kv) {
    device->pool_->Run([&](int worker) {
      const auto [first, end] =
          kernels::StaticRange(device->kv_memory_.size(), worker, plan.threads);
      device->kv_memory_.Populate(first, end);
    });
  }
  ASSIGN_OR_RETURN(device->forward_,
                   kernels::Forward::Create(*device->model_, *device->pool_, plan.kv,
                                            device->kv_memory_.data(), plan.forward));
  // Embedding rows come again as they are needed.
  device->file_->ReleasePages();
  device->engine_ = std::make_unique<Engine>(*device->pool_, *device->forward_,
                                             device->Describe(plan), plan.step_tokens);
  return device;
}

reticle_capabilities CpuDevice::Describe(const OpenPlan& plan) const {
  reticle_capabilities caps{};
  caps.struct_size = sizeof(caps);
  CopyText("cpu", caps.device_name);
  CopyText("reticle " + kernels::KernelTarget(), caps.device_vendor);
  CopyText(model_->config().name, caps.model_name);
  CopyText(identity_, caps.model_hash);
  caps.vocab_size = model_->config().vocab_size;
  caps.context_limit = plan.context_limit;
  caps.max_sequences = plan.max_sequences;
  caps.kv_mode = RETICLE_KV_HOST_PAGED;
  caps.kv_block_tokens = static_cast<uint32_t>(plan.kv.block_tokens);
  caps.kv_block_count = static_cast<uint32_t>(plan.kv_blocks);
  caps.kv_token_capacity = plan.kv_blocks * plan.kv.block_tokens;
  caps.kv_bytes_per_token = plan.kv.block_bytes() / plan.kv.block_tokens;
  caps.max_prefill_chunk = plan.step_tokens;
  caps.max_step_tokens = plan.step_tokens;
  caps.pipeline_depth = 1;
  caps.max_decode_credits = kMaxDecodeCredits;
  caps.features = RETICLE_FEATURE_TOKEN_MASK | RETICLE_FEATURE_LOGPROBS |
                  RETICLE_FEATURE_PROMPT_LOGPROBS | RETICLE_FEATURE_LOGIT_BIAS |
                  RETICLE_FEATURE_PENALTIES | RETICLE_FEATURE_MIN_P | RETICLE_FEATURE_TOP_P |
                  RETICLE_FEATURE_TEMPERATURE | RETICLE_FEATURE_MIN_TOKENS |
                  RETICLE_FEATURE_ADAPTERS | RETICLE_FEATURE_RESET;
  caps.max_top_k = 0;
  caps.max_logprobs = std::min(caps.vocab_size, kMaxListedTokens) + 1;
  caps.max_stop_ids = kMaxStopIds;
  caps.max_adapters = kMaxAdapters;
  return caps;
}

absl::Status CpuDevice::Submit(const reticle_work* work, size_t stride, size_t count,
                               size_t* accepted) {
  for (size_t i = 0; i < count; ++i) {
    const WholeWork whole(StridedAt(work, stride, i), stride);
    RETURN_IF_ERROR(engine_->Submit(whole.work(), whole.sampling()));
    ++*accepted;
  }
  return absl::OkStatus();
}

reticle_stats CpuDevice::Stats() const {
  const Engine::Counters counters = engine_->counters();
  reticle_stats out{};
  out.struct_size = sizeof(out);
  out.device_time_ns = static_cast<uint64_t>(Clock::Monotonic().NowNanos());
  out.busy_ns = counters.busy_ns;
  out.prefill_tokens = counters.prefill_tokens;
  out.decode_tokens = counters.decode_tokens;
  out.steps = counters.steps;
  out.power_watts = std::numeric_limits<double>::quiet_NaN();
  out.temperature_celsius = std::numeric_limits<double>::quiet_NaN();
  out.utilization = std::numeric_limits<double>::quiet_NaN();
  out.slowdown_ratio = 1.0;
  out.resets = counters.resets;
  out.sequences = counters.sequences;
  return out;
}

reticle_health CpuDevice::Health() const {
  reticle_health out{};
  out.struct_size = sizeof(out);
  out.state = RETICLE_HEALTH_READY;
  return out;
}

}  // namespace

const reticle_device_api* CpuDeviceApi() {
  static constexpr reticle_device_api kApi = DriverTable<CpuDevice>::Make("cpu", "0.1.0");
  return &kApi;
}

}  // namespace reticle::backends::cpu
