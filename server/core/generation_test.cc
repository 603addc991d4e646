#include "server/core/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <utility>

#include "base/status.h"
#include "server/core/testing.h"

namespace reticle::server {
namespace {

using scheduler::FinishReason;
using testing::ElementsAre;

struct Seen {
  std::vector<std::string> chunks;  // texts of generated chunks, in order
  std::string prompt;
  std::vector<TokenId> tokens;
  std::vector<uint64_t> offsets;
  std::vector<float> logprobs;
  std::optional<Outcome> finish;
  std::string stop_string;
  std::optional<TokenId> stop_token;

  std::string text() const {
    std::string all;
    for (const std::string& chunk : chunks) all += chunk;
    return all;
  }
};

class Recorder : public ChunkSink {
 public:
  void OnChunk(const Chunk& chunk) override {
    Seen& seen = choices[chunk.choice];
    EXPECT_FALSE(seen.finish.has_value()) << "a chunk after the last one";
    for (const TokenOut& token : chunk.tokens) {
      seen.tokens.push_back(token.token);
      seen.offsets.push_back(token.text_offset);
      if (token.logprobs != nullptr) seen.logprobs.push_back(token.logprobs->logprob);
    }
    if (chunk.is_prompt) {
      seen.prompt = std::string(chunk.text);
    } else if (chunk.finish.has_value()) {
      EXPECT_EQ(chunk.text, "");
      seen.finish = chunk.finish;
      seen.stop_string = std::string(chunk.stop_string);
      seen.stop_token = chunk.stop_token;
    } else {
      EXPECT_NE(chunk.text, "");
      seen.chunks.emplace_back(chunk.text);
    }
  }
  void OnPromptLogprobs(uint32_t prompt, std::span<const TokenOut> tokens) override {
    prompt_logprobs[prompt] = tokens.size();
  }
  Seen choices[8];
  size_t prompt_logprobs[4] = {};
};

class GenerationTest : public testing::Test {
 protected:
  void Build() {
    entry_ = model_.Build();
    ASSERT_TRUE(context_.models().Add(entry_).ok());
    context_.SetReady();
  }

  GenerateParams Params(std::string prompt = "hi") {
    GenerateParams params;
    params.prompts.emplace_back(std::move(prompt));
    params.max_tokens = 100;
    return params;
  }

  std::unique_ptr<Generation> Start(GenerateParams params) {
    auto valid = Validate(std::move(params), entry_);
    EXPECT_TRUE(valid.ok()) << valid.status();
    auto generation = Generation::Start(*std::move(valid), context_, "http", [this] { ++wakes_; });
    EXPECT_TRUE(generation.ok()) << generation.status();
    return *std::move(generation);
  }

  scheduler::TokenStream& stream(size_t request = 0, size_t choice = 0) {
    return model_.sink().stream(request, choice);
  }

  // Pulls all that is there.
  Generation::Progress PullAll(Generation& generation) {
    Generation::Progress progress;
    do {
      progress = generation.Pull(seen_, 7);
    } while (progress == Generation::Progress::kMore);
    return progress;
  }

  ManualClock clock_{1000};
  CountingProbe probe_;
  ServerContext context_{{}, clock_, &probe_};
  TestModel model_;
  std::shared_ptr<ModelEntry> entry_;
  std::atomic<int> wakes_{0};
  Recorder seen_;
};

TEST_F(GenerationTest, TokensThatAreReadyTogetherShareAChunkWhenTheyMay) {
  Build();
  GenerateParams params = Params();
  params.merge_events = true;
  params.stop = {"st"};
  auto generation = Start(std::move(params));
  PushText(stream(), "abcs");
  EXPECT_EQ(generation->Pull(seen_, 100), Generation::Progress::kIdle);
  EXPECT_THAT(seen_.choices[0].chunks, ElementsAre("abc"));  // the "s" may begin the stop string
  PushText(stream(), "ade");
  EXPECT_EQ(generation->Pull(seen_, 2), Generation::Progress::kMore);
  EXPECT_THAT(seen_.choices[0].chunks, ElementsAre("abc", "sad"));
  PushText(stream(), "fsts");
  EXPECT_EQ(generation->Pull(seen_, 100), Generation::Progress::kIdle);
  EndStream(stream(), FinishReason::kCancelled);
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
  EXPECT_THAT(seen_.choices[0].chunks, ElementsAre("abc", "sad", "ef"));
  EXPECT_EQ(seen_.choices[0].finish, Outcome::kStop);
  EXPECT_EQ(seen_.choices[0].stop_string, "st");
  EXPECT_EQ(seen_.choices[0].tokens.size(), 8u);
}

TEST_F(GenerationTest, EachTokenIsAChunkAndTheLastHasTheReason) {
  Build();
  auto generation = Start(Params());
  EXPECT_EQ(context_.active_generations(), 1);
  PushText(stream(), "abc");
  PushToken(stream(), model_.end_token(), true);
  EndStream(stream(), FinishReason::kStop, {}, 3, 2);
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
  EXPECT_TRUE(generation->status().ok());
  EXPECT_THAT(seen_.choices[0].chunks, ElementsAre("a", "b", "c"));
  EXPECT_EQ(seen_.choices[0].finish, Outcome::kStop);
  EXPECT_FALSE(seen_.choices[0].stop_token.has_value());
  EXPECT_THAT(seen_.choices[0].tokens, ElementsAre('a', 'b', 'c'));
  EXPECT_EQ(generation->usage().prompt_tokens, 3u);  // <|begin|>, h, i
  EXPECT_EQ(generation->usage().cached_tokens, 2u);
  EXPECT_EQ(generation->usage().completion_tokens, 4u);
  generation.reset();
  EXPECT_EQ(context_.active_generations(), 0);
  ASSERT_EQ(probe_.records().size(), 1u);
  EXPECT_EQ(probe_.records()[0].outcome, Outcome::kStop);
}

TEST_F(GenerationTest, CodePointsComeWholeAndAreFlushedAtTheEnd) {
  Build();
  auto generation = Start(Params());
  PushText(stream(), "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xe2\x82");
  EndStream(stream(), FinishReason::kLength);
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
  EXPECT_THAT(seen_.choices[0].chunks,
              ElementsAre("\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xef\xbf\xbd"));
  EXPECT_EQ(seen_.choices[0].finish, Outcome::kLength);
  EXPECT_EQ(seen_.choices[0].tokens.size(), 11u);
}

TEST_F(GenerationTest, StopStringsAreFoundHoweverTokensCutThem) {
  // Every way to cut this text into tokens, with and without the stop string in the output.
  const std::string text = "a\xc3\xa9<<end>>z";
  const std::string kept = "a\xc3\xa9<";
  std::map<std::string, TokenId> tokens;
  for (size_t begin = 0; begin < text.size(); ++begin) {
    tokens[text.substr(begin, 1)] = static_cast<unsigned char>(text[begin]);
    for (size_t end = begin + 2; end <= text.size(); ++end) {
      const std::string part = text.substr(begin, end - begin);
      if (!tokens.contains(part)) tokens[part] = model_.Add(part);
    }
  }
  Build();
  size_t request = 0;
  for (uint32_t cuts = 0; cuts < (1u << (text.size() - 1)); cuts += 3) {
    for (const bool include : {false, true}) {
      GenerateParams params = Params();
      params.stop = {"nothing", "<end>"};
      params.include_stop_str_in_output = include;
      auto generation = Start(std::move(params));
      scheduler::TokenStream& ring = stream(request++);
      size_t begin = 0;
      for (size_t end = 1; end <= text.size(); ++end) {
        if (end < text.size() && (cuts >> (end - 1) & 1) == 0) continue;
        PushToken(ring, tokens.at(text.substr(begin, end - begin)));
        begin = end;
      }
      seen_ = Recorder();
      PullAll(*generation);
      const Seen& seen = seen_.choices[0];
      ASSERT_EQ(seen.text(), include ? kept + "<end>" : kept) << cuts;
      ASSERT_EQ(seen.finish, Outcome::kStop);
      ASSERT_EQ(seen.stop_string, "<end>");
      ASSERT_TRUE(ring.cancelled());
      EndStream(ring, FinishReason::kCancelled);
      ASSERT_EQ(PullAll(*generation), Generation::Progress::kDone);
      ASSERT_TRUE(generation->status().ok());
    }
  }
}

TEST_F(GenerationTest, OnlyALivePartialMatchIsHeldBack) {
  Build();
  GenerateParams params = Params();
  params.stop = {"abcd"};
  auto generation = Start(std::move(params));
  PushText(stream(), "xab");
  PullAll(*generation);
  EXPECT_EQ(seen_.choices[0].text(), "x");
  PushText(stream(), "ab");
  PullAll(*generation);
  EXPECT_EQ(seen_.choices[0].text(), "xab");
  PushText(stream(), "c");
  EndStream(stream(), FinishReason::kLength);
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
  EXPECT_EQ(seen_.choices[0].text(), "xababc");
  EXPECT_EQ(seen_.choices[0].finish, Outcome::kLength);
  EXPECT_EQ(seen_.choices[0].tokens.size(), 6u);
}

TEST_F(GenerationTest, StopStringsWaitForMinTokens) {
  Build();
  GenerateParams params = Params();
  params.stop = {"b"};
  params.min_tokens = 3;
  auto generation = Start(std::move(params));
  PushText(stream(), "abcb");
  PullAll(*generation);
  EXPECT_EQ(seen_.choices[0].text(), "abc");
  EXPECT_EQ(seen_.choices[0].finish, Outcome::kStop);
}

TEST_F(GenerationTest, AStopTokenOfTheClientIsNamedAndItsTextComesOnRequest) {
  Build();
  for (const bool include : {false, true}) {
    GenerateParams params = Params();
    params.stop_token_ids = {'!'};
    params.include_stop_str_in_output = include;
    auto generation = Start(std::move(params));
    scheduler::TokenStream& ring = stream(include ? 1 : 0);
    PushText(ring, "a");
    PushToken(ring, '!', true);
    EndStream(ring, FinishReason::kStop);
    seen_ = Recorder();
    EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
    EXPECT_EQ(seen_.choices[0].text(), include ? "a!" : "a");
    EXPECT_EQ(seen_.choices[0].stop_token, TokenId{'!'});
  }
}

TEST_F(GenerationTest, LogprobsStayWithTheTextAndThoseOfACutStopStringGo) {
  Build();
  GenerateParams params = Params();
  params.stop = {"cd"};
  params.logprobs = 0;
  auto generation = Start(std::move(params));
  float logprob = -1;
  for (const char c : std::string("a\xc3\xa9"
                                  "bcd")) {
    auto logprobs = std::make_unique<scheduler::TokenLogprobs>();
    logprobs->logprob = logprob;
    logprob -= 1;
    PushToken(stream(), static_cast<unsigned char>(c), false, std::move(logprobs));
  }
  PullAll(*generation);
  EXPECT_EQ(seen_.choices[0].text(),
            "a\xc3\xa9"
            "b");
  EXPECT_THAT(seen_.choices[0].tokens, ElementsAre('a', 0xc3, 0xa9, 'b'));
  EXPECT_THAT(seen_.choices[0].logprobs, ElementsAre(-1, -2, -3, -4));
  EXPECT_THAT(seen_.choices[0].offsets, ElementsAre(0, 1, 1, 2));
  EXPECT_EQ(generation->usage().completion_tokens, 6u);
}

TEST_F(GenerationTest, EchoComesFirstInEveryChoiceWithThePromptsLogprobs) {
  Build();
  GenerateParams params = Params("hi");
  params.echo = true;
  params.logprobs = 0;
  params.n = 2;
  auto generation = Start(std::move(params));
  EXPECT_EQ(model_.sink().request(0).sampling.prompt_logprobs, 0u);
  // The second choice may not begin before the prompt's log-probabilities are there.
  PushText(stream(0, 1), "y");
  PullAll(*generation);
  EXPECT_FALSE(seen_.choices[1].finish.has_value());
  EXPECT_EQ(seen_.choices[1].prompt, "");
  EXPECT_TRUE(generation->Arm()) << "what waits for the prompt is nothing to do";
  for (const TokenId token : {model_.begin_token(), TokenId{'h'}, TokenId{'i'}}) {
    scheduler::TokenEvent event;
    event.kind = scheduler::TokenEvent::Kind::kPromptToken;
    event.token = token;
    if (token != model_.begin_token()) {
      event.logprobs = std::make_unique<scheduler::TokenLogprobs>();
      event.logprobs->logprob = -0.5f;
    }
    stream(0, 0).Push(std::move(event));
  }
  PushText(stream(0, 0), "x");
  EndStream(stream(0, 0), FinishReason::kLength);
  EndStream(stream(0, 1), FinishReason::kLength);
  PullAll(*generation);
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
  for (int c = 0; c < 2; ++c) {
    EXPECT_EQ(seen_.choices[c].prompt, "hi");
    EXPECT_EQ(seen_.choices[c].text(), c == 0 ? "x" : "y");
    EXPECT_THAT(seen_.choices[c].offsets, ElementsAre(0, 0, 1, 2));
    EXPECT_EQ(seen_.choices[c].logprobs.size(), 2u);
  }
  EXPECT_EQ(seen_.prompt_logprobs[0], 3u);
}

TEST_F(GenerationTest, AFailureIsTheStatusAndCancelsTheOtherChoices) {
  Build();
  GenerateParams params = Params();
  params.n = 2;
  auto generation = Start(std::move(params));
  PushText(stream(0, 0), "a");
  EndStream(stream(0, 0), FinishReason::kError, InternalError("the card is on fire"));
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
  EXPECT_EQ(generation->status(), InternalError("the card is on fire"));
  EXPECT_TRUE(stream(0, 1).cancelled());
  EXPECT_THAT(probe_.choices(), ElementsAre(Outcome::kError, Outcome::kError));
}

TEST_F(GenerationTest, DeadlinesPassThroughAndAreReported) {
  Build();
  GenerateParams params = Params();
  params.arrival_ns = 1000;
  params.timeout_ms = 2;
  auto generation = Start(std::move(params));
  EXPECT_EQ(model_.sink().request(0).deadline_ns, 2'001'000);
  EndStream(stream(), FinishReason::kDeadline, DeadlineExceededError("2 ms have passed"));
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
  EXPECT_EQ(generation->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(probe_.choices(), ElementsAre(Outcome::kDeadline));
}

TEST_F(GenerationTest, DroppingItCancelsAndCountsAnAbort) {
  Build();
  auto generation = Start(Params());
  // The request that the sink keeps holds the ring.
  generation.reset();
  EXPECT_TRUE(stream().cancelled());
  EXPECT_THAT(probe_.choices(), ElementsAre(Outcome::kAbort));
  EXPECT_EQ(probe_.records().at(0).outcome, Outcome::kAbort);
  PushText(stream(), "late");
  EXPECT_EQ(wakes_, 0);
}

TEST_F(GenerationTest, OneWakeForEachArm) {
  Build();
  GenerateParams params = Params();
  params.n = 3;
  auto generation = Start(std::move(params));
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kIdle);
  PushText(stream(0, 0), "a");
  EXPECT_EQ(wakes_, 0);
  EXPECT_FALSE(generation->Arm());
  PullAll(*generation);
  EXPECT_TRUE(generation->Arm());
  PushText(stream(0, 1), "b");
  PushText(stream(0, 2), "c");
  EXPECT_EQ(wakes_, 1);
}

TEST_F(GenerationTest, PullTakesNoMoreThanItIsAskedFor) {
  Build();
  auto generation = Start(Params());
  PushText(stream(), "abcdef");
  EXPECT_EQ(generation->Pull(seen_, 2), Generation::Progress::kMore);
  EXPECT_EQ(seen_.choices[0].text(), "ab");
  EXPECT_EQ(stream().capacity() - stream().FreeSlots(), 4u);
}

TEST_F(GenerationTest, RefusedWhileLoadingDrainingOrFull) {
  entry_ = model_.Build();
  const auto start = [&] {
    auto valid = Validate(Params(), entry_);
    return Generation::Start(*std::move(valid), context_, "http", [] {}).status().code();
  };
  EXPECT_EQ(start(), absl::StatusCode::kUnavailable);
  context_.SetReady();
  EXPECT_EQ(start(), absl::StatusCode::kOk);
  model_.sink().Refuse(ResourceExhaustedError("the queue is full"));
  EXPECT_EQ(start(), absl::StatusCode::kResourceExhausted);
  context_.BeginDrain();
  EXPECT_EQ(start(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(context_.active_generations(), 0);
}

TEST_F(GenerationTest, AsksForRoomForAllPromptsAtOnce) {
  Build();
  GenerateParams params = Params();
  params.n = 2;
  params.prompts.emplace_back("b");
  params.prompts.emplace_back("c");
  const auto generation = Start(std::move(params));
  const ScriptedSink& sink = model_.sink();
  ASSERT_EQ(sink.size(), 3u);
  EXPECT_EQ(sink.request(0).more_sequences, 4u);
  EXPECT_FALSE(sink.request(0).admitted);
  for (size_t i : {1, 2}) {
    EXPECT_EQ(sink.request(i).more_sequences, 0u);
    EXPECT_TRUE(sink.request(i).admitted);
  }
}

TEST_F(GenerationTest, AScoredPromptHasNoCompletionTokens) {
  Build();
  GenerateParams params = Params();
  params.echo = true;
  params.max_tokens = 0;
  auto generation = Start(std::move(params));
  EXPECT_EQ(model_.sink().request(0).max_tokens, 1u);
  PushText(stream(), "x");
  EndStream(stream(), FinishReason::kLength);
  EXPECT_EQ(PullAll(*generation), Generation::Progress::kDone);
  EXPECT_EQ(seen_.choices[0].prompt, "hi");
  EXPECT_EQ(seen_.choices[0].text(), "");
  EXPECT_EQ(seen_.choices[0].finish, Outcome::kLength);
  EXPECT_EQ(generation->usage().completion_tokens, 0u);
}

}  // namespace
}  // namespace reticle::server
