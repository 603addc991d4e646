#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tokenizer/testing.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"
#include "unicode/utf8.h"

namespace reticle::tokenizer {
namespace {

// Ill-formed parts replaced as ICU finds them.
std::string Replaced(std::string_view bytes) {
  std::string result;
  for (int32_t i = 0; i < static_cast<int32_t>(bytes.size());) {
    const int32_t begin = i;
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(bytes.data()), i, static_cast<int32_t>(bytes.size()),
            c);
    if (c < 0) {
      result += "\xEF\xBF\xBD";
    } else {
      result += bytes.substr(static_cast<size_t>(begin), static_cast<size_t>(i - begin));
    }
  }
  return result;
}

// Streams `tokens`, checking after each that what is out is well-formed and what is held is short.
std::string Stream(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens,
                   bool skip_special) {
  StreamingDetokenizer detokenizer(tokenizer, skip_special, true);
  std::string out;
  for (TokenId token : tokens) {
    const size_t before = out.size();
    detokenizer.Append(token, out);
    EXPECT_EQ(Replaced(std::string_view(out).substr(before)), out.substr(before));
    EXPECT_LE(detokenizer.pending_bytes(), 3u);
  }
  detokenizer.Finish(out);
  EXPECT_EQ(detokenizer.pending_bytes(), 0u);
  return out;
}

TEST(StreamingDetokenizerTest, EqualsDecodeWithIllFormedPartsReplaced) {
  std::mt19937 random(1);
  TestVocabulary byte_level = TestVocabulary::ByteLevel("llama-bpe", Corpus(), 300);
  TestVocabulary sentence_piece = TestVocabulary::SentencePiece(Corpus(), 300);
  sentence_piece.Add("  x", TokenType::kUserDefined);
  for (const TestVocabulary* vocabulary : {&byte_level, &sentence_piece}) {
    const auto tokenizer = vocabulary->Build();
    for (int i = 0; i < 8000; ++i) {
      std::vector<TokenId> tokens(random() % 20);
      for (TokenId& token : tokens) {
        // Mostly bytes of multi-byte characters, so that real and broken ones both come up.
        token = random() % 2 ? 3 + 0x80 + random() % 128
                             : static_cast<TokenId>(random() % (tokenizer->vocab_size() + 2));
      }
      for (bool skip : {true, false}) {
        ASSERT_EQ(Stream(*tokenizer, tokens, skip), Replaced(tokenizer->Decode(tokens, skip)));
      }
    }
  }
}

TEST(StreamingDetokenizerTest, DoesNotDependOnHowBytesAreSpreadOverTokens) {
  std::mt19937 random(2);
  const TestVocabulary vocabulary = TestVocabulary::ByteLevel("gpt-2", Corpus(), 400);
  const auto tokenizer = vocabulary.Build();
  for (int i = 0; i < 1000; ++i) {
    std::string text = RandomText(random, 10);
    if (i % 2) text[random() % text.size()] = static_cast<char>(random());
    std::vector<TokenId> bytes;
    for (char c : text) bytes.push_back(*tokenizer->FindToken({&c, 1}));
    const std::vector<TokenId> merged = tokenizer->Encode(text, {.add_special = false});
    ASSERT_EQ(Stream(*tokenizer, bytes, true), Replaced(text));
    ASSERT_EQ(Stream(*tokenizer, merged, true), Replaced(text));
  }
}

TEST(StreamingDetokenizerTest, HoldsBackUnfinishedCharactersAndNothingElse) {
  const TestVocabulary vocabulary = TestVocabulary::ByteLevel("gpt-2", "", 0);
  const auto tokenizer = vocabulary.Build();
  StreamingDetokenizer detokenizer(*tokenizer);
  std::string out;
  const auto append = [&](uint8_t byte) {
    out.clear();
    detokenizer.Append(byte, out);
    return out;
  };
  EXPECT_EQ(append('a'), "a");
  EXPECT_EQ(append(0xF0), "");
  EXPECT_EQ(append(0x9F), "");
  EXPECT_EQ(append(0x98), "");
  EXPECT_EQ(detokenizer.pending_bytes(), 3u);
  EXPECT_EQ(append(0x80), "\xF0\x9F\x98\x80");
  EXPECT_EQ(append(0xE2), "");
  EXPECT_EQ(append('b'),
            "\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(append(0xE2), "");
  EXPECT_EQ(append(0xE2), "\xEF\xBF\xBD");
  EXPECT_EQ(detokenizer.pending_bytes(), 1u);
  EXPECT_EQ(append(0xFF), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(append(0x80), "\xEF\xBF\xBD");
  EXPECT_EQ(append(0xC3), "");
  out.clear();
  detokenizer.Finish(out);
  EXPECT_EQ(out, "\xEF\xBF\xBD");
  out.clear();
  detokenizer.Finish(out);
  EXPECT_EQ(out, "");
}

TEST(StreamingDetokenizerTest, KeepsTheFirstSpaceOfAContinuation) {
  const TestVocabulary vocabulary = TestVocabulary::SentencePiece("a b", 0);
  const auto tokenizer = vocabulary.Build();
  const TokenId space = vocabulary.Id("\xE2\x96\x81");
  for (bool at_text_start : {false, true}) {
    StreamingDetokenizer detokenizer(*tokenizer, true, at_text_start);
    std::string out;
    detokenizer.Append(space, out);
    detokenizer.Append(space, out);
    EXPECT_EQ(out, at_text_start ? " " : "  ");
  }
}

}  // namespace
}  // namespace reticle::tokenizer
