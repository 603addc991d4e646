#include "backends/hardwired/rom/tapeout.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "backends/hardwired/rom/model_run.h"
#include "backends/hardwired/rom/quantizer.h"
#include "backends/hardwired/rom/rom_file.h"
#include "backends/hardwired/rom/rom_writer.h"
#include "backends/kernels/aligned_memory.h"
#include "base/check.h"
#include "base/status.h"
#include "models/llama_config.h"

namespace reticle::backends::hardwired {
namespace {

using kernels::AlignedMemory;
using kernels::ForwardInput;
using kernels::PackedMatrix;
using models::GgufTensor;
using Types = TapeoutOptions::Types;

// Multiply-adds that measuring sensitivities may take, which bounds the tokens for it.
constexpr double kSensitivityWork = 2e14;
constexpr size_t kMinSensitivityTokens = 32;
constexpr size_t kMaxSensitivityTokens = 512;

// A matrix of the model, where its weights come from and where they go.
struct Slot {
  size_t index = 0;  // in RomTensors
  const GgufTensor* source = nullptr;
  InputStatistics* inputs = nullptr;  // null: rows are looked up, not multiplied
  PackedMatrix* matrix = nullptr;     // in the source model; null for an embedding that is not tied
  bool is_embedding = false;
};

double BitsOf(const RomTensorShape& shape, RomEncoding encoding) {
  return 8.0 * static_cast<double>(RomTensorBytes(shape, encoding));
}

class Tapeout {
 public:
  Tapeout(const models::GgufFile& source, const std::string& path, const TapeoutOptions& options)
      : source_(source), path_(path), options_(options), pool_(options.threads) {}

  absl::StatusOr<TapeoutReport> Run();

 private:
  void Progress(std::string_view stage, size_t done, size_t all) const {
    if (options_.progress) {
      options_.progress(stage,
                        static_cast<double>(done) / static_cast<double>(std::max<size_t>(all, 1)));
    }
  }
  absl::Status CheckTexts(const std::vector<TokenText>& texts, std::string_view name) const;
  bool needs_calibration() const { return options_.types != Types::k8; }
  absl::Status Load();
  void FindSlots();
  absl::Status Calibrate();
  absl::Status MeasureSensitivities();
  absl::StatusOr<double> KlWith(const Slot& slot, RomEncoding encoding);
  void ChooseEncodings();
  absl::Status WriteImage();
  absl::Status Compare();
  absl::StatusOr<AlignedMemory> Quantize(const Slot& slot, RomEncoding encoding, PackedMatrix* out);

  const models::GgufFile& source_;
  const std::string path_;
  const TapeoutOptions& options_;
  kernels::ThreadPool pool_;

  models::LlamaConfig config_;
  models::LlamaWeights weights_;
  std::vector<RomTensorShape> shapes_;
  std::unique_ptr<kernels::Model> model_;
  std::unique_ptr<ModelRun> run_;
  std::map<std::pair<size_t, ForwardInput>, std::unique_ptr<InputStatistics>> statistics_;
  std::vector<Slot> slots_;
  std::vector<RomEncoding> encodings_;
  std::vector<uint32_t> probe_;                       // calibration tokens for sensitivities
  std::vector<std::vector<double>> probe_log_probs_;  // of the source
  TapeoutReport report_;
};

absl::Status Tapeout::CheckTexts(const std::vector<TokenText>& texts, std::string_view name) const {
  for (size_t i = 0; i < texts.size(); ++i) {
    RETICLE_CHECK(texts[i].tokens.size() == texts[i].counts.size());
    if (texts[i].tokens.size() > config_.context_length) {
      return InvalidArgumentError("%s text %d has %d tokens; the model's context is %d", name, i,
                                  texts[i].tokens.size(), config_.context_length);
    }
    for (const uint32_t token : texts[i].tokens) {
      if (token >= config_.vocab_size) {
        return InvalidArgumentError("%s text %d holds token %d; the model has %d", name, i, token,
                                    config_.vocab_size);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Tapeout::Load() {
  ASSIGN_OR_RETURN(config_, models::ReadLlamaConfig(source_));
  ASSIGN_OR_RETURN(weights_, models::BindLlamaWeights(source_, config_));
  RETURN_IF_ERROR(CheckRomShape(config_));
  RETURN_IF_ERROR(CheckTexts(options_.calibration, "calibration"));
  RETURN_IF_ERROR(CheckTexts(options_.held_out, "held-out"));
  size_t longest = 0;
  for (const TokenText& text : options_.calibration)
    longest = std::max(longest, text.tokens.size());
  for (const TokenText& text : options_.held_out) longest = std::max(longest, text.tokens.size());
  if (needs_calibration() && longest == 0) {
    return InvalidArgumentError("types %s need calibration text, and there is none",
                                TypesName(options_.types));
  }
  shapes_ = RomTensors(config_);
  Progress("reading", 0, 1);
  if (longest > 0) {
    ASSIGN_OR_RETURN(model_, kernels::Model::Load(source_, pool_));
    ASSIGN_OR_RETURN(run_, ModelRun::Create(*model_, pool_, longest));
  }
  FindSlots();
  return absl::OkStatus();
}

void Tapeout::FindSlots() {
  const auto statistics = [&](size_t layer, ForwardInput input, uint64_t columns) {
    auto& entry = statistics_[{layer, input}];
    if (entry == nullptr) entry = std::make_unique<InputStatistics>(columns);
    return entry.get();
  };
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < shapes_.size(); ++i) index[shapes_[i].name] = i;
  const auto add = [&](const GgufTensor& tensor, InputStatistics* inputs, PackedMatrix* matrix,
                       bool is_embedding = false) {
    slots_.push_back({index.at(std::string(tensor.name)), &tensor, inputs, matrix, is_embedding});
  };
  const auto matrix = [&](PackedMatrix& m) { return model_ == nullptr ? nullptr : &m; };
  kernels::ModelLayer unused;
  for (size_t l = 0; l < config_.layers; ++l) {
    const models::LlamaLayerWeights& w = weights_.layers[l];
    kernels::ModelLayer& m = model_ == nullptr ? unused : model_->mutable_layer(l);
    InputStatistics* const qkv = statistics(l, ForwardInput::kQkv, config_.dim);
    add(*w.attn_q, qkv, matrix(m.q));
    add(*w.attn_k, qkv, matrix(m.k));
    add(*w.attn_v, qkv, matrix(m.v));
    add(*w.attn_output, statistics(l, ForwardInput::kAttnOutput, config_.q_dim()), matrix(m.o));
    InputStatistics* const gate_up = statistics(l, ForwardInput::kGateUp, config_.dim);
    add(*w.ffn_gate, gate_up, matrix(m.gate));
    add(*w.ffn_up, gate_up, matrix(m.up));
    add(*w.ffn_down, statistics(l, ForwardInput::kDown, config_.ffn_dim), matrix(m.down));
  }
  PackedMatrix* const output = model_ == nullptr ? nullptr : &model_->mutable_output();
  InputStatistics* const last = statistics(0, ForwardInput::kOutput, config_.dim);
  add(*weights_.token_embd, config_.tied_embeddings ? last : nullptr,
      config_.tied_embeddings ? output : nullptr, true);
  if (!config_.tied_embeddings) add(*weights_.output, last, output);
}

absl::Status Tapeout::Calibrate() {
  uint64_t all = 0, done = 0;
  for (const TokenText& text : options_.calibration) all += text.tokens.size();
  run_->forward().set_observer(
      [&](size_t layer, ForwardInput input, const float* rows, size_t stride, size_t tokens) {
        InputStatistics& statistics = *statistics_.at({layer, input});
        for (size_t t = 0; t < tokens; ++t) statistics.Add(rows + t * stride);
      });
  for (const TokenText& text : options_.calibration) {
    for (size_t first = 0; first < text.tokens.size(); first += ModelRun::kChunk) {
      const size_t count = std::min(ModelRun::kChunk, text.tokens.size() - first);
      run_->Feed(text.tokens, first, count);
      done += count;
      Progress("calibrating", done, all);
    }
  }
  run_->forward().set_observer({});
  report_.calibration_tokens = all;
  return absl::OkStatus();
}

absl::StatusOr<AlignedMemory> Tapeout::Quantize(const Slot& slot, RomEncoding encoding,
                                                PackedMatrix* out) {
  const RomTensorShape& shape = shapes_[slot.index];
  ASSIGN_OR_RETURN(AlignedMemory memory, AlignedMemory::Allocate(RomTensorBytes(shape, encoding)));
  *out = kernels::LayOutMatrix(PackedFormatOf(encoding), shape.rows, shape.columns, memory.data());
  RETURN_IF_ERROR(QuantizeMatrix(*slot.source, encoding, slot.inputs, pool_, *out));
  return memory;
}

// Mean KL divergence from the source when one matrix alone is quantised.
absl::StatusOr<double> Tapeout::KlWith(const Slot& slot, RomEncoding encoding) {
  PackedMatrix packed;
  ASSIGN_OR_RETURN(const AlignedMemory memory, Quantize(slot, encoding, &packed));
  PackedMatrix original;
  if (slot.matrix != nullptr) original = std::exchange(*slot.matrix, packed);
  if (slot.is_embedding) model_->mutable_embedding() = packed;
  double sum = 0.0;
  size_t position = 0;
  std::vector<double> log_probs(config_.vocab_size);
  for (size_t first = 0; first < probe_.size(); first += ModelRun::kChunk) {
    const size_t count = std::min(ModelRun::kChunk, probe_.size() - first);
    run_->Feed(probe_, first, count);
    for (size_t i = 0; i < count; ++i) {
      LogSoftmax(run_->logits(i), log_probs);
      sum += KlDivergence(probe_log_probs_[position++], log_probs);
    }
  }
  if (slot.matrix != nullptr) *slot.matrix = original;
  if (slot.is_embedding) model_->mutable_embedding() = {};
  return sum / static_cast<double>(position);
}

absl::Status Tapeout::MeasureSensitivities() {
  const double work =
      static_cast<double>(config_.parameters()) * static_cast<double>(2 * slots_.size());
  const size_t tokens = std::clamp(static_cast<size_t>(kSensitivityWork / work),
                                   kMinSensitivityTokens, kMaxSensitivityTokens);
  size_t longest = 0;
  for (const TokenText& text : options_.calibration)
    longest = std::max(longest, text.tokens.size());
  for (const TokenText& text : options_.calibration) {
    const size_t room = std::min(tokens, longest) - probe_.size();
    probe_.insert(probe_.end(), text.tokens.begin(),
                  text.tokens.begin() + static_cast<ptrdiff_t>(std::min(room, text.tokens.size())));
  }
  for (size_t first = 0; first < probe_.size(); first += ModelRun::kChunk) {
    const size_t count = std::min(ModelRun::kChunk, probe_.size() - first);
    run_->Feed(probe_, first, count);
    for (size_t i = 0; i < count; ++i) {
      LogSoftmax(run_->logits(i), probe_log_probs_.emplace_back(config_.vocab_size));
    }
  }
  report_.sensitivity_tokens = probe_.size();
  for (size_t i = 0; i < slots_.size(); ++i) {
    TapeoutReport::Tensor& entry = report_.tensors[slots_[i].index];
    ASSIGN_OR_RETURN(entry.kl_at_3, KlWith(slots_[i], RomEncoding::kThreeBit));
    ASSIGN_OR_RETURN(entry.kl_at_6, KlWith(slots_[i], RomEncoding::kSixBit));
    Progress("measuring sensitivity", i + 1, slots_.size());
  }
  probe_log_probs_.clear();
  return absl::OkStatus();
}

// Starts with 3 bits everywhere and spends the bits that are allowed where one buys most.
void Tapeout::ChooseEncodings() {
  struct Upgrade {
    double gain_per_bit;
    double bits;
    size_t index;
  };
  std::vector<Upgrade> upgrades;
  double bits = 0.0, weights = 0.0;
  for (const Slot& slot : slots_) {
    const RomTensorShape& shape = shapes_[slot.index];
    const double three = BitsOf(shape, RomEncoding::kThreeBit);
    const double more = BitsOf(shape, RomEncoding::kSixBit) - three;
    const TapeoutReport::Tensor& entry = report_.tensors[slot.index];
    upgrades.push_back({(entry.kl_at_3 - entry.kl_at_6) / more, more, slot.index});
    bits += three;
    weights += static_cast<double>(shape.rows * shape.columns);
  }
  std::ranges::stable_sort(upgrades, std::greater<>(), &Upgrade::gain_per_bit);
  for (const Upgrade& upgrade : upgrades) {
    if (upgrade.gain_per_bit <= 0.0) break;
    if (bits + upgrade.bits > options_.bits_per_weight * weights) continue;
    bits += upgrade.bits;
    encodings_[upgrade.index] = RomEncoding::kSixBit;
  }
}

absl::Status Tapeout::WriteImage() {
  RomWriter::Options options;
  options.config = config_;
  options.types = TypesName(options_.types);
  options.encodings = encodings_;
  options.source_hash = source_.FileSha256();
  report_.source_hash = HexOf(options.source_hash);
  ASSIGN_OR_RETURN(const std::unique_ptr<RomWriter> writer,
                   RomWriter::Create(path_, source_, options));
  std::vector<const Slot*> slot_of(shapes_.size(), nullptr);
  for (const Slot& slot : slots_) slot_of[slot.index] = &slot;
  for (size_t i = 0; i < shapes_.size(); ++i) {
    TapeoutReport::Tensor& entry = report_.tensors[i];
    entry.encoding = encodings_[i];
    entry.bytes = RomTensorBytes(shapes_[i], encodings_[i]);
    entry.bits_per_weight =
        8.0 * static_cast<double>(entry.bytes) / static_cast<double>(entry.weights);
    report_.weight_bytes += entry.bytes;
    if (slot_of[i] == nullptr) {
      RETURN_IF_ERROR(writer->Write(source_.FindTensor(shapes_[i].name)->data));
    } else {
      PackedMatrix packed;
      ASSIGN_OR_RETURN(const AlignedMemory memory, Quantize(*slot_of[i], encodings_[i], &packed));
      RETURN_IF_ERROR(writer->Write({memory.data(), memory.size()}));
    }
    Progress("quantising", i + 1, shapes_.size());
  }
  ASSIGN_OR_RETURN(report_.image_hash, writer->Finish());
  return absl::OkStatus();
}

absl::Status Tapeout::Compare() {
  if (options_.held_out.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::unique_ptr<RomFile> rom, RomFile::Open(path_));
  ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Model> image, rom->MakeModel());
  size_t longest = 0, all = 0, done = 0;
  for (const TokenText& text : options_.held_out) {
    longest = std::max(longest, text.tokens.size());
    all += text.tokens.size();
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelRun> run, ModelRun::Create(*image, pool_, longest));
  double source_loss = 0.0, image_loss = 0.0, kl = 0.0;
  size_t same = 0, counted = 0;
  std::vector<double> p(config_.vocab_size), q(config_.vocab_size);
  for (const TokenText& text : options_.held_out) {
    for (size_t first = 0; first < text.tokens.size(); first += ModelRun::kChunk) {
      const size_t count = std::min(ModelRun::kChunk, text.tokens.size() - first);
      run_->Feed(text.tokens, first, count);
      run->Feed(text.tokens, first, count);
      for (size_t i = 0; i < count; ++i) {
        const size_t next = first + i + 1;
        if (next >= text.tokens.size() || !text.counts[next]) continue;
        LogSoftmax(run_->logits(i), p);
        LogSoftmax(run->logits(i), q);
        source_loss -= p[text.tokens[next]];
        image_loss -= q[text.tokens[next]];
        kl += KlDivergence(p, q);
        same += std::ranges::max_element(p) - p.begin() == std::ranges::max_element(q) - q.begin();
        ++counted;
      }
      done += count;
      Progress("comparing", done, all);
    }
  }
  if (counted == 0) return absl::OkStatus();
  const auto n = static_cast<double>(counted);
  report_.quality = {.tokens = counted,
                     .source_perplexity = std::exp(source_loss / n),
                     .image_perplexity = std::exp(image_loss / n),
                     .kl_divergence = kl / n,
                     .same_top_token = static_cast<double>(same) / n};
  return absl::OkStatus();
}

absl::StatusOr<TapeoutReport> Tapeout::Run() {
  RETURN_IF_ERROR(Load());
  for (const RomTensorShape& shape : shapes_) {
    report_.tensors.push_back({.name = shape.name, .weights = shape.rows * shape.columns});
    encodings_.push_back(!shape.is_matrix              ? RomEncoding::kFloat32
                         : options_.types == Types::k8 ? RomEncoding::kInt8
                         : options_.types == Types::k6 ? RomEncoding::kSixBit
                                                       : RomEncoding::kThreeBit);
  }
  if (needs_calibration()) RETURN_IF_ERROR(Calibrate());
  if (options_.types == Types::k3And6) {
    RETURN_IF_ERROR(MeasureSensitivities());
    ChooseEncodings();
  }
  RETURN_IF_ERROR(WriteImage());
  RETURN_IF_ERROR(Compare());

  report_.config = config_;
  report_.types = TypesName(options_.types);
  report_.source_bytes = source_.size_bytes();
  ASSIGN_OR_RETURN(const std::unique_ptr<RomFile> rom, RomFile::Open(path_, false));
  report_.image_bytes = rom->size_bytes();
  report_.bits_per_weight = rom->info().bits_per_weight;
  kernels::KvGeometry kv{.type = kernels::KvType::kF16,
                         .layers = config_.layers,
                         .kv_heads = config_.kv_heads,
                         .head_dim = config_.head_dim,
                         .block_tokens = kernels::kTilePositions};
  report_.kv_bytes_per_token_f16 = kv.block_bytes() / kv.block_tokens;
  kv.type = kernels::KvType::kQ8_0;
  if (config_.head_dim % 32 == 0) {
    report_.kv_bytes_per_token_int8 = kv.block_bytes() / kv.block_tokens;
  }
  return std::move(report_);
}

}  // namespace

absl::StatusOr<TapeoutOptions::Types> ParseTypes(std::string_view text) {
  for (const Types types : {Types::k8, Types::k6, Types::k3, Types::k3And6}) {
    if (text == TypesName(types)) return types;
  }
  return InvalidArgumentError("types is \"%s\"; it must be 3/6, 3, 6 or 8", text);
}

std::string_view TypesName(Types types) {
  switch (types) {
    case Types::k8:
      return "8";
    case Types::k6:
      return "6";
    case Types::k3:
      return "3";
    case Types::k3And6:
      return "3/6";
  }
  return "";
}

absl::StatusOr<TapeoutReport> TapeOut(const models::GgufFile& source, const std::string& path,
                                      const TapeoutOptions& options) {
  return Tapeout(source, path, options).Run();
}

}  // namespace reticle::backends::hardwired
