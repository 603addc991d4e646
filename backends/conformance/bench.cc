#include "backends/conformance/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "backends/abi/capabilities_check.h"
#include "backends/abi/host.h"

namespace reticle::backends::conformance {
namespace {

std::optional<Subject>& Slot() {
  static std::optional<Subject>* const subject = new std::optional<Subject>;
  return *subject;
}

}  // namespace

void SetSubject(Subject subject) { Slot() = std::move(subject); }
const Subject& TheSubject() { return *Slot(); }

Request::Request() : params{} {
  params.struct_size = sizeof(params);
  params.top_p = 1;
  params.repetition_penalty = 1;
}

std::vector<uint32_t> MakePrompt(const reticle_capabilities& caps, uint32_t length, uint32_t salt) {
  std::vector<uint32_t> prompt(length);
  uint64_t state = salt * 0x9E3779B97F4A7C15u + 12345;
  for (uint32_t& token : prompt) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<uint32_t>((state >> 33) % caps.vocab_size);
  }
  return prompt;
}

void Bench::Open(const DeviceConfig& config) {
  std::vector<reticle_option> options;
  for (const auto& [name, value] : config.options) options.push_back({name.c_str(), value.c_str()});
  reticle_device_config c_config{};
  c_config.struct_size = sizeof(c_config);
  c_config.model_path = config.model_path.empty() ? nullptr : config.model_path.c_str();
  c_config.device_index = config.device_index;
  c_config.threads = config.threads;
  c_config.kv_type = config.kv_type;
  c_config.kv_block_tokens = config.kv_block_tokens;
  c_config.kv_bytes = config.kv_bytes;
  c_config.context_limit = config.context_limit;
  c_config.max_sequences = config.max_sequences;
  c_config.options = options.data();
  c_config.option_count = options.size();
  reticle_error error{};
  error.struct_size = sizeof(error);
  const int32_t code = api().open(&HostCallbacks(), &c_config, &device_, &error);
  ASSERT_EQ(code, RETICLE_OK) << error.message;
  ASSERT_NE(device_, nullptr);
  caps_.struct_size = sizeof(caps_);
  ASSERT_EQ(api().describe(device_, &caps_, &error), RETICLE_OK) << error.message;
  const absl::Status sane = CheckCapabilities(caps_);
  ASSERT_TRUE(sane.ok()) << sane;
  for (uint32_t i = 0; i < caps_.kv_block_count; ++i) free_blocks_.push_back(i);
  ok_ = true;
}

Bench::~Bench() {
  if (device_ != nullptr) api().close(device_);
}

bool Bench::OutOfPatience(std::chrono::steady_clock::time_point since) const {
  const auto waited = std::chrono::steady_clock::now() - since;
  if (waited < std::chrono::seconds(TheSubject().patience_s)) {
    if (waited > std::chrono::milliseconds(1)) std::this_thread::yield();
    return false;
  }
  ADD_FAILURE() << "nothing happened for " << TheSubject().patience_s << " s; last refusal: '"
                << last_message_ << "'";
  return true;
}

std::vector<uint32_t> Bench::TakeBlocks(uint64_t positions, bool from_end) {
  std::vector<uint32_t> blocks;
  if (!IsPaged()) return blocks;
  const uint64_t count = (positions + caps_.kv_block_tokens - 1) / caps_.kv_block_tokens;
  if (free_blocks_.size() < count) {
    ADD_FAILURE() << "the device has too few KV blocks for this test: " << caps_.kv_block_count;
    return blocks;
  }
  for (uint64_t i = 0; i < count; ++i) {
    blocks.push_back(from_end ? free_blocks_.back() : free_blocks_.front());
    from_end ? free_blocks_.pop_back() : free_blocks_.pop_front();
  }
  return blocks;
}

void Bench::ReleaseBlocks(const std::vector<uint32_t>& blocks) {
  free_blocks_.insert(free_blocks_.end(), blocks.begin(), blocks.end());
}

reticle_work Bench::Prefill(uint64_t sequence, const std::vector<uint32_t>& tokens,
                            const std::vector<uint32_t>& blocks) const {
  reticle_work work{};
  work.struct_size = sizeof(work);
  work.sequence = sequence;
  work.tag = 1;
  work.tokens = tokens.data();
  work.token_count = static_cast<uint32_t>(tokens.size());
  work.kv_blocks = blocks.empty() ? nullptr : blocks.data();
  work.kv_block_count = static_cast<uint32_t>(blocks.size());
  work.next_token = RETICLE_NO_TOKEN;
  return work;
}

int32_t Bench::Submit(const reticle_work& work) {
  reticle_error error{};
  error.struct_size = sizeof(error);
  size_t accepted = 99;
  const int32_t code = api().submit(device_, &work, sizeof(work), 1, &accepted, &error);
  EXPECT_EQ(accepted, code == RETICLE_OK ? 1u : 0u);
  last_message_ = error.message;
  if (code != RETICLE_OK) {
    EXPECT_EQ(error.code, code);
    EXPECT_FALSE(last_message_.empty()) << "a refusal without a message, code " << code;
  }
  return code;
}

void Bench::Adopt(uint64_t sequence, uint32_t position, uint32_t granted) {
  Sequence& adopted = sequences_[sequence];
  adopted.adopted = true;
  adopted.next_token_at = position;
  adopted.granted = granted;
}

uint64_t Bench::Start(const Request& request) {
  const uint64_t id = NewId();
  Sequence& sequence = sequences_[id];
  sequence.request = request;
  reticle_sampling& params = sequence.request.params;
  params.stop_ids = sequence.request.stop_ids.data();
  params.stop_id_count = static_cast<uint32_t>(sequence.request.stop_ids.size());
  params.logit_bias = sequence.request.logit_bias.data();
  params.logit_bias_count = static_cast<uint32_t>(sequence.request.logit_bias.size());
  const uint32_t prompt = static_cast<uint32_t>(request.prompt.size());
  if (params.prompt_tokens == 0) params.prompt_tokens = prompt;
  sequence.next_token_at = prompt;
  if (!IsPaged()) return id;
  sequence.blocks = request.prefix_blocks;
  sequence.own_blocks_from = static_cast<uint32_t>(request.prefix_blocks.size());
  sequence.submitted = sequence.own_blocks_from * caps_.kv_block_tokens;
  const uint64_t positions =
      std::min<uint64_t>(uint64_t{prompt} + request.max_tokens, caps_.context_limit);
  const std::vector<uint32_t> own = TakeBlocks(
      positions - std::min<uint64_t>(positions, sequence.submitted), request.reverse_blocks);
  sequence.blocks.insert(sequence.blocks.end(), own.begin(), own.end());
  return id;
}

bool Bench::SubmitDue(uint64_t id, Sequence& sequence) {
  const Request& request = sequence.request;
  Output& output = sequence.output;
  if (sequence.adopted || output.ended || sequence.is_cancelled) return false;
  const uint32_t prompt = static_cast<uint32_t>(request.prompt.size());
  const uint32_t sampled = static_cast<uint32_t>(output.tokens.size());
  const uint32_t held = sequence.granted - sampled;
  const uint32_t most =
      request.masks.empty()
          ? std::min(request.credits == 0 ? UINT32_MAX : request.credits, caps_.max_decode_credits)
          : 1;
  reticle_work work{};
  work.struct_size = sizeof(work);
  work.sequence = id;
  work.tag = next_tag_;
  work.next_token = RETICLE_NO_TOKEN;
  work.adapter = request.adapter;
  reticle_sampling params = request.params;
  uint32_t last_token = 0;
  if (sequence.submitted < prompt) {
    const uint32_t chunk =
        std::min(request.chunk == 0 ? UINT32_MAX : request.chunk, caps_.max_prefill_chunk);
    work.position = sequence.submitted;
    work.token_count = std::min(chunk, prompt - sequence.submitted);
    work.tokens = request.prompt.data() + sequence.submitted;
    work.kv_blocks = sequence.blocks.empty() ? nullptr : sequence.blocks.data();
    work.kv_block_count = static_cast<uint32_t>(sequence.blocks.size());
    const uint32_t end = work.position + work.token_count;
    if (request.prompt_logprobs.has_value()) {
      work.flags = RETICLE_WORK_PROMPT_LOGPROBS;
      work.prompt_logprobs = *request.prompt_logprobs;
      if (end < prompt) work.next_token = request.prompt[end];
    }
    if (end == prompt && request.max_tokens > 0) {
      work.decode_credits = std::min(most, request.max_tokens);
      if (params.repetition_penalty != 1 || params.frequency_penalty != 0 ||
          params.presence_penalty != 0) {
        params.history = request.prompt.data();
        params.history_count = prompt;
      }
      work.sampling = &params;
    }
  } else {
    const uint32_t left = request.max_tokens - sequence.granted;
    if (left == 0) return false;
    const bool run_ahead = request.feed_itself && request.masks.empty();
    if (held > 0 && (!run_ahead || held >= most || sampled == 0)) return false;
    work.decode_credits = std::min(left, most - (run_ahead ? held : 0));
    if (!request.feed_itself) {
      last_token = output.tokens.back();
      work.position = sequence.next_token_at - 1;
      work.tokens = &last_token;
      work.token_count = 1;
    }
  }
  if (work.decode_credits > 0 && !request.masks.empty()) {
    work.token_mask = request.masks[std::min<size_t>(sampled, request.masks.size() - 1)].data();
  }
  const int32_t code = Submit(work);
  if (code == RETICLE_RESOURCE_EXHAUSTED || code == RETICLE_NOT_FOUND) return false;
  if (code != RETICLE_OK) {
    ADD_FAILURE() << "sequence " << id << " is refused with " << code << ": " << last_message_;
    sequence.is_cancelled = true;
    output.ended = true;
    return false;
  }
  ++next_tag_;
  sequence.max_tag = work.tag;
  sequence.granted += work.decode_credits;
  if (work.decode_credits > 0) ++sequence.grants;
  if (work.token_count > 0) {
    if (sequence.submitted < prompt) sequence.submitted += work.token_count;
    sequence.unfed.push_back({work.tag, work.token_count, work.position + work.token_count});
  }
  return true;
}

bool Bench::Pump() {
  bool moved = false;
  for (auto& [id, sequence] : sequences_) moved |= SubmitDue(id, sequence);
  return Poll() > 0 || moved;
}

size_t Bench::Poll() {
  std::vector<reticle_completion> completions(37);
  size_t count = 0;
  reticle_error error{};
  error.struct_size = sizeof(error);
  const int32_t code = api().poll(device_, completions.data(), sizeof(reticle_completion),
                                  completions.size(), &count, &error);
  EXPECT_EQ(code, RETICLE_OK) << error.message;
  EXPECT_LE(count, completions.size());
  for (size_t i = 0; i < std::min(count, completions.size()); ++i) OnCompletion(completions[i]);
  return count;
}

void Bench::OnCompletion(const reticle_completion& completion) {
  EXPECT_EQ(completion.struct_size, sizeof(reticle_completion));
  const auto found = sequences_.find(completion.sequence);
  if (found == sequences_.end()) {
    ADD_FAILURE() << "a completion for sequence " << completion.sequence << ", which is not alive";
    return;
  }
  Sequence& sequence = found->second;
  Output& output = sequence.output;
  EXPECT_FALSE(output.ended) << "a completion behind the end of sequence " << completion.sequence;
  EXPECT_GE(completion.device_time_ns, sequence.device_time_ns) << "device time went back";
  sequence.device_time_ns = completion.device_time_ns;
  if (!sequence.adopted) {
    EXPECT_LE(completion.tag, sequence.max_tag);
    EXPECT_GE(completion.tag, sequence.last_tag);
    if (sequence.max_tag > 0 && completion.kind != RETICLE_COMPLETION_END) {
      EXPECT_GE(completion.tag, 1000u) << "no tag of an item of the sequence";
    }
    sequence.last_tag = completion.tag;
  }
  const auto scored = [&] {
    return Scored{completion.token,
                  completion.position,
                  completion.logprob,
                  completion.rank,
                  {completion.top, completion.top + completion.top_count}};
  };
  switch (completion.kind) {
    case RETICLE_COMPLETION_TOKEN:
      CheckToken(sequence, completion);
      output.tokens.push_back(completion.token);
      ++sequence.next_token_at;
      if (sequence.request.params.logprobs > 0 && !sequence.adopted) {
        CheckLogprobs(completion, sequence.request.params.logprobs - 1);
        output.scored.push_back(scored());
      }
      break;
    case RETICLE_COMPLETION_PREFILL:
      ++output.prefills;
      if (sequence.adopted) break;
      if (sequence.unfed.empty()) {
        ADD_FAILURE() << "a PREFILL for an item that fed nothing";
        break;
      }
      EXPECT_EQ(completion.tag, sequence.unfed.front().tag);
      EXPECT_EQ(completion.token_count, sequence.unfed.front().token_count);
      EXPECT_EQ(completion.position, sequence.unfed.front().end - 1);
      sequence.unfed.pop_front();
      break;
    case RETICLE_COMPLETION_PROMPT_LOGPROB:
      EXPECT_TRUE(sequence.request.prompt_logprobs.has_value());
      CheckLogprobs(completion, sequence.request.prompt_logprobs.value_or(0));
      output.prompt_scored.push_back(scored());
      break;
    case RETICLE_COMPLETION_END:
      EXPECT_NE(completion.finish, uint32_t{RETICLE_FINISH_NONE}) << "an END that is none";
      break;
    default:
      ADD_FAILURE() << "a completion of unknown kind " << completion.kind;
  }
  if (completion.finish == RETICLE_FINISH_NONE) return;
  CheckEnd(sequence, completion);
  output.ended = true;
  output.finish = completion.finish;
  output.status = completion.status;
  ReleaseBlocks({sequence.blocks.begin() + sequence.own_blocks_from, sequence.blocks.end()});
}

void Bench::CheckToken(const Sequence& sequence, const reticle_completion& completion) {
  EXPECT_LT(completion.token, caps_.vocab_size);
  EXPECT_EQ(completion.position, sequence.next_token_at);
  EXPECT_TRUE(sequence.unfed.empty()) << "a TOKEN before the PREFILL of its item";
  const uint32_t sampled = static_cast<uint32_t>(sequence.output.tokens.size()) + 1;
  EXPECT_LE(sampled, sequence.granted) << "more tokens than credits";
  if (sequence.adopted) return;
  const bool is_stop = std::count(sequence.request.stop_ids.begin(),
                                  sequence.request.stop_ids.end(), completion.token) > 0;
  const bool is_last = completion.position + 1 == caps_.context_limit;
  const uint32_t expected = is_stop   ? RETICLE_FINISH_STOP_ID
                            : is_last ? RETICLE_FINISH_CONTEXT_LIMIT
                                      : RETICLE_FINISH_NONE;
  EXPECT_EQ(completion.finish, expected) << "at position " << completion.position;
  if (completion.finish != RETICLE_FINISH_NONE) {
    EXPECT_EQ(completion.credits_left, 0u);
  } else if (sampled <= sequence.granted) {
    EXPECT_LE(completion.credits_left, sequence.granted - sampled);
    if (sequence.grants == 1) {
      EXPECT_EQ(completion.credits_left, sequence.granted - sampled);
    }
  }
}

void Bench::CheckLogprobs(const reticle_completion& completion, uint32_t top_count) {
  EXPECT_LE(completion.logprob, 1e-4f);
  EXPECT_GE(completion.rank, 1u);
  EXPECT_LE(completion.rank, caps_.vocab_size);
  ASSERT_EQ(completion.top_count, std::min(top_count, caps_.vocab_size));
  if (top_count > 0) {
    ASSERT_NE(completion.top, nullptr);
  }
  double sum = 0;
  for (uint32_t i = 0; i < completion.top_count; ++i) {
    const reticle_token_logprob& entry = completion.top[i];
    EXPECT_LT(entry.token, caps_.vocab_size);
    sum += std::exp(static_cast<double>(entry.logprob));
    if (i > 0) {
      const reticle_token_logprob& before = completion.top[i - 1];
      EXPECT_TRUE(before.logprob > entry.logprob ||
                  (before.logprob == entry.logprob && before.token < entry.token))
          << "the list is not in order at " << i;
    }
  }
  EXPECT_LE(sum, 1.001);
  if (completion.rank <= completion.top_count) {
    EXPECT_EQ(completion.top[completion.rank - 1].token, completion.token);
    EXPECT_FLOAT_EQ(completion.top[completion.rank - 1].logprob, completion.logprob);
  } else if (completion.top_count > 0) {
    EXPECT_LE(completion.logprob, completion.top[completion.top_count - 1].logprob);
  }
}

void Bench::CheckEnd(const Sequence& sequence, const reticle_completion& completion) {
  switch (completion.finish) {
    case RETICLE_FINISH_STOP_ID:
    case RETICLE_FINISH_CONTEXT_LIMIT:
      EXPECT_EQ(completion.kind, uint32_t{RETICLE_COMPLETION_TOKEN});
      break;
    case RETICLE_FINISH_CANCELLED:
      EXPECT_TRUE(sequence.is_cancelled) << "CANCELLED, but nobody cancelled it";
      break;
    case RETICLE_FINISH_ERROR:
      EXPECT_NE(completion.status, RETICLE_OK);
      EXPECT_TRUE(completion.message != nullptr && completion.message[0] != '\0');
      if (sequence.was_reset) {
        EXPECT_EQ(completion.status, RETICLE_ABORTED);
      }
      break;
    default:
      ADD_FAILURE() << "a completion of unknown finish " << completion.finish;
  }
}

bool Bench::IsSpent(uint64_t id) const {
  const Sequence& sequence = sequences_.at(id);
  if (sequence.output.ended) return true;
  return sequence.submitted >= sequence.request.prompt.size() && sequence.unfed.empty() &&
         sequence.output.tokens.size() >= sequence.request.max_tokens;
}

void Bench::Cancel(uint64_t id) {
  Sequence& sequence = sequences_.at(id);
  if (sequence.output.ended) return;
  const bool began = sequence.adopted || sequence.max_tag > 0;
  sequence.is_cancelled = true;
  if (!began) {
    sequence.output.ended = true;
    return;
  }
  reticle_error error{};
  error.struct_size = sizeof(error);
  EXPECT_EQ(api().cancel(device_, id, &error), RETICLE_OK) << error.message;
}

int32_t Bench::Reset() {
  for (auto& [id, sequence] : sequences_) {
    sequence.was_reset = true;
    // Nothing more is submitted for them.
    sequence.request.max_tokens = sequence.granted;
    sequence.submitted = static_cast<uint32_t>(sequence.request.prompt.size());
  }
  reticle_error error{};
  error.struct_size = sizeof(error);
  const int32_t code = api().reset(device_, &error);
  last_message_ = error.message;
  return code;
}

void Bench::Finish() {
  for (auto& [id, sequence] : sequences_) {
    if (!sequence.output.ended && !sequence.is_cancelled) Cancel(id);
  }
  PumpUntil([&] {
    return std::all_of(sequences_.begin(), sequences_.end(),
                       [](const auto& entry) { return entry.second.output.ended; });
  });
}

std::vector<Output> Bench::Run(const std::vector<Request>& requests) {
  std::vector<uint64_t> ids;
  for (const Request& request : requests) ids.push_back(Start(request));
  PumpUntil([&] {
    bool all = true;
    for (const uint64_t id : ids) {
      if (!IsSpent(id)) {
        all = false;
      } else if (!IsEnded(id) && !sequences_.at(id).is_cancelled) {
        Cancel(id);
      }
      all = all && IsEnded(id);
    }
    return all;
  });
  std::vector<Output> outputs;
  for (const uint64_t id : ids) outputs.push_back(OutputOf(id));
  return outputs;
}

Output Bench::Run(const Request& request) { return Run(std::vector<Request>{request}).front(); }

uint32_t Bench::LiveByStats() {
  reticle_stats stats{};
  stats.struct_size = sizeof(stats);
  EXPECT_EQ(api().stats(device_, &stats, nullptr), RETICLE_OK);
  return stats.sequences;
}

}  // namespace reticle::backends::conformance
