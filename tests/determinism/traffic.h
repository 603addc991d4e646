// The requests that are compared, and those that run beside them. Functions of their arguments.
#ifndef RETICLE_TESTS_DETERMINISM_TRAFFIC_H_
#define RETICLE_TESTS_DETERMINISM_TRAFFIC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/request.h"

namespace reticle::determinism {

struct Subject {
  std::string name;
  scheduler::Request request;
};

// Greedy and seeded, of 1 to 150 prompt tokens (whole blocks among them), with every sampling
// parameter and log-probabilities.
std::vector<Subject> Subjects(uint32_t vocab);

// The part of the prompts that subjects and neighbours have in common, as a system prompt.
constexpr uint32_t kSharedTokens = 40;

// Request `index` of the traffic beside them: short, some with a subject's prompt or the beginning
// of it.
scheduler::Request Neighbour(uint32_t vocab, uint32_t index);

// `length` tokens, of which the first kSharedTokens are always the same.
std::vector<TokenId> PromptTokens(uint32_t vocab, uint32_t length, uint64_t salt);

}  // namespace reticle::determinism

#endif  // RETICLE_TESTS_DETERMINISM_TRAFFIC_H_
