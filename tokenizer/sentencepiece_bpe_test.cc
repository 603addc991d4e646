#include "tokenizer/sentencepiece_bpe.h"

#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/testing.h"
#include "tokenizer/unicode.h"

namespace reticle::tokenizer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr EncodeOptions kPlain = {.add_special = false};
constexpr std::string_view kSpace = "\xE2\x96\x81";

// Learning takes a while, so it is done once; the copies' views point into the first.
TestVocabulary MakeVocabulary() {
  static const auto& learnt = *new TestVocabulary(TestVocabulary::SentencePiece(Corpus(), 300));
  return learnt;
}

// As SentencePiece gives texts back: U+2581 is a space to it.
std::string WithSpaces(std::string text) {
  for (size_t at; (at = text.find(kSpace)) != std::string::npos;) text.replace(at, 3, " ");
  return text;
}

std::string Escaped(std::string_view text) {
  std::string result;
  for (char c : text) {
    if (c == ' ') {
      result += kSpace;
    } else {
      result += c;
    }
  }
  return result;
}

// Joins the best-scored adjacent pair whose text is a token, the leftmost among equals, again and
// again; characters that are no token become their bytes.
std::vector<TokenId> EncodeNaively(const TestVocabulary& vocabulary, std::string_view text) {
  if (text.empty()) return {};
  std::map<std::string, TokenId, std::less<>> ids;
  const Vocabulary& v = vocabulary.v;
  for (TokenId i = 0; i < v.tokens.size(); ++i) {
    if (v.token_type[i] == static_cast<int>(TokenType::kNormal)) ids.emplace(v.tokens[i], i);
  }
  const std::string escaped = Escaped(" " + std::string(text));
  std::vector<std::string> symbols;
  for (const char* p = escaped.data(); p < escaped.data() + escaped.size();) {
    const Utf8Char c = DecodeUtf8(p, escaped.data() + escaped.size());
    symbols.emplace_back(p, c.size);
    p += c.size;
  }
  for (;;) {
    size_t best = symbols.size();
    float best_score = -std::numeric_limits<float>::infinity();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = ids.find(symbols[i] + symbols[i + 1]);
      if (it != ids.end() && v.scores[it->second] > best_score) {
        best = i;
        best_score = v.scores[it->second];
      }
    }
    if (best == symbols.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
  std::vector<TokenId> tokens;
  for (const std::string& symbol : symbols) {
    const auto it = ids.find(symbol);
    if (it != ids.end()) {
      tokens.push_back(it->second);
    } else {
      for (char c : symbol) tokens.push_back(3 + static_cast<uint8_t>(c));
    }
  }
  return tokens;
}

void ExpectLikeNaive(const TestVocabulary& vocabulary, uint32_t seed) {
  std::mt19937 random(seed);
  const auto tokenizer = vocabulary.Build();
  for (std::string_view sentence : Sentences()) {
    ASSERT_EQ(tokenizer->Encode(sentence, kPlain), EncodeNaively(vocabulary, sentence));
  }
  for (int i = 0; i < 150; ++i) {
    std::string text = RandomText(random, random() % 12);
    for (size_t n = random() % 60; n > 0; --n) text += "et an"[random() % 5];
    for (size_t n = random() % 80; n > 0; --n) text += "et "[random() % 3];
    text += RandomText(random, random() % 12);
    ASSERT_EQ(tokenizer->Encode(text, kPlain), EncodeNaively(vocabulary, text)) << text;
  }
}

TEST(SentencePieceBpeTest, MergesLikeTheNaiveAlgorithm) { ExpectLikeNaive(MakeVocabulary(), 1); }

TEST(SentencePieceBpeTest, TakesTheLeftmostOfEqualScores) {
  TestVocabulary vocabulary = MakeVocabulary();
  for (float& score : vocabulary.v.scores) score = std::floor(score / 50);
  ExpectLikeNaive(vocabulary, 2);
}

TEST(SentencePieceBpeTest, MergesAcrossWordsWhereTokensDo) {
  TestVocabulary vocabulary = MakeVocabulary();
  for (const char* token : {"e t", "te ", " t", "et t", "t ", "  ", "    ", "e  "}) {
    const auto& tokens = vocabulary.v.tokens;
    const std::string escaped = Escaped(token);
    if (std::count(tokens.begin(), tokens.end(), std::string_view(escaped)) == 0) {
      vocabulary.Add(escaped, TokenType::kNormal, 1);
    }
  }
  ExpectLikeNaive(vocabulary, 3);
}

TEST(SentencePieceBpeTest, MergesCharactersThatAreNoTokensThemselves) {
  TestVocabulary vocabulary = TestVocabulary::SentencePiece("ab", 0);
  const TokenId pair = vocabulary.Add("\xC3\xA9\xC3\xA8", TokenType::kNormal, -1);
  const TokenId triple = vocabulary.Add("a\xC3\xA9\xC3\xA8", TokenType::kNormal, -2);
  const auto tokenizer = vocabulary.Build();
  EXPECT_THAT(tokenizer->Encode("\xC3\xA9\xC3\xA8", kPlain), ElementsAre(3 + ' ', pair));
  EXPECT_THAT(tokenizer->Encode("a\xC3\xA9\xC3\xA8", kPlain), ElementsAre(3 + ' ', triple));
  EXPECT_THAT(tokenizer->Encode("a\xC3\xA9", kPlain),
              ElementsAre(3 + ' ', vocabulary.Id("a"), 3 + 0xC3, 3 + 0xA9));
}

TEST(SentencePieceBpeTest, TakesUnusedTokensApart) {
  TestVocabulary vocabulary = TestVocabulary::SentencePiece("abcd", 0);
  vocabulary.Add("ab", TokenType::kUnused, 3);
  const TokenId cd = vocabulary.Add("cd", TokenType::kNormal, 2);
  vocabulary.Add("abcd", TokenType::kUnused, 1);
  const TokenId whole = vocabulary.Add("abcda", TokenType::kNormal, 0);
  const auto tokenizer = vocabulary.Build();
  EXPECT_THAT(tokenizer->Encode("abcd", kPlain),
              ElementsAre(3 + ' ', vocabulary.Id("a"), vocabulary.Id("b"), cd));
  EXPECT_THAT(tokenizer->Encode("abcda", kPlain), ElementsAre(3 + ' ', whole));
}

TEST(SentencePieceBpeTest, ComesBackExactly) {
  std::mt19937 random(4);
  TestVocabulary vocabulary = MakeVocabulary();
  vocabulary.Add("<tool>", TokenType::kUserDefined);
  vocabulary.Add("  ", TokenType::kUserDefined);
  for (bool prefix : {true, false}) {
    vocabulary.v.add_space_prefix = prefix;
    const auto tokenizer = vocabulary.Build();
    EXPECT_EQ(tokenizer->adds_space_prefix(), prefix);
    const auto expect_round_trip = [&](const std::string& original) {
      const std::string text = WithSpaces(original);
      for (bool special : {false, true}) {
        const std::vector<TokenId> tokens = tokenizer->Encode(original, {.parse_special = special});
        ASSERT_EQ(tokenizer->Decode(std::span(tokens).subspan(1), false), text);
      }
      ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text), true), text);
    };
    for (const char* text :
         {"", " ", "  ", "   ", "a", " a", "<tool>", "<tool> a", "a<tool>b", "  <tool>  a", "</s>a",
          "a</s> b</s>  c", "\n", "\xE2\x96\x81", "a\xE2\x96\x81\xE2\x96\x81z"}) {
      expect_round_trip(text);
    }
    expect_round_trip(Corpus());
    for (int i = 0; i < 500; ++i) expect_round_trip(RandomBytes(random, random() % 200));
    for (int i = 0; i < 500; ++i) expect_round_trip(RandomText(random, random() % 100));
  }
}

TEST(SentencePieceBpeTest, PutsASpaceInFrontOfTextAndBehindAddedTokens) {
  TestVocabulary vocabulary = TestVocabulary::SentencePiece("ab ", 0);
  const TokenId word = vocabulary.Add(std::string(kSpace) + "a", TokenType::kNormal, 0);
  const auto tokenizer = vocabulary.Build();
  EXPECT_THAT(tokenizer->Encode("a"), ElementsAre(1, word));
  EXPECT_THAT(tokenizer->Encode("a</s>a", {.add_special = false, .parse_special = true}),
              ElementsAre(word, 2, word));
  EXPECT_THAT(tokenizer->Encode(""), ElementsAre(1));
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{1, word, word}, true), "a a");
  EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{1, word, 2, word}, false), "<s>a</s>a");
  EXPECT_EQ(tokenizer->TokenBytes(word), " a");
  EXPECT_EQ(tokenizer->TokenText(1), "<s>");
  EXPECT_EQ(tokenizer->TokenBytes(1), "");
  EXPECT_EQ(tokenizer->TokenBytes(3 + 'x'), "x");
}

TEST(SentencePieceBpeTest, NeverMakesControlTokensOfPlainText) {
  TestVocabulary vocabulary = MakeVocabulary();
  for (const char* token : {"<s", "s>", "</s", "/s>", "unk", "<unk"}) {
    vocabulary.Add(token, TokenType::kNormal, 5);
  }
  const auto tokenizer = vocabulary.Build();
  for (TokenId token : tokenizer->Encode("<s></s><unk><0x0A> <s>", kPlain)) {
    EXPECT_FALSE(tokenizer->IsControl(token));
  }
}

TEST(SentencePieceBpeTest, FillsInWhatOlderFilesLeaveOut) {
  TestVocabulary vocabulary = MakeVocabulary();
  const std::vector<TokenId> expected = vocabulary.Build()->Encode(Corpus());
  vocabulary.v.token_type.clear();
  vocabulary.v.bos_token_id.reset();
  vocabulary.v.eos_token_id.reset();
  const auto tokenizer = vocabulary.Build();
  EXPECT_EQ(tokenizer->Encode(Corpus()), expected);
  EXPECT_EQ(tokenizer->bos(), 1u);
  EXPECT_EQ(tokenizer->eos(), 2u);
  EXPECT_THAT(tokenizer->end_of_generation(), ElementsAre(2));
  EXPECT_TRUE(tokenizer->IsControl(0));
}

TEST(SentencePieceBpeTest, DoesLinearWorkOnAnyText) {
  TestVocabulary vocabulary = MakeVocabulary();
  for (const char* c : {"a", " ", "\xE4\xB8\xAD"}) {
    std::string run = c;
    for (int i = 0; i < 5; ++i) {
      run += run;
      const auto& tokens = vocabulary.v.tokens;
      const std::string escaped = Escaped(run);
      if (std::count(tokens.begin(), tokens.end(), std::string_view(escaped)) == 0) {
        vocabulary.Add(escaped, TokenType::kNormal, -1e9);
      }
    }
  }
  const auto tokenizer = vocabulary.Build();
  const auto* counted = dynamic_cast<const VocabularyTokenizer*>(tokenizer.get());
  std::mt19937 random(5);
  constexpr size_t kSize = 1 << 18;
  std::vector<std::string> texts = {RandomBytes(random, kSize), RandomText(random, kSize / 2)};
  for (std::string_view part : {"a", " ", "1", "\n", "!", "\xF0\x9F\x98\x80", "\xE4\xB8\xAD", "ab ",
                                "</s", "</s>", "\xFF"}) {
    std::string& text = texts.emplace_back();
    while (text.size() < kSize) text += part;
  }
  for (const std::string& text : texts) {
    std::vector<TokenId> tokens;
    const uint64_t work = counted->EncodeCounted(text, {.parse_special = true}, tokens);
    EXPECT_GE(work, text.size());
    EXPECT_LE(work, 12 * text.size()) << text.substr(0, 16);
    EXPECT_EQ(tokenizer->Decode(std::span(tokens).subspan(1), false), WithSpaces(text));
  }
}

TEST(SentencePieceBpeTest, RefusesMetadataThatDoNotFit) {
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
  expect_error([](V& t) { t.v.scores.clear(); }, kInvalid, "scores is absent");
  expect_error([](V& t) { t.v.scores.pop_back(); }, kInvalid, "scores has");
  expect_error([](V& t) { t.v.scores[400] = NAN; }, kInvalid, "scores[400]");
  expect_error([](V& t) { t.v.tokens[3] = "<0x1>"; }, kInvalid, "tokens[3]");
  expect_error([](V& t) { t.v.tokens[3] = "<0xgg>"; }, kInvalid, "tokens[3]");
  expect_error([](V& t) { t.v.token_type[4] = 1; }, kInvalid, "byte token <0x01>");
  expect_error([](V& t) { t.v.tokens[300] = t.v.tokens[301]; }, kInvalid, "[300] and [301]");
  expect_error([](V& t) { t.Add(std::string(600, 'x'), TokenType::kNormal); }, kInvalid,
               "has 600 bytes; the limit is 512");
  expect_error([](V& t) { t.v.bos_token_id = t.v.tokens.size(); }, kInvalid, "bos_token_id");
  expect_error([](V& t) { t.v.remove_extra_whitespaces = true; }, absl::StatusCode::kUnimplemented,
               "remove_extra_whitespaces");
  expect_error(
      [](V& t) {
        t.v.tokens.resize(2);
        t.v.token_type.clear();
        t.v.scores.resize(2);
      },
      kInvalid, "");
}

}  // namespace
}  // namespace reticle::tokenizer
