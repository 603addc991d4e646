// Random traffic over every kind of fake device: every invariant after every step, every stream
// compared with what the device is bound to say to its request alone.
#include <algorithm>
#include <random>
#include <set>

#include "base/log.h"
#include "gtest/gtest.h"
#include "scheduler/engine_test_util.h"

namespace reticle::scheduler {
namespace {

struct SoakCase {
  const char* name;
  FakeOptionList fake;
  EngineOptions engine;
  bool loses_device = false;
  int steps = 2500;
};

void PrintTo(const SoakCase& soak, std::ostream* out) { *out << soak.name; }

class EngineSoakTest : public ::testing::TestWithParam<SoakCase> {
 protected:
  EngineSoakTest() : random_(4711) { SetLogLevel(LogLevel::kOff); }
  ~EngineSoakTest() override { SetLogLevel(LogLevel::kInfo); }

  uint32_t Draw(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  bool OneIn(uint32_t n) { return Draw(n) == 0; }

  std::unique_ptr<Client> RandomClient(TestEngine& engine) {
    // Few salts and much the same lengths, so that prompts share prefixes.
    std::vector<TokenId> prompt = MakePrompt(1 + Draw(40), Draw(3));
    if (OneIn(3)) prompt.push_back(Draw(200));
    Request request = MakeRequest(std::move(prompt), 1 + Draw(30), random_());
    SamplingParams& sampling = request.sampling;
    if (OneIn(3)) sampling.temperature = 0;
    if (OneIn(4)) sampling.top_k = 1 + Draw(50);
    if (OneIn(4)) sampling.repetition_penalty = 1.2f;
    if (OneIn(4)) sampling.frequency_penalty = 0.3f;
    if (OneIn(6)) sampling.logit_bias = {{Draw(256), 2.0f}};
    if (OneIn(2)) sampling.stop_ids = {Draw(256), Draw(256), Draw(256)};
    if (OneIn(4)) sampling.min_tokens = Draw(request.max_tokens);
    if (OneIn(5)) sampling.logprobs = Draw(4);
    if (OneIn(6)) sampling.prompt_logprobs = Draw(3);
    request.priority = static_cast<int32_t>(Draw(3)) - 1;
    request.use_prefix_cache = !OneIn(8);
    if (OneIn(8)) request.deadline_ns = engine.clock().NowNanos() + 1000 * (1 + Draw(300));
    return MakeClient(std::move(request), OneIn(5) ? 2 + Draw(3) : 1, 2 + Draw(40));
  }

  // How many choices ended well.
  int Check(const Client& client) {
    int complete = 0;
    for (uint32_t i = 0; i < client.choices.size(); ++i) {
      const Choice& choice = client.choices[i];
      const SequenceEnd& end = *choice.end;
      std::vector<TokenId> expected = Expected(client.request, i);
      EXPECT_EQ(end.output_tokens, choice.tokens.size());
      EXPECT_EQ(end.prompt_tokens, client.request.prompt->size());
      if (end.reason == FinishReason::kStop || end.reason == FinishReason::kLength) {
        ++complete;
        const bool stops = std::count(client.request.sampling.stop_ids.begin(),
                                      client.request.sampling.stop_ids.end(), expected.back()) > 0;
        EXPECT_EQ(end.reason == FinishReason::kStop, stops);
        if (client.request.sampling.prompt_logprobs.has_value() && i == 0) {
          EXPECT_EQ(choice.prompt.size(), client.request.prompt->size());
        }
      } else {
        EXPECT_NE(end.reason, FinishReason::kError) << end.status;
        expected.resize(std::min(expected.size(), choice.tokens.size()));
      }
      EXPECT_EQ(choice.tokens, expected);
      for (const TokenEvent& event : choice.events) {
        EXPECT_EQ(event.logprobs != nullptr, client.request.sampling.logprobs.has_value());
      }
    }
    return complete;
  }

  std::mt19937 random_;
};

TEST_P(EngineSoakTest, EveryStreamIsRightAndEveryInvariantHolds) {
  const SoakCase& soak = GetParam();
  TestEngine engine(soak.fake, soak.engine);
  std::vector<std::unique_ptr<Client>> live;
  int complete = 0;
  int refused = 0;
  uint32_t preemptions = 0;
  const auto settle = [&](size_t index) {
    complete += Check(*live[index]);
    for (const Choice& choice : live[index]->choices) preemptions += choice.end->preemptions;
    live[index] = std::move(live.back());
    live.pop_back();
  };
  for (int step = 0; step < soak.steps; ++step) {
    if (live.size() < 24 && OneIn(4)) {
      auto client = RandomClient(engine);
      if (engine.Submit(*client).ok()) {
        live.push_back(std::move(client));
      } else {
        ++refused;
      }
    }
    if (!live.empty() && OneIn(12)) {
      Client& client = *live[Draw(static_cast<uint32_t>(live.size()))];
      client.choices[Draw(static_cast<uint32_t>(client.choices.size()))].stream->Cancel();
    }
    if (soak.loses_device && OneIn(300)) engine.control().Lose();
    if (OneIn(50)) engine.clock().AdvanceNanos(200'000);
    engine.Step();
    for (size_t i = live.size(); i > 0; --i) {
      for (Choice& choice : live[i - 1]->choices) {
        if (OneIn(3)) choice.Read(OneIn(2) ? 1 : SIZE_MAX);
      }
      if (live[i - 1]->ended()) settle(i - 1);
      if (HasFailure()) return;
    }
  }
  for (int i = 0; i < 20'000 && !live.empty(); ++i) {
    engine.clock().AdvanceNanos(100'000);
    engine.Step();
    for (size_t c = live.size(); c > 0; --c) {
      live[c - 1]->Read();
      if (live[c - 1]->ended()) settle(c - 1);
    }
  }
  EXPECT_TRUE(live.empty()) << live.size() << " never ended";
  ASSERT_TRUE(engine.RunUntilIdle());
  EXPECT_EQ(engine->Gauges().running, 0u);
  EXPECT_EQ(engine->Gauges().waiting, 0u);
  EXPECT_EQ(engine->Gauges().kv_blocks_used, 0u);
  EXPECT_EQ(engine.control().live_sequences(), 0u);
  EXPECT_GT(complete, soak.steps / 20);
  RecordProperty("complete", complete);
  RecordProperty("refused", refused);
  RecordProperty("preemptions", static_cast<int>(preemptions));
}

INSTANTIATE_TEST_SUITE_P(
    All, EngineSoakTest,
    ::testing::Values(
        SoakCase{"roomy_lockstep", {{"credits", "1"}, {"prefill_chunk", "16"}}, {}},
        SoakCase{"roomy_run_ahead", {{"credits", "16"}, {"block_tokens", "4"}}, {}},
        SoakCase{"tiny_pool_lockstep",
                 {{"credits", "1"}, {"blocks", "22"}, {"block_tokens", "4"}},
                 {.stall_ns = 50'000}},
        SoakCase{"tiny_pool_run_ahead",
                 {{"credits", "7"}, {"blocks", "22"}, {"block_tokens", "4"}},
                 {.stall_ns = 50'000}},
        SoakCase{"tiny_pool_no_cache",
                 {{"credits", "3"}, {"blocks", "30"}, {"block_tokens", "3"}},
                 {.prefix_cache = false, .stall_ns = 50'000}},
        SoakCase{"tiny_slots_lockstep",
                 {{"mode", "slots"}, {"credits", "1"}, {"blocks", "100"}, {"block_tokens", "1"}},
                 {.stall_ns = 50'000}},
        SoakCase{"tiny_slots_run_ahead",
                 {{"mode", "slots"}, {"credits", "9"}, {"blocks", "100"}, {"block_tokens", "1"}},
                 {.stall_ns = 50'000}},
        SoakCase{"few_sequences",
                 {{"credits", "4"}, {"max_sequences", "3"}},
                 {.max_waiting = 12, .stall_ns = 50'000}},
        SoakCase{"refusing_device", {{"refuse_every", "5"}, {"credits", "4"}}, {}},
        SoakCase{"dying_paged",
                 {{"credits", "4"}, {"block_tokens", "4"}},
                 {.max_recoveries = 1000, .fence_after = 0},
                 /*loses_device=*/true},
        SoakCase{"dying_slots_lockstep",
                 {{"mode", "slots"}, {"credits", "1"}},
                 {.max_recoveries = 1000, .fence_after = 0},
                 /*loses_device=*/true}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace reticle::scheduler
