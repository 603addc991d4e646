// One forward pass over a batch of tokens of any sequences: prompts in chunks and single tokens
// together.
#ifndef RETICLE_BACKENDS_KERNELS_FORWARD_H_
#define RETICLE_BACKENDS_KERNELS_FORWARD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "backends/kernels/adapter.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/kv_cache.h"
#include "backends/kernels/model.h"
#include "backends/kernels/thread_pool.h"

namespace reticle::backends::kernels {

// One token to feed.
struct BatchToken {
  uint32_t token = 0;
  uint32_t position = 0;
  const uint32_t* blocks = nullptr;  // block table of its sequence, valid during Run
  bool wants_logits = false;         // of what comes behind it
  const Adapter* adapter = nullptr;  // of its sequence, valid during Run; null: none
};

// A product of the model, by what it is fed with.
enum class ForwardInput {
  kQkv,         // attn_q, attn_k, attn_v
  kAttnOutput,  // attn_output
  kGateUp,      // ffn_gate, ffn_up
  kDown,        // ffn_down
  kOutput,      // output, for the tokens that want logits; its layer is 0
};

// Sees what is fed to each product: `tokens` rows of the product's columns, `stride` apart. Called
// by the thread that called Run.
using ForwardObserver = std::function<void(size_t layer, ForwardInput input, const float* rows,
                                           size_t stride, size_t tokens)>;

// Owns the activations of a step and borrows model, pool and KV memory, which must outlive it. One
// thread at a time. Allocates at creation only.
class Forward {
 public:
  struct Options {
    size_t max_tokens = 512;     // of a batch
    size_t max_logit_rows = 64;  // tokens of a batch that want logits
    // Weights of more bytes are taken to come from memory in every step.
    uint64_t cached_bytes = uint64_t{64} << 20;
  };

  static absl::StatusOr<std::unique_ptr<Forward>> Create(const Model& model, ThreadPool& pool,
                                                         const KvGeometry& kv, std::byte* kv_memory,
                                                         const Options& options);
  // Bytes of memory that Create takes.
  static uint64_t MemoryBytes(const models::LlamaConfig& config, const Options& options);

  const Options& options() const { return options_; }
  const models::LlamaConfig& config() const { return model_.config(); }

  // Feeds the batch: writes K and V of each token into its sequence's blocks and computes the
  // logits that are wanted. Tokens of one sequence come in the order of their positions; earlier
  // positions are in the batch or in the blocks already.
  void Run(std::span<const BatchToken> batch);

  // For tools that gather statistics; empty: nobody watches.
  void set_observer(ForwardObserver observer) { observer_ = std::move(observer); }

  // Logits after the i-th token of the last batch that wanted them: vocab_size values, valid until
  // the next Run.
  std::span<const float> logits(size_t row) const {
    return {logits_ + row * logits_stride_, model_.config().vocab_size};
  }

 private:
  // One activation of every token: floats and, for quantised weights, int8.
  struct Buffer {
    float* floats = nullptr;
    size_t stride = 0;
    QuantizedRows quantized;
    Activations view() const { return {floats, stride, quantized}; }
    float* row(size_t t) const { return floats + t * stride; }
  };

  Forward(const Model& model, ThreadPool& pool, const KvGeometry& kv, std::byte* kv_memory,
          const Options& options)
      : model_(model), pool_(pool), kv_(kv), kv_memory_(kv_memory), options_(options) {}

  // Assigns places to all buffers from `base` on; returns the bytes used.
  size_t LayOut(const models::LlamaConfig& config, const Options& options, size_t threads,
                size_t scratch_floats, std::byte* base);

  void Work(int worker);
  void Observe(int worker, size_t layer, ForwardInput input, const Buffer& rows, size_t tokens) {
    if (worker == 0 && observer_) observer_(layer, input, rows.floats, rows.stride, tokens);
  }
  void EmbedTokens(int worker);
  // Norms the residual stream, for normed(). Ends with a barrier where one is needed.
  void Normalize(int worker, const float* weight, bool quantize);
  const Buffer& normed(int worker) const { return alone_ ? own_normed_[worker] : normed_; }
  void ProjectQkv(int worker, const ModelLayer& layer);
  // Hands out the panels of a product with `tokens` tokens, each of which reads `panel_bytes`.
  void SplitPanels(int worker, size_t panels, size_t panel_bytes, size_t tokens,
                   absl::FunctionRef<void(size_t first, size_t end)> product);
  void RotateAndStore(int worker, size_t layer);
  // How many tokens from batch_[first] on follow each other in one sequence, as far as they are
  // attended with together.
  size_t TokensTogether(size_t first) const;
  void PlanAttention();
  void Attend(int worker, size_t layer, bool quantize);
  void AttendSplit(int worker, size_t layer, float* scratch);
  // RotateAndStore and Attend for a batch of one token; returns what the product with attn_output
  // takes.
  Buffer AttendAlone(int worker, size_t layer, bool quantize);
  void GateAndUp(int worker, const ModelLayer& layer, size_t index);
  void AddProduct(int worker, const PackedMatrix& weights, const Buffer& input);
  void ComputeLogits(int worker);
  // Adds what the adapters of tokens change to a product, in the step between two barriers that
  // follows it; `pair` names the product. Without adapters in the batch it does nothing at all.
  void Adapt(int worker, AdapterPair AdapterLayer::*pair, size_t layer, const Buffer& input,
             const Buffer& out);
  void AdaptRow(int worker, const AdapterPair& pair, const float* input, float* out);

  const Model& model_;
  ThreadPool& pool_;
  const KvGeometry kv_;
  std::byte* const kv_memory_;
  const Options options_;
  AlignedMemory memory_;
  ForwardObserver observer_;

  std::span<const BatchToken> batch_;
  std::vector<uint32_t> logit_tokens_;  // indices in the batch
  bool adapted_ = false;                // a token of the batch has an adapter
  // The batch is one token, and nobody but the products looks at what they are fed with: every
  // worker norms and quantises that for itself, rather than wait for one that does it for all.
  bool alone_ = false;

  // Tokens that are attended with together; each with every KV head is a unit of work.
  struct AttentionUnit {
    uint32_t first;
    uint32_t tokens;
  };
  std::vector<AttentionUnit> attention_units_;
  bool split_attention_ = false;  // every unit is one token, its positions shared out as well

  Buffer residual_;
  Buffer normed_;  // of the residual stream
  Buffer q_;
  Buffer k_;
  Buffer v_;
  Buffer attended_;
  std::vector<Buffer> own_normed_;    // of a worker, one token
  std::vector<Buffer> own_attended_;  // likewise; quantised only
  Buffer gate_;
  Buffer up_;
  float* cosines_ = nullptr;  // [token][head_dim / 2]
  float* sines_ = nullptr;
  float* attention_parts_ = nullptr;  // [token and KV head][max_parts_]
  size_t max_parts_ = 0;
  bool shares_ = false;       // products leave part of their panels to whoever is done first
  float* scratch_ = nullptr;  // of attention, one a thread
  size_t scratch_floats_ = 0;
  float* adapter_scratch_ = nullptr;  // kMaxLoraRank, one a thread
  float* logits_ = nullptr;
  size_t logits_stride_ = 0;
};

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_FORWARD_H_
