#include "loadtest/workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

// Common words, one token each in most vocabularies.
constexpr std::array<std::string_view, 128> kWords = {
    "the",    "a",      "of",   "and",   "to",     "in",    "is",      "it",   "you",   "that",
    "he",     "was",    "for",  "on",    "are",    "with",  "as",      "his",  "they",  "be",
    "at",     "one",    "have", "this",  "from",   "or",    "had",     "by",   "not",   "word",
    "but",    "what",   "some", "we",    "can",    "out",   "other",   "were", "all",   "there",
    "when",   "up",     "use",  "your",  "how",    "said",  "an",      "each", "she",   "which",
    "do",     "their",  "time", "if",    "will",   "way",   "about",   "many", "then",  "them",
    "write",  "would",  "like", "so",    "these",  "her",   "long",    "make", "thing", "see",
    "him",    "two",    "has",  "look",  "more",   "day",   "could",   "go",   "come",  "did",
    "number", "sound",  "no",   "most",  "people", "my",    "over",    "know", "water", "than",
    "call",   "first",  "who",  "may",   "down",   "side",  "been",    "now",  "find",  "any",
    "new",    "work",   "part", "take",  "get",    "place", "made",    "live", "where", "after",
    "back",   "little", "only", "round", "man",    "year",  "came",    "show", "every", "good",
    "me",     "give",   "our",  "under", "name",   "very",  "through", "just"};

// Streams of random numbers that must not depend on each other.
enum Stream : uint64_t { kLengths = 1, kTexts = 2, kPrefixes = 3, kBlocks = 4, kThink = 5 };

uint64_t Mix(uint64_t seed, uint64_t stream, uint64_t index) {
  return Random(seed * 16 + stream, index).Next();
}

}  // namespace

std::string SyntheticText(uint64_t seed, int64_t words) {
  Random random(seed, kTexts);
  std::string text;
  text.reserve(static_cast<size_t>(std::max<int64_t>(words, 0)) * 5);
  uint64_t bits = 0;
  for (int64_t i = 0; i < words; ++i) {
    if (i % 9 == 0) bits = random.Next();
    if (i > 0) text.push_back(' ');
    text.append(kWords[bits & 127]);
    bits >>= 7;
  }
  return text;
}

absl::StatusOr<std::unique_ptr<Workload>> Workload::Create(const Scenario& scenario) {
  std::unique_ptr<Workload> workload(new Workload(scenario));
  if (scenario.mode == ArrivalMode::kTrace) {
    ASSIGN_OR_RETURN(workload->trace_, LoadTrace(scenario.trace));
  }
  if (scenario.source == PromptSource::kShareGpt) {
    ASSIGN_OR_RETURN(workload->recorded_, LoadShareGpt(scenario.dataset));
  }
  return workload;
}

int64_t Workload::Words(double tokens, bool first) const {
  const double words = (tokens - (first ? scale_.fixed : 0)) / scale_.per_word;
  return std::max<int64_t>(1, std::llround(words));
}

PlannedConversation Workload::FromTrace(const TraceEntry& entry, uint64_t index) const {
  PlannedConversation plan;
  PlannedTurn turn;
  turn.max_tokens = entry.output_length;
  const uint64_t seed = static_cast<uint64_t>(scenario_.seed);
  int64_t left = Words(static_cast<double>(entry.input_length), true);
  const int64_t block = Words(static_cast<double>(kTraceBlockTokens), false);
  for (const uint64_t hash : entry.hash_ids) {
    const int64_t words = std::min(left, block);
    if (words <= 0) break;
    if (!turn.text.empty()) turn.text.push_back(' ');
    turn.text.append(SyntheticText(Mix(seed, kBlocks, hash), words));
    left -= words;
  }
  if (left > 0) {
    if (!turn.text.empty()) turn.text.push_back(' ');
    turn.text.append(SyntheticText(Mix(seed, kTexts, index), left));
  }
  plan.turns.push_back(std::move(turn));
  return plan;
}

PlannedConversation Workload::Make(uint64_t index) const {
  const uint64_t seed = static_cast<uint64_t>(scenario_.seed);
  Random random(seed * 16 + kLengths, index);
  PlannedConversation plan;
  if (!trace_.entries.empty()) {
    plan = FromTrace(trace_.entries[index % trace_.entries.size()], index);
  } else if (!recorded_.empty()) {
    const RecordedConversation& recorded = recorded_[index % recorded_.size()];
    plan.system = recorded.system;
    for (const RecordedTurn& from : recorded.turns) {
      PlannedTurn turn;
      turn.text = from.text;
      turn.max_tokens = scenario_.output_tokens.SampleInteger(random);
      if (turn.max_tokens == 0 && from.reply_words > 0) {
        turn.max_tokens = std::max<int64_t>(
            1, std::llround(static_cast<double>(from.reply_words) * scale_.per_word));
      }
      plan.turns.push_back(std::move(turn));
    }
  } else {
    const int64_t turns = std::max<int64_t>(1, scenario_.turns.SampleInteger(random));
    double prefix_tokens = 0;
    if (scenario_.shared_prefixes > 0 && scenario_.shared_prefix_tokens > 0) {
      prefix_tokens = static_cast<double>(scenario_.shared_prefix_tokens);
      const int64_t which = random.Integer(0, scenario_.shared_prefixes - 1);
      plan.system = SyntheticText(Mix(seed, kPrefixes, static_cast<uint64_t>(which)),
                                  Words(prefix_tokens, false));
    }
    for (int64_t t = 0; t < turns; ++t) {
      PlannedTurn turn;
      // The first prompt's length includes the shared prefix, as prompt_tokens in usage does.
      const double tokens = scenario_.prompt_tokens.Sample(random) - (t == 0 ? prefix_tokens : 0);
      turn.text = SyntheticText(random.Next(), Words(tokens, t == 0));
      turn.max_tokens = scenario_.output_tokens.SampleInteger(random);
      plan.turns.push_back(std::move(turn));
    }
  }
  for (size_t t = 0; t < plan.turns.size(); ++t) {
    PlannedTurn& turn = plan.turns[t];
    if (t > 0) turn.think_ns = static_cast<int64_t>(scenario_.think_ms.Sample(random) * 1e6);
    if (random.Uniform() < scenario_.disconnect_share) {
      turn.disconnect_after_events =
          std::max<int64_t>(1, scenario_.disconnect_after.SampleInteger(random));
    }
    if (random.Uniform() < scenario_.slow_share) turn.read_bytes_per_s = scenario_.slow_bytes_per_s;
  }
  return plan;
}

int64_t Workload::ThinkNs(uint64_t index) const {
  Random random(static_cast<uint64_t>(scenario_.seed) * 16 + kThink, index);
  return static_cast<int64_t>(scenario_.think_ms.Sample(random) * 1e6);
}

BodyWriter::BodyWriter(const Scenario& scenario, const std::string& model) : api_(scenario.api) {
  head_ = R"({"model":)";
  AppendJsonString(head_, model);
  head_.append(api_ == Api::kChat ? R"(,"messages":[)" : R"(,"prompt":)");
  tail_ = R"(,"temperature":)";
  AppendDouble(tail_, scenario.temperature);
  if (scenario.ignore_eos) tail_.append(R"(,"ignore_eos":true)");
  if (scenario.stream) tail_.append(R"(,"stream":true,"stream_options":{"include_usage":true})");
  const std::string_view extra = Trim(scenario.extra_body);
  if (extra.size() > 2) {
    tail_.push_back(',');
    tail_.append(extra.substr(1, extra.size() - 2));
  }
  tail_.push_back('}');
}

std::string BodyWriter::Body(const std::vector<Message>& messages, int64_t max_tokens) const {
  std::string body = head_;
  if (api_ == Api::kChat) {
    for (const Message& message : messages) {
      if (&message != messages.data()) body.push_back(',');
      body.append(R"({"role":)");
      AppendJsonString(body, message.role);
      body.append(R"(,"content":)");
      AppendJsonString(body, message.text);
      body.push_back('}');
    }
    body.push_back(']');
  } else {
    AppendJsonString(body, JoinedPrompt(messages));
  }
  if (max_tokens > 0) {
    body.append(R"(,"max_tokens":)");
    AppendInteger(body, max_tokens);
  }
  body.append(tail_);
  return body;
}

std::string JoinedPrompt(const std::vector<Message>& messages) {
  std::string prompt;
  for (const Message& message : messages) {
    if (!prompt.empty() && !prompt.ends_with('\n')) prompt.push_back('\n');
    prompt.append(message.text);
  }
  return prompt;
}

}  // namespace reticle::loadtest
