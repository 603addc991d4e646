// A model without a device, for tests of server/: its tokens are single bytes, and the test itself
// says what it generates.
#ifndef RETICLE_SERVER_CORE_TESTING_H_
#define RETICLE_SERVER_CORE_TESTING_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "scheduler/request.h"
#include "server/core/model.h"
#include "server/core/server_probe.h"
#include "tokenizer/testing.h"

namespace reticle::server {

// Takes requests and keeps them. Thread-safe.
class ScriptedSink : public RequestSink {
 public:
  absl::Status Submit(scheduler::Request request) override;

  // From now on Submit returns this.
  void Refuse(absl::Status status);
  // How many were taken.
  size_t size() const;
  // Waits until `count` were taken (a test that waits in vain is ended by its time-out).
  void WaitFor(size_t count) const;
  const scheduler::Request& request(size_t index) const;
  scheduler::TokenStream& stream(size_t request, size_t choice = 0) const;

 private:
  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::vector<std::unique_ptr<scheduler::Request>> requests_ RETICLE_GUARDED_BY(mutex_);
  absl::Status refusal_ RETICLE_GUARDED_BY(mutex_);
};

// What engines do, by hand.
void PushToken(scheduler::TokenStream& stream, TokenId token, bool is_stop_id = false,
               std::unique_ptr<scheduler::TokenLogprobs> logprobs = nullptr);
void PushText(scheduler::TokenStream& stream, std::string_view bytes);  // a token for each byte
void EndStream(scheduler::TokenStream& stream, scheduler::FinishReason reason,
               absl::Status status = {}, uint32_t prompt_tokens = 0, uint32_t cached_tokens = 0);

// The vocabulary of the test model: 256 bytes, <|begin|> (which is put before prompts) and <|end|>
// (which ends generations), and whatever is added before Build.
class TestModel {
 public:
  TestModel();
  // A token whose text is `text`.
  TokenId Add(std::string_view text);
  TokenId begin_token() const { return begin_; }
  TokenId end_token() const { return end_; }
  TokenId byte(unsigned char value) const;

  // A model with the id "test", every feature and a context of 256 tokens. Once.
  std::shared_ptr<ModelEntry> Build(std::string_view chat_template = {});
  // The sink of the model that was built; lives as long as that.
  ScriptedSink& sink() { return *sink_; }

 private:
  tokenizer::TestVocabulary vocabulary_;
  TokenId begin_ = 0;
  TokenId end_ = 0;
  ScriptedSink* sink_ = nullptr;
};

// Counts what it is told. Thread-safe.
class CountingProbe : public ServerProbe {
 public:
  void OnHttpRequest(std::string_view handler, std::string_view method, int status,
                     int64_t duration_ns) override;
  void OnChoiceFinished(std::string_view model, Outcome outcome) override;
  void OnRequestFinished(const RequestRecord& record) override;

  std::vector<int> http_statuses() const;
  std::vector<Outcome> choices() const;
  std::vector<RequestRecord> records() const;  // without the names
  void WaitForHttp(size_t count) const;
  void WaitForRecords(size_t count) const;

 private:
  mutable Mutex mutex_;
  mutable CondVar changed_;
  std::vector<int> http_statuses_ RETICLE_GUARDED_BY(mutex_);
  std::vector<Outcome> choices_ RETICLE_GUARDED_BY(mutex_);
  std::vector<RequestRecord> records_ RETICLE_GUARDED_BY(mutex_);
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_TESTING_H_
