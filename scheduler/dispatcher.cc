#include "scheduler/dispatcher.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "scheduler/dispatch_policy.h"

namespace reticle::scheduler {
namespace {

bool Works(const Engine& engine) {
  if (engine.Lost()) return false;
  const absl::StatusOr<reticle_health> health = engine.Health();
  return health.ok() && health->state != RETICLE_HEALTH_FAILED;
}

// Sequences per sequence that the device serves at full speed.
double Load(const Engine& engine) {
  const EngineGauges gauges = engine.Gauges();
  const reticle_capabilities& caps = engine.capabilities();
  const uint32_t full_speed = caps.pipeline_depth != 0
                                  ? std::min(caps.pipeline_depth, caps.max_sequences)
                                  : caps.max_sequences;
  return static_cast<double>(gauges.running + gauges.waiting) / full_speed;
}

// Whether the request, begun on a device `from`, has the same end on a device `to`.
bool EndsAlike(const Request& request, const reticle_capabilities& from,
               const reticle_capabilities& to) {
  const uint64_t wanted = request.prompt->size() + uint64_t{request.max_tokens};
  return from.context_limit == to.context_limit ||
         wanted <= std::min(from.context_limit, to.context_limit);
}

// How much a client can do about it: the higher, the rather it is told.
int Weight(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return 3;
    case absl::StatusCode::kUnavailable:
      return 2;
    case absl::StatusCode::kNotFound:
      return 1;
    default:
      return 0;
  }
}

bool AnotherMayTakeIt(const absl::Status& status) { return Weight(status) > 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<Dispatcher>> Dispatcher::Create(std::vector<Engine*> engines) {
  if (engines.empty()) return InvalidArgumentError("engines holds 0; it must hold at least 1");
  for (const Engine* engine : engines) {
    if (engine == nullptr) return InvalidArgumentError("engines holds a null");
    const reticle_capabilities& first = engines[0]->capabilities();
    const reticle_capabilities& caps = engine->capabilities();
    if (caps.vocab_size != first.vocab_size) {
      return InvalidArgumentError("vocab_size is %u on one device, %u on another", first.vocab_size,
                                  caps.vocab_size);
    }
    const std::string_view hash = caps.model_hash;
    const std::string_view first_hash = first.model_hash;
    if (!hash.empty() && !first_hash.empty() && hash != first_hash) {
      return InvalidArgumentError("model_hash is %s on one device, %s on another", first_hash,
                                  hash);
    }
  }
  return std::unique_ptr<Dispatcher>(new Dispatcher(std::move(engines)));
}

Dispatcher::Dispatcher(std::vector<Engine*> engines)
    : engines_(std::move(engines)), capabilities_(engines_[0]->capabilities()) {
  for (Engine* engine : engines_) engine->SetRefuge(this);
  for (size_t i = 1; i < engines_.size(); ++i) {
    const reticle_capabilities& caps = engines_[i]->capabilities();
    reticle_capabilities& all = capabilities_;
    all.context_limit = std::min(all.context_limit, caps.context_limit);
    all.features &= caps.features;
    if (caps.max_top_k != 0) {
      all.max_top_k = all.max_top_k == 0 ? caps.max_top_k : std::min(all.max_top_k, caps.max_top_k);
    }
    if (caps.default_top_k != 0) {
      all.default_top_k = all.default_top_k == 0 ? caps.default_top_k
                                                 : std::min(all.default_top_k, caps.default_top_k);
    }
    all.max_logprobs = std::min(all.max_logprobs, caps.max_logprobs);
    all.max_stop_ids = std::min(all.max_stop_ids, caps.max_stop_ids);
    all.max_sequences += caps.max_sequences;
    all.kv_token_capacity += caps.kv_token_capacity;
    all.kv_block_count += caps.kv_block_count;
    all.pipeline_depth += caps.pipeline_depth;
  }
}

Dispatcher::~Dispatcher() {
  for (Engine* engine : engines_) engine->SetRefuge(nullptr);
}

std::vector<Engine*> Dispatcher::Candidates(const Request& request, const Engine* from) const {
  const bool reads_cache = request.use_prefix_cache && !request.sampling.prompt_logprobs;
  std::vector<DispatchCandidate> candidates;
  for (uint32_t i = 0; i < engines_.size(); ++i) {
    const Engine& engine = *engines_[i];
    if (&engine == from || !Works(engine)) continue;
    if (request.adapter != 0 && !engine.AdapterLoaded(request.adapter)) continue;
    if (from != nullptr && !EndsAlike(request, from->capabilities(), engine.capabilities())) {
      continue;
    }
    DispatchCandidate& candidate = candidates.emplace_back();
    candidate.engine = i;
    candidate.load = Load(engine);
    if (reads_cache) {
      candidate.cached_tokens = engine.CachedPrefixTokens(*request.prompt, request.adapter);
    }
    candidate.swaps_adapter = engine.SwapsAdapters() && engine.current_adapter() != request.adapter;
  }
  RankCandidates(&candidates);
  std::vector<Engine*> ranked;
  ranked.reserve(candidates.size());
  for (const DispatchCandidate& candidate : candidates) {
    ranked.push_back(engines_[candidate.engine]);
  }
  return ranked;
}

absl::Status Dispatcher::Submit(Request request) {
  if (engines_.size() == 1) return engines_[0]->Submit(std::move(request));
  RETURN_IF_ERROR(Validate(request));
  const std::vector<Engine*> candidates = Candidates(request, nullptr);
  if (candidates.empty()) {
    return UnavailableError("of %u devices none that could take the request works",
                            engines_.size());
  }
  // One of them tells a time to come back, once all have been asked.
  const bool book = std::exchange(request.book, false);
  absl::Status refusal;
  Engine* refuser = nullptr;
  for (Engine* engine : candidates) {
    // A copy of pointers and small vectors; the prompt is shared.
    absl::Status status = engine->Submit(request);
    if (status.ok() || !AnotherMayTakeIt(status)) return status;
    if (!refusal.ok() && Weight(status) <= Weight(refusal)) continue;
    refusal = std::move(status);
    refuser = engine;
  }
  request.book = book;
  return book ? refuser->Submit(std::move(request)) : refusal;
}

bool Dispatcher::Take(const Engine& from, Displaced& displaced) {
  for (Engine* engine : Candidates(displaced.request, &from)) {
    moves_begun_.fetch_add(1);
    const bool adopted = engine->Adopt(displaced).ok();
    moves_ended_.fetch_add(1);
    if (adopted) return true;
  }
  return false;
}

void Dispatcher::OnRecovered(const Engine& engine) {
  for (Engine* other : engines_) {
    if (other != &engine && other->Lost()) other->SeekRefuge();
  }
}

absl::Status Dispatcher::Validate(const Request& request) const {
  absl::Status refusal;
  for (const Engine* engine : engines_) {
    absl::Status status = engine->Validate(request);
    if (status.ok()) return status;
    if (refusal.ok() || Weight(status) > Weight(refusal)) refusal = std::move(status);
  }
  return refusal;
}

void Dispatcher::BeginDrain() {
  for (Engine* engine : engines_) engine->BeginDrain();
}

bool Dispatcher::Idle() const {
  // A sequence that moves meanwhile could be missed at both ends.
  const uint64_t ended = moves_ended_.load();
  const bool idle = std::all_of(engines_.begin(), engines_.end(),
                                [](const Engine* engine) { return engine->Idle(); });
  return idle && moves_begun_.load() == ended;
}

void Dispatcher::AbortAll(absl::Status status) {
  for (Engine* engine : engines_) engine->AbortAll(status);
}

EngineGauges Dispatcher::Gauges() const {
  EngineGauges sum;
  for (const Engine* engine : engines_) {
    const EngineGauges gauges = engine->Gauges();
    sum.running += gauges.running;
    sum.waiting += gauges.waiting;
    sum.kv_blocks_total += gauges.kv_blocks_total;
    sum.kv_blocks_used += gauges.kv_blocks_used;
  }
  return sum;
}

bool Dispatcher::Healthy() const {
  return std::any_of(engines_.begin(), engines_.end(),
                     [](const Engine* engine) { return Works(*engine); });
}

}  // namespace reticle::scheduler
