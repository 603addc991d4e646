#include "tests/determinism/traffic.h"

#include <algorithm>
#include <memory>
#include <random>
#include <utility>

namespace reticle::determinism {
namespace {

scheduler::Request MakeRequest(std::vector<TokenId> prompt, uint32_t max_tokens) {
  scheduler::Request request;
  request.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

}  // namespace

std::vector<TokenId> PromptTokens(uint32_t vocab, uint32_t length, uint64_t salt) {
  std::mt19937_64 shared(1);
  std::mt19937_64 own(salt + 2);
  std::vector<TokenId> tokens(length);
  for (uint32_t i = 0; i < length; ++i) {
    std::mt19937_64& random = i < kSharedTokens ? shared : own;
    tokens[i] = static_cast<TokenId>(random() % vocab);
  }
  return tokens;
}

std::vector<Subject> Subjects(uint32_t vocab) {
  std::vector<Subject> subjects;
  const auto add = [&](std::string name, uint32_t prompt, uint32_t max_tokens) -> auto& {
    subjects.push_back(
        {std::move(name), MakeRequest(PromptTokens(vocab, prompt, prompt), max_tokens)});
    return subjects.back().request.sampling;
  };
  add("greedy, one token", 1, 8);
  add("greedy, whole blocks", 64, 17).logprobs = 0;
  auto& greedy = add("greedy, penalties", 77, 12);
  greedy.repetition_penalty = 1.3f;
  greedy.frequency_penalty = 0.2f;
  greedy.logprobs = 3;
  auto& nucleus = add("seeded, top_p and penalties", 150, 14);
  nucleus.temperature = 1.6f;  // a trained model is sure of itself
  nucleus.top_p = 0.95f;
  nucleus.repetition_penalty = 1.1f;
  nucleus.frequency_penalty = 0.4f;
  nucleus.presence_penalty = 0.3f;
  nucleus.seed = 1234567;
  nucleus.logprobs = 5;
  auto& stops = add("seeded, top_k, min_p, bias and stop ids", 45, 14);
  stops.temperature = 1.8f;
  stops.top_k = 40;
  stops.min_p = 0.02f;
  stops.seed = 99;
  stops.min_tokens = 5;
  stops.logit_bias = {{3, 2.5f}, {vocab / 2, -4.0f}};
  for (TokenId token = 0; token < vocab; token += 12) stops.stop_ids.push_back(token);
  stops.logprobs = 1;
  auto& prompt = add("seeded, prompt log-probabilities", 59, 8);
  prompt.temperature = 1.4f;
  prompt.seed = 5;
  prompt.prompt_logprobs = 2;
  prompt.logprobs = 2;
  auto& plain = add("seeded, high temperature", 90, 12);
  plain.temperature = 1.7f;
  plain.seed = 31337;
  return subjects;
}

scheduler::Request Neighbour(uint32_t vocab, uint32_t index) {
  std::mt19937_64 random(index + 1000);
  const uint32_t length = 2 + static_cast<uint32_t>(random() % 45);
  std::vector<TokenId> tokens;
  if (index % 16 == 5) {
    tokens = *Subjects(vocab)[1 + index / 16 % 4].request.prompt;
  } else if (index % 2 == 0) {
    tokens = PromptTokens(vocab, length, index + 1000);
  } else {
    tokens.resize(length);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % vocab);
  }
  scheduler::Request request =
      MakeRequest(std::move(tokens), 2 + static_cast<uint32_t>(random() % 8));
  scheduler::SamplingParams& sampling = request.sampling;
  sampling.seed = index;
  if (index % 3 != 0) sampling.temperature = 0.8f;
  if (index % 5 == 0) sampling.top_p = 0.8f;
  if (index % 7 == 0) sampling.presence_penalty = 0.5f;
  if (index % 11 == 0) sampling.logprobs = 2;
  return request;
}

}  // namespace reticle::determinism
