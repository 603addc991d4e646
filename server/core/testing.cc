#include "server/core/testing.h"

#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace reticle::server {

absl::Status ScriptedSink::Submit(scheduler::Request request) {
  MutexLock lock(mutex_);
  if (!refusal_.ok()) return refusal_;
  requests_.push_back(std::make_unique<scheduler::Request>(std::move(request)));
  changed_.NotifyAll();
  return absl::OkStatus();
}

void ScriptedSink::Refuse(absl::Status status) {
  MutexLock lock(mutex_);
  refusal_ = std::move(status);
}

size_t ScriptedSink::size() const {
  MutexLock lock(mutex_);
  return requests_.size();
}

void ScriptedSink::WaitFor(size_t count) const {
  MutexLock lock(mutex_);
  while (requests_.size() < count) changed_.Wait(mutex_);
}

const scheduler::Request& ScriptedSink::request(size_t index) const {
  MutexLock lock(mutex_);
  return *requests_.at(index);
}

scheduler::TokenStream& ScriptedSink::stream(size_t request, size_t choice) const {
  return *this->request(request).outputs.at(choice);
}

void PushToken(scheduler::TokenStream& stream, TokenId token, bool is_stop_id,
               std::unique_ptr<scheduler::TokenLogprobs> logprobs) {
  RETICLE_CHECK(stream.FreeSlots() > 0);
  scheduler::TokenEvent event;
  event.token = token;
  event.is_stop_id = is_stop_id;
  event.logprobs = std::move(logprobs);
  stream.Push(std::move(event));
  stream.Flush();
}

void PushText(scheduler::TokenStream& stream, std::string_view bytes) {
  for (const char c : bytes) PushToken(stream, static_cast<unsigned char>(c));
}

void EndStream(scheduler::TokenStream& stream, scheduler::FinishReason reason, absl::Status status,
               uint32_t prompt_tokens, uint32_t cached_tokens) {
  scheduler::SequenceEnd end;
  end.reason = reason;
  end.status = std::move(status);
  end.prompt_tokens = prompt_tokens;
  end.cached_tokens = cached_tokens;
  stream.Finish(std::move(end));
  stream.Flush();
}

TestModel::TestModel()
    : vocabulary_(tokenizer::TestVocabulary::ByteLevel("llama-bpe", "", 0)),
      begin_(vocabulary_.Id("<|begin|>")),
      end_(vocabulary_.Id("<|end|>")) {
  vocabulary_.v.add_bos_token = true;
}

TokenId TestModel::Add(std::string_view text) {
  return vocabulary_.Add(vocabulary_.Own(tokenizer::MapBytes(text)), tokenizer::TokenType::kNormal);
}

TokenId TestModel::byte(unsigned char value) const { return value; }

std::shared_ptr<ModelEntry> TestModel::Build(std::string_view chat_template) {
  auto entry = std::make_shared<ModelEntry>();
  entry->id = "test";
  entry->aliases = {"alias"};
  entry->created_unix_s = 1;
  entry->fingerprint = "fp_test";
  entry->tokenizer = vocabulary_.Build();
  if (!chat_template.empty()) {
    auto parsed = tokenizer::ChatTemplate::Create(chat_template);
    RETICLE_CHECK(parsed.ok());
    entry->chat_template = *std::move(parsed);
  }
  ModelLimits& limits = entry->limits;
  limits.vocab_size = entry->tokenizer->vocab_size();
  limits.max_model_len = 256;
  limits.max_logprobs = 20;
  limits.max_stop_ids = 16;
  limits.logprobs = limits.prompt_logprobs = limits.logit_bias = limits.penalties = true;
  limits.min_p = limits.top_p = limits.temperature = limits.min_tokens = true;
  auto sink = std::make_unique<ScriptedSink>();
  sink_ = sink.get();
  entry->sink = std::move(sink);
  return entry;
}

void CountingProbe::OnHttpRequest(std::string_view, std::string_view, int status, int64_t) {
  MutexLock lock(mutex_);
  http_statuses_.push_back(status);
  changed_.NotifyAll();
}

void CountingProbe::OnChoiceFinished(std::string_view, Outcome outcome) {
  MutexLock lock(mutex_);
  choices_.push_back(outcome);
}

void CountingProbe::OnRequestFinished(const RequestRecord& record) {
  MutexLock lock(mutex_);
  records_.push_back(record);
  records_.back().model = records_.back().front = {};
  changed_.NotifyAll();
}

std::vector<int> CountingProbe::http_statuses() const {
  MutexLock lock(mutex_);
  return http_statuses_;
}

std::vector<Outcome> CountingProbe::choices() const {
  MutexLock lock(mutex_);
  return choices_;
}

std::vector<RequestRecord> CountingProbe::records() const {
  MutexLock lock(mutex_);
  return records_;
}

void CountingProbe::WaitForHttp(size_t count) const {
  MutexLock lock(mutex_);
  while (http_statuses_.size() < count) changed_.Wait(mutex_);
}

void CountingProbe::WaitForRecords(size_t count) const {
  MutexLock lock(mutex_);
  while (records_.size() < count) changed_.Wait(mutex_);
}

}  // namespace reticle::server
