// A served model and the table of them.
#ifndef RETICLE_SERVER_CORE_MODEL_H_
#define RETICLE_SERVER_CORE_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "scheduler/request.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace reticle::server {

// Where requests go: one engine, or a dispatcher over several. Thread-safe.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  // As scheduler::Engine::Submit.
  virtual absl::Status Submit(scheduler::Request request) = 0;
};

// What the devices behind a model offer.
struct ModelLimits {
  uint32_t vocab_size = 0;
  uint32_t max_model_len = 0;  // tokens of prompt and output together
  uint32_t max_logprobs = 0;   // alternatives per token
  uint32_t max_top_k = 0;      // 0: any
  uint32_t default_top_k = 0;  // of requests that name none; 0: all
  uint32_t max_stop_ids = 0;
  uint32_t max_choices = 128;  // n
  bool logprobs = false;
  bool prompt_logprobs = false;
  bool logit_bias = false;
  bool penalties = false;
  bool min_p = false;
  bool top_p = false;
  bool temperature = false;
  bool min_tokens = false;
};

// Immutable once it is in a registry.
struct ModelEntry {
  std::string id;
  std::vector<std::string> aliases;
  std::string unlisted_alias;  // a further one, which lists of models leave out; may be empty
  int64_t created_unix_s = 0;
  std::string owned_by = "reticle";
  std::string fingerprint;  // of image and version: the replies' system_fingerprint
  ModelLimits limits;
  // Shared by the entries of one model file.
  std::shared_ptr<const tokenizer::Tokenizer> tokenizer;
  // Null: the model has none, and chat is refused.
  std::shared_ptr<const tokenizer::ChatTemplate> chat_template;
  std::unique_ptr<RequestSink> sink;
  uint64_t adapter = 0;  // that the devices apply; 0: none
  std::string parent;    // the id of the model that the adapter is for; else empty
  std::string device;    // the kind of device behind it; may be empty
  // What a million tokens cost on these devices, USD; nothing when nobody knows.
  std::optional<double> usd_per_million_tokens;
};

// Thread-safe. Entries live as long as anybody holds them.
class ModelRegistry {
 public:
  // The first model added is the default. ALREADY_EXISTS when the id or an alias is taken.
  absl::Status Add(std::shared_ptr<const ModelEntry> model);
  // Requests that hold the entry keep it. No effect when there is none with this id.
  void Remove(std::string_view id);
  // By id or alias; an empty name gives the default. NOT_FOUND (code "model_not_found", HTTP 404)
  // names the model; UNAVAILABLE while there is none at all.
  absl::StatusOr<std::shared_ptr<const ModelEntry>> Find(std::string_view name) const;
  // In the order of addition.
  std::vector<std::shared_ptr<const ModelEntry>> List() const;

 private:
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<const ModelEntry>> models_ RETICLE_GUARDED_BY(mutex_);
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_MODEL_H_
