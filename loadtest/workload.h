// What is asked: conversations by number, the same for the same seed.
#ifndef RETICLE_LOADTEST_WORKLOAD_H_
#define RETICLE_LOADTEST_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/dataset.h"
#include "loadtest/distribution.h"
#include "loadtest/request.h"
#include "loadtest/scenario.h"
#include "loadtest/trace.h"

namespace reticle::loadtest {

// How many tokens the server makes of a synthetic prompt: fixed + per_word * words.
struct WordScale {
  double per_word = 1;
  double fixed = 0;
};

struct PlannedTurn {
  std::string text;        // what the user says
  int64_t max_tokens = 0;  // 0: not asked for
  int64_t think_ns = 0;    // before this turn; 0 for the first
  // How the client behaves; see Request.
  int64_t disconnect_after_events = 0;
  int64_t read_bytes_per_s = 0;
};

struct PlannedConversation {
  std::string system;  // empty: none
  std::vector<PlannedTurn> turns;
};

// English-looking words, one space before each but the first; the same for the same `seed`.
std::string SyntheticText(uint64_t seed, int64_t words);

// Constant after Create(), so thread-safe.
class Workload {
 public:
  // Loads the scenario's dataset and trace. The scenario must be valid.
  static absl::StatusOr<std::unique_ptr<Workload>> Create(const Scenario& scenario);

  // Before Make(): what the calibration found.
  void set_word_scale(const WordScale& scale) { scale_ = scale; }

  // Conversation `index` of the run.
  PlannedConversation Make(uint64_t index) const;
  // The pause of a closed-loop user before conversation `index`, ns.
  int64_t ThinkNs(uint64_t index) const;

  // Null unless the scenario replays one.
  const Trace* trace() const { return trace_.entries.empty() ? nullptr : &trace_; }

 private:
  explicit Workload(const Scenario& scenario) : scenario_(scenario) {}
  int64_t Words(double tokens, bool first) const;
  PlannedConversation FromTrace(const TraceEntry& entry, uint64_t index) const;

  const Scenario scenario_;
  WordScale scale_;
  Trace trace_;
  std::vector<RecordedConversation> recorded_;
};

// Writes the JSON body of requests of one scenario. Constant after construction, so thread-safe.
class BodyWriter {
 public:
  BodyWriter(const Scenario& scenario, const std::string& model);
  // The body of a chat over `messages`, or of a completion of their texts.
  std::string Body(const std::vector<Message>& messages, int64_t max_tokens) const;

 private:
  const Api api_;
  std::string head_;  // {"model":..,"messages":[
  std::string tail_;  // ,"stream":true,..}
};

// The texts of `messages` as one prompt, for the completions API.
std::string JoinedPrompt(const std::vector<Message>& messages);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_WORKLOAD_H_
