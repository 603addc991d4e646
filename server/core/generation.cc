#include "server/core/generation.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/core/latency_ledger.h"
#include "server/core/request_summary.h"
#include "server/core/stop_matcher.h"
#include "tokenizer/tokenizer.h"

namespace reticle::server {
namespace {

using scheduler::FinishReason;
using scheduler::SequenceEnd;
using scheduler::TokenEvent;
using scheduler::TokenLogprobs;
using scheduler::TokenStream;

// Events between the engine and the connection; also the run-ahead that a client that does not read
// can cause.
constexpr size_t kRingCapacity = 256;
// Of a prompt that is logged.
constexpr size_t kDescribedTokens = 1024;

uint64_t CountCodePoints(std::string_view text) {
  return static_cast<uint64_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// A generated token whose text has not been handed out.
struct HeldToken {
  TokenId token;
  uint64_t text_offset;  // code points
  size_t begin, end;     // bytes of Choice::tail
  std::unique_ptr<TokenLogprobs> logprobs;
};

struct Choice {
  Choice(const tokenizer::Tokenizer& tokenizer, bool skip_special, const StopSet& stop)
      : detokenizer(tokenizer, skip_special), matcher(stop) {}

  std::shared_ptr<TokenStream> stream;
  tokenizer::StreamingDetokenizer detokenizer;
  StopMatcher matcher;
  std::string tail;          // text that is complete but not handed out
  uint64_t code_points = 0;  // of all text so far, echo and tail included
  std::vector<HeldToken> held;
  uint32_t tokens = 0;
  bool started = false;   // the echo is out
  bool finished = false;  // the last chunk is out; what still arrives is dropped
  bool ended = false;     // the stream's end was seen
  std::optional<TokenId> stop_token;
};

// The prompt's tokens as reported by the engine (log-probabilities asked for) or as sent.
struct PromptState {
  std::vector<std::unique_ptr<TokenLogprobs>> logprobs;
  std::vector<TokenOut> tokens;
  bool complete = false;
};

}  // namespace

struct Generation::Impl : public scheduler::StreamListener {
  Impl(ValidRequest valid, ServerContext& server, std::string_view front_name,
       std::function<void()> on_ready)
      : request(std::move(valid)),
        context(server),
        front(front_name),
        wake(std::move(on_ready)),
        prompts(request.prompts().size()),
        ledger(request.model().device) {}

  ~Impl() override {
    if (!submitted) return;
    Cancel();
    for (Choice& choice : choices) choice.stream->Detach();
    if (!reported) Report(Outcome::kAbort);
    ledger.Flush(context.probe());
    context.active_.fetch_sub(1, std::memory_order_acq_rel);
  }

  void OnStreamReady() override {
    if (wake_pending.exchange(true, std::memory_order_acq_rel)) return;
    woken_ns.store(context.clock().NowNanos(), std::memory_order_relaxed);
    wake();
  }

  absl::Status Submit();
  Progress Pull(ChunkSink& sink, size_t max_tokens);
  bool Arm();
  void Cancel();

  uint32_t PromptOf(uint32_t choice) const { return choice / request.n(); }
  // The prompt's log-probabilities come with its first choice; the others wait for them.
  bool WaitsForPrompt(uint32_t index) const {
    const uint32_t first = index - index % request.n();
    return request.prompt_logprobs().has_value() && index != first &&
           !prompts[PromptOf(index)].complete && !choices[first].ended;
  }
  size_t PullChoice(uint32_t index, ChunkSink& sink, size_t max_tokens);
  void Note(std::span<const TokenEvent> events);
  void TakePromptToken(uint32_t prompt, TokenEvent event, ChunkSink& sink);
  void CompletePrompt(uint32_t prompt, ChunkSink& sink);
  void Begin(uint32_t index, ChunkSink& sink);
  void TakeToken(uint32_t index, TokenEvent event, ChunkSink& sink);
  void TakeEnd(uint32_t index, const SequenceEnd& end, ChunkSink& sink);
  // Bytes of the tail that cannot become part of a stop string.
  size_t Releasable(const Choice& choice) const {
    return choice.tail.size() - (request.include_stop() ? 0 : choice.matcher.held());
  }
  void Release(uint32_t index, size_t bytes, ChunkSink& sink);
  void FinishChoice(uint32_t index, Outcome outcome, std::string_view stop_string, ChunkSink& sink);
  void Fail(absl::Status failure);
  void Report(Outcome outcome);

  const ValidRequest request;
  ServerContext& context;
  const std::string front;
  const std::function<void()> wake;
  std::vector<Choice> choices;
  std::vector<PromptState> prompts;
  std::vector<TokenOut> scratch;
  LatencyLedger ledger;  // of streams
  std::atomic<int64_t> woken_ns{0};
  std::atomic<bool> wake_pending{true};
  bool submitted = false;
  bool cancelled = false;
  bool reported = false;
  uint32_t ended = 0;
  uint32_t next_choice = 0;
  int64_t first_token_ns = 0;
  Outcome worst = Outcome::kStop;
  absl::Status status;
  Usage usage;
};

absl::Status Generation::Impl::Submit() {
  const ModelEntry& model = request.model();
  choices.reserve(request.choices());
  const size_t capacity = request.prompt_logprobs().has_value()
                              ? kRingCapacity
                              : std::clamp<size_t>(request.max_tokens(), 1, kRingCapacity);
  for (uint32_t c = 0; c < request.choices(); ++c) {
    Choice& choice = choices.emplace_back(*model.tokenizer, request.skip_special(), request.stop());
    choice.stream = std::make_shared<TokenStream>(capacity, this);
  }
  // Counted first, so that a drain that begins now either refuses it or waits for it.
  context.active_.fetch_add(1, std::memory_order_acq_rel);
  submitted = true;
  RETURN_IF_ERROR(context.CheckAdmission());
  for (size_t p = 0; p < prompts.size(); ++p) {
    scheduler::Request sequence;
    sequence.prompt = request.prompts()[p].tokens;
    sequence.sampling = request.sampling();
    sequence.max_tokens = std::max(request.max_tokens(), 1u);
    sequence.priority = request.priority();
    sequence.tenant = request.tenant();
    sequence.appointments = request.appointments();
    sequence.arrival_ns = request.arrival_ns();
    sequence.deadline_ns = request.deadline_ns();
    sequence.adapter = model.adapter;
    // The request has its place in the queue whole, or not at all.
    sequence.admitted = p > 0;
    if (p == 0) sequence.more_sequences = request.choices() - request.n();
    for (uint32_t i = 0; i < request.n(); ++i) {
      sequence.outputs.push_back(choices[p * request.n() + i].stream);
    }
    RETURN_IF_ERROR(model.sink->Submit(std::move(sequence)));
    usage.usd_per_million_tokens = model.usd_per_million_tokens;
    usage.prompt_tokens += request.prompts()[p].tokens->size();
  }
  if (Reservation* const reservation = request.reservation()) {
    reservation->Progress(usage.prompt_tokens, 0);
  }
  return absl::OkStatus();
}

Generation::Progress Generation::Impl::Pull(ChunkSink& sink, size_t max_tokens) {
  wake_pending.store(true, std::memory_order_release);
  size_t left = max_tokens;
  const uint32_t count = static_cast<uint32_t>(choices.size());
  for (uint32_t i = 0; i < count && status.ok(); ++i) {
    const uint32_t index = (next_choice + i) % count;
    if (choices[index].ended) continue;
    if (left == 0) {
      next_choice = index;
      return Progress::kMore;
    }
    left -= std::min(left, PullChoice(index, sink, left));
  }
  if (Reservation* const reservation = request.reservation()) {
    reservation->Progress(usage.prompt_tokens, usage.completion_tokens);
  }
  if (request.stream() && left < max_tokens) ledger.OnFramed(context.clock().NowNanos());
  if (!status.ok() || ended == count) {
    if (!reported) Report(worst);
    return Progress::kDone;
  }
  return left == 0 ? Progress::kMore : Progress::kIdle;
}

size_t Generation::Impl::PullChoice(uint32_t index, ChunkSink& sink, size_t max_tokens) {
  Choice& choice = choices[index];
  const uint32_t prompt = PromptOf(index);
  if (WaitsForPrompt(index)) return 0;
  std::array<TokenEvent, 32> events;
  size_t taken = 0;
  while (taken < max_tokens) {
    const size_t popped =
        choice.stream->Pop(std::span(events).first(std::min(events.size(), max_tokens - taken)));
    if (popped > 0 && request.stream()) Note(std::span(events).first(popped));
    for (size_t i = 0; i < popped; ++i) {
      if (events[i].kind == TokenEvent::Kind::kPromptToken) {
        TakePromptToken(prompt, std::move(events[i]), sink);
      } else if (!choice.finished) {
        TakeToken(index, std::move(events[i]), sink);
      }
    }
    taken += popped;
    if (popped == 0) {
      if (request.merge_events() && !choice.finished) Release(index, Releasable(choice), sink);
      if (const SequenceEnd* end = choice.stream->end(); end != nullptr) {
        TakeEnd(index, *end, sink);
      }
      return taken;
    }
  }
  if (request.merge_events() && !choice.finished) Release(index, Releasable(choice), sink);
  return taken;
}

void Generation::Impl::Note(std::span<const TokenEvent> events) {
  const int64_t taken_ns = context.clock().NowNanos();
  const int64_t told_ns = woken_ns.load(std::memory_order_relaxed);
  for (const TokenEvent& event : events) {
    ledger.OnTaken(event.device_ns, event.ready_ns, told_ns, taken_ns);
  }
}

void Generation::Impl::TakePromptToken(uint32_t prompt, TokenEvent event, ChunkSink& sink) {
  PromptState& state = prompts[prompt];
  if (state.complete) return;
  TokenOut token;
  token.token = event.token;
  token.logprobs = event.logprobs.get();
  state.logprobs.push_back(std::move(event.logprobs));
  state.tokens.push_back(token);
  if (state.tokens.size() == request.prompts()[prompt].tokens->size()) CompletePrompt(prompt, sink);
}

void Generation::Impl::CompletePrompt(uint32_t prompt, ChunkSink& sink) {
  PromptState& state = prompts[prompt];
  if (!request.prompt_logprobs().has_value()) {
    for (TokenId token : *request.prompts()[prompt].tokens) {
      state.tokens.push_back({.token = token});
    }
  }
  tokenizer::StreamingDetokenizer detokenizer(*request.model().tokenizer, true, true);
  std::string text;
  uint64_t offset = 0;
  for (TokenOut& token : state.tokens) {
    token.text_offset = offset;
    text.clear();
    detokenizer.Append(token.token, text);
    offset += CountCodePoints(text);
  }
  state.complete = true;
  if (request.prompt_logprobs().has_value()) sink.OnPromptLogprobs(prompt, state.tokens);
}

void Generation::Impl::Begin(uint32_t index, ChunkSink& sink) {
  Choice& choice = choices[index];
  choice.started = true;
  if (!request.echo()) return;
  const uint32_t prompt = PromptOf(index);
  if (!prompts[prompt].complete) CompletePrompt(prompt, sink);
  Chunk chunk;
  chunk.choice = index;
  chunk.is_prompt = true;
  chunk.text = request.prompts()[prompt].text;
  chunk.tokens = prompts[prompt].tokens;
  choice.code_points = CountCodePoints(chunk.text);
  sink.OnChunk(chunk);
}

void Generation::Impl::TakeToken(uint32_t index, TokenEvent event, ChunkSink& sink) {
  Choice& choice = choices[index];
  if (first_token_ns == 0) first_token_ns = context.clock().NowNanos();
  if (!choice.started) Begin(index, sink);
  if (request.max_tokens() == 0) return;
  ++choice.tokens;
  ++usage.completion_tokens;
  if (event.is_stop_id) {
    if (!request.model().tokenizer->IsEndOfGeneration(event.token)) choice.stop_token = event.token;
    if (!request.include_stop()) return;
  }
  const size_t begin = choice.tail.size();
  choice.detokenizer.Append(event.token, choice.tail);
  const std::string_view piece = std::string_view(choice.tail).substr(begin);
  choice.held.push_back({.token = event.token,
                         .text_offset = choice.code_points,
                         .begin = begin,
                         .end = choice.tail.size(),
                         .logprobs = std::move(event.logprobs)});
  choice.code_points += CountCodePoints(piece);

  StopMatcher::Result match{.end = piece.size()};
  if (choice.tokens > request.sampling().min_tokens) match = choice.matcher.Feed(piece);
  if (match.matched) {
    const std::string& stop = request.stop().strings()[match.index];
    const size_t end = begin + match.end - (request.include_stop() ? 0 : stop.size());
    choice.tail.resize(end);
    Release(index, end, sink);
    FinishChoice(index, Outcome::kStop, stop, sink);
    choice.stream->Cancel();
    return;
  }
  if (!request.merge_events()) Release(index, Releasable(choice), sink);
}

void Generation::Impl::Release(uint32_t index, size_t bytes, ChunkSink& sink) {
  Choice& choice = choices[index];
  if (bytes == 0) return;
  scratch.clear();
  size_t reported_tokens = 0;
  for (const HeldToken& held : choice.held) {
    if (held.begin >= bytes && held.end > bytes) break;
    scratch.push_back(
        {.token = held.token, .text_offset = held.text_offset, .logprobs = held.logprobs.get()});
    ++reported_tokens;
  }
  Chunk chunk;
  chunk.choice = index;
  chunk.text = std::string_view(choice.tail).substr(0, bytes);
  chunk.tokens = scratch;
  sink.OnChunk(chunk);
  choice.held.erase(choice.held.begin(),
                    choice.held.begin() + static_cast<ptrdiff_t>(reported_tokens));
  for (HeldToken& held : choice.held) {
    held.begin -= std::min(held.begin, bytes);
    held.end -= std::min(held.end, bytes);
  }
  choice.tail.erase(0, bytes);
}

void Generation::Impl::FinishChoice(uint32_t index, Outcome outcome, std::string_view stop_string,
                                    ChunkSink& sink) {
  Choice& choice = choices[index];
  scratch.clear();
  // Tokens that never gave text; those of a stop string that was cut off have text, and go.
  for (const HeldToken& held : choice.held) {
    if (held.begin != held.end || held.begin > choice.tail.size()) continue;
    scratch.push_back(
        {.token = held.token, .text_offset = held.text_offset, .logprobs = held.logprobs.get()});
  }
  Chunk chunk;
  chunk.choice = index;
  chunk.tokens = scratch;
  chunk.finish = outcome;
  chunk.stop_string = stop_string;
  if (stop_string.empty()) chunk.stop_token = choice.stop_token;
  choice.finished = true;
  if (outcome > worst) worst = outcome;
  context.probe().OnChoiceFinished(request.model().id, outcome);
  sink.OnChunk(chunk);
  choice.held.clear();
}

void Generation::Impl::TakeEnd(uint32_t index, const SequenceEnd& end, ChunkSink& sink) {
  Choice& choice = choices[index];
  choice.ended = true;
  ++ended;
  if (index % request.n() == 0) usage.cached_tokens += end.cached_tokens;
  usage.queue_ns = std::max(usage.queue_ns, end.queue_ns);
  usage.prompt_ns = std::max(usage.prompt_ns, end.prefill_ns);
  usage.completion_ns = std::max(usage.completion_ns, end.decode_ns);
  usage.device_busy_ns += end.device_busy_ns;
  usage.energy_nj += end.energy_nj;
  usage.recoveries += end.recoveries;
  if (choice.finished) return;
  switch (end.reason) {
    case FinishReason::kStop:
    case FinishReason::kLength:
      break;
    case FinishReason::kCancelled:
      worst = Outcome::kAbort;
      return Fail(cancelled || end.status.ok() ? CancelledError("the request was cancelled")
                                               : end.status);
    case FinishReason::kDeadline:
      worst = Outcome::kDeadline;
      return Fail(end.status.ok() ? DeadlineExceededError("the request's deadline passed")
                                  : end.status);
    case FinishReason::kError:
      worst = Outcome::kError;
      return Fail(end.status.ok() ? InternalError("the device gave no reason for its error")
                                  : end.status);
  }
  if (!choice.started) Begin(index, sink);
  const size_t begin = choice.tail.size();
  choice.detokenizer.Finish(choice.tail);
  const std::string_view piece = std::string_view(choice.tail).substr(begin);
  const StopMatcher::Result match = choice.matcher.Feed(piece);
  if (match.matched) {
    const std::string& stop = request.stop().strings()[match.index];
    choice.tail.resize(begin + match.end - (request.include_stop() ? 0 : stop.size()));
    Release(index, choice.tail.size(), sink);
    return FinishChoice(index, Outcome::kStop, stop, sink);
  }
  Release(index, choice.tail.size(), sink);
  const bool stopped = end.reason == FinishReason::kStop && request.max_tokens() > 0;
  FinishChoice(index, stopped ? Outcome::kStop : Outcome::kLength, {}, sink);
}

void Generation::Impl::Fail(absl::Status failure) {
  if (!status.ok()) return;
  status = std::move(failure);
  for (Choice& choice : choices) choice.stream->Cancel();
}

bool Generation::Impl::Arm() {
  wake_pending.store(false, std::memory_order_release);
  for (uint32_t index = 0; index < choices.size(); ++index) {
    if (choices[index].ended || WaitsForPrompt(index)) continue;
    if (!choices[index].stream->Arm()) return false;
  }
  return true;
}

void Generation::Impl::Cancel() {
  cancelled = true;
  for (Choice& choice : choices) {
    if (!choice.ended) choice.stream->Cancel();
  }
}

void Generation::Impl::Report(Outcome outcome) {
  reported = true;
  for (const Choice& choice : choices) {
    if (!choice.finished) context.probe().OnChoiceFinished(request.model().id, outcome);
  }
  if (Reservation* const reservation = request.reservation()) {
    reservation->Settle({usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens});
  }
  RequestRecord record;
  record.model = request.model().id;
  record.tier = request.tier();
  record.front = front;
  record.outcome = outcome;
  record.n = request.n();
  record.max_tokens = request.max_tokens();
  record.prompt_tokens = usage.prompt_tokens;
  record.cached_tokens = usage.cached_tokens;
  record.output_tokens = usage.completion_tokens;
  for (const Choice& choice : choices) {
    record.longest_choice = std::max(record.longest_choice, choice.tokens);
  }
  record.e2e_ns = context.clock().NowNanos() - request.arrival_ns();
  if (first_token_ns != 0) record.time_to_first_token_ns = first_token_ns - request.arrival_ns();
  context.probe().OnRequestFinished(record);
}

absl::StatusOr<std::unique_ptr<Generation>> Generation::Start(ValidRequest request,
                                                              ServerContext& context,
                                                              std::string_view front,
                                                              std::function<void()> wake) {
  std::unique_ptr<Generation> generation(new Generation);
  generation->impl_ = std::make_unique<Impl>(std::move(request), context, front, std::move(wake));
  Impl& impl = *generation->impl_;
  if (absl::Status status = impl.Submit(); !status.ok()) {
    impl.reported = true;
    context.probe().OnRequestRefused(impl.request.tier(), status.code());
    return status;
  }
  context.probe().OnRequestAdmitted(impl.request.model().id);
  return generation;
}

Generation::Generation() = default;
Generation::~Generation() = default;
Generation::Progress Generation::Pull(ChunkSink& sink, size_t max_tokens) {
  return impl_->Pull(sink, max_tokens);
}
bool Generation::Arm() { return impl_->Arm(); }
void Generation::OnHandedOver(int64_t now_ns) {
  impl_->ledger.OnHandedOver(now_ns, impl_->context.probe());
}
void Generation::Cancel() { impl_->Cancel(); }
const absl::Status& Generation::status() const { return impl_->status; }
const Usage& Generation::usage() const { return impl_->usage; }
uint32_t Generation::choice_tokens(uint32_t choice) const { return impl_->choices[choice].tokens; }
const ValidRequest& Generation::request() const { return impl_->request; }

void Generation::Describe(bool prompt, RequestSummary& summary) const {
  const ValidRequest& request = impl_->request;
  summary.admitted = true;
  summary.error = impl_->status;
  summary.outcome = impl_->reported ? impl_->worst : Outcome::kAbort;
  summary.model = request.model_ptr();
  summary.service_tier = request.service_tier();
  summary.usage = impl_->usage;
  summary.choices = request.choices();
  summary.first_token_ns = impl_->first_token_ns;
  summary.stream = request.stream();
  if (!prompt) return;
  const std::vector<TokenId>& tokens = *request.prompts().front().tokens;
  summary.prompt = request.model().tokenizer->Decode(
      std::span(tokens).first(std::min(tokens.size(), kDescribedTokens)), /*skip_special=*/false);
}

}  // namespace reticle::server
