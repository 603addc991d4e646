#include "backends/hardwired/etched/etched_model.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "backends/hardwired/etched/decode.h"
#include "backends/hardwired/rom/rom_file.h"
#include "backends/kernels/adapter.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/forward.h"
#include "backends/kernels/model.h"
#include "backends/kernels/thread_pool.h"
#include "base/check.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

using kernels::BatchToken;
using kernels::Forward;
using kernels::KvGeometry;
using kernels::KvType;

// Prompt tokens that are computed together.
constexpr size_t kChunk = 64;
constexpr uint32_t kMaxSlots = 4096;
constexpr uint32_t kMaxThreads = 256;
// The card has limits of its own, below this.
constexpr uint32_t kMaxAdapters = 1024;

class EtchedModel : public Compute {
 public:
  static absl::StatusOr<std::unique_ptr<Compute>> Open(const std::string& rom_path,
                                                       const EtchedOptions& options);

  std::string_view model_name() const override { return rom_->info().model_name; }
  std::string_view image_hash() const override { return rom_->info().image_hash; }
  uint32_t vocab_size() const override { return model_->config().vocab_size; }
  uint32_t context_limit() const override { return context_limit_; }
  uint32_t slots() const override { return static_cast<uint32_t>(slot_blocks_.size()); }
  uint64_t kv_bytes_per_token() const override { return kv_.block_bytes() / kv_.block_tokens; }

  void Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens, uint64_t adapter,
            std::span<float> logits) override;
  absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale) override;
  absl::Status UnloadAdapter(uint64_t adapter) override;

 private:
  EtchedModel() = default;

  std::unique_ptr<RomFile> rom_;
  std::unique_ptr<kernels::Model> model_;
  std::unique_ptr<kernels::ThreadPool> pool_;
  KvGeometry kv_;
  kernels::AlignedMemory kv_memory_;
  std::unique_ptr<Forward> forward_;
  std::unique_ptr<Decoder> decoder_;  // null: there is none for the shape, or several threads
  uint32_t context_limit_ = 0;
  std::vector<uint32_t> slot_blocks_;  // one KV block holds a slot
  std::vector<BatchToken> batch_;
  kernels::AdapterTable adapters_;
};

absl::Status CheckOptions(const EtchedOptions& options, const models::LlamaConfig& config) {
  if (options.slots < 1 || options.slots > kMaxSlots) {
    return InvalidArgumentError("slots is %d; it must be 1 to %d", options.slots, kMaxSlots);
  }
  if (options.context_limit > config.context_length) {
    return InvalidArgumentError("context_limit is %d; the model was trained for %d tokens",
                                options.context_limit, config.context_length);
  }
  if (options.threads < 1 || options.threads > kMaxThreads) {
    return InvalidArgumentError("threads is %d; it must be 1 to %d", options.threads, kMaxThreads);
  }
  if (options.kv_type == EtchedKvType::kInt8 && config.head_dim % 32 != 0) {
    return InvalidArgumentError("8-bit KV needs heads of a multiple of 32; the model's have %d",
                                config.head_dim);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Compute>> EtchedModel::Open(const std::string& rom_path,
                                                           const EtchedOptions& options) {
  std::unique_ptr<EtchedModel> etched(new EtchedModel());
  ASSIGN_OR_RETURN(etched->rom_, RomFile::Open(rom_path, options.verify_seal));
  const models::LlamaConfig& config = etched->rom_->info().config;
  RETURN_IF_ERROR(CheckOptions(options, config));
  ASSIGN_OR_RETURN(etched->model_, etched->rom_->MakeModel());
  etched->context_limit_ =
      options.context_limit == 0 ? config.context_length : options.context_limit;
  constexpr uint32_t kTile = kernels::kTilePositions;
  etched->kv_ = {
      .type = options.kv_type == EtchedKvType::kInt8 ? KvType::kQ8_0 : KvType::kF16,
      .layers = config.layers,
      .kv_heads = config.kv_heads,
      .head_dim = config.head_dim,
      .block_tokens = size_t{(etched->context_limit_ + kTile - 1) / kTile * kTile},
  };
  for (uint32_t slot = 0; slot < options.slots; ++slot) etched->slot_blocks_.push_back(slot);
  ASSIGN_OR_RETURN(etched->kv_memory_,
                   kernels::AlignedMemory::Allocate(options.slots * etched->kv_.block_bytes()));
  etched->pool_ = std::make_unique<kernels::ThreadPool>(static_cast<int>(options.threads));
  ASSIGN_OR_RETURN(etched->forward_, Forward::Create(*etched->model_, *etched->pool_, etched->kv_,
                                                     etched->kv_memory_.data(),
                                                     {.max_tokens = kChunk, .max_logit_rows = 1}));
  const EtchedShape shape = FindShape(config);
  if (shape != EtchedShape::kNone && !options.generic_kernels && options.threads == 1) {
    ASSIGN_OR_RETURN(etched->decoder_, Decoder::Create(shape, *etched->model_, etched->kv_,
                                                       etched->kv_memory_.data()));
  }
  etched->batch_.reserve(kChunk);
  return etched;
}

void EtchedModel::Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens,
                       uint64_t adapter, std::span<float> logits) {
  RETICLE_CHECK(slot < slot_blocks_.size());
  RETICLE_CHECK(!tokens.empty() && uint64_t{position} + tokens.size() <= context_limit_);
  RETICLE_CHECK(logits.empty() || logits.size() == vocab_size());
  if (tokens.size() == 1 && adapter == 0 && decoder_ != nullptr) {
    RETICLE_CHECK(tokens[0] < vocab_size());
    decoder_->Feed(tokens[0], position, slot_blocks_[slot], logits);
    return;
  }
  const auto found = adapters_.Find(adapter);
  RETICLE_CHECK(found.ok());
  while (!tokens.empty()) {
    const std::span<const uint32_t> chunk = tokens.first(std::min(tokens.size(), kChunk));
    tokens = tokens.subspan(chunk.size());
    batch_.clear();
    for (const uint32_t token : chunk) {
      RETICLE_CHECK(token < vocab_size());
      batch_.push_back({.token = token,
                        .position = position++,
                        .blocks = &slot_blocks_[slot],
                        .adapter = *found});
    }
    batch_.back().wants_logits = tokens.empty() && !logits.empty();
    forward_->Run(batch_);
  }
  if (!logits.empty()) std::ranges::copy(forward_->logits(0), logits.begin());
}

absl::Status EtchedModel::LoadAdapter(uint64_t adapter, const std::string& path, float scale) {
  return adapters_.Load(adapter, path, model_->config(), scale, kMaxAdapters);
}

absl::Status EtchedModel::UnloadAdapter(uint64_t adapter) { return adapters_.Unload(adapter); }

}  // namespace

absl::StatusOr<std::unique_ptr<Compute>> OpenEtchedModel(const std::string& rom_path,
                                                         const EtchedOptions& options) {
  return EtchedModel::Open(rom_path, options);
}

}  // namespace reticle::backends::hardwired
