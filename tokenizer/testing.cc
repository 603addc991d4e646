#include "tokenizer/testing.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/unicode.h"

namespace reticle::tokenizer {
namespace {

constexpr std::string_view kSentences[] = {
    "The wafer left the fab on a Tuesday, and by Friday it was answering questions.",
    "I'm sure they'll say we've done it; she'd rather wait, but THAT'S what THEY'RE for: 1234567.",
    "Der Zug fährt um 7:45 Uhr über die Brücke, größer als jede andere im Land.",
    "Où est passée la clé que j'avais laissée à côté de l'évier ?",
    "Старый инженер проверил плату дважды и только потом включил питание.",
    "Το ρολόι στον τοίχο σταμάτησε στις τρεις και κανείς δεν το πρόσεξε.",
    "כתבתי את המכתב בלילה ושלחתי אותו בבוקר.",
    "وضعت الكتاب على الطاولة ثم خرجت إلى الحديقة ١٢٣.",
    "मैंने कल रात एक नया यंत्र देखा, और वह बहुत तेज़ था।",
    "ฉันวางกุญแจไว้ข้างหน้าต่างเมื่อวานนี้",
    "今天早上芯片終於點亮了，大家都很高興。",
    "昨日の夜、新しい装置が初めて動きました。とても速いです。",
    "오늘 아침에 새 장치가 처음으로 켜졌습니다.",
    "დღეს დილით ახალი მოწყობილობა ჩაირთო.",
    "Այսօր առավոտյան նոր սարքը միացավ։",
    "নতুন যন্ত্রটি আজ সকালে চালু হয়েছে।",
    "புதிய கருவி இன்று காலை இயங்கத் தொடங்கியது.",
    "ዛሬ ጠዋት አዲሱ መሣሪያ ሠራ።",
    "for (int i = 0; i < n; ++i) {\n\tif (a[i] != b[i]) return -1;  // differs\r\n}\n\n",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ❤️ ☕️ "
    "e\xCC\x81 "
    "a\xCC\x8A "
    "n\xCC\x83",
    "tabs\tand  double   triple    spaces \xC2\xA0 nbsp \xC2\x85 nel \xE2\x80\xA8 "
    "line\xE3\x80\x80wide",
};

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

using Word = std::vector<std::string>;

// Plain BPE training: again and again the most frequent pair (the smallest among equals).
std::vector<std::pair<std::string, std::string>> Train(std::vector<Word> words, size_t merges) {
  std::vector<std::pair<std::string, std::string>> rules;
  std::set<std::string> made;
  while (rules.size() < merges) {
    std::map<std::pair<std::string, std::string>, int> counts;
    for (const Word& word : words) {
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](auto& a, auto& b) { return a.second < b.second; });
    if (best == counts.end()) break;
    const auto rule = best->first;
    rules.push_back(rule);
    for (Word& word : words) {
      Word merged;
      for (size_t i = 0; i < word.size(); ++i) {
        if (i + 1 < word.size() && word[i] == rule.first && word[i + 1] == rule.second) {
          merged.push_back(rule.first + rule.second);
          ++i;
        } else {
          merged.push_back(word[i]);
        }
      }
      word = std::move(merged);
    }
  }
  return rules;
}

Word Characters(std::string_view text) {
  Word characters;
  for (const char* p = text.data(); p < text.data() + text.size();) {
    const Utf8Char c = DecodeUtf8(p, text.data() + text.size());
    characters.emplace_back(p, c.size);
    p += c.size;
  }
  return characters;
}

std::string Utf8(uint32_t c) {
  std::string s;
  if (c < 0x80) {
    s = {static_cast<char>(c)};
  } else if (c < 0x800) {
    s = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
  } else if (c < 0x10000) {
    s = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
         static_cast<char>(0x80 | (c & 0x3F))};
  } else {
    s = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
         static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
  }
  return s;
}

}  // namespace

std::string MapBytes(std::string_view bytes) {
  std::string mapped;
  for (char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t code_point = byte;
    if (byte <= 0x20) {
      code_point = 0x100 + byte;
    } else if (byte >= 0x7F && byte <= 0xA0) {
      code_point = 0x121 + (byte - 0x7F);
    } else if (byte == 0xAD) {
      code_point = 0x143;
    }
    mapped += Utf8(code_point);
  }
  return mapped;
}

TestVocabulary TestVocabulary::ByteLevel(std::string_view pre, std::string_view corpus,
                                         size_t merges) {
  TestVocabulary result;
  result.v.model = "gpt2";
  result.v.pre = result.Own(std::string(pre));
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    result.Add(MapBytes({&c, 1}), TokenType::kNormal);
  }
  std::vector<Word> words;
  PreTokens pieces(FindPreTokenizer(pre).value_or(PreTokenizerScheme{}).kind, corpus);
  for (std::string_view piece; pieces.Next(piece);) words.push_back(Characters(MapBytes(piece)));
  std::set<std::string> made;
  for (const auto& [left, right] : Train(std::move(words), merges)) {
    if (made.insert(left + right).second) result.Add(left + right, TokenType::kNormal);
    result.AddMerge(left, right);
  }
  result.v.bos_token_id = result.Add("<|begin|>", TokenType::kControl);
  result.v.eos_token_id = result.Add("<|end|>", TokenType::kControl);
  return result;
}

TestVocabulary TestVocabulary::SentencePiece(std::string_view corpus, size_t merges) {
  TestVocabulary result;
  result.v.model = "llama";
  result.Add("<unk>", TokenType::kUnknown);
  result.v.bos_token_id = result.Add("<s>", TokenType::kControl);
  result.v.eos_token_id = result.Add("</s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    result.Add(text, TokenType::kByte);
  }
  std::vector<Word> words(1);
  std::set<std::string> characters;
  for (const std::string& c : Characters(corpus)) {
    if (c == " ") words.emplace_back();
    words.back().push_back(c == " " ? std::string(kSpaceSymbol) : c);
    characters.insert(words.back().back());
  }
  float score = 0;
  std::set<std::string> made;
  for (const auto& [left, right] : Train(std::move(words), merges)) {
    if (!made.insert(left + right).second) continue;
    result.Add(left + right, TokenType::kNormal, score);
    score -= 1;
  }
  for (const std::string& c : characters) result.Add(c, TokenType::kNormal, score -= 1);
  return result;
}

TokenId TestVocabulary::Add(std::string_view token, TokenType type, float score) {
  v.tokens.push_back(Own(std::string(token)));
  v.token_type.push_back(static_cast<int64_t>(type));
  v.scores.push_back(score);
  return static_cast<TokenId>(v.tokens.size() - 1);
}

void TestVocabulary::AddMerge(std::string_view left, std::string_view right) {
  v.merges.push_back(Own(std::string(left) + " " + std::string(right)));
}

std::string_view TestVocabulary::Own(std::string text) {
  return owned_.emplace_back(std::move(text));
}

std::unique_ptr<Tokenizer> TestVocabulary::Build() const {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(v);
  if (!tokenizer.ok()) std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
  RETICLE_CHECK(tokenizer.ok());
  return *std::move(tokenizer);
}

TokenId TestVocabulary::Id(std::string_view token) const {
  const auto it = std::find(v.tokens.begin(), v.tokens.end(), token);
  RETICLE_CHECK(it != v.tokens.end());
  return static_cast<TokenId>(it - v.tokens.begin());
}

std::span<const std::string_view> Sentences() { return kSentences; }

std::string Corpus() {
  std::string corpus;
  for (std::string_view sentence : kSentences) corpus.append(sentence).append("\n");
  return corpus;
}

std::string RandomText(std::mt19937& random, size_t characters) {
  static constexpr std::pair<uint32_t, uint32_t> kRanges[] = {
      {0x20, 0x20},     {0x20, 0x7E},     {0x61, 0x7A},     {0x09, 0x0D},       {0x30, 0x39},
      {0x27, 0x27},     {0x73, 0x74},     {0x80, 0x24F},    {0x300, 0x36F},     {0x370, 0x3FF},
      {0x400, 0x4FF},   {0x590, 0x5FF},   {0x600, 0x6FF},   {0x900, 0x97F},     {0xE00, 0xE7F},
      {0x1680, 0x180F}, {0x2000, 0x206F}, {0x2150, 0x218B}, {0x3000, 0x30FF},   {0x4E00, 0x4EFF},
      {0xAC00, 0xACFF}, {0xFE00, 0xFEFF}, {0xFF00, 0xFFEF}, {0x1D7CE, 0x1D7FF}, {0x1F300, 0x1F64F},
  };
  std::string text;
  for (size_t i = 0; i < characters; ++i) {
    const auto [first, last] = kRanges[random() % std::size(kRanges)];
    text += Utf8(first + random() % (last - first + 1));
  }
  return text;
}

std::string RandomBytes(std::mt19937& random, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text.push_back(static_cast<char>(random()));
  return text;
}

}  // namespace reticle::tokenizer
