#include "tokenizer/vocabulary.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/gguf.h"
#include "models/gguf_writer.h"
#include "tokenizer/testing.h"
#include "tokenizer/tokenizer.h"

namespace reticle::tokenizer {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> Strings(const std::vector<std::string_view>& views) {
  return {views.begin(), views.end()};
}

models::GgufWriter Write(const Vocabulary& v) {
  models::GgufWriter writer;
  writer.AddString("tokenizer.ggml.model", v.model);
  writer.AddString("tokenizer.ggml.pre", v.pre);
  writer.AddStringArray("tokenizer.ggml.tokens", Strings(v.tokens));
  writer.AddFloat32Array("tokenizer.ggml.scores", v.scores);
  writer.AddInt32Array("tokenizer.ggml.token_type",
                       std::vector<int32_t>(v.token_type.begin(), v.token_type.end()));
  writer.AddStringArray("tokenizer.ggml.merges", Strings(v.merges));
  writer.AddUint32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(*v.bos_token_id));
  writer.AddUint32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(*v.eos_token_id));
  writer.AddBool("tokenizer.ggml.add_bos_token", true);
  writer.AddBool("tokenizer.ggml.add_eos_token", true);
  return writer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateFrom(const models::GgufWriter& writer) {
  auto bytes = writer.WriteBytes();
  if (!bytes.ok()) return bytes.status();
  auto file = models::GgufFile::Parse(*bytes);
  if (!file.ok()) return file.status();
  return Tokenizer::Create(**file);
}

TEST(VocabularyTest, ComesFromAGgufFileThatMayGoAway) {
  for (const TestVocabulary& vocabulary : {TestVocabulary::ByteLevel("llama-bpe", Corpus(), 100),
                                           TestVocabulary::SentencePiece(Corpus(), 100)}) {
    const auto from_file = CreateFrom(Write(vocabulary.v));
    ASSERT_TRUE(from_file.ok()) << from_file.status();
    const auto direct = vocabulary.Build();
    std::vector<TokenId> expected = direct->Encode(Corpus(), {.add_special = false});
    expected.insert(expected.begin(), *direct->bos());
    expected.push_back(*direct->eos());
    EXPECT_EQ((*from_file)->Encode(Corpus()), expected);
  }
}

TEST(VocabularyTest, NamesTheKeyThatIsAbsentOrOfTheWrongType) {
  models::GgufWriter none;
  none.AddString("general.architecture", "llama");
  EXPECT_THAT(CreateFrom(none).status().ToString(), HasSubstr("tokenizer.ggml.model is absent"));
  models::GgufWriter no_tokens;
  no_tokens.AddString("tokenizer.ggml.model", "gpt2");
  EXPECT_THAT(CreateFrom(no_tokens).status().ToString(),
              HasSubstr("tokenizer.ggml.tokens is absent"));
  models::GgufWriter wrong;
  wrong.AddString("tokenizer.ggml.model", "gpt2");
  wrong.AddStringArray("tokenizer.ggml.tokens", std::vector<std::string>{"a"});
  wrong.AddString("tokenizer.ggml.bos_token_id", "one");
  const auto refused = CreateFrom(wrong);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.status().ToString(), HasSubstr("tokenizer.ggml.bos_token_id"));
}

TEST(AbbreviatedTest, IsShortAndPrintable) {
  EXPECT_EQ(Abbreviated("a\xFF\n"), "a\\xff\\n");
  EXPECT_EQ(Abbreviated(std::string(1000, 'x')), std::string(48, 'x') + "...");
}

}  // namespace
}  // namespace reticle::tokenizer
