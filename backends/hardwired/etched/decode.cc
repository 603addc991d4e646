#include "backends/hardwired/etched/decode.h"

#include <algorithm>
#include <cmath>

#include "backends/hardwired/etched/spread_matrix.h"
#include "backends/kernels/attention.h"
#include "base/status.h"
#include "models/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/hardwired/etched/decode.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// Highway's headers come after foreach_target.h.
#include "backends/hardwired/etched/attention-inl.h"
#include "backends/hardwired/etched/product-inl.h"
#include "backends/kernels/attention-inl.h"
#include "backends/kernels/matmul-inl.h"
#include "backends/kernels/vector_ops-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::hardwired::HWY_NAMESPACE {

// Where vectors are shorter the generic kernels do: what the constants save is lost in the time
// that the products take.
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_EMU128 || \
    HWY_TARGET == HWY_SCALAR

bool HasDecodeTarget() { return false; }

bool SpreadsCodes() { return false; }

void DecodeTarget(EtchedShape, const DecodeState&, uint32_t, const uint32_t*, bool, int) {}

#else

namespace k = kernels::HWY_NAMESPACE;
namespace hn = hwy::HWY_NAMESPACE;
using kernels::kPanelRows;
using kernels::KvType;
using kernels::PackedFormat;
using kernels::PackedMatrix;
using kernels::QuantizedRows;

template <size_t kDimValue, size_t kHeadsValue, size_t kKvHeadsValue, size_t kHeadDimValue,
          size_t kFfnValue>
struct Shape {
  static constexpr size_t kDim = kDimValue;
  static constexpr size_t kHeads = kHeadsValue;
  static constexpr size_t kKvHeads = kKvHeadsValue;
  static constexpr size_t kHeadDim = kHeadDimValue;
  static constexpr size_t kFfn = kFfnValue;
  static constexpr size_t kGroup = kHeads / kKvHeads;
  static constexpr size_t kQDim = kHeads * kHeadDim;
  static constexpr size_t kKvDim = kKvHeads * kHeadDim;
};

template <class F, bool kVnni, size_t kColumns, size_t kPanels>
HWY_INLINE void Tile(const PackedMatrix& w, size_t panel, const QuantizedRows& x, float* out,
                     bool add) {
  const k::DF df;
  k::VF sums[kPanels][k::kPanelVecs][1];
  RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
    RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) sums[p][v][0] = hn::Zero(df);
  }
  for (size_t group = 0; group < kColumns / F::kGroup; ++group) {
    RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
      const k::GroupView view = k::ViewGroup<F>(k::PanelView(w, panel + p), group);
      k::SuperScales super[k::kPanelVecs];
      RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
        super[v] = k::LoadSuper<F>(view, v * k::kLanes);
      }
      k::AddGroup<F, kVnni>(view, super, 0, x, 0, group, k::kPrefetchBytes, sums[p]);
    }
  }
  RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
    RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
      k::StoreResult(sums[p][v][0], out + (panel + p) * kPanelRows + v * k::kLanes, add);
    }
  }
}

// out[r] = sum over kColumns of W[r][k] * x[k], for all rows; added to what is there if `add`.
template <class F, bool kVnni, size_t kColumns>
HWY_NOINLINE void ProductOf(const PackedMatrix& w, const QuantizedRows& rows, float* out,
                            bool add) {
  const QuantizedRows x = rows;
  size_t panel = 0;
  for (; panel + kTogether <= w.panels; panel += kTogether) {
    Tile<F, kVnni, kColumns, kTogether>(w, panel, x, out, add);
  }
  for (; panel < w.panels; ++panel) Tile<F, kVnni, kColumns, 1>(w, panel, x, out, add);
}

template <bool kVnni, Layout kLayout, size_t kColumns>
HWY_INLINE void Product(const PackedMatrix& w, const QuantizedRows& x, float* out, bool add) {
  switch (w.format) {
    case PackedFormat::kThreeBit:
      return SuperProduct<k::Format<PackedFormat::kThreeBit>, kVnni, kLayout, kColumns>(w, x, out,
                                                                                        add);
    case PackedFormat::kSixBit:
      return SuperProduct<k::Format<PackedFormat::kSixBit>, kVnni, kLayout, kColumns>(w, x, out,
                                                                                      add);
    default:
      return ProductOf<k::Format<PackedFormat::kImageInt8>, kVnni, kColumns>(w, x, out, add);
  }
}

template <class S>
HWY_NOINLINE void Attention(const DecodeState& s, size_t layer, uint32_t position,
                            const uint32_t* blocks) {
  float* const q = s.qkv;
  float* const keys = q + S::kQDim;
  float* const values = keys + S::kKvDim;
  for (size_t head = 0; head < S::kKvHeads; ++head) {
    constexpr size_t kWidth = S::kGroup * S::kHeadDim;
    float* const queries = q + head * kWidth;
    for (size_t g = 0; g < S::kGroup; ++g) {
      k::RopeInline(queries + g * S::kHeadDim, S::kHeadDim / 2, s.cosines, s.sines);
    }
    float* const key = keys + head * S::kHeadDim;
    k::RopeInline(key, S::kHeadDim / 2, s.cosines, s.sines);
    kernels::WriteKv(*s.kv, s.kv_memory, blocks, layer, head, position, key,
                     values + head * S::kHeadDim);
    float* const out = s.attended + head * kWidth;
    if (s.kv->type == KvType::kF16) {
      AttendGroup<S::kGroup, S::kHeadDim>(*s.kv, s.kv_memory, blocks, layer, head, position,
                                          queries, out, s.scratch);
    } else {
      k::AttendTokensAs<KvType::kQ8_0, S::kGroup, S::kHeadDim>(*s.kv, s.kv_memory, blocks, layer,
                                                               head, position, 1, queries, 0,
                                                               S::kGroup, out, 0, s.scratch);
    }
  }
}

// quantized = rms_norm(residual) * weight.
template <size_t kDim>
HWY_NOINLINE void Normalize(const DecodeState& s, const float* weight, float epsilon) {
  k::RmsNormInline(s.residual, weight, kDim, epsilon, s.normed);
  k::QuantizeColumnsInline(s.normed, 0, kDim, 0, s.quantized_dim);
}

template <class S, bool kVnni, Layout kLayout>
void DecodeAs(const DecodeState& s, uint32_t position, const uint32_t* blocks, bool wants_logits) {
  const kernels::Model& model = *s.model;
  const float epsilon = model.config().norm_epsilon;
  for (size_t l = 0; l < s.layers.size(); ++l) {
    const kernels::ModelLayer& layer = s.layers[l];
    Normalize<S::kDim>(s, layer.attn_norm.data(), epsilon);
    Product<kVnni, kLayout, S::kDim>(layer.q, s.quantized_dim, s.qkv, false);
    Product<kVnni, kLayout, S::kDim>(layer.k, s.quantized_dim, s.qkv + S::kQDim, false);
    Product<kVnni, kLayout, S::kDim>(layer.v, s.quantized_dim, s.qkv + S::kQDim + S::kKvDim, false);
    Attention<S>(s, l, position, blocks);
    k::QuantizeColumnsInline(s.attended, 0, S::kQDim, 0, s.quantized_q);
    Product<kVnni, kLayout, S::kQDim>(layer.o, s.quantized_q, s.residual, true);

    Normalize<S::kDim>(s, layer.ffn_norm.data(), epsilon);
    Product<kVnni, kLayout, S::kDim>(layer.gate, s.quantized_dim, s.gate, false);
    Product<kVnni, kLayout, S::kDim>(layer.up, s.quantized_dim, s.up, false);
    k::SwiGluInline(s.gate, s.up, S::kFfn, s.gate);
    k::QuantizeColumnsInline(s.gate, 0, S::kFfn, 0, s.quantized_ffn);
    Product<kVnni, kLayout, S::kFfn>(layer.down, s.quantized_ffn, s.residual, true);
  }
  if (!wants_logits) return;
  Normalize<S::kDim>(s, model.output_norm().data(), epsilon);
  Product<kVnni, kLayout, S::kDim>(*s.output, s.quantized_dim, s.logits, false);
}

template <bool kVnni>
HWY_INLINE void DecodeShape(EtchedShape shape, const DecodeState& s, uint32_t position,
                            const uint32_t* blocks, bool wants_logits) {
  switch (shape) {
    case EtchedShape::kNone:
      return;
    case EtchedShape::kHouse:
      using House = Shape<256, 4, 2, 64, 512>;
      if (s.spread) {
        return DecodeAs<House, kVnni, Layout::kSpread>(s, position, blocks, wants_logits);
      }
      return DecodeAs<House, kVnni, Layout::kImage>(s, position, blocks, wants_logits);
    case EtchedShape::kLlama1B:
      return DecodeAs<Shape<2048, 32, 8, 64, 8192>, kVnni, Layout::kImage>(s, position, blocks,
                                                                           wants_logits);
    case EtchedShape::kLlama3B:
      return DecodeAs<Shape<3072, 24, 8, 128, 8192>, kVnni, Layout::kImage>(s, position, blocks,
                                                                            wants_logits);
    case EtchedShape::kLlama8B:
      return DecodeAs<Shape<4096, 32, 8, 128, 14336>, kVnni, Layout::kImage>(s, position, blocks,
                                                                             wants_logits);
  }
}

bool HasDecodeTarget() { return true; }

// AVX-512 unpacks as fast as the larger copy would come from the cache.
bool SpreadsCodes() { return HWY_TARGET == HWY_AVX2; }

void DecodeTarget(EtchedShape shape, const DecodeState& s, uint32_t position,
                  const uint32_t* blocks, bool wants_logits, int vnni_bits) {
  if (k::UsesVnni(vnni_bits)) {
    DecodeShape<true>(shape, s, position, blocks, wants_logits);
  } else {
    DecodeShape<false>(shape, s, position, blocks, wants_logits);
  }
}

#endif

}  // namespace reticle::backends::hardwired::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace reticle::backends::hardwired {
namespace {

HWY_EXPORT(HasDecodeTarget);
HWY_EXPORT(SpreadsCodes);
HWY_EXPORT(DecodeTarget);

using kernels::PackedMatrix;
using kernels::QuantizedRows;

// Positions whose angles are kept: 512 bytes each for heads of 64.
constexpr uint32_t kMaxTablePositions = 8192;

// Memory of this size is one page where the system has such pages, and so spreads evenly over the
// cache.
constexpr size_t kHugePage = size_t{2} << 20;

// Hands out parts of a memory block at multiples of 64 bytes; with a null base it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  T* Take(size_t count) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return part;
  }
  QuantizedRows TakeRows(size_t columns) {
    return {columns,
            Take<int8_t>(columns),
            Take<float>(columns / 32),
            Take<float>(columns / 32),
            Take<int32_t>(columns / 32),
            Take<int32_t>(columns / 16)};
  }
  size_t used() const { return used_; }

 private:
  std::byte* const base_;
  size_t used_ = 0;
};

size_t LayOut(const models::LlamaConfig& config, const kernels::KvGeometry& kv, std::byte* base,
              DecodeState* state) {
  const auto padded = [](size_t rows) { return (rows + 15) / 16 * 16; };
  Carver carver(base);
  state->residual = carver.Take<float>(padded(config.dim));
  state->normed = carver.Take<float>(padded(config.dim));
  state->qkv = carver.Take<float>(config.q_dim() + 2 * config.kv_dim());
  state->attended = carver.Take<float>(config.q_dim());
  state->gate = carver.Take<float>(padded(config.ffn_dim));
  state->up = carver.Take<float>(padded(config.ffn_dim));
  state->scratch = carver.Take<float>(kernels::AttentionScratchFloats(kv, config.group_size()));
  state->logits = carver.Take<float>(padded(config.vocab_size));
  state->quantized_dim = carver.TakeRows(config.dim);
  state->quantized_q = carver.TakeRows(config.q_dim());
  state->quantized_ffn = carver.TakeRows(config.ffn_dim);
  return carver.used();
}

void ComputeTurn(std::span<const double> frequencies, uint32_t position, float* out) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = position * frequencies[i];
    out[i] = static_cast<float>(std::cos(angle));
    out[frequencies.size() + i] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace

EtchedShape FindShape(const models::LlamaConfig& config) {
  if (!HWY_DYNAMIC_DISPATCH(HasDecodeTarget)()) return EtchedShape::kNone;
  struct Entry {
    uint32_t dim, heads, kv_heads, head_dim, ffn_dim;
    EtchedShape shape;
  };
  constexpr Entry kShapes[] = {
      {256, 4, 2, 64, 512, EtchedShape::kHouse},
      {2048, 32, 8, 64, 8192, EtchedShape::kLlama1B},
      {3072, 24, 8, 128, 8192, EtchedShape::kLlama3B},
      {4096, 32, 8, 128, 14336, EtchedShape::kLlama8B},
  };
  for (const Entry& entry : kShapes) {
    if (entry.dim == config.dim && entry.heads == config.heads &&
        entry.kv_heads == config.kv_heads && entry.head_dim == config.head_dim &&
        entry.ffn_dim == config.ffn_dim) {
      return entry.shape;
    }
  }
  return EtchedShape::kNone;
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(EtchedShape shape,
                                                         const kernels::Model& model,
                                                         const kernels::KvGeometry& kv,
                                                         std::byte* kv_memory) {
  std::unique_ptr<Decoder> decoder(new Decoder(shape));
  decoder->kv_ = kv;
  auto memory =
      kernels::AlignedMemory::Allocate(LayOut(model.config(), kv, nullptr, &decoder->state_));
  if (!memory.ok()) return memory.status();
  decoder->memory_ = *std::move(memory);
  LayOut(model.config(), kv, decoder->memory_.data(), &decoder->state_);
  decoder->state_.model = &model;
  decoder->layers_ = {model.layers().begin(), model.layers().end()};
  decoder->output_ = model.output();
  if (shape == EtchedShape::kHouse && HWY_DYNAMIC_DISPATCH(SpreadsCodes)()) {
    RETURN_IF_ERROR(decoder->SpreadCodes());
  }
  decoder->state_.layers = decoder->layers_;
  decoder->state_.output = &decoder->output_;
  decoder->state_.kv = &decoder->kv_;
  decoder->state_.kv_memory = kv_memory;
  const std::span<const double> frequencies = model.rope_frequencies();
  const size_t width = 2 * frequencies.size();
  decoder->table_positions_ =
      static_cast<uint32_t>(std::min<size_t>(kv.block_tokens, kMaxTablePositions));
  decoder->turns_.resize(decoder->table_positions_ * width);
  for (uint32_t p = 0; p < decoder->table_positions_; ++p) {
    ComputeTurn(frequencies, p, &decoder->turns_[p * width]);
  }
  decoder->turn_.resize(width);
  return decoder;
}

absl::Status Decoder::SpreadCodes() {
  std::vector<PackedMatrix*> matrices;
  for (kernels::ModelLayer& layer : layers_) {
    matrices.insert(matrices.end(),
                    {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down});
  }
  matrices.push_back(&output_);
  size_t bytes = 0;
  for (const PackedMatrix* matrix : matrices) bytes += SpreadBytes(*matrix);
  ASSIGN_OR_RETURN(codes_, kernels::AlignedMemory::Allocate(std::max(bytes, kHugePage)));
  std::byte* memory = codes_.data();
  for (PackedMatrix* matrix : matrices) {
    const size_t taken = SpreadBytes(*matrix);
    if (taken == 0) continue;
    *matrix = SpreadMatrix(*matrix, memory);
    memory += taken;
  }
  state_.spread = true;
  return absl::OkStatus();
}

void Decoder::Feed(uint32_t token, uint32_t position, uint32_t block, std::span<float> logits) {
  const std::span<const double> frequencies = state_.model->rope_frequencies();
  const float* turn = turn_.data();
  if (position < table_positions_) {
    turn = &turns_[position * 2 * frequencies.size()];
  } else {
    ComputeTurn(frequencies, position, turn_.data());
  }
  state_.cosines = turn;
  state_.sines = turn + frequencies.size();
  state_.model->Embed(token, state_.residual);
  // Where the caller's are whole panels they need no copy.
  const bool whole = logits.size() % kernels::kPanelRows == 0;
  DecodeState state = state_;
  if (whole) state.logits = logits.data();
  HWY_DYNAMIC_DISPATCH(DecodeTarget)
  (shape_, state, position, &block, !logits.empty(), kernels::VnniBits());
  if (!whole) std::copy_n(state.logits, logits.size(), logits.begin());
}

}  // namespace reticle::backends::hardwired

#endif  // HWY_ONCE
