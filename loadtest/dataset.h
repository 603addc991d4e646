// Recorded conversations in the form of ShareGPT: a JSON array of
// {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}.
#ifndef RETICLE_LOADTEST_DATASET_H_
#define RETICLE_LOADTEST_DATASET_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::loadtest {

struct RecordedTurn {
  std::string text;         // what the human said
  int64_t reply_words = 0;  // length of the recorded reply
};
struct RecordedConversation {
  std::string system;
  std::vector<RecordedTurn> turns;  // at least one
};

// Speakers are "human" or "user", "gpt" or "assistant", "system"; "role" and "content" may stand
// for "from" and "value", "messages" for "conversations". Conversations without a human turn are
// left out. INVALID_ARGUMENT names `origin` and the conversation.
absl::StatusOr<std::vector<RecordedConversation>> ParseShareGpt(std::string_view json,
                                                                const std::string& origin);
absl::StatusOr<std::vector<RecordedConversation>> LoadShareGpt(const std::string& path);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_DATASET_H_
