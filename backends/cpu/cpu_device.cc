#include "backends/cpu/cpu_device.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "backends/abi/driver_support.h"
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
  static absl::StatusOr<std::unique_ptr<CpuDevice>> Open(const reticle_host* host,
                                                         const reticle_device_config& config);

  Engine& engine() { return *engine_; }

 private:
  CpuDevice() = default;
  // Names the model and packs its weights.
  absl::Status LoadModel();
  // Maps packed weights if there are some, or else loads and has them written.
  absl::Status LoadModelByPackedFile(const reticle_host* host, const std::string& folder,
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

void Log(const reticle_host* host, int32_t level, std::string_view message) {
  if (host == nullptr || host->log == nullptr) return;
  host->log(host->context, level, message.data(), message.size());
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

absl::Status CpuDevice::LoadModelByPackedFile(const reticle_host* host, const std::string& folder,
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

absl::StatusOr<std::unique_ptr<CpuDevice>> CpuDevice::Open(const reticle_host* host,
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

CpuDevice& Self(reticle_device* device) { return *reinterpret_cast<CpuDevice*>(device); }

// Runs `body`, which returns a code, and turns what a library throws (memory running out) into one.
template <typename Body>
int32_t Guarded(reticle_error* error, Body body) {
  try {
    return body();
  } catch (const std::exception& exception) {
    return FillError(error, RETICLE_RESOURCE_EXHAUSTED, exception.what());
  }
}

int32_t Open(const reticle_host* host, const reticle_device_config* config, reticle_device** device,
             reticle_error* error) {
  *device = nullptr;
  return Guarded(error, [&] {
    reticle_device_config storage;
    auto opened = CpuDevice::Open(host, WholeStruct(config, storage));
    if (!opened.ok()) return FillError(error, opened.status());
    *device = reinterpret_cast<reticle_device*>(opened->release());
    return static_cast<int32_t>(RETICLE_OK);
  });
}

void Close(reticle_device* device) { delete &Self(device); }

int32_t Describe(reticle_device* device, reticle_capabilities* capabilities, reticle_error*) {
  WriteStruct(Self(device).engine().capabilities(), capabilities);
  return RETICLE_OK;
}

int32_t Submit(reticle_device* device, const reticle_work* work, size_t stride, size_t count,
               size_t* accepted, reticle_error* error) {
  *accepted = 0;
  return Guarded(error, [&] {
    for (size_t i = 0; i < count; ++i) {
      const WholeWork whole(StridedAt(work, stride, i), stride);
      const absl::Status status = Self(device).engine().Submit(whole.work(), whole.sampling());
      if (!status.ok()) return FillError(error, status);
      ++*accepted;
    }
    return static_cast<int32_t>(RETICLE_OK);
  });
}

int32_t Poll(reticle_device* device, reticle_completion* completions, size_t stride,
             size_t capacity, size_t* count, reticle_error* error) {
  *count = Self(device).engine().Poll(completions, stride, capacity);
  return RETICLE_OK;
}

int32_t Arm(reticle_device* device) { return Self(device).engine().Arm() ? 1 : 0; }

int32_t Cancel(reticle_device* device, uint64_t sequence, reticle_error* error) {
  return Guarded(error, [&] { return FillError(error, Self(device).engine().Cancel(sequence)); });
}

int32_t AdapterLoad(reticle_device* device, uint64_t adapter, const char* path, float scale,
                    reticle_error* error) {
  return Guarded(error, [&] {
    return FillError(
        error, Self(device).engine().LoadAdapter(adapter, path == nullptr ? "" : path, scale));
  });
}

int32_t AdapterUnload(reticle_device* device, uint64_t adapter, reticle_error* error) {
  return Guarded(error,
                 [&] { return FillError(error, Self(device).engine().UnloadAdapter(adapter)); });
}

int32_t Stats(reticle_device* device, reticle_stats* stats, reticle_error*) {
  const Engine::Counters counters = Self(device).engine().counters();
  reticle_stats out{};
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
  WriteStruct(out, stats);
  return RETICLE_OK;
}

int32_t Health(reticle_device*, reticle_health* health, reticle_error*) {
  reticle_health out{};
  out.state = RETICLE_HEALTH_READY;
  WriteStruct(out, health);
  return RETICLE_OK;
}

int32_t Reset(reticle_device* device, reticle_error*) {
  Self(device).engine().Reset();
  return RETICLE_OK;
}

constexpr reticle_device_api kApi = {
    .struct_size = sizeof(reticle_device_api),
    .abi_major = RETICLE_DEVICE_ABI_MAJOR,
    .abi_minor = RETICLE_DEVICE_ABI_MINOR,
    .driver_name = "cpu",
    .driver_version = "0.1.0",
    .open = Open,
    .close = Close,
    .describe = Describe,
    .submit = Submit,
    .poll = Poll,
    .arm = Arm,
    .cancel = Cancel,
    .adapter_load = AdapterLoad,
    .adapter_unload = AdapterUnload,
    .stats = Stats,
    .health = Health,
    .reset = Reset,
};

}  // namespace

const reticle_device_api* CpuDeviceApi() { return &kApi; }

}  // namespace reticle::backends::cpu
