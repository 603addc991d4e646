#include "backends/cpu/engine.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"

namespace reticle::backends::cpu {
namespace {

// Rounds of the idle spin, about 50 us: a host that answers at once finds the thread awake.
constexpr int kIdleSpins = 1500;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

uint64_t NowNs() { return static_cast<uint64_t>(Clock::Monotonic().NowNanos()); }

}  // namespace

Engine::Engine(kernels::ThreadPool& pool, kernels::Forward& forward,
               reticle_capabilities capabilities, uint32_t step_tokens)
    : pool_(pool), forward_(forward), capabilities_(capabilities), step_tokens_(step_tokens) {
  {
    MutexLock lock(mutex_);
    capabilities_.event_fd = completions_.event_fd();
  }
  batch_.reserve(forward.options().max_tokens);
  rows_.resize(forward.options().max_logit_rows);
  for (int i = 0; i < pool.threads(); ++i) samplers_.emplace_back(capabilities_.vocab_size);
  thread_ = std::thread([this] { Loop(); });
}

Engine::~Engine() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  submissions_.fetch_add(1, std::memory_order_release);
  wake_.NotifyAll();
  thread_.join();
}

// ==== The host's side ====

absl::Status Engine::Submit(const reticle_work& work, const reticle_sampling* params) {
  MutexLock lock(mutex_);
  const auto found = sequences_.find(work.sequence);
  const SequenceView unknown;
  RETURN_IF_ERROR(CheckWork(work, params, found == sequences_.end() ? unknown : found->second->view,
                            capabilities_));
  if (params != nullptr) RETURN_IF_ERROR(sampling::ValidateSampling(*params, capabilities_));
  if (found == sequences_.end() && alive_.size() >= capabilities_.max_sequences) {
    return ResourceExhaustedError("%d sequences are alive; the limit is %d", alive_.size(),
                                  capabilities_.max_sequences);
  }
  ASSIGN_OR_RETURN(const kernels::Adapter* const adapter, adapters_.Find(work.adapter));
  Sequence* sequence = nullptr;
  if (found != sequences_.end()) {
    sequence = found->second.get();
  } else {
    auto owned = std::make_unique<Sequence>();
    sequence = owned.get();
    sequence->id = work.sequence;
    sequence->view.state = SequenceView::State::kAlive;
    sequence->view.next_position = work.position;
    sequence->view.adapter = work.adapter;
    sequence->adapter = adapter;
    sequences_.emplace(work.sequence, std::move(owned));
    alive_.push_back(sequence);
  }

  Item item;
  item.order = next_order_++;
  item.tag = work.tag;
  item.position = work.position;
  item.credits = work.decode_credits;
  if (work.token_count > 0) item.tokens.assign(work.tokens, work.tokens + work.token_count);
  if ((work.flags & RETICLE_WORK_PROMPT_LOGPROBS) != 0) {
    item.prompt_logprobs = true;
    item.top_logprobs = work.prompt_logprobs;
    item.next_token = work.next_token;
  }
  if (work.token_mask != nullptr) {
    item.mask.assign(work.token_mask, work.token_mask + (capabilities_.vocab_size + 31) / 32);
  }
  if (params != nullptr) item.sampling.emplace().Set(*params);
  if (work.kv_blocks != nullptr) {
    sequence->blocks.assign(work.kv_blocks, work.kv_blocks + work.kv_block_count);
  }

  SequenceView& view = sequence->view;
  view.credits += work.decode_credits;
  view.next_position += work.token_count;
  if (work.token_count > 0) view.has_sampled = false;
  if (params != nullptr) view.has_sampling = true;
  if (work.kv_blocks != nullptr) view.kv_block_count = work.kv_block_count;
  sequence->items.push_back(std::move(item));
  submissions_.fetch_add(1, std::memory_order_release);
  wake_.NotifyOne();
  return absl::OkStatus();
}

size_t Engine::Poll(reticle_completion* completions, size_t stride, size_t capacity) {
  MutexLock lock(mutex_);
  const size_t count = completions_.Poll(completions, stride, capacity);
  polled_ += count;
  while (!ends_.empty() && ends_.front().first < polled_) {
    sequences_.erase(ends_.front().second);
    ends_.pop_front();
  }
  return count;
}

bool Engine::Arm() {
  MutexLock lock(mutex_);
  return completions_.Arm();
}

absl::Status Engine::Cancel(uint64_t id) {
  MutexLock lock(mutex_);
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return NotFoundError("sequence %d is not alive", id);
  Sequence& sequence = *found->second;
  if (sequence.view.state == SequenceView::State::kEnded) return absl::OkStatus();
  if (sequence.in_step) {
    if (sequence.end_status == RETICLE_OK) sequence.end_status = RETICLE_CANCELLED;
  } else {
    End(sequence, RETICLE_CANCELLED, "");
  }
  return absl::OkStatus();
}

absl::Status Engine::LoadAdapter(uint64_t adapter, const std::string& path, float scale) {
  return adapters_.Load(adapter, path, forward_.config(), scale, capabilities_.max_adapters);
}

absl::Status Engine::UnloadAdapter(uint64_t adapter) {
  MutexLock lock(mutex_);
  const auto users = std::ranges::count_if(
      alive_, [&](const Sequence* sequence) { return sequence->view.adapter == adapter; });
  if (adapter != 0 && users > 0) {
    return FailedPreconditionError("adapter %d is used by %d live sequences", adapter, users);
  }
  return adapters_.Unload(adapter);
}

void Engine::Reset() {
  MutexLock lock(mutex_);
  ++counters_.resets;
  const std::vector<Sequence*> alive = alive_;
  for (Sequence* sequence : alive) {
    if (sequence->in_step) {
      sequence->end_status = RETICLE_ABORTED;
    } else {
      End(*sequence, RETICLE_ABORTED, "the device was reset");
    }
  }
}

Engine::Counters Engine::counters() const {
  MutexLock lock(mutex_);
  Counters counters = counters_;
  counters.sequences = static_cast<uint32_t>(alive_.size());
  return counters;
}

// ==== The step thread ====

void Engine::Loop() {
  for (;;) {
    const uint64_t seen = submissions_.load(std::memory_order_acquire);
    bool planned = false;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      planned = Plan();
    }
    if (planned) {
      const uint64_t start = NowNs();
      forward_.Run(batch_);
      if (row_count_ > 0) pool_.Run([this](int worker) { SampleRows(worker); });
      MutexLock lock(mutex_);
      Commit(NowNs() - start);
      continue;
    }
    int spins = 0;
    while (spins < kIdleSpins && submissions_.load(std::memory_order_acquire) == seen) {
      ++spins;
      Pause();
    }
    if (spins < kIdleSpins) continue;
    MutexLock lock(mutex_);
    while (!stopping_ && submissions_.load(std::memory_order_acquire) == seen) wake_.Wait(mutex_);
  }
}

bool Engine::Plan() {
  batch_.clear();
  parts_.clear();
  block_tables_.clear();
  row_count_ = 0;
  // The batch points into it, so it gets room for all tables beforehand.
  size_t blocks = 0;
  for (const Sequence* sequence : alive_) blocks += sequence->blocks.size();
  block_tables_.reserve(blocks);
  for (Sequence* sequence : alive_) BeginItems(*sequence);
  PlanDecodes();
  PlanPrefills();
  return !batch_.empty();
}

void Engine::BeginItems(Sequence& sequence) {
  while (!sequence.items.empty()) {
    Item& item = sequence.items.front();
    if (!item.begun) {
      item.begun = true;
      sequence.tag = item.tag;
      sequence.mask = std::move(item.mask);
      if (item.sampling.has_value()) sequence.sampling = *std::move(item.sampling);
    }
    if (!item.tokens.empty()) return;
    sequence.credits += item.credits;
    sequence.items.pop_front();
  }
}

void Engine::AddTokens(Sequence& sequence, std::span<const uint32_t> tokens, uint32_t position,
                       Part& part) {
  const size_t table = block_tables_.size();
  block_tables_.insert(block_tables_.end(), sequence.blocks.begin(), sequence.blocks.end());
  part.first_token = static_cast<uint32_t>(batch_.size());
  part.token_count = static_cast<uint32_t>(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    batch_.push_back({.token = tokens[i],
                      .position = position + static_cast<uint32_t>(i),
                      .blocks = block_tables_.data() + table,
                      .wants_logits = false,
                      .adapter = sequence.adapter});
  }
  sequence.in_step = true;
}

Engine::Row& Engine::AddRow(Sequence& sequence, uint32_t position) {
  Row& row = rows_[row_count_++];
  row.sequence = &sequence;
  row.position = position;
  row.scores = row.samples = false;
  return row;
}

void Engine::PlanDecodes() {
  for (Sequence* sequence : alive_) {
    if (sequence->credits == 0 || !sequence->items.empty()) continue;
    if (batch_.size() == forward_.options().max_tokens || row_count_ == rows_.size()) return;
    Part part{};
    part.sequence = sequence;
    part.is_decode = true;
    part.samples = true;
    part.first_row = static_cast<uint32_t>(row_count_);
    part.row_count = 1;
    const uint32_t position = sequence->view.next_position;
    AddTokens(*sequence, {&sequence->sampled, 1}, position, part);
    batch_.back().wants_logits = true;
    AddRow(*sequence, position + 1).samples = true;
    // Penalties count what is fed; those of an item's history are counted already.
    sequence->sampling.Append({&sequence->sampled, 1}, position);
    parts_.push_back(part);
  }
}

void Engine::PlanPrefills() {
  waiting_.clear();
  for (Sequence* sequence : alive_) {
    if (!sequence->items.empty()) waiting_.push_back(sequence);
  }
  std::sort(waiting_.begin(), waiting_.end(), [](const Sequence* a, const Sequence* b) {
    return a->items.front().order < b->items.front().order;
  });
  size_t budget = std::min<size_t>(step_tokens_, forward_.options().max_tokens - batch_.size());
  for (Sequence* sequence : waiting_) {
    Item& item = sequence->items.front();
    const size_t left = item.tokens.size() - item.fed;
    const size_t rows_left = rows_.size() - row_count_;
    size_t count = std::min(left, budget);
    if (item.prompt_logprobs) count = std::min(count, rows_left);
    if (count == 0 || rows_left == 0) continue;
    Part part{};
    part.sequence = sequence;
    part.item_done = count == left;
    part.samples = part.item_done && item.credits > 0;
    part.first_row = static_cast<uint32_t>(row_count_);
    const uint32_t position = item.position + item.fed;
    AddTokens(*sequence, {item.tokens.data() + item.fed, count}, position, part);
    for (size_t i = 0; i < count; ++i) {
      const size_t next = item.fed + i + 1;
      const uint32_t token = next < item.tokens.size() ? item.tokens[next] : item.next_token;
      const bool scores = item.prompt_logprobs && token != RETICLE_NO_TOKEN;
      const bool samples = part.samples && i + 1 == count;
      if (!scores && !samples) continue;
      batch_[part.first_token + i].wants_logits = true;
      Row& row = AddRow(*sequence, position + static_cast<uint32_t>(i) + 1);
      row.scores = scores;
      row.token = token;
      row.top_count = item.top_logprobs;
      row.samples = samples;
    }
    part.row_count = static_cast<uint32_t>(row_count_) - part.first_row;
    parts_.push_back(part);
    // An item that brought parameters brought the history up to its last token with them.
    if (part.item_done && !item.sampling.has_value() && sequence->sampling.is_set()) {
      sequence->sampling.Append(item.tokens, item.position);
    }
    item.fed += static_cast<uint32_t>(count);
    budget -= count;
  }
}

void Engine::SampleRows(int worker) {
  sampling::Sampler& sampler = samplers_[worker];
  const auto keep = [](Found& found) {
    found.top.assign(found.result.top.begin(), found.result.top.end());
  };
  for (size_t r = worker; r < row_count_; r += pool_.threads()) {
    Row& row = rows_[r];
    const std::span<const float> logits = forward_.logits(r);
    if (row.scores) {
      row.score.result = sampler.Score(logits, row.token, row.top_count);
      keep(row.score);
    }
    if (!row.samples) continue;
    const uint32_t* mask = row.sequence->mask.empty() ? nullptr : row.sequence->mask.data();
    auto sampled = sampler.Sample(logits, row.sequence->sampling, row.position, mask);
    row.sample.status = sampled.status();
    if (!sampled.ok()) continue;
    row.sample.result = *sampled;
    keep(row.sample);
  }
}

// ==== Results ====

void Engine::Commit(uint64_t step_ns) {
  ++counters_.steps;
  counters_.busy_ns += step_ns;
  for (const Part& part : parts_) {
    part.sequence->in_step = false;
    part.sequence->busy_ns += step_ns * part.token_count / batch_.size();
    if (!part.is_decode) counters_.prefill_tokens += part.token_count;
    CommitPart(part);
  }
}

void Engine::CommitPart(const Part& part) {
  Sequence& sequence = *part.sequence;
  if (sequence.end_status != RETICLE_OK) {
    End(sequence, sequence.end_status,
        sequence.end_status == RETICLE_ABORTED ? "the device was reset" : "");
    return;
  }
  const std::span<const Row> rows(rows_.data() + part.first_row, part.row_count);
  if (part.is_decode) {
    ++sequence.view.next_position;
  } else {
    Item& item = sequence.items.front();
    for (const Row& row : rows) {
      if (!row.scores) continue;
      reticle_completion completion{};
      completion.kind = RETICLE_COMPLETION_PROMPT_LOGPROB;
      completion.token = row.token;
      completion.position = row.position;
      completion.logprob = row.score.result.logprob;
      completion.rank = row.score.result.rank;
      Push(sequence, completion, row.score.top);
    }
    if (!part.item_done) return;
    reticle_completion completion{};
    completion.kind = RETICLE_COMPLETION_PREFILL;
    completion.position = item.position + item.fed - 1;
    completion.token_count = item.fed;
    Push(sequence, completion);
    sequence.credits += item.credits;
    sequence.items.pop_front();
  }
  if (part.samples) CommitSample(sequence, rows.back());
}

void Engine::CommitSample(Sequence& sequence, const Row& row) {
  if (!row.sample.status.ok()) {
    const absl::string_view message = row.sample.status.message();
    End(sequence, static_cast<int32_t>(row.sample.status.code()),
        std::string_view(message.data(), message.size()));
    return;
  }
  ++counters_.decode_tokens;
  sequence.mask.clear();
  sequence.sampled = row.sample.result.token;
  sequence.view.has_sampled = true;
  --sequence.credits;
  --sequence.view.credits;
  reticle_completion completion{};
  completion.kind = RETICLE_COMPLETION_TOKEN;
  completion.token = sequence.sampled;
  completion.position = row.position;
  completion.logprob = row.sample.result.logprob;
  completion.rank = row.sample.result.rank;
  if (row.sample.result.is_stop_id) {
    completion.finish = RETICLE_FINISH_STOP_ID;
  } else if (row.position + 1 >= capabilities_.context_limit) {
    completion.finish = RETICLE_FINISH_CONTEXT_LIMIT;
  } else {
    completion.credits_left = sequence.view.credits;
  }
  Push(sequence, completion, row.sample.top);
}

void Engine::End(Sequence& sequence, int32_t status, std::string_view message) {
  reticle_completion completion{};
  completion.kind = RETICLE_COMPLETION_END;
  if (status == RETICLE_CANCELLED) {
    completion.finish = RETICLE_FINISH_CANCELLED;
  } else {
    completion.finish = RETICLE_FINISH_ERROR;
    completion.status = status;
  }
  Push(sequence, completion, {}, message);
}

void Engine::Push(Sequence& sequence, reticle_completion completion,
                  std::span<const reticle_token_logprob> top, std::string_view message) {
  completion.sequence = sequence.id;
  completion.tag = sequence.tag;
  completion.device_time_ns = NowNs();
  completion.busy_ns = sequence.busy_ns;
  sequence.busy_ns = 0;
  completions_.Push(completion, top, message);
  if (completion.finish != RETICLE_FINISH_NONE) {
    ends_.emplace_back(pushed_, sequence.id);
    sequence.view.state = SequenceView::State::kEnded;
    std::erase(alive_, &sequence);
    sequence.items.clear();
  }
  ++pushed_;
}

}  // namespace reticle::backends::cpu
