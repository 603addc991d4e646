// Encoding speed by kind of text, and the cost of a token on its way back.
//
//   build/release/bin/tokenizer_benchmark
//
// The vocabularies are learnt from a small corpus at the start. To measure real ones, name GGUF
// files in RETICLE_TOKENIZER_GGUF, separated by colons; the vector tests leave Llama 2's and Llama
// 3's in build/release/tests/tokenizer/.
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "base/check.h"
#include "benchmark/benchmark.h"
#include "models/gguf.h"
#include "tokenizer/testing.h"
#include "tokenizer/tokenizer.h"

namespace reticle::tokenizer {
namespace {

constexpr size_t kSize = 1 << 20;

constexpr std::string_view kEnglish =
    "the of and to a in is it that was he for on with as his they at be this from have or by one "
    "had not but what all were when we there can an your which their said if do will each about "
    "how up out them then she many some so these would other into has more her two like him see "
    "time could no make than first been its who now people my made over did down only way find "
    "use may water long little very after words called just where most know engineer measured "
    "temperature whenever afternoon, nevertheless scheduling requests. Silicon wafers travelled "
    "between buildings, and nobody remembered who had signed the delivery note. I'm certain they "
    "didn't check. \"Really?\" asked Margaret; \"we've counted 1,024 of them twice.\" Tomorrow's "
    "shipment leaves at 7:45, unless it's raining (again). Photolithography demands patience. ";
constexpr std::string_view kCode =
    "    for (size_t i = 0; i + 1 < symbols.size(); ++i) {\n      const auto it = rank.find(key);\n"
    "      if (it != rank.end() && it->second < best_rank) {\n        best = i;  // so far\n      "
    "}\n"
    "    }\n\n  return absl::InvalidArgumentError(absl::StrFormat(\"%d > %d\", value, "
    "limit));\n}\n";
constexpr std::string_view kChinese =
    "今天早上芯片終於點亮了大家都很高興他們測量了每一個電壓然後把結果寫進了報告沒有人知道下一批晶圓"
    "何時到達"
    "工程師說需要耐心因為光刻機每小時只能處理很少的片子。雨停了以後我們去散步，看見河邊的燈一盞一盞"
    "亮起來。";

// Pieces of `source`, cut at spaces or characters, in random order.
std::string Shuffled(std::string_view source, bool by_word) {
  std::vector<std::string> pieces;
  for (size_t begin = 0; begin < source.size();) {
    size_t end = by_word ? source.find(' ', begin) : begin + 3;
    if (end >= source.size()) end = source.size();
    pieces.emplace_back(source.substr(begin, end - begin));
    begin = by_word ? end + 1 : end;
  }
  std::mt19937 random(1);
  std::string text;
  while (text.size() < kSize) {
    // The product prefers the front of the list, as common words do in texts.
    const size_t limit = 1 + random() % pieces.size();
    text += pieces[random() % limit];
    if (by_word) text += ' ';
  }
  return text;
}

std::string Repeated(std::string_view part) {
  std::string text;
  while (text.size() < kSize) text += part;
  return text;
}

void EncodeText(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  std::vector<TokenId> tokens;
  for (auto _ : state) {
    tokens.clear();
    tokenizer.Encode(text, {}, tokens);
    benchmark::DoNotOptimize(tokens.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["bytes_per_token"] =
      static_cast<double>(text.size()) / static_cast<double>(tokens.size());
}

void Detokenize(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<TokenId> tokens = tokenizer.Encode(text);
  std::string out;
  for (auto _ : state) {
    StreamingDetokenizer detokenizer(tokenizer);
    out.clear();
    for (TokenId token : tokens) detokenizer.Append(token, out);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * tokens.size()));
}

void CreateFromFile(benchmark::State& state, const std::string& path) {
  for (auto _ : state) {
    auto file = models::GgufFile::Open(path);
    RETICLE_CHECK(file.ok());
    benchmark::DoNotOptimize(Tokenizer::Create(**file));
  }
}

std::mt19937& Generator() {
  static std::mt19937 random(2);
  return random;
}

void RegisterAll(const std::string& name, std::shared_ptr<const Tokenizer> tokenizer) {
  static const std::vector<std::pair<std::string, std::string>> texts = {
      {"english", Shuffled(kEnglish, true)},
      {"code", Repeated(kCode)},
      {"chinese", Shuffled(kChinese, false)},
      {"one_letter", Repeated("a")},
      {"spaces", Repeated(" ")},
      {"digits", Repeated("7")},
      {"emoji", Repeated("😀")},
      {"random_bytes", RandomBytes(Generator(), kSize)},
  };
  for (const auto& [label, text] : texts) {
    benchmark::RegisterBenchmark(("encode/" + name + "/" + label).c_str(),
                                 [tokenizer, &text = text](benchmark::State& state) {
                                   EncodeText(state, *tokenizer, text);
                                 });
  }
  benchmark::RegisterBenchmark(
      ("detokenize/" + name).c_str(),
      [tokenizer](benchmark::State& state) { Detokenize(state, *tokenizer, texts[0].second); });
}

[[maybe_unused]] const bool registered = [] {
  const char* files = std::getenv("RETICLE_TOKENIZER_GGUF");
  if (files == nullptr) {
    RegisterAll("byte_level", TestVocabulary::ByteLevel("llama-bpe", kEnglish, 600).Build());
    RegisterAll("sentencepiece", TestVocabulary::SentencePiece(kEnglish, 600).Build());
    return true;
  }
  for (const std::string& path : std::vector<std::string>(absl::StrSplit(files, ':'))) {
    auto file = models::GgufFile::Open(path);
    RETICLE_CHECK(file.ok());
    auto tokenizer = Tokenizer::Create(**file);
    RETICLE_CHECK(tokenizer.ok());
    const std::string name = path.substr(path.rfind('/') + 1);
    RegisterAll(name, *std::move(tokenizer));
    benchmark::RegisterBenchmark(("create/" + name).c_str(),
                                 [path](benchmark::State& state) { CreateFromFile(state, path); });
  }
  return true;
}();

}  // namespace
}  // namespace reticle::tokenizer
