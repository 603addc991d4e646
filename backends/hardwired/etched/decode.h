// One token at a time with kernels made for the model's shape: the sizes of all loops over weights
// and heads are compile-time constants, and a whole pass is one call on one thread. The bits are
// those of kernels::Forward.
#ifndef RETICLE_BACKENDS_HARDWIRED_ETCHED_DECODE_H_
#define RETICLE_BACKENDS_HARDWIRED_ETCHED_DECODE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/kv_cache.h"
#include "backends/kernels/model.h"

namespace reticle::backends::hardwired {

// Shapes that have kernels of their own. Layers and vocabulary may be any.
enum class EtchedShape {
  kNone,
  kHouse,    // dim 256, 4 heads of 64, 2 KV heads, ffn 512
  kLlama1B,  // of Llama 3.2
  kLlama3B,  // of Llama 3.2
  kLlama8B,  // of Llama 3.1
};
// kNone also where the instruction set has none.
EtchedShape FindShape(const models::LlamaConfig& config);

// What the kernels work on; all of it borrowed.
struct DecodeState {
  const kernels::Model* model = nullptr;
  std::span<const kernels::ModelLayer> layers;
  const kernels::PackedMatrix* output = nullptr;
  bool spread = false;  // codes of layers and output lie as SpreadMatrix has them
  const kernels::KvGeometry* kv = nullptr;
  std::byte* kv_memory = nullptr;
  float* residual = nullptr;
  float* normed = nullptr;
  float* qkv = nullptr;  // q, k and v, one behind the other
  float* attended = nullptr;
  float* gate = nullptr;
  float* up = nullptr;
  float* scratch = nullptr;
  float* logits = nullptr;  // whole panels
  const float* cosines = nullptr;
  const float* sines = nullptr;
  kernels::QuantizedRows quantized_dim;  // dim columns
  kernels::QuantizedRows quantized_q;    // q_dim columns
  kernels::QuantizedRows quantized_ffn;  // ffn_dim columns
};

// One thread at a time. Model and KV memory are borrowed.
class Decoder {
 public:
  // `shape` is not kNone and fits the model, whose matrices are of image formats. Codes of the
  // house model's shape are copied where the instruction set takes long to unpack them.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(EtchedShape shape,
                                                         const kernels::Model& model,
                                                         const kernels::KvGeometry& kv,
                                                         std::byte* kv_memory);

  // Feeds `token` at `position` of the sequence in this KV block, which is longer than that.
  // `logits` is empty or takes those behind it.
  void Feed(uint32_t token, uint32_t position, uint32_t block, std::span<float> logits);

 private:
  explicit Decoder(EtchedShape shape) : shape_(shape) {}
  absl::Status SpreadCodes();

  const EtchedShape shape_;
  kernels::KvGeometry kv_;
  DecodeState state_;
  kernels::AlignedMemory memory_;
  kernels::AlignedMemory codes_;  // spread
  std::vector<kernels::ModelLayer> layers_;
  kernels::PackedMatrix output_;
  // Cosines and sines of the positions up to some limit.
  std::vector<float> turns_;
  uint32_t table_positions_ = 0;
  std::vector<float> turn_;  // of one position beyond it
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ETCHED_DECODE_H_
