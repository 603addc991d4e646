#include "backends/cpu/bench/cpu_bench.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <utility>

#include "backends/cpu/bench/device_runner.h"
#include "backends/cpu/bench/peer.h"
#include "backends/cpu/cpu_device.h"
#include "backends/cpu/open_plan.h"
#include "backends/cpu/packed_file.h"
#include "backends/kernels/cpu_count.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/kv_cache.h"
#include "backends/kernels/model.h"
#include "backends/kernels/targets.h"
#include "backends/kernels/thread_pool.h"
#include "base/status.h"
#include "models/gguf.h"

namespace reticle::backends::cpu::bench {
namespace {

constexpr const char* kCaseNames[] = {"prefill", "decode", "context", "batch"};
constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMaxTokens = 4096;
constexpr uint32_t kMaxSequences = 4096;
constexpr uint32_t kBlockTokens = 16;
constexpr double kQ8ElementBytes = 34.0 / 32.0;
constexpr auto kIdleTime = std::chrono::milliseconds(300);
constexpr auto kStoreLookEvery = std::chrono::milliseconds(100);
constexpr int kStoreLooks = 6000;

bool Wants(const CpuBenchOptions& options, std::string_view name) {
  return options.only.empty() ||
         std::find(options.only.begin(), options.only.end(), name) != options.only.end();
}

absl::Status CheckAll(const char* option, const std::vector<uint32_t>& values, uint32_t limit) {
  for (const uint32_t value : values) {
    if (value < 1 || value > limit) {
      return InvalidArgumentError("%s is %d; it must be 1 to %d", option, value, limit);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<kernels::Target> FindTarget(const std::string& name) {
  std::string known;
  for (kernels::Target& target : kernels::SupportedTargets()) {
    if (target.name == name) return std::move(target);
    known += (known.empty() ? "" : ", ") + target.name;
  }
  return InvalidArgumentError("instructions is \"%s\"; here it must be one of %s",
                              name.substr(0, 40), known);
}

std::vector<CaseResult> MakeCases(const CpuBenchOptions& options) {
  std::vector<CaseResult> cases;
  const auto add = [&](CaseKind kind, std::string name) -> CaseResult& {
    CaseResult& result = cases.emplace_back();
    result.kind = kind;
    result.name = std::move(name);
    result.tokens = options.tokens;
    return result;
  };
  if (Wants(options, "prefill")) {
    for (const uint32_t tokens : options.prefill) {
      add(CaseKind::kPrefill, absl::StrFormat("prefill %d", tokens)).tokens = tokens;
    }
  }
  if (Wants(options, "decode")) add(CaseKind::kDecode, "decode");
  if (Wants(options, "context")) {
    for (const uint32_t context : options.contexts) {
      add(CaseKind::kDecode, absl::StrFormat("decode at %d", context)).context = context;
    }
  }
  if (Wants(options, "batch")) {
    for (const uint32_t sequences : options.batch) {
      if (sequences == 1 && Wants(options, "decode")) continue;
      add(CaseKind::kBatch, absl::StrFormat("decode of %d", sequences)).sequences = sequences;
    }
  }
  return cases;
}

// Positions that one sequence of a case takes.
uint32_t Positions(const CaseResult& result) {
  const uint32_t more = result.kind == CaseKind::kPrefill ? 1 : 1 + result.tokens;
  return (result.kind == CaseKind::kPrefill ? result.tokens : result.context) + more;
}

Work WorkOf(const CaseResult& result, const WorkCounts& counts, uint32_t step_tokens) {
  Work work;
  double tokens = result.sequences;
  if (result.kind == CaseKind::kPrefill) {
    work = PrefillWork(counts, result.tokens, step_tokens);
    tokens = result.tokens;
  } else {
    work = DecodeWork(counts, result.sequences, result.context + result.tokens / 2);
  }
  return {work.bytes / tokens, work.int8_ops / tokens, work.float_ops / tokens};
}

std::string CpuName() {
  std::FILE* const file = std::fopen("/proc/cpuinfo", "r");
  std::string name = "unknown";
  if (file == nullptr) return name;
  char line[512];
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    if (std::strncmp(line, "model name", 10) != 0) continue;
    const char* const colon = std::strchr(line, ':');
    if (colon == nullptr) continue;
    name = colon + 1;
    name.erase(0, name.find_first_not_of(" \t"));
    name.erase(name.find_last_not_of(" \n") + 1);
    break;
  }
  std::fclose(file);
  return name;
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double IdleCpu() {
  // What the last step left spinning gets time to fall asleep.
  std::this_thread::sleep_for(kIdleTime / 10);
  const double before = CpuSeconds();
  std::this_thread::sleep_for(kIdleTime);
  return (CpuSeconds() - before) / std::chrono::duration<double>(kIdleTime).count();
}

class Bench {
 public:
  explicit Bench(const CpuBenchOptions& options) : options_(options) {}

  absl::StatusOr<CpuBenchResult> Run();

 private:
  absl::Status ReadModel();
  absl::StatusOr<DeviceConfig> ConfigFor(uint32_t threads) const;
  // Opens the model once so that its packed weights are stored, unless they are.
  absl::Status StorePacked();
  absl::StatusOr<ThreadsResult> RunThreads(uint32_t threads);
  // Tokens a second.
  absl::StatusOr<double> RunCase(DeviceRunner& device, const CaseResult& result);
  void Say(const std::string& text) const {
    if (options_.progress) options_.progress(text);
  }

  const CpuBenchOptions& options_;
  CpuBenchResult result_;
  models::LlamaConfig config_;
  uint64_t weight_bytes_ = 0;
  std::vector<CaseResult> cases_;
  std::unique_ptr<LimitMeter> meter_;
};

absl::Status Bench::ReadModel() {
  ASSIGN_OR_RETURN(const auto file, models::GgufFile::Open(options_.model));
  ASSIGN_OR_RETURN(config_, models::ReadLlamaConfig(*file));
  ASSIGN_OR_RETURN(const models::LlamaWeights weights, models::BindLlamaWeights(*file, config_));
  ASSIGN_OR_RETURN(weight_bytes_, kernels::Model::WeightBytes(*file));
  const bool q8 = options_.kv_type == RETICLE_KV_TYPE_Q8_0;
  result_.counts = CountWork(config_, weights, q8 ? kQ8ElementBytes : 2.0);
  result_.cpu = CpuName();
  result_.kernels = kernels::KernelTarget();
  result_.model = config_.name;
  result_.kv_type = q8 ? "Q8_0" : "F16";
  result_.file_bytes = file->size_bytes();
  result_.parameters = config_.parameters();
  std::set<std::string_view> types;
  for (const models::GgufTensor& tensor : file->tensors()) {
    if (tensor.shape.size() > 1) types.insert(models::TensorTypeName(tensor.type));
  }
  for (const std::string_view type : types) {
    result_.types += (result_.types.empty() ? "" : ", ") + std::string(type);
  }
  return absl::OkStatus();
}

absl::StatusOr<DeviceConfig> Bench::ConfigFor(uint32_t threads) const {
  DeviceConfig config;
  config.model_path = options_.model;
  config.threads = threads;
  config.kv_type = options_.kv_type;
  config.kv_block_tokens = kBlockTokens;
  const kernels::KvGeometry kv = {.type = options_.kv_type == RETICLE_KV_TYPE_Q8_0
                                              ? kernels::KvType::kQ8_0
                                              : kernels::KvType::kF16,
                                  .layers = config_.layers,
                                  .kv_heads = config_.kv_heads,
                                  .head_dim = config_.head_dim,
                                  .block_tokens = kBlockTokens};
  uint64_t blocks = 1;
  for (const CaseResult& result : cases_) {
    const uint32_t positions = Positions(result);
    if (positions > config_.context_length) {
      return InvalidArgumentError("%s takes %d positions; the model's context is %d", result.name,
                                  positions, config_.context_length);
    }
    config.context_limit = std::max(config.context_limit, positions);
    config.max_sequences = std::max(config.max_sequences, result.sequences);
    const uint64_t each = (positions + kBlockTokens - 1) / kBlockTokens;
    blocks = std::max(blocks, each * result.sequences);
  }
  config.kv_bytes = blocks * kv.block_bytes();
  // Memory that nobody wrote is one page of zeros, which costs no bandwidth to read.
  config.options = {{"populate", "kv"}};
  if (!options_.packed.empty()) config.options.push_back({"packed", options_.packed});
  return config;
}

absl::StatusOr<double> Bench::RunCase(DeviceRunner& device, const CaseResult& result) {
  if (result.kind == CaseKind::kPrefill) {
    ASSIGN_OR_RETURN(const double seconds, device.Prefill(result.tokens));
    return result.tokens / seconds;
  }
  return device.Decode(result.sequences, result.context, result.tokens);
}

absl::Status Bench::StorePacked() {
  const std::string path = PackedPath(options_.packed, options_.model);
  ASSIGN_OR_RETURN(const PackedSource source, PackedSource::Of(options_.model));
  // A file of another version may lie there.
  const auto stored = [&] { return PackedFile::Open(path, source, weight_bytes_).ok(); };
  if (stored()) return absl::OkStatus();
  Say("storing packed weights");
  ASSIGN_OR_RETURN(const DeviceConfig config, ConfigFor(1));
  ASSIGN_OR_RETURN(const Driver driver, Driver::FromApi(CpuDeviceApi()));
  ASSIGN_OR_RETURN(const auto device, DeviceRunner::Open(driver, config));
  for (int i = 0; i < kStoreLooks && !stored(); ++i) std::this_thread::sleep_for(kStoreLookEvery);
  if (stored()) return absl::OkStatus();
  return InternalError("packed weights were not stored in %s", path);
}

absl::StatusOr<ThreadsResult> Bench::RunThreads(uint32_t threads) {
  ThreadsResult out;
  out.threads = static_cast<int>(threads);
  out.cases = cases_;
  ASSIGN_OR_RETURN(const DeviceConfig config, ConfigFor(threads));
  ASSIGN_OR_RETURN(const Driver driver, Driver::FromApi(CpuDeviceApi()));
  Say(absl::StrFormat("%d threads: opening", threads));
  const ResidentMemory before = ReadResidentMemory();
  ASSIGN_OR_RETURN(const auto device, DeviceRunner::Open(driver, config));
  const ResidentMemory after = ReadResidentMemory();
  const reticle_capabilities& caps = device->capabilities();
  out.open_seconds = device->open_seconds();
  out.kv_bytes = caps.kv_token_capacity * caps.kv_bytes_per_token;
  out.anonymous_bytes =
      static_cast<int64_t>(after.anonymous) - static_cast<int64_t>(before.anonymous + out.kv_bytes);
  out.huge_bytes = static_cast<int64_t>(after.huge) - static_cast<int64_t>(before.huge);
  out.mapped_bytes = static_cast<int64_t>(after.files) - static_cast<int64_t>(before.files);
  for (CaseResult& result : out.cases) {
    result.work = WorkOf(result, result_.counts, caps.max_step_tokens);
  }
  // The first tokens touch the device's memory.
  RETURN_IF_ERROR(device->Decode(1, 0, 2).status());
  out.idle_cpu = IdleCpu();

  kernels::ThreadPool pool(static_cast<int>(threads));
  for (int repeat = 0; repeat < options_.repeats; ++repeat) {
    const auto say = [&](const std::string& what) {
      Say(absl::StrFormat("%d threads, repeat %d of %d: %s", threads, repeat + 1, options_.repeats,
                          what));
    };
    PeerRates peer;
    if (!options_.against.empty()) {
      say(options_.against);
      ASSIGN_OR_RETURN(peer, RunPeer(options_, threads, out.cases));
    }
    say("the machine's limits");
    LimitsNow before = meter_->Sample(pool, &out.limits);
    for (size_t i = 0; i < out.cases.size(); ++i) {
      CaseResult& result = out.cases[i];
      say(result.name);
      ASSIGN_OR_RETURN(const double rate, RunCase(*device, result));
      const LimitsNow after = meter_->Sample(pool, &out.limits);
      const LimitsNow limits = LimitsNow::Mean(before, after);
      before = after;
      result.tokens_per_second.Add(rate);
      result.share_of_read.Add(result.work.bytes * rate / limits.weights_bytes_per_second);
      result.share_of_peak.Add((result.work.int8_ops / limits.int8_ops_per_second +
                                result.work.float_ops / limits.float_ops_per_second) *
                               rate);
      if (i < peer.size() && peer[i].has_value()) {
        result.peer_tokens_per_second.Add(*peer[i]);
        result.ratio.Add(rate / *peer[i]);
      }
    }
  }
  return out;
}

absl::StatusOr<CpuBenchResult> Bench::Run() {
  RETURN_IF_ERROR(options_.Validate());
  if (!options_.huge_pages && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) {
    return InternalError("prctl PR_SET_THP_DISABLE: %s", std::strerror(errno));
  }
  std::optional<kernels::ScopedTarget> target;
  if (!options_.instructions.empty()) {
    ASSIGN_OR_RETURN(const kernels::Target chosen, FindTarget(options_.instructions));
    target.emplace(chosen);
  }
  RETURN_IF_ERROR(ReadModel());
  cases_ = MakeCases(options_);
  result_.peer = options_.against;
  std::vector<uint32_t> threads = options_.threads;
  if (threads.empty()) threads = {static_cast<uint32_t>(kernels::DefaultThreads())};
  // Refuses contexts that the model has not, before anything large is done.
  RETURN_IF_ERROR(ConfigFor(threads.front()).status());
  ASSIGN_OR_RETURN(LimitMeter meter,
                   LimitMeter::Create(result_.counts.weight_bytes(), AvailableMemory(),
                                      options_.memory_bytes, options_.instructions));
  meter_ = std::make_unique<LimitMeter>(std::move(meter));
  if (!options_.packed.empty()) RETURN_IF_ERROR(StorePacked());
  for (const uint32_t count : threads) {
    ASSIGN_OR_RETURN(ThreadsResult of_count, RunThreads(count));
    result_.threads.push_back(std::move(of_count));
  }
  return std::move(result_);
}

}  // namespace

absl::Status CpuBenchOptions::Validate() const {
  if (model.empty()) return InvalidArgumentError("no model is named");
  RETURN_IF_ERROR(CheckAll("threads", threads, kMaxThreads));
  RETURN_IF_ERROR(CheckAll("prefill", prefill, 1u << 20));
  RETURN_IF_ERROR(CheckAll("context", contexts, 1u << 24));
  RETURN_IF_ERROR(CheckAll("batch", batch, kMaxSequences));
  if (repeats < 1 || repeats > 1000) {
    return InvalidArgumentError("repeats is %d; it must be 1 to 1000", repeats);
  }
  if (tokens < 2 || tokens > kMaxTokens) {
    return InvalidArgumentError("tokens is %d; it must be 2 to %d", tokens, kMaxTokens);
  }
  for (const std::string& name : only) {
    if (std::find(std::begin(kCaseNames), std::end(kCaseNames), name) == std::end(kCaseNames)) {
      return InvalidArgumentError(
          "only is \"%s\"; it must be one of prefill, decode, context, batch", name.substr(0, 40));
    }
  }
  if (MakeCases(*this).empty()) return InvalidArgumentError("nothing is left to measure");
  return absl::OkStatus();
}

absl::StatusOr<CpuBenchResult> RunCpuBench(const CpuBenchOptions& options) {
  return Bench(options).Run();
}

}  // namespace reticle::backends::cpu::bench
