#include "backends/kernels/forward.h"

#include <algorithm>
#include <cmath>

#include "backends/kernels/attention.h"
#include "base/check.h"

namespace reticle::backends::kernels {
namespace {

using models::LlamaConfig;

// Queries that share one reading of keys and values, at most; at least a group's heads.
constexpr size_t kAttentionRows = 16;
// A product with few tokens, which waits for memory, leaves one in kSharedPart panels to whoever is
// done first, in runs of at least kRunBytes of weights, which outlast taking a ticket by far. Not
// so when weights stay in the caches of those who read them (Options::cached_bytes).
constexpr size_t kSharedTokens = 32;
constexpr size_t kSharedPart = 4;
constexpr size_t kRunBytes = size_t{64} << 10;
// Panels of a run at least, and what they are a multiple of: those that lie side by side in a
// product with one token (matmul-inl.h). More tokens than kDirect go through blocks of weights
// (tile-inl.h), which begin anew with each run.
constexpr size_t kRunPanels = 4;
constexpr size_t kDirect = 8;
constexpr size_t kTileRunPanels = 16;
// Batches with fewer heads to attend with for each thread split positions, too.
constexpr size_t kUnitsPerThread = 4;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// Hands out parts of a memory block at multiples of 64 bytes; with a null base it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  T* Take(size_t count) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += RoundUp(count * sizeof(T), 64);
    return part;
  }
  size_t used() const { return used_; }

 private:
  std::byte* const base_;
  size_t used_ = 0;
};

bool NeedsInts(std::initializer_list<const PackedMatrix*> consumers) {
  return std::any_of(consumers.begin(), consumers.end(),
                     [](const PackedMatrix* m) { return !IsFloatFormat(m->format); });
}

// Of the quants, or units, of all matrices.
uint64_t BytesOfStep(const Model& model) {
  const auto bytes = [](const PackedMatrix& m) { return uint64_t{m.panels} * m.values_stride; };
  uint64_t sum = bytes(model.output());
  for (const ModelLayer& l : model.layers()) {
    for (const PackedMatrix* m : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) {
      sum += bytes(*m);
    }
  }
  return sum;
}

}  // namespace

size_t Forward::LayOut(const LlamaConfig& config, const Options& options, size_t threads,
                       size_t scratch_floats, std::byte* base) {
  Carver carver(base);
  const size_t rows = options.max_tokens;
  const auto floats = [&](Buffer& buffer, size_t count, size_t width) {
    buffer.stride = RoundUp(width, 32);
    buffer.floats = carver.Take<float>(count * buffer.stride);
  };
  const auto ints = [&](Buffer& buffer, size_t count, size_t width) {
    if (width % 32 != 0) return;
    buffer.quantized.columns = width;
    buffer.quantized.quants = carver.Take<int8_t>(count * width);
    buffer.quantized.scales = carver.Take<float>(count * width / 32);
    buffer.quantized.scaled_sums = carver.Take<float>(count * width / 32);
    buffer.quantized.sums = carver.Take<int32_t>(count * width / 32);
    buffer.quantized.half_sums = carver.Take<int32_t>(count * width / 16);
    if (NeedsWideQuants()) buffer.quantized.wide = carver.Take<int16_t>(count * width);
  };
  floats(residual_, rows, config.dim);
  floats(normed_, rows, config.dim);
  ints(normed_, rows, config.dim);
  floats(q_, rows, config.q_dim());
  floats(k_, rows, config.kv_dim());
  floats(v_, rows, config.kv_dim());
  floats(attended_, rows, config.q_dim());
  ints(attended_, rows, config.q_dim());
  own_normed_.resize(threads);
  own_attended_.resize(threads);
  for (size_t worker = 0; worker < threads; ++worker) {
    floats(own_normed_[worker], 1, config.dim);
    ints(own_normed_[worker], 1, config.dim);
    ints(own_attended_[worker], 1, config.q_dim());
  }
  floats(gate_, rows, config.ffn_dim);
  ints(gate_, rows, config.ffn_dim);
  floats(up_, rows, config.ffn_dim);
  cosines_ = carver.Take<float>(rows * (config.head_dim / 2));
  sines_ = carver.Take<float>(rows * (config.head_dim / 2));
  scratch_floats_ = RoundUp(scratch_floats, 16);
  scratch_ = carver.Take<float>(threads * scratch_floats_);
  max_parts_ = AttentionParts(config.context_length);
  if (max_parts_ > 1) {
    attention_parts_ = carver.Take<float>(kUnitsPerThread * threads * max_parts_ *
                                          AttentionPartFloats(kv_, config.group_size()));
  }
  adapter_scratch_ = carver.Take<float>(threads * models::kMaxLoraRank);
  logits_stride_ = RoundUp(config.vocab_size, kPanelRows);
  logits_ = carver.Take<float>(options.max_logit_rows * logits_stride_);
  return carver.used();
}

uint64_t Forward::MemoryBytes(const LlamaConfig& config, const Options& options) {
  const uint64_t widths = 3 * uint64_t{RoundUp(config.dim, 32)} +
                          3 * uint64_t{RoundUp(config.q_dim(), 32)} +
                          2 * uint64_t{RoundUp(config.kv_dim(), 32)} +
                          3 * uint64_t{RoundUp(config.ffn_dim, 32)} + config.head_dim;
  return options.max_tokens * widths * 4 +
         options.max_logit_rows * uint64_t{RoundUp(config.vocab_size, kPanelRows)} * 4;
}

absl::StatusOr<std::unique_ptr<Forward>> Forward::Create(const Model& model, ThreadPool& pool,
                                                         const KvGeometry& kv, std::byte* kv_memory,
                                                         const Options& options) {
  RETICLE_CHECK(options.max_logit_rows <= options.max_tokens);
  std::unique_ptr<Forward> forward(new Forward(model, pool, kv, kv_memory, options));
  const size_t rows = std::max<size_t>(kAttentionRows, model.config().group_size());
  const size_t scratch = AttentionScratchFloats(kv, rows);
  const size_t bytes = forward->LayOut(model.config(), options, pool.threads(), scratch, nullptr);
  auto memory = AlignedMemory::Allocate(bytes);
  if (!memory.ok()) return memory.status();
  forward->memory_ = *std::move(memory);
  forward->LayOut(model.config(), options, pool.threads(), scratch, forward->memory_.data());
  forward->shares_ = BytesOfStep(model) > options.cached_bytes;
  forward->logit_tokens_.reserve(options.max_logit_rows);
  forward->attention_units_.reserve(options.max_tokens);
  return forward;
}

void Forward::Run(std::span<const BatchToken> batch) {
  RETICLE_CHECK(batch.size() <= options_.max_tokens);
  batch_ = batch;
  logit_tokens_.clear();
  adapted_ = false;
  for (size_t t = 0; t < batch.size(); ++t) {
    adapted_ |= batch[t].adapter != nullptr;
    if (batch[t].wants_logits) logit_tokens_.push_back(static_cast<uint32_t>(t));
  }
  RETICLE_CHECK(logit_tokens_.size() <= options_.max_logit_rows);
  alone_ = batch.size() == 1 && !adapted_ && !observer_;
  PlanAttention();
  pool_.Run([this](int worker) { Work(worker); });
}

void Forward::Work(int worker) {
  EmbedTokens(worker);
  for (size_t l = 0; l < model_.layers().size(); ++l) {
    const ModelLayer& layer = model_.layers()[l];
    Normalize(worker, layer.attn_norm.data(), NeedsInts({&layer.q, &layer.k, &layer.v}));
    Observe(worker, l, ForwardInput::kQkv, normed_, batch_.size());
    ProjectQkv(worker, layer);
    pool_.Barrier();
    if (alone_) {
      const Buffer attended = AttendAlone(worker, l, NeedsInts({&layer.o}));
      AddProduct(worker, layer.o, attended);
    } else {
      Adapt(worker, &AdapterLayer::q, l, normed_, q_);
      Adapt(worker, &AdapterLayer::k, l, normed_, k_);
      Adapt(worker, &AdapterLayer::v, l, normed_, v_);
      RotateAndStore(worker, l);
      pool_.Barrier();
      Attend(worker, l, NeedsInts({&layer.o}));
      pool_.Barrier();
      Observe(worker, l, ForwardInput::kAttnOutput, attended_, batch_.size());
      AddProduct(worker, layer.o, attended_);
    }
    pool_.Barrier();
    Adapt(worker, &AdapterLayer::o, l, attended_, residual_);
    Normalize(worker, layer.ffn_norm.data(), NeedsInts({&layer.gate, &layer.up}));
    Observe(worker, l, ForwardInput::kGateUp, normed_, batch_.size());
    GateAndUp(worker, layer, l);
    pool_.Barrier();
    Observe(worker, l, ForwardInput::kDown, gate_, batch_.size());
    AddProduct(worker, layer.down, gate_);
    pool_.Barrier();
    Adapt(worker, &AdapterLayer::down, l, gate_, residual_);
  }
  ComputeLogits(worker);
}

// Each worker embeds the tokens that it normalises first, so no barrier lies between; one token is
// normed by all.
void Forward::EmbedTokens(int worker) {
  const auto [first, end] = StaticRange(batch_.size(), worker, pool_.threads());
  const std::span<const double> frequencies = model_.rope_frequencies();
  for (size_t t = first; t < end; ++t) {
    model_.Embed(batch_[t].token, residual_.row(t));
    float* cosines = cosines_ + t * frequencies.size();
    float* sines = sines_ + t * frequencies.size();
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const double angle = batch_[t].position * frequencies[i];
      cosines[i] = static_cast<float>(std::cos(angle));
      sines[i] = static_cast<float>(std::sin(angle));
    }
  }
  if (alone_) pool_.Barrier();
}

void Forward::Normalize(int worker, const float* weight, bool quantize) {
  const LlamaConfig& config = model_.config();
  const auto norm = [&](size_t t, const Buffer& out) {
    RmsNorm(residual_.row(t), weight, config.dim, config.norm_epsilon, out.row(t));
    if (quantize) QuantizeColumns(out.row(t), 0, config.dim, t, out.quantized);
  };
  if (alone_) return norm(0, own_normed_[worker]);
  const auto [first, end] = StaticRange(batch_.size(), worker, pool_.threads());
  for (size_t t = first; t < end; ++t) norm(t, normed_);
  pool_.Barrier();
}

void Forward::ProjectQkv(int worker, const ModelLayer& layer) {
  const size_t total = layer.q.panels + layer.k.panels + layer.v.panels;
  const std::pair<const PackedMatrix*, const Buffer*> parts[] = {
      {&layer.q, &q_}, {&layer.k, &k_}, {&layer.v, &v_}};
  SplitPanels(worker, total, layer.q.values_stride, batch_.size(), [&](size_t first, size_t end) {
    size_t begin = 0;  // of the part among all panels
    for (const auto& [matrix, out] : parts) {
      const size_t from = std::max(first, begin);
      const size_t to = std::min(end, begin + matrix->panels);
      if (from < to) {
        MatMul(*matrix, from - begin, to - begin, normed(worker).view(), batch_.size(), out->floats,
               out->stride, false);
      }
      begin += matrix->panels;
    }
  });
}

void Forward::SplitPanels(int worker, size_t panels, size_t panel_bytes, size_t tokens,
                          absl::FunctionRef<void(size_t, size_t)> product) {
  const size_t run = std::max(RoundUp(kRunBytes / panel_bytes + 1, kRunPanels),
                              tokens > kDirect ? kTileRunPanels : kRunPanels);
  size_t shared = shares_ && tokens <= kSharedTokens ? panels / kSharedPart / run * run : 0;
  if (shared < run * pool_.threads()) shared = 0;
  pool_.Split(worker, panels, shared, run, product);
}

void Forward::RotateAndStore(int worker, size_t layer) {
  const LlamaConfig& config = model_.config();
  const size_t dim = config.head_dim;
  const size_t pairs = dim / 2;
  const size_t group = config.group_size();
  const size_t items = batch_.size() * config.kv_heads;
  const auto [first, end] = StaticRange(items, worker, pool_.threads());
  for (size_t item = first; item < end; ++item) {
    const size_t t = item / config.kv_heads;
    const size_t head = item % config.kv_heads;
    const float* cosines = cosines_ + t * pairs;
    const float* sines = sines_ + t * pairs;
    for (size_t g = 0; g < group; ++g) {
      Rope(q_.row(t) + (head * group + g) * dim, pairs, cosines, sines);
    }
    float* key = k_.row(t) + head * dim;
    Rope(key, pairs, cosines, sines);
    WriteKv(kv_, kv_memory_, batch_[t].blocks, layer, head, batch_[t].position, key,
            v_.row(t) + head * dim);
  }
}

size_t Forward::TokensTogether(size_t first) const {
  const size_t most = std::max<size_t>(1, kAttentionRows / model_.config().group_size());
  size_t count = 1;
  while (count < most && first + count < batch_.size() &&
         batch_[first + count].blocks == batch_[first].blocks &&
         batch_[first + count].position == batch_[first].position + count) {
    ++count;
  }
  return count;
}

void Forward::PlanAttention() {
  const size_t heads = model_.config().kv_heads;
  attention_units_.clear();
  size_t parts = 0;
  for (size_t t = 0; t < batch_.size(); t += attention_units_.back().tokens) {
    const size_t tokens = TokensTogether(t);
    attention_units_.push_back({static_cast<uint32_t>(t), static_cast<uint32_t>(tokens)});
    parts = std::max(parts, AttentionParts(batch_[t].position + tokens - 1));
  }
  // Long contexts of few sequences: positions are split too.
  split_attention_ = parts > 1 && attention_units_.size() == batch_.size() &&
                     batch_.size() * heads < kUnitsPerThread * pool_.threads();
}

void Forward::Attend(int worker, size_t layer, bool quantize) {
  const LlamaConfig& config = model_.config();
  const size_t group = config.group_size();
  const size_t width = group * config.head_dim;
  float* scratch = scratch_ + worker * scratch_floats_;
  if (split_attention_) {
    AttendSplit(worker, layer, scratch);
    if (!quantize) return;
    pool_.Barrier();
    const auto [first, end] = StaticRange(batch_.size(), worker, pool_.threads());
    for (size_t t = first; t < end; ++t) {
      QuantizeColumns(attended_.row(t), 0, config.q_dim(), t, attended_.quantized);
    }
    return;
  }
  // A unit is quantised by who computed it: one head's group when that is whole groups of 32, else
  // whole tokens.
  const size_t heads = width % 32 == 0 ? 1 : config.kv_heads;
  const size_t units_of_token = config.kv_heads / heads;
  for (size_t u = worker; u < attention_units_.size() * units_of_token; u += pool_.threads()) {
    const auto [t, tokens] = attention_units_[u / units_of_token];
    const size_t first_head = u % units_of_token * heads;
    for (size_t head = first_head; head < first_head + heads; ++head) {
      AttendTokens(kv_, kv_memory_, batch_[t].blocks, layer, head, batch_[t].position, tokens,
                   q_.row(t) + head * width, q_.stride, group, attended_.row(t) + head * width,
                   attended_.stride, scratch);
    }
    if (!quantize) continue;
    const size_t column = first_head * width;
    for (size_t i = t; i < t + tokens; ++i) {
      QuantizeColumns(attended_.row(i), column, column + heads * width, i, attended_.quantized);
    }
  }
}

Forward::Buffer Forward::AttendAlone(int worker, size_t layer, bool quantize) {
  const LlamaConfig& config = model_.config();
  const size_t group = config.group_size();
  const size_t width = group * config.head_dim;
  float* scratch = scratch_ + worker * scratch_floats_;
  RotateAndStore(worker, layer);
  if (split_attention_) {
    pool_.Barrier();
    AttendSplit(worker, layer, scratch);
  } else {
    // The heads that this worker has stored itself.
    const auto [first, end] = StaticRange(config.kv_heads, worker, pool_.threads());
    for (size_t head = first; head < end; ++head) {
      AttendTokens(kv_, kv_memory_, batch_[0].blocks, layer, head, batch_[0].position, 1,
                   q_.row(0) + head * width, q_.stride, group, attended_.row(0) + head * width,
                   attended_.stride, scratch);
    }
  }
  pool_.Barrier();
  Buffer out = attended_;
  if (quantize) {
    out.quantized = own_attended_[worker].quantized;
    QuantizeColumns(attended_.row(0), 0, config.q_dim(), 0, out.quantized);
  }
  return out;
}

void Forward::AttendSplit(int worker, size_t layer, float* scratch) {
  const LlamaConfig& config = model_.config();
  const size_t group = config.group_size();
  const size_t width = group * config.head_dim;
  const size_t part_floats = AttentionPartFloats(kv_, group);
  const size_t items = batch_.size() * config.kv_heads;
  size_t units = 0;
  for (const BatchToken& token : batch_) units += config.kv_heads * AttentionParts(token.position);
  // Parts that follow each other: what comes next is asked for while one is computed.
  const auto [first, end] = StaticRange(units, worker, pool_.threads());
  size_t unit = 0;
  for (size_t item = 0; item < items; ++item) {
    const BatchToken& token = batch_[item / config.kv_heads];
    const size_t head = item % config.kv_heads;
    const float* q = q_.row(item / config.kv_heads) + head * width;
    for (size_t part = 0; part < AttentionParts(token.position); ++part, ++unit) {
      if (unit < first || unit >= end) continue;
      AttendPart(kv_, kv_memory_, token.blocks, layer, head, token.position, part, q, group,
                 attention_parts_ + (item * max_parts_ + part) * part_floats, scratch);
    }
  }
  pool_.Barrier();
  for (size_t item = worker; item < items; item += pool_.threads()) {
    const size_t t = item / config.kv_heads;
    FinishParts(kv_, AttentionParts(batch_[t].position), group,
                attention_parts_ + item * max_parts_ * part_floats,
                attended_.row(t) + item % config.kv_heads * width);
  }
}

void Forward::GateAndUp(int worker, const ModelLayer& layer, size_t index) {
  const size_t tokens = batch_.size();
  const size_t ffn = model_.config().ffn_dim;
  // Pairs of panels: whole groups of 32 activations.
  const size_t pairs = (layer.gate.panels + 1) / 2;
  const auto multiply = [&](size_t first, size_t end) {
    const size_t end_panel = std::min(2 * end, layer.gate.panels);
    const Activations x = normed(worker).view();
    MatMul(layer.gate, 2 * first, end_panel, x, tokens, gate_.floats, gate_.stride, false);
    MatMul(layer.up, 2 * first, end_panel, x, tokens, up_.floats, up_.stride, false);
  };
  const bool quantize = NeedsInts({&layer.down});
  const auto activate = [&](size_t first, size_t end) {
    const size_t from = 32 * first;
    const size_t to = std::min(32 * end, ffn);
    for (size_t t = 0; t < tokens; ++t) {
      SwiGlu(gate_.row(t) + from, up_.row(t) + from, to - from, gate_.row(t) + from);
      if (quantize) QuantizeColumns(gate_.row(t), from, to, t, gate_.quantized);
    }
  };
  SplitPanels(worker, pairs, 4 * layer.gate.values_stride, tokens, [&](size_t first, size_t end) {
    multiply(first, end);
    if (!adapted_) activate(first, end);
  });
  if (!adapted_) return;
  pool_.Barrier();
  Adapt(worker, &AdapterLayer::gate, index, normed_, gate_);
  Adapt(worker, &AdapterLayer::up, index, normed_, up_);
  const auto [first, end] = StaticRange(pairs, worker, pool_.threads());
  if (first < end) activate(first, end);
}

void Forward::AddProduct(int worker, const PackedMatrix& weights, const Buffer& input) {
  SplitPanels(worker, weights.panels, weights.values_stride, batch_.size(),
              [&](size_t first, size_t end) {
                MatMul(weights, first, end, input.view(), batch_.size(), residual_.floats,
                       residual_.stride, true);
              });
}

void Forward::ComputeLogits(int worker) {
  const LlamaConfig& config = model_.config();
  const PackedMatrix& output = model_.output();
  const size_t rows = logit_tokens_.size();
  if (rows == 0) return;
  const auto [first_row, end_row] =
      alone_ ? std::pair<size_t, size_t>(0, 1) : StaticRange(rows, worker, pool_.threads());
  const Buffer& input = normed(worker);
  for (size_t r = first_row; r < end_row; ++r) {
    RmsNorm(residual_.row(logit_tokens_[r]), model_.output_norm().data(), config.dim,
            config.norm_epsilon, input.row(r));
    if (!IsFloatFormat(output.format)) {
      QuantizeColumns(input.row(r), 0, config.dim, r, input.quantized);
    }
  }
  if (!alone_) pool_.Barrier();
  Observe(worker, 0, ForwardInput::kOutput, normed_, rows);
  SplitPanels(worker, output.panels, output.values_stride, rows, [&](size_t first, size_t end) {
    MatMul(output, first, end, input.view(), rows, logits_, logits_stride_, false);
  });
  if (!adapted_) return;
  pool_.Barrier();
  for (size_t r = first_row; r < end_row; ++r) {
    const Adapter* const adapter = batch_[logit_tokens_[r]].adapter;
    if (adapter == nullptr || adapter->output().empty()) continue;
    AdaptRow(worker, adapter->output(), normed_.row(r), logits_ + r * logits_stride_);
  }
}

void Forward::Adapt(int worker, AdapterPair AdapterLayer::*pair, size_t layer, const Buffer& input,
                    const Buffer& out) {
  if (!adapted_) return;
  const auto [first, end] = StaticRange(batch_.size(), worker, pool_.threads());
  for (size_t t = first; t < end; ++t) {
    if (batch_[t].adapter == nullptr) continue;
    const AdapterPair& of_token = batch_[t].adapter->layer(layer).*pair;
    if (!of_token.empty()) AdaptRow(worker, of_token, input.row(t), out.row(t));
  }
  pool_.Barrier();
}

void Forward::AdaptRow(int worker, const AdapterPair& pair, const float* input, float* out) {
  float* const low = adapter_scratch_ + worker * models::kMaxLoraRank;
  Activations x;
  x.floats = input;
  x.float_stride = pair.a.columns;
  MatMul(pair.a, 0, pair.a.panels, x, 1, low, models::kMaxLoraRank, false);
  x.floats = low;
  x.float_stride = pair.b.columns;
  MatMul(pair.b, 0, pair.b.panels, x, 1, out, 16 * pair.b.panels, true);
}

}  // namespace reticle::backends::kernels
