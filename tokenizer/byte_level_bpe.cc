#include "tokenizer/byte_level_bpe.h"

#include <optional>
#include <string>

#include "base/status.h"
#include "tokenizer/unicode.h"

namespace reticle::tokenizer {
namespace {

// The vocabulary writes bytes as printable characters: those that are printable in Latin-1 as
// themselves, the other 68 as U+0100 onwards, in order. -1 for code points that stand for no byte.
constexpr uint32_t kMappedCodePoints = 256 + 68;

constexpr bool IsItself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD && byte <= 0xFF);
}

constexpr std::array<int16_t, kMappedCodePoints> MakeByteOfCodePoint() {
  std::array<int16_t, kMappedCodePoints> table = {};
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    if (IsItself(byte)) {
      table[byte] = static_cast<int16_t>(byte);
    } else {
      table[byte] = -1;
      table[next++] = static_cast<int16_t>(byte);
    }
  }
  return table;
}

constexpr std::array<int16_t, kMappedCodePoints> kByteOfCodePoint = MakeByteOfCodePoint();

// Replaces `bytes` by what `mapped` stands for; false when some character stands for no byte.
bool Unmap(std::string_view mapped, std::string& bytes) {
  bytes.clear();
  const char* const end = mapped.data() + mapped.size();
  for (const char* p = mapped.data(); p < end;) {
    const Utf8Char c = DecodeUtf8(p, end);
    if (!c.valid || c.code_point >= kMappedCodePoints || kByteOfCodePoint[c.code_point] < 0) {
      return false;
    }
    bytes.push_back(static_cast<char>(kByteOfCodePoint[c.code_point]));
    p += c.size;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ByteLevelBpe::Create(const Vocabulary& vocabulary) {
  const std::optional<PreTokenizerScheme> scheme = FindPreTokenizer(vocabulary.pre);
  if (!scheme) {
    return UnimplementedError("tokenizer.ggml.pre is \"%s\", a pre-tokeniser that is not supported",
                              Abbreviated(vocabulary.pre));
  }
  std::unique_ptr<ByteLevelBpe> tokenizer(new ByteLevelBpe(*scheme, vocabulary.merges.size()));
  RETURN_IF_ERROR(tokenizer->Init(vocabulary));
  return tokenizer;
}

absl::Status ByteLevelBpe::Init(const Vocabulary& v) {
  RETURN_IF_ERROR(CheckTokens(v));
  std::string bytes;
  for (TokenId token = 0; token < v.tokens.size(); ++token) {
    const bool plain = type(token) == TokenType::kNormal || type(token) == TokenType::kByte;
    if ((plain || type(token) == TokenType::kUnused) && Unmap(v.tokens[token], bytes)) {
      AddToken(bytes, plain);
    } else {
      AddToken(v.tokens[token], false);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    byte_tokens_[byte] = FindEncodable({&c, 1});
    if (byte_tokens_[byte] == TokenIndex::kNone) {
      return InvalidArgumentError("tokenizer.ggml.tokens has no token for the byte 0x%02X", byte);
    }
  }
  RETURN_IF_ERROR(AddMerges(v.merges));
  return FinishTokens(v, scheme_.kind == PreTokenizerKind::kLlama3 && scheme_.ignore_merges);
}

absl::Status ByteLevelBpe::AddMerges(const std::vector<std::string_view>& merges) {
  if (merges.size() >= MergeTable::kNoRank) {
    return InvalidArgumentError("tokenizer.ggml.merges has %d elements; the limit is %d",
                                merges.size(), MergeTable::kNoRank - 1);
  }
  std::string left;
  std::string right;
  for (uint32_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return InvalidArgumentError(
          "tokenizer.ggml.merges[%d] is \"%s\"; it must be two tokens with a space between", rank,
          Abbreviated(merge));
    }
    const bool mapped =
        Unmap(merge.substr(0, space), left) && Unmap(merge.substr(space + 1), right);
    const TokenId left_token = mapped ? FindEncodable(left) : TokenIndex::kNone;
    const TokenId right_token = mapped ? FindEncodable(right) : TokenIndex::kNone;
    const TokenId merged = mapped ? FindEncodable(left + right) : TokenIndex::kNone;
    if (left_token == TokenIndex::kNone || right_token == TokenIndex::kNone ||
        merged == TokenIndex::kNone) {
      return InvalidArgumentError(
          "tokenizer.ggml.merges[%d] is \"%s\", but %s is not in tokenizer.ggml.tokens", rank,
          Abbreviated(merge),
          left_token == TokenIndex::kNone    ? "its left part"
          : right_token == TokenIndex::kNone ? "its right part"
                                             : "what they make");
    }
    if (!merges_.Insert(left_token, right_token, {rank, merged})) {
      return InvalidArgumentError("tokenizer.ggml.merges[%d], \"%s\", is there twice", rank,
                                  Abbreviated(merge));
    }
  }
  return absl::OkStatus();
}

uint64_t ByteLevelBpe::EncodeSegments(std::string_view text, const Matches& matches,
                                      std::vector<TokenId>& out) const {
  Merger merger(merges_);
  std::vector<SymbolId> symbols;
  uint64_t work = text.size();
  const auto encode = [&](std::string_view segment) {
    PreTokens pieces(scheme_.kind, segment);
    for (std::string_view piece; pieces.Next(piece);) {
      const TokenId whole = FindEncodable(piece);
      if (whole != TokenIndex::kNone && (scheme_.ignore_merges || IsWhole(whole))) {
        out.push_back(whole);
        continue;
      }
      symbols.clear();
      for (char c : piece) symbols.push_back(byte_tokens_[static_cast<uint8_t>(c)]);
      merger.Merge(symbols);
      out.insert(out.end(), symbols.begin(), symbols.end());
    }
    work += pieces.characters_scanned();
  };
  size_t position = 0;
  for (const SpecialMatcher::Match& match : matches) {
    encode(text.substr(position, match.begin - position));
    out.push_back(match.token);
    position = match.begin + match.size;
  }
  encode(text.substr(position));
  return work + merger.operations();
}

bool ByteLevelBpe::MergesToItself(TokenId token) const {
  std::vector<SymbolId> symbols;
  for (char c : text(token)) symbols.push_back(byte_tokens_[static_cast<uint8_t>(c)]);
  Merger merger(merges_);
  merger.Merge(symbols);
  return symbols.size() == 1 && symbols[0] == token;
}

}  // namespace reticle::tokenizer
