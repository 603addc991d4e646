// What a GGUF file says about its tokenizer, before any of it is checked against the rest.
#ifndef RETICLE_TOKENIZER_VOCABULARY_H_
#define RETICLE_TOKENIZER_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::models {
class GgufFile;
}

namespace reticle::tokenizer {

// Numbered as in tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// A field is named like its key under tokenizer.ggml; an empty array or nullopt means that the key
// is absent. The views belong to the caller and are needed only while a tokenizer is created.
struct Vocabulary {
  // "gpt2" (byte-level BPE; tokens in the printable mapping of bytes) or "llama" (SentencePiece
  // BPE; spaces written as U+2581).
  std::string_view model;
  std::string_view pre;
  std::vector<std::string_view> tokens;
  std::vector<float> scores;
  std::vector<int64_t> token_type;
  // "left right", best first; byte-level BPE only.
  std::vector<std::string_view> merges;

  std::optional<uint64_t> bos_token_id;
  std::optional<uint64_t> eos_token_id;
  std::optional<uint64_t> eot_token_id;
  std::optional<uint64_t> eom_token_id;
  std::optional<uint64_t> unknown_token_id;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_space_prefix;
  std::optional<bool> remove_extra_whitespaces;
};

// `text` for an error message: escaped to printable ASCII, and cut when long.
std::string Abbreviated(std::string_view text);

// Reads the keys above; the views live as long as `file`. INVALID_ARGUMENT naming the key when
// tokenizer.ggml.model or tokens is absent or a value has the wrong type.
absl::StatusOr<Vocabulary> ReadVocabulary(const models::GgufFile& file);

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_VOCABULARY_H_
