#include "tokenizer/sentencepiece_bpe.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/status.h"
#include "tokenizer/unicode.h"

namespace reticle::tokenizer {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581
// Merging rules are found by cutting a token at every place, so its length is limited; trainers
// stop at 16 to 64 characters.
constexpr size_t kMaxTokenBytes = 512;

// Appends `text` with kSpaceSymbol replaced by a space.
void AppendUnescaped(std::string_view text, std::string& out) {
  for (size_t position = 0;;) {
    const size_t found = text.find(kSpaceSymbol, position);
    out.append(text.substr(position, found - position));
    if (found == std::string_view::npos) return;
    out.push_back(' ');
    position = found + kSpaceSymbol.size();
  }
}

bool IsValidUtf8(std::string_view text) {
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const Utf8Char c = DecodeUtf8(p, end);
    if (!c.valid) return false;
    p += c.size;
  }
  return true;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The byte that "<0xXX>" stands for, or -1.
int ParseByteToken(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = HexDigit(text[3]);
  const int low = HexDigit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// Fills in what older files leave out: token types by the tokens' form, and Llama's own ids.
Vocabulary WithDefaults(const Vocabulary& vocabulary) {
  Vocabulary v = vocabulary;
  const auto has = [&v](size_t id, std::string_view text) {
    return v.tokens.size() > id && v.tokens[id] == text;
  };
  if (!v.unknown_token_id && has(0, "<unk>")) v.unknown_token_id = 0;
  if (!v.bos_token_id && has(1, "<s>")) v.bos_token_id = 1;
  if (!v.eos_token_id && has(2, "</s>")) v.eos_token_id = 2;
  if (v.token_type.empty()) {
    for (std::string_view token : v.tokens) {
      v.token_type.push_back(
          static_cast<int64_t>(ParseByteToken(token) >= 0 ? TokenType::kByte : TokenType::kNormal));
    }
    const auto set = [&v](std::optional<uint64_t> id, TokenType type) {
      if (id && *id < v.token_type.size()) v.token_type[*id] = static_cast<int64_t>(type);
    };
    set(v.bos_token_id, TokenType::kControl);
    set(v.eos_token_id, TokenType::kControl);
    set(v.unknown_token_id, TokenType::kUnknown);
  }
  return v;
}

}  // namespace

struct SentencePieceBpe::Session {
  explicit Session(const MergeTable& merges, std::vector<TokenId>& out)
      : merger(merges), out(out) {}
  Merger merger;
  std::vector<TokenId>& out;
  std::vector<SymbolId> symbols;
  SplitMap splits;
  std::vector<SymbolId> stack;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> SentencePieceBpe::Create(const Vocabulary& vocabulary) {
  std::unique_ptr<SentencePieceBpe> tokenizer(new SentencePieceBpe);
  RETURN_IF_ERROR(tokenizer->Init(WithDefaults(vocabulary)));
  return tokenizer;
}

absl::Status SentencePieceBpe::Init(const Vocabulary& v) {
  if (v.remove_extra_whitespaces.value_or(false)) {
    return UnimplementedError(
        "tokenizer.ggml.remove_extra_whitespaces is true; only false is read");
  }
  add_space_prefix_ = v.add_space_prefix.value_or(true);
  RETURN_IF_ERROR(CheckTokens(v));
  if (v.scores.size() != v.tokens.size()) {
    return InvalidArgumentError("tokenizer.ggml.scores is absent");
  }
  RETURN_IF_ERROR(AddTokens(v));
  RETURN_IF_ERROR(AddMerges(v.scores));
  return FinishTokens(v, true);
}

absl::Status SentencePieceBpe::AddTokens(const Vocabulary& v) {
  byte_tokens_.fill(TokenIndex::kNone);
  std::string bytes;
  for (TokenId token = 0; token < v.tokens.size(); ++token) {
    const std::string_view raw = v.tokens[token];
    switch (type(token)) {
      case TokenType::kNormal:
      case TokenType::kUnused: {
        bytes.clear();
        AppendUnescaped(raw, bytes);
        const bool encodable = raw.find(' ') == std::string_view::npos && IsValidUtf8(raw);
        if (encodable && bytes.size() > kMaxTokenBytes) {
          return InvalidArgumentError("tokenizer.ggml.tokens[%d] has %d bytes; the limit is %d",
                                      token, bytes.size(), kMaxTokenBytes);
        }
        if (std::isnan(v.scores[token])) {
          return InvalidArgumentError("tokenizer.ggml.scores[%d] is not a number", token);
        }
        AddToken(bytes, encodable);
        break;
      }
      case TokenType::kByte: {
        const int byte = ParseByteToken(raw);
        if (byte < 0) {
          return InvalidArgumentError(
              "tokenizer.ggml.tokens[%d] is \"%s\", but a byte token must be like \"<0x0A>\"",
              token, Abbreviated(raw));
        }
        byte_tokens_[static_cast<size_t>(byte)] = token;
        const char c = static_cast<char>(byte);
        AddToken({&c, 1}, false);
        break;
      }
      default:
        AddToken(raw, false);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_tokens_[static_cast<size_t>(byte)] == TokenIndex::kNone) {
      return InvalidArgumentError("tokenizer.ggml.tokens has no byte token <0x%02X>", byte);
    }
  }
  return absl::OkStatus();
}

absl::Status SentencePieceBpe::AddMerges(const std::vector<float>& scores) {
  std::vector<TokenId> mergeable;
  std::vector<float> order;
  for (TokenId token = 0; token < vocab_size(); ++token) {
    if (FindEncodable(text(token)) != token) continue;
    const std::string_view bytes = text(token);
    const Utf8Char first = DecodeUtf8(bytes.data(), bytes.data() + bytes.size());
    if (first.size == bytes.size()) continue;
    mergeable.push_back(token);
    order.push_back(scores[token]);
    const char* const end = bytes.data() + bytes.size();
    char previous = ' ';
    for (const char* p = bytes.data(); p < end;) {
      const Utf8Char c = DecodeUtf8(p, end);
      const std::string_view character(p, c.size);
      if (!SymbolOf(c.code_point, character)) {
        stand_ins_[c.code_point] = static_cast<SymbolId>(vocab_size() + stand_in_bytes_.size());
        stand_in_bytes_.emplace_back(character);
      }
      if (*p == ' ' && previous != ' ') words_are_separate_ = false;
      previous = *p;
      p += c.size;
    }
  }
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());

  unused_.assign(vocab_size() + stand_in_bytes_.size(), false);
  for (TokenId token = 0; token < vocab_size(); ++token) {
    unused_[token] = type(token) == TokenType::kUnused;
  }
  struct PairRule {
    SymbolId left;
    SymbolId right;
    MergeTable::Rule rule;
  };
  std::vector<PairRule> rules;
  for (TokenId token : mergeable) {
    const auto rank = static_cast<uint32_t>(
        std::lower_bound(order.begin(), order.end(), scores[token], std::greater<>()) -
        order.begin());
    const std::string_view bytes = text(token);
    const char* const end = bytes.data() + bytes.size();
    has_unused_ = has_unused_ || unused_[token];
    for (size_t cut = DecodeUtf8(bytes.data(), end).size; cut < bytes.size();
         cut += DecodeUtf8(bytes.data() + cut, end).size) {
      const std::optional<SymbolId> left = FindSymbol(bytes.substr(0, cut));
      const std::optional<SymbolId> right = FindSymbol(bytes.substr(cut));
      if (left && right) rules.push_back({*left, *right, {rank, token}});
    }
  }
  merges_ = MergeTable(rules.size());
  for (const PairRule& rule : rules) merges_.Insert(rule.left, rule.right, rule.rule);
  return absl::OkStatus();
}

std::optional<SymbolId> SentencePieceBpe::SymbolOf(uint32_t code_point,
                                                   std::string_view bytes) const {
  const TokenId token = FindEncodable(bytes);
  if (token != TokenIndex::kNone) return token;
  const auto it = stand_ins_.find(code_point);
  if (it == stand_ins_.end()) return std::nullopt;
  return it->second;
}

std::optional<SymbolId> SentencePieceBpe::FindSymbol(std::string_view bytes) const {
  const Utf8Char first = DecodeUtf8(bytes.data(), bytes.data() + bytes.size());
  if (first.size == bytes.size()) return SymbolOf(first.code_point, bytes);
  const TokenId token = FindEncodable(bytes);
  if (token == TokenIndex::kNone) return std::nullopt;
  return token;
}

uint64_t SentencePieceBpe::EncodeSegments(std::string_view text, const Matches& matches,
                                          std::vector<TokenId>& out) const {
  Session session(merges_, out);
  std::string normalized;
  uint64_t work = text.size();
  const auto encode = [&](std::string_view segment) {
    if (segment.empty()) return;
    normalized.clear();
    if (add_space_prefix_) normalized.push_back(' ');
    AppendUnescaped(segment, normalized);
    work += normalized.size();
    EncodeNormalized(normalized, session);
  };
  size_t position = 0;
  for (const SpecialMatcher::Match& match : matches) {
    encode(text.substr(position, match.begin - position));
    out.push_back(match.token);
    position = match.begin + match.size;
  }
  encode(text.substr(position));
  return work + session.merger.operations();
}

void SentencePieceBpe::EncodeNormalized(std::string_view text, Session& session) const {
  if (!words_are_separate_ || has_unused_) return EncodeByMerging(text, session);
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find_first_not_of(' ', begin), text.size());
    end = std::min(text.find(' ', end), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    const TokenId whole = FindEncodable(word);
    if (whole != TokenIndex::kNone && IsWhole(whole)) {
      session.out.push_back(whole);
    } else {
      EncodeByMerging(word, session);
    }
    begin = end;
  }
}

void SentencePieceBpe::EncodeByMerging(std::string_view word, Session& session) const {
  session.symbols.clear();
  session.splits.clear();
  const char* const end = word.data() + word.size();
  for (const char* p = word.data(); p < end;) {
    const Utf8Char c = DecodeUtf8(p, end);
    const std::string_view bytes(p, c.size);
    p += c.size;
    const std::optional<SymbolId> symbol = c.valid ? SymbolOf(c.code_point, bytes) : std::nullopt;
    if (symbol) {
      session.symbols.push_back(*symbol);
    } else {
      FlushSymbols(session);
      EmitBytes(bytes, session.out);
    }
  }
  FlushSymbols(session);
}

void SentencePieceBpe::FlushSymbols(Session& session) const {
  std::vector<SymbolId>& symbols = session.symbols;
  if (has_unused_) {
    session.merger.MergeTracked(symbols, unused_, session.splits);
  } else {
    session.merger.Merge(symbols);
  }
  for (SymbolId first : symbols) {
    session.stack.push_back(first);
    while (!session.stack.empty()) {
      const SymbolId symbol = session.stack.back();
      session.stack.pop_back();
      const auto split = unused_[symbol] ? session.splits.find(symbol) : session.splits.end();
      if (split != session.splits.end()) {
        session.stack.push_back(split->second.second);
        session.stack.push_back(split->second.first);
      } else if (symbol < vocab_size()) {
        session.out.push_back(symbol);
      } else {
        EmitBytes(stand_in_bytes_[symbol - vocab_size()], session.out);
      }
    }
  }
  symbols.clear();
}

void SentencePieceBpe::EmitBytes(std::string_view bytes, std::vector<TokenId>& out) const {
  for (char c : bytes) out.push_back(byte_tokens_[static_cast<uint8_t>(c)]);
}

bool SentencePieceBpe::MergesToItself(TokenId token) const {
  std::vector<TokenId> tokens;
  Session session(merges_, tokens);
  EncodeByMerging(text(token), session);
  return tokens.size() == 1 && tokens[0] == token;
}

}  // namespace reticle::tokenizer
