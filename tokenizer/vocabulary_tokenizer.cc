#include "tokenizer/vocabulary_tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace reticle::tokenizer {
namespace {

// Ids are uint32_t with some of the range used for characters that are no tokens.
constexpr size_t kMaxTokens = 1u << 30;
constexpr size_t kMaxArenaBytes = UINT32_MAX;

// Control tokens of these texts end a generation even where the metadata name only one of them.
constexpr std::string_view kEndTexts[] = {
    "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>",    "<|im_end|>", "</s>",
    "<|end|>",    "<|endoftext|>",   "<end_of_turn>", "<EOT>",
};

absl::Status CheckId(const char* key, std::optional<uint64_t> id, size_t tokens) {
  if (!id || *id < tokens) return absl::OkStatus();
  return InvalidArgumentError("tokenizer.ggml.%s is %d, but there are %d tokens", key, *id, tokens);
}

}  // namespace

absl::Status VocabularyTokenizer::CheckTokens(const Vocabulary& v) {
  const size_t tokens = v.tokens.size();
  if (tokens == 0) return InvalidArgumentError("tokenizer.ggml.tokens is empty");
  if (tokens > kMaxTokens) {
    return InvalidArgumentError("tokenizer.ggml.tokens has %d elements; the limit is %d", tokens,
                                kMaxTokens);
  }
  if (!v.token_type.empty() && v.token_type.size() != tokens) {
    return InvalidArgumentError(
        "tokenizer.ggml.token_type has %d elements, tokenizer.ggml.tokens %d", v.token_type.size(),
        tokens);
  }
  if (!v.scores.empty() && v.scores.size() != tokens) {
    return InvalidArgumentError("tokenizer.ggml.scores has %d elements, tokenizer.ggml.tokens %d",
                                v.scores.size(), tokens);
  }
  types_.assign(tokens, TokenType::kNormal);
  for (size_t i = 0; i < v.token_type.size(); ++i) {
    if (v.token_type[i] < 1 || v.token_type[i] > 6) {
      return InvalidArgumentError("tokenizer.ggml.token_type[%d] is %d; it must be 1 to 6", i,
                                  v.token_type[i]);
    }
    types_[i] = static_cast<TokenType>(v.token_type[i]);
  }
  for (const auto& [key, id] :
       {std::pair("bos_token_id", v.bos_token_id), std::pair("eos_token_id", v.eos_token_id),
        std::pair("eot_token_id", v.eot_token_id), std::pair("eom_token_id", v.eom_token_id),
        std::pair("unknown_token_id", v.unknown_token_id)}) {
    RETURN_IF_ERROR(CheckId(key, id, tokens));
  }

  const auto raw_text = [&](TokenId token) { return v.tokens[token]; };
  TokenIndex raw_index(tokens);
  size_t bytes = 0;
  for (TokenId token = 0; token < tokens; ++token) {
    bytes += raw_text(token).size();
    if (raw_text(token).empty()) continue;
    const TokenId first = raw_index.Insert(token, raw_text);
    if (first != token) {
      return InvalidArgumentError("tokenizer.ggml.tokens[%d] and [%d] are both \"%s\"", first,
                                  token, Abbreviated(raw_text(token)));
    }
  }
  if (bytes > kMaxArenaBytes) {
    return InvalidArgumentError("tokenizer.ggml.tokens holds %d bytes; the limit is %d", bytes,
                                kMaxArenaBytes);
  }
  arena_.reserve(bytes);
  offsets_.reserve(tokens + 1);
  index_ = TokenIndex(tokens);
  return absl::OkStatus();
}

void VocabularyTokenizer::AddToken(std::string_view bytes, bool encodable) {
  const auto token = static_cast<TokenId>(offsets_.size() - 1);
  arena_.append(bytes);
  offsets_.push_back(static_cast<uint32_t>(arena_.size()));
  if (encodable && !bytes.empty()) {
    index_.Insert(token, [this](TokenId id) { return text(id); });
  }
}

absl::Status VocabularyTokenizer::FinishTokens(const Vocabulary& v, bool add_bos_by_default) {
  whole_ = std::make_unique<std::atomic<uint8_t>[]>(types_.size());
  std::vector<std::pair<std::string_view, TokenId>> user_defined;
  std::vector<std::pair<std::string_view, TokenId>> added;
  for (TokenId token = 0; token < types_.size(); ++token) {
    if (text(token).empty()) continue;
    if (type(token) == TokenType::kUserDefined) user_defined.emplace_back(text(token), token);
    if (IsAdded(token)) {
      added.emplace_back(text(token), token);
      added_.try_emplace(std::string(text(token)), token);
    }
  }
  user_defined_matcher_ = SpecialMatcher(user_defined);
  added_matcher_ = SpecialMatcher(added);
  return FindIdentities(v, add_bos_by_default);
}

absl::Status VocabularyTokenizer::FindIdentities(const Vocabulary& v, bool add_bos_by_default) {
  const auto narrow = [](std::optional<uint64_t> id) -> std::optional<TokenId> {
    if (!id) return std::nullopt;
    return static_cast<TokenId>(*id);
  };
  bos_ = narrow(v.bos_token_id);
  eos_ = narrow(v.eos_token_id);
  for (const auto& id : {eos_, narrow(v.eot_token_id), narrow(v.eom_token_id)}) {
    if (id) end_of_generation_.push_back(*id);
  }
  for (std::string_view end : kEndTexts) {
    const auto it = added_.find(std::string(end));
    if (it != added_.end() && type(it->second) == TokenType::kControl) {
      end_of_generation_.push_back(it->second);
    }
  }
  std::sort(end_of_generation_.begin(), end_of_generation_.end());
  end_of_generation_.erase(std::unique(end_of_generation_.begin(), end_of_generation_.end()),
                           end_of_generation_.end());

  if (v.add_bos_token.value_or(false) && !bos_) {
    return InvalidArgumentError(
        "tokenizer.ggml.add_bos_token is true, but tokenizer.ggml.bos_token_id is absent");
  }
  if (v.add_eos_token.value_or(false) && !eos_) {
    return InvalidArgumentError(
        "tokenizer.ggml.add_eos_token is true, but tokenizer.ggml.eos_token_id is absent");
  }
  add_bos_ = v.add_bos_token.value_or(add_bos_by_default && bos_);
  add_eos_ = v.add_eos_token.value_or(false);
  return absl::OkStatus();
}

void VocabularyTokenizer::Encode(std::string_view text, const EncodeOptions& options,
                                 std::vector<TokenId>& out) const {
  EncodeCounted(text, options, out);
}

uint64_t VocabularyTokenizer::EncodeCounted(std::string_view text, const EncodeOptions& options,
                                            std::vector<TokenId>& out) const {
  if (options.add_special && add_bos_) out.push_back(*bos_);
  Matches matches;
  (options.parse_special ? added_matcher_ : user_defined_matcher_).Find(text, matches);
  const uint64_t work = EncodeSegments(text, matches, out);
  if (options.add_special && add_eos_) out.push_back(*eos_);
  return work;
}

std::string_view VocabularyTokenizer::TokenBytes(TokenId token) const {
  return IsControl(token) ? std::string_view() : TokenText(token);
}

std::string_view VocabularyTokenizer::TokenText(TokenId token) const {
  return token < types_.size() ? text(token) : std::string_view();
}

std::string VocabularyTokenizer::Decode(std::span<const TokenId> tokens, bool skip_special) const {
  std::string decoded;
  bool strip_space = adds_space_prefix();
  for (TokenId token : tokens) {
    std::string_view bytes = skip_special ? TokenBytes(token) : TokenText(token);
    if (IsAdded(token)) {
      strip_space = adds_space_prefix();
    } else if (strip_space && !bytes.empty()) {
      if (bytes.front() == ' ') bytes.remove_prefix(1);
      strip_space = false;
    }
    decoded.append(bytes);
  }
  return decoded;
}

bool VocabularyTokenizer::IsControl(TokenId token) const {
  return token < types_.size() &&
         (types_[token] == TokenType::kControl || types_[token] == TokenType::kUnknown);
}

bool VocabularyTokenizer::IsAdded(TokenId token) const {
  return IsControl(token) || (token < types_.size() && types_[token] == TokenType::kUserDefined);
}

bool VocabularyTokenizer::IsEndOfGeneration(TokenId token) const {
  return std::binary_search(end_of_generation_.begin(), end_of_generation_.end(), token);
}

std::optional<TokenId> VocabularyTokenizer::FindToken(std::string_view text) const {
  const auto it = added_.find(std::string(text));
  if (it != added_.end()) return it->second;
  const TokenId token = FindEncodable(text);
  if (token == TokenIndex::kNone) return std::nullopt;
  return token;
}

bool VocabularyTokenizer::IsWhole(TokenId token) const {
  std::atomic<uint8_t>& memo = whole_[token];
  uint8_t known = memo.load(std::memory_order_relaxed);
  if (known == 0) {
    known = MergesToItself(token) ? 2 : 1;
    memo.store(known, std::memory_order_relaxed);
  }
  return known == 2;
}

}  // namespace reticle::tokenizer
