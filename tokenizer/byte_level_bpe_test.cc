#include "tokenizer/byte_level_bpe.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/testing.h"

namespace reticle::tokenizer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr EncodeOptions kPlain = {.add_special = false};

// Learning takes a while, so each vocabulary is learnt once; the copies' views point into it.
TestVocabulary MakeVocabulary(std::string_view pre = "gpt-2") {
  static std::map<std::string, TestVocabulary, std::less<>> learnt;
  auto it = learnt.find(pre);
  if (it == learnt.end()) {
    it = learnt.emplace(pre, TestVocabulary::ByteLevel(pre, Corpus(), 300)).first;
  }
  return it->second;
}

// Merges by searching the whole piece for its best pair, again and again.
std::vector<TokenId> EncodeNaively(const TestVocabulary& vocabulary, std::string_view text) {
  std::map<std::string, size_t> rank;
  for (std::string_view merge : vocabulary.v.merges) rank.emplace(merge, rank.size());
  const PreTokenizerScheme scheme = *FindPreTokenizer(vocabulary.v.pre);
  std::vector<TokenId> tokens;
  PreTokens pieces(scheme.kind, text);
  for (std::string_view piece; pieces.Next(piece);) {
    const std::string mapped = MapBytes(piece);
    if (scheme.ignore_merges && std::count(vocabulary.v.tokens.begin(), vocabulary.v.tokens.end(),
                                           std::string_view(mapped))) {
      tokens.push_back(vocabulary.Id(mapped));
      continue;
    }
    std::vector<std::string> symbols;
    for (const char& c : piece) symbols.push_back(MapBytes({&c, 1}));
    for (;;) {
      size_t best = symbols.size();
      size_t best_rank = rank.size();
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto it = rank.find(symbols[i] + " " + symbols[i + 1]);
        if (it != rank.end() && it->second < best_rank) {
          best = i;
          best_rank = it->second;
        }
      }
      if (best == symbols.size()) break;
      symbols[best] += symbols[best + 1];
      symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    }
    for (const std::string& symbol : symbols) tokens.push_back(vocabulary.Id(symbol));
  }
  return tokens;
}

TEST(ByteLevelBpeTest, MergesLikeTheNaiveAlgorithm) {
  std::mt19937 random(1);
  for (const char* pre : {"gpt-2", "llama-bpe", "qwen2", "smollm", ""}) {
    const TestVocabulary vocabulary = MakeVocabulary(pre);
    const auto tokenizer = vocabulary.Build();
    for (std::string_view sentence : Sentences()) {
      ASSERT_EQ(tokenizer->Encode(sentence, kPlain), EncodeNaively(vocabulary, sentence));
    }
    for (int i = 0; i < 60; ++i) {
      std::string text = RandomText(random, 10);
      for (size_t n = random() % 70; n > 0; --n) text += "et an"[random() % 5];
      for (size_t n = random() % 90; n > 0; --n) text += "eth"[random() % 3];
      text += RandomBytes(random, 10);
      ASSERT_EQ(tokenizer->Encode(text, kPlain), EncodeNaively(vocabulary, text)) << text;
    }
  }
}

TEST(ByteLevelBpeTest, ComesBackExactly) {
  std::mt19937 random(2);
  const auto tokenizer = MakeVocabulary("llama-bpe").Build();
  const auto expect_round_trip = [&](std::string_view text) {
    const std::vector<TokenId> tokens = tokenizer->Encode(text, kPlain);
    ASSERT_EQ(tokenizer->Decode(tokens, true), text);
    ASSERT_EQ(tokenizer->Decode(tokens, false), text);
  };
  expect_round_trip("");
  expect_round_trip(Corpus());
  for (std::string_view sentence : Sentences()) expect_round_trip(sentence);
  for (int i = 0; i < 500; ++i) expect_round_trip(RandomBytes(random, random() % 200));
  for (int i = 0; i < 500; ++i) expect_round_trip(RandomText(random, random() % 100));
  expect_round_trip(RandomBytes(random, 200000));
}

TEST(ByteLevelBpeTest, EncodesFromManyThreads) {
  const auto tokenizer = MakeVocabulary("qwen2").Build();
  const std::vector<TokenId> expected = MakeVocabulary("qwen2").Build()->Encode(Corpus());
  std::vector<std::vector<TokenId>> results(4);
  std::vector<std::thread> threads;
  for (std::vector<TokenId>& result : results) {
    threads.emplace_back([&] { result = tokenizer->Encode(Corpus()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<TokenId>& result : results) EXPECT_EQ(result, expected);
}

// A vocabulary where merges alone never make the token "abc".
TestVocabulary MakeUnreachable(std::string_view pre) {
  TestVocabulary vocabulary = TestVocabulary::ByteLevel(pre, "", 0);
  for (const char* token : {"bc", "ab", "abc"}) vocabulary.Add(token, TokenType::kNormal);
  vocabulary.AddMerge("b", "c");
  vocabulary.AddMerge("a", "b");
  vocabulary.AddMerge("ab", "c");
  return vocabulary;
}

TEST(ByteLevelBpeTest, TakesWholePiecesDirectlyOnlyWhereTheModelDoes) {
  const TestVocabulary with = MakeUnreachable("llama-bpe");
  EXPECT_THAT(with.Build()->Encode("abc", kPlain), ElementsAre(with.Id("abc")));
  EXPECT_THAT(with.Build()->Encode("abcc", kPlain),
              ElementsAre(with.Id("a"), with.Id("bc"), with.Id("c")));
  const TestVocabulary without = MakeUnreachable("qwen2");
  const auto tokenizer = without.Build();
  for (int repeat = 0; repeat < 2; ++repeat) {
    EXPECT_THAT(tokenizer->Encode("abc", kPlain), ElementsAre(without.Id("a"), without.Id("bc")));
    EXPECT_THAT(tokenizer->Encode("bc", kPlain), ElementsAre(without.Id("bc")));
  }
}

TEST(ByteLevelBpeTest, NeverMakesControlTokensOfPlainText) {
  TestVocabulary vocabulary = MakeVocabulary("llama-bpe");
  const TokenId word = vocabulary.Add("assistant", TokenType::kControl);
  const TokenId begin = vocabulary.Id("<|begin|>");
  const auto tokenizer = vocabulary.Build();
  const std::string text = "<|begin|> assistant assistant<|begin|";
  const std::vector<TokenId> plain = tokenizer->Encode(text, kPlain);
  for (TokenId token : plain) EXPECT_FALSE(tokenizer->IsControl(token));
  EXPECT_EQ(tokenizer->Decode(plain, true), text);

  const std::vector<TokenId> parsed =
      tokenizer->Encode(text, {.add_special = false, .parse_special = true});
  EXPECT_EQ(parsed[0], begin);
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), begin), 1);
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), word), 2);
  EXPECT_EQ(tokenizer->Decode(parsed, false), text);
  EXPECT_EQ(tokenizer->Decode(parsed, true), "  <|begin|");
}

TEST(ByteLevelBpeTest, AlwaysMatchesUserDefinedTokensAndTheLongest) {
  TestVocabulary vocabulary = MakeVocabulary("llama-bpe");
  const TokenId call = vocabulary.Add("<tool>", TokenType::kUserDefined);
  const TokenId calls = vocabulary.Add("<tool>s", TokenType::kUserDefined);
  const auto tokenizer = vocabulary.Build();
  EXPECT_THAT(tokenizer->Encode("<tool><tool>s", kPlain), ElementsAre(call, calls));
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{call, calls}, true), "<tool><tool>s");
  EXPECT_FALSE(tokenizer->IsControl(call));
  EXPECT_TRUE(tokenizer->IsAdded(call));
}

TEST(ByteLevelBpeTest, AddsBeginAndEndAsTheMetadataSay) {
  TestVocabulary vocabulary = MakeVocabulary("gpt-2");
  const TokenId begin = vocabulary.Id("<|begin|>");
  const TokenId end = vocabulary.Id("<|end|>");
  const TokenId a = vocabulary.Id("a");
  EXPECT_THAT(vocabulary.Build()->Encode("a"), ElementsAre(a));
  vocabulary.v.pre = "llama-bpe";
  EXPECT_THAT(vocabulary.Build()->Encode("a"), ElementsAre(begin, a));
  vocabulary.v.add_bos_token = false;
  vocabulary.v.add_eos_token = true;
  EXPECT_THAT(vocabulary.Build()->Encode("a"), ElementsAre(a, end));
  EXPECT_THAT(vocabulary.Build()->Encode("a", kPlain), ElementsAre(a));
  EXPECT_THAT(vocabulary.Build()->Encode(""), ElementsAre(end));
}

TEST(ByteLevelBpeTest, KnowsWhatEndsAGeneration) {
  TestVocabulary vocabulary = MakeVocabulary();
  vocabulary.v.eos_token_id = vocabulary.Id("a");
  vocabulary.v.eot_token_id = vocabulary.Id("b");
  const TokenId turn = vocabulary.Add("<|eot_id|>", TokenType::kControl);
  const TokenId text = vocabulary.Add("<|im_end|>", TokenType::kUserDefined);
  const auto tokenizer = vocabulary.Build();
  EXPECT_THAT(tokenizer->end_of_generation(),
              ElementsAre(vocabulary.Id("a"), vocabulary.Id("b"), vocabulary.Id("<|end|>"), turn));
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(turn));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(text));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(4000000000u));
}

TEST(ByteLevelBpeTest, AnswersForIdsOutsideTheVocabulary) {
  const auto tokenizer = MakeVocabulary().Build();
  for (TokenId token : {tokenizer->vocab_size(), UINT32_MAX}) {
    EXPECT_EQ(tokenizer->TokenBytes(token), "");
    EXPECT_EQ(tokenizer->TokenText(token), "");
    EXPECT_FALSE(tokenizer->IsControl(token));
    EXPECT_FALSE(tokenizer->IsAdded(token));
  }
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{UINT32_MAX, 'a'}, true), "a");
}

TEST(ByteLevelBpeTest, FindsTokensByText) {
  const TestVocabulary vocabulary = MakeVocabulary();
  const auto tokenizer = vocabulary.Build();
  EXPECT_EQ(tokenizer->FindToken("<|end|>"), vocabulary.Id("<|end|>"));
  EXPECT_EQ(tokenizer->FindToken(" "), vocabulary.Id("\xC4\xA0"));
  EXPECT_EQ(tokenizer->FindToken("no such token"), std::nullopt);
  for (TokenId token = 0; token < tokenizer->vocab_size(); ++token) {
    EXPECT_EQ(tokenizer->FindToken(tokenizer->TokenText(token)), token);
  }
}

// Work per byte must not grow with the size: rule look-ups and queue operations are counted.
TEST(ByteLevelBpeTest, DoesLinearWorkOnAnyText) {
  TestVocabulary vocabulary = MakeVocabulary("llama-bpe");
  std::string run = "a";
  for (int i = 0; i < 6; ++i, run += run) {
    for (const char* c : {"a", "\xC4\xA0", "1"}) {
      std::string half;
      for (size_t n = 0; n < run.size(); ++n) half += c;
      const auto& tokens = vocabulary.v.tokens;
      if (std::count(tokens.begin(), tokens.end(), std::string_view(half + half)) == 0) {
        vocabulary.Add(half + half, TokenType::kNormal);
      }
      const std::string merge = half + " " + half;
      if (std::count(vocabulary.v.merges.begin(), vocabulary.v.merges.end(),
                     std::string_view(merge)) == 0) {
        vocabulary.AddMerge(half, half);
      }
    }
  }
  vocabulary.Add(" ", TokenType::kUserDefined);
  const auto tokenizer = vocabulary.Build();
  const auto* counted = dynamic_cast<const VocabularyTokenizer*>(tokenizer.get());
  std::mt19937 random(3);
  constexpr size_t kSize = 1 << 18;
  std::vector<std::string> texts = {RandomBytes(random, kSize), RandomText(random, kSize / 2)};
  for (std::string_view part : {"a", " ", "1", "\n", "!", "\xF0\x9F\x98\x80", "\xE4\xB8\xAD",
                                "<|begin|", "<|begin|>", "ab ", "\xFF", "'s"}) {
    std::string& text = texts.emplace_back();
    while (text.size() < kSize) text += part;
  }
  for (const std::string& text : texts) {
    std::vector<TokenId> tokens;
    const uint64_t work = counted->EncodeCounted(text, {.parse_special = true}, tokens);
    EXPECT_GE(work, text.size());
    EXPECT_LE(work, 12 * text.size()) << text.substr(0, 16);
    EXPECT_EQ(tokenizer->Decode(std::span(tokens).subspan(1), false), text);
  }
}

TEST(ByteLevelBpeTest, RefusesMetadataThatDoNotFit) {
  const auto expect_error = [](auto change, absl::StatusCode code, std::string_view message) {
    TestVocabulary vocabulary = MakeVocabulary();
    change(vocabulary);
    const auto tokenizer = Tokenizer::Create(vocabulary.v);
    ASSERT_FALSE(tokenizer.ok()) << message;
    EXPECT_EQ(tokenizer.status().code(), code);
    EXPECT_THAT(tokenizer.status().ToString(), HasSubstr(message));
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  using V = TestVocabulary;
  expect_error([](V& t) { t.v.model = "bert"; }, absl::StatusCode::kUnimplemented, "\"bert\"");
  expect_error([](V& t) { t.v.pre = "tekken"; }, absl::StatusCode::kUnimplemented, "\"tekken\"");
  expect_error([](V& t) { t.v.tokens.clear(); }, kInvalid, "tokens is empty");
  expect_error([](V& t) { t.v.token_type.pop_back(); }, kInvalid, "token_type has");
  expect_error([](V& t) { t.v.scores.resize(3); }, kInvalid, "scores has 3 elements");
  expect_error([](V& t) { t.v.token_type[7] = 0; }, kInvalid, "token_type[7] is 0");
  expect_error([](V& t) { t.v.token_type[7] = 7; }, kInvalid, "token_type[7] is 7");
  expect_error([](V& t) { t.v.tokens[300] = t.v.tokens[299]; }, kInvalid, "tokens[299] and [300]");
  expect_error([](V& t) { t.v.tokens['a'] = "@@"; }, kInvalid, "byte 0x61");
  expect_error([](V& t) { t.v.token_type['a'] = 3; }, kInvalid, "byte 0x61");
  expect_error([](V& t) { t.v.bos_token_id = 1000000; }, kInvalid, "bos_token_id is 1000000");
  expect_error([](V& t) { t.v.eos_token_id = ~0ull; }, kInvalid, "eos_token_id");
  expect_error([](V& t) { t.v.eot_token_id = t.v.tokens.size(); }, kInvalid, "eot_token_id");
  expect_error([](V& t) { t.v.eom_token_id = 1u << 31; }, kInvalid, "eom_token_id");
  expect_error([](V& t) { t.v.unknown_token_id = 1u << 31; }, kInvalid, "unknown_token_id");
  expect_error([](V& t) { t.v.merges[5] = "ab"; }, kInvalid, "merges[5]");
  expect_error([](V& t) { t.v.merges[5] = ""; }, kInvalid, "merges[5]");
  expect_error([](V& t) { t.v.merges[5] = " "; }, kInvalid, "merges[5]");
  expect_error([](V& t) { t.v.merges[5] = "a "; }, kInvalid, "merges[5]");
  expect_error([](V& t) { t.v.merges[5] = "zzzz a"; }, kInvalid, "its left part");
  expect_error([](V& t) { t.v.merges[5] = "a zzzz"; }, kInvalid, "its right part");
  expect_error([](V& t) { t.v.merges[5] = "q \xC3\xBF"; }, kInvalid, "what they make");
  expect_error([](V& t) { t.v.merges[5] = "\xFF \xFE"; }, kInvalid, "\\xff");
  expect_error([](V& t) { t.v.merges[5] = t.v.merges[4]; }, kInvalid, "is there twice");
  expect_error(
      [](V& t) {
        t.v.bos_token_id.reset();
        t.v.add_bos_token = true;
      },
      kInvalid, "bos_token_id is absent");
  expect_error(
      [](V& t) {
        t.v.eos_token_id.reset();
        t.v.add_eos_token = true;
      },
      kInvalid, "eos_token_id is absent");
}

TEST(ByteLevelBpeTest, AcceptsTokensThatAreEmptyOrNotMapped) {
  TestVocabulary vocabulary = MakeVocabulary();
  const TokenId first = vocabulary.Add("", TokenType::kUnused);
  const TokenId second = vocabulary.Add("", TokenType::kControl);
  const TokenId literal = vocabulary.Add("\xE2\x96\x81literal", TokenType::kNormal);
  const auto tokenizer = vocabulary.Build();
  EXPECT_EQ(tokenizer->TokenBytes(first), "");
  EXPECT_EQ(tokenizer->TokenText(second), "");
  EXPECT_EQ(tokenizer->TokenBytes(literal), "\xE2\x96\x81literal");
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(Corpus(), kPlain), true), Corpus());
}

}  // namespace
}  // namespace reticle::tokenizer
