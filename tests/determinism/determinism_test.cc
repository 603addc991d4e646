// One request gives the same tokens and the same bits of log-probabilities whatever happens around
// it: the scheduler's engine over the CPU device, each answer compared with the one that the
// request gets alone, on one thread, without a prefix cache and in one piece.
#include <algorithm>
#include <map>
#include <memory>
#include <ostream>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "backends/abi/reticle_device.h"
#include "base/check.h"
#include "gtest/gtest.h"
#include "models/synthetic.h"
#include "tests/determinism/rig.h"
#include "tests/determinism/traffic.h"

namespace reticle::determinism {
namespace {

using scheduler::FinishReason;
using scheduler::Request;

constexpr uint32_t kNeighbours = 64;

struct ModelCase {
  const char* name;
  models::TensorType type;  // not read for the house model
  bool house;
};

void PrintTo(const ModelCase& model, std::ostream* out) { *out << model.name; }

constexpr ModelCase kModels[] = {{"F16", models::TensorType::kF16, false},
                                 {"Q8_0", models::TensorType::kQ8_0, false},
                                 {"Q4_K", models::TensorType::kQ4_K, false},
                                 {"House", models::TensorType::kF16, true}};

std::string ModelPath(const ModelCase& model) {
  if (model.house) return "models/house/house.gguf";
  static std::set<std::string>* const written = new std::set<std::string>();
  const std::string path = testing::TempDir() + "determinism_test_" + model.name + ".gguf";
  if (written->insert(path).second) {
    models::SyntheticLlamaOptions options;
    options.config = models::SmallWideLlamaConfig();
    options.matrix_type = model.type;
    RETICLE_CHECK(models::WriteSyntheticLlama(options, path).ok());
  }
  return path;
}

// The answers of the subjects alone.
struct Baseline {
  uint32_t vocab = 0;
  uint64_t kv_block_bytes = 0;
  std::vector<Subject> subjects;
  std::vector<Answer> answers;
};

Baseline MakeBaseline(const RigOptions& options) {
  Rig rig(options);
  const reticle_capabilities& capabilities = rig.capabilities();
  Baseline made;
  made.vocab = capabilities.vocab_size;
  made.kv_block_bytes = capabilities.kv_bytes_per_token * capabilities.kv_block_tokens;
  made.subjects = Subjects(made.vocab);
  for (const Subject& subject : made.subjects) made.answers.push_back(rig.Run(subject.request));
  return made;
}

class DeterminismTest : public testing::TestWithParam<std::tuple<ModelCase, uint32_t>> {
 protected:
  DeterminismTest() : random_(20) {
    options_.model_path = ModelPath(std::get<0>(GetParam()));
    options_.kv_type = std::get<1>(GetParam());
    static auto* const baselines = new std::map<std::pair<std::string, uint32_t>, Baseline>();
    const auto [at, is_new] = baselines->try_emplace({options_.model_path, options_.kv_type});
    if (is_new) at->second = MakeBaseline(options_);
    alone_ = &at->second;
  }

  size_t subject_count() const { return alone_->subjects.size(); }
  const Request& subject(size_t i) const { return alone_->subjects[i].request; }

  // Submits all subjects; their clients' numbers.
  std::vector<size_t> SubmitSubjects(Rig& rig, int32_t priority = 0, size_t capacity = 64) const {
    std::vector<size_t> clients;
    for (size_t i = 0; i < subject_count(); ++i) {
      Request request = subject(i);
      request.priority = priority;
      clients.push_back(rig.Submit(std::move(request), 1, capacity));
    }
    return clients;
  }

  std::vector<size_t> SubmitNeighbours(Rig& rig, uint32_t from, uint32_t to) const {
    std::vector<size_t> clients;
    for (uint32_t i = from; i < to; ++i) clients.push_back(rig.Submit(Neighbour(vocab(), i)));
    return clients;
  }

  void ExpectAsAlone(const Rig& rig, const std::vector<size_t>& clients,
                     const std::string& how) const {
    for (size_t i = 0; i < clients.size(); ++i) {
      EXPECT_TRUE(Same(alone_->answers[i].trace, rig.answer(clients[i]).trace))
          << alone_->subjects[i].name << ", " << how;
    }
  }

  uint32_t vocab() const { return alone_->vocab; }

  RigOptions options_;
  const Baseline* alone_ = nullptr;
  std::mt19937 random_;
};

TEST_P(DeterminismTest, AnswersAreWorthComparing) {
  std::set<std::vector<TokenId>> outputs;
  for (size_t i = 0; i < subject_count(); ++i) {
    const Trace& trace = alone_->answers[i].trace;
    const Request& request = subject(i);
    EXPECT_TRUE(trace.reason == FinishReason::kLength || trace.reason == FinishReason::kStop);
    if (trace.reason == FinishReason::kLength) {
      EXPECT_EQ(trace.OutputTokens(), request.max_tokens);
    }
    EXPECT_EQ(trace.tokens.size() - trace.OutputTokens(),
              request.sampling.prompt_logprobs.has_value() ? request.prompt->size() : 0);
    for (const TracedToken& token : trace.tokens) {
      if (token.of_prompt) continue;
      EXPECT_EQ(token.has_logprob, request.sampling.logprobs.has_value());
    }
    const std::vector<TokenId> output = trace.Output();
    if (request.sampling.temperature > 0) {
      EXPECT_GT(std::set<TokenId>(output.begin(), output.end()).size(), 1u);
    }
    outputs.insert(output);
  }
  EXPECT_EQ(outputs.size(), subject_count());

  Rig rig(options_);
  Request other_seed = subject(subject_count() - 1);
  ++other_seed.sampling.seed;
  EXPECT_FALSE(Same(alone_->answers.back().trace, rig.Run(other_seed).trace));
}

TEST_P(DeterminismTest, WithOtherChunksCreditsAndBlocks) {
  RigOptions options = options_;
  options.step_tokens = 17;
  options.max_running = 7;
  options.run_ahead = 1;
  Rig chunked(options);
  const std::vector<size_t> cut = SubmitSubjects(chunked);
  chunked.RunUntilAllEnded();
  ExpectAsAlone(chunked, cut, "in chunks, one credit at a time");

  options = options_;
  options.kv_block_tokens = 48;
  options.run_ahead = 5;
  Rig large(options);
  const std::vector<size_t> blocks = SubmitSubjects(large);
  large.RunUntilAllEnded();
  ExpectAsAlone(large, blocks, "blocks of 48 tokens, five credits");
}

TEST_P(DeterminismTest, AloneOnTwoThreads) {
  RigOptions options = options_;
  options.threads = 2;
  Rig rig(options);
  for (const size_t i : {size_t{0}, size_t{5}}) {
    EXPECT_TRUE(Same(alone_->answers[i].trace, rig.Run(subject(i)).trace))
        << alone_->subjects[i].name;
  }
}

TEST_P(DeterminismTest, AmongOthers) {
  {
    Rig rig(options_);
    SubmitNeighbours(rig, 0, kNeighbours / 2);
    const std::vector<size_t> clients = SubmitSubjects(rig);
    SubmitNeighbours(rig, kNeighbours / 2, kNeighbours);
    rig.RunUntilAllEnded();
    ExpectAsAlone(rig, clients, "one thread, no prefix cache");
  }
  RigOptions options = options_;
  options.threads = 2;
  options.prefix_cache = true;
  options.own_thread = true;
  Rig rig(options);
  SubmitNeighbours(rig, 0, kNeighbours);
  const std::vector<size_t> clients = SubmitSubjects(rig, 0, /*capacity=*/3);
  rig.RunUntilAllEnded();
  ExpectAsAlone(rig, clients, "two threads, prefix cache, the engine's own thread");
}

TEST_P(DeterminismTest, OnCachedPrefix) {
  RigOptions options = options_;
  options.prefix_cache = true;
  options.step_tokens = 100;
  options.max_running = 8;
  Rig rig(options);
  for (const bool again : {false, true}) {
    const std::vector<size_t> clients = SubmitSubjects(rig);
    rig.RunUntilAllEnded();
    ExpectAsAlone(rig, clients, again ? "its own prefix cached" : "prefix of others cached");
    for (size_t i = 0; again && i < subject_count(); ++i) {
      // Whole blocks, and at least one token is fed.
      const uint32_t block = rig.capabilities().kv_block_tokens;
      const bool reads = !subject(i).sampling.prompt_logprobs.has_value();
      const uint32_t prompt = static_cast<uint32_t>(subject(i).prompt->size());
      EXPECT_EQ(rig.answer(clients[i]).end.cached_tokens, reads ? (prompt - 1) / block * block : 0);
    }
  }
  // A prefix that another request's output left behind.
  Request longer = subject(1);
  std::vector<TokenId> tokens = *longer.prompt;
  const std::vector<TokenId> output = alone_->answers[1].trace.Output();
  tokens.insert(tokens.end(), output.begin(), output.end());
  longer.prompt = std::make_shared<const std::vector<TokenId>>(tokens);
  const Answer& warm = rig.Run(longer);
  EXPECT_GT(warm.end.cached_tokens, subject(1).prompt->size());
  EXPECT_TRUE(Same(Rig(options_).Run(longer).trace, warm.trace));
}

TEST_P(DeterminismTest, AfterPreemptionByBetterPriority) {
  RigOptions options = options_;
  // With one, the next test preempts every model.
  options.prefix_cache = options.kv_type == RETICLE_KV_TYPE_Q8_0;
  options.kv_bytes = alone_->kv_block_bytes * 48;
  options.run_ahead = 1;
  Rig rig(options);
  const std::vector<size_t> clients = SubmitSubjects(rig, /*priority=*/1);
  const auto has_begun = [&](size_t client) {
    return rig.answer(client).trace.OutputTokens() >= 4;
  };
  while (!std::all_of(clients.begin(), clients.end(), has_begun)) rig.Step();
  SubmitNeighbours(rig, 0, kNeighbours);
  rig.RunUntilAllEnded();
  ExpectAsAlone(rig, clients, "preempted by better priority");
  bool greedy = false;
  bool seeded = false;
  for (size_t i = 0; i < subject_count(); ++i) {
    if (rig.answer(clients[i]).end.preemptions == 0) continue;
    (subject(i).sampling.temperature > 0 ? seeded : greedy) = true;
  }
  EXPECT_TRUE(greedy);
  EXPECT_TRUE(seeded);
}

TEST_P(DeterminismTest, AfterPreemptionForWantOfMemory) {
  RigOptions options = options_;
  options.kv_bytes = alone_->kv_block_bytes * 18;
  options.prefix_cache = true;
  options.run_ahead = 1;
  Rig rig(options);
  // Those that came first soon need more blocks than are free beside the subjects.
  for (uint32_t i = 0; i < 6; ++i) {
    Request grows = Neighbour(vocab(), i);
    grows.prompt = std::make_shared<const std::vector<TokenId>>(10, i);
    grows.max_tokens = 30;
    rig.Submit(std::move(grows));
  }
  const std::vector<size_t> clients = SubmitSubjects(rig);
  rig.RunUntilAllEnded();
  ExpectAsAlone(rig, clients, "memory short");
  uint32_t preemptions = 0;
  for (const size_t client : clients) preemptions += rig.answer(client).end.preemptions;
  EXPECT_GT(preemptions, 0u);
}

TEST_P(DeterminismTest, ChoicesAreAsRequestsWithTheirSeeds) {
  RigOptions options = options_;
  options.prefix_cache = true;
  Rig rig(options);
  Rig single(options_);
  for (const size_t i : {size_t{3}, size_t{4}, size_t{6}}) {
    const size_t whole = rig.Submit(subject(i), 3);
    // The others wait for the first one's blocks, which goes away.
    const size_t orphaned = rig.Submit(subject(i), 3, 2);
    rig.Step();
    rig.Cancel(orphaned);
    const size_t uncached = [&] {
      Request request = subject(i);
      request.use_prefix_cache = false;
      return rig.Submit(std::move(request), 3);
    }();
    rig.RunUntilAllEnded();
    std::set<std::vector<TokenId>> outputs;
    for (uint32_t choice = 0; choice < 3; ++choice) {
      Request request = subject(i);
      request.sampling.seed = scheduler::ChoiceSeed(request.sampling.seed, choice);
      const Trace& expected = single.Run(std::move(request)).trace;
      if (choice == 0) {
        EXPECT_TRUE(Same(alone_->answers[i].trace, expected));
      } else {
        EXPECT_TRUE(Same(expected, rig.answer(orphaned, choice).trace)) << choice;
      }
      EXPECT_TRUE(Same(expected, rig.answer(whole, choice).trace)) << choice;
      EXPECT_TRUE(Same(expected, rig.answer(uncached, choice).trace)) << choice;
      outputs.insert(expected.Output());
    }
    EXPECT_EQ(outputs.size(), 3u);
  }
}

TEST_P(DeterminismTest, WhileNeighboursGoAway) {
  RigOptions options = options_;
  options.prefix_cache = true;
  options.step_tokens = 64;
  options.max_running = 20;
  options.kv_bytes = alone_->kv_block_bytes * 64;
  Rig rig(options);
  std::vector<size_t> neighbours = SubmitNeighbours(rig, 0, 24);
  const std::vector<size_t> clients = SubmitSubjects(rig);
  uint32_t next = 24;
  uint32_t cancelled = 0;
  while (!std::all_of(clients.begin(), clients.end(),
                      [&](size_t client) { return rig.Ended(client); })) {
    rig.Step();
    if (random_() % 4 == 0 && next < kNeighbours) {
      neighbours.push_back(rig.Submit(Neighbour(vocab(), next++)));
    }
    const size_t victim = neighbours[random_() % neighbours.size()];
    if (random_() % 3 == 0 && !rig.Ended(victim)) rig.Cancel(victim);
  }
  rig.RunUntilAllEnded();
  for (const size_t neighbour : neighbours) {
    if (rig.answer(neighbour).trace.reason == FinishReason::kCancelled) ++cancelled;
  }
  EXPECT_GT(cancelled, 0u);
  ExpectAsAlone(rig, clients, "neighbours cancelled");
}

INSTANTIATE_TEST_SUITE_P(Models, DeterminismTest,
                         testing::Combine(testing::ValuesIn(kModels),
                                          testing::Values(RETICLE_KV_TYPE_F16,
                                                          RETICLE_KV_TYPE_Q8_0)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) +
                                  (std::get<1>(info.param) == RETICLE_KV_TYPE_F16 ? "_KvF16"
                                                                                  : "_KvQ8_0");
                         });

}  // namespace
}  // namespace reticle::determinism
