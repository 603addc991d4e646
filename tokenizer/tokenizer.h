// Text to tokens and back, for the vocabularies that GGUF files carry: byte-level BPE with Llama
// 3's pre-tokenisation (tokenizer.ggml.model = "gpt2") and SentencePiece BPE (tokenizer.ggml.model
// = "llama").
#ifndef RETICLE_TOKENIZER_TOKENIZER_H_
#define RETICLE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"

namespace reticle::models {
class GgufFile;
}

namespace reticle::tokenizer {

struct Vocabulary;

struct EncodeOptions {
  // Put the beginning-of-sequence token first (and the end token last) when the model's metadata
  // asks for it (tokenizer.ggml.add_bos_token / add_eos_token).
  bool add_special = true;
  // Turn the text of control tokens ("<|eot_id|>") into those tokens. False encodes it as plain
  // text, which is what untrusted user text needs. User-defined (non-control) added tokens are
  // always matched.
  bool parse_special = false;
};

// Immutable after Create, so thread-safe.
class Tokenizer {
 public:
  // Builds the tokenizer that `file`'s metadata describe. `file` may go away afterwards.
  // INVALID_ARGUMENT naming the key for inconsistent metadata, UNIMPLEMENTED for another tokenizer
  // model or an unknown pre-tokeniser.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const models::GgufFile& file);
  // The same from metadata in memory (tokenizer/vocabulary.h).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const Vocabulary& vocabulary);
  virtual ~Tokenizer() = default;

  // Appends the tokens of `text` to `out`. Any byte string is accepted (invalid UTF-8 too) and time
  // is linear in its length up to a logarithm. Never fails: byte tokens cover what the vocabulary
  // lacks.
  virtual void Encode(std::string_view text, const EncodeOptions& options,
                      std::vector<TokenId>& out) const = 0;
  std::vector<TokenId> Encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The bytes that `token` stands for inside a text; may be part of a UTF-8 sequence. Empty for
  // control tokens and for ids outside the vocabulary. Lives as long as the tokenizer.
  virtual std::string_view TokenBytes(TokenId token) const = 0;
  // As TokenBytes, but control tokens give their literal text ("<|eot_id|>").
  virtual std::string_view TokenText(TokenId token) const = 0;
  // All of `tokens` as bytes, without the spaces that the encoder itself would have added
  // (SentencePiece: one in front of the text and of what follows an added token). So it is the
  // inverse of Encode, except that U+2581 comes back as a space from SentencePiece.
  virtual std::string Decode(std::span<const TokenId> tokens, bool skip_special) const = 0;

  virtual uint32_t vocab_size() const = 0;
  // Control and unknown tokens: they stand for no text.
  virtual bool IsControl(TokenId token) const = 0;
  // Control, unknown and user-defined tokens: those that are matched as a whole, not merged.
  virtual bool IsAdded(TokenId token) const = 0;
  // Whether `token` ends a generation: EOS, EOT, EOM as the metadata and the well-known names say.
  virtual bool IsEndOfGeneration(TokenId token) const = 0;
  virtual std::span<const TokenId> end_of_generation() const = 0;
  virtual std::optional<TokenId> bos() const = 0;
  virtual std::optional<TokenId> eos() const = 0;
  // The token whose TokenText is exactly `text`, if any; added tokens come before others.
  virtual std::optional<TokenId> FindToken(std::string_view text) const = 0;
  // True when the first word of a text is encoded with a space in front (SentencePiece's
  // add_space_prefix).
  virtual bool adds_space_prefix() const = 0;
};

// Turns a stream of tokens into a stream of whole UTF-8 text: bytes of an unfinished code point are
// held back until it is complete; bytes that can never become one are replaced by U+FFFD. Not
// thread-safe; one per stream. Allocates nothing itself; `out` grows as it needs. The text is that
// of Decode with the ill-formed parts replaced as the WHATWG's UTF-8 decoder does, however the
// bytes are spread over tokens.
class StreamingDetokenizer {
 public:
  // `tokenizer` must outlive this. `skip_special`: control tokens give no text. `at_text_start`:
  // the first token is the beginning of a text, so that SentencePiece's added space is dropped.
  explicit StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special = true,
                                bool at_text_start = false);
  // Appends to `out` the text that `token` completes; may append nothing.
  void Append(TokenId token, std::string& out);
  // At the end of the stream: appends U+FFFD if a code point is left unfinished.
  void Finish(std::string& out);
  // Bytes held back now (0 to 3).
  size_t pending_bytes() const { return pending_size_; }

 private:
  void AppendBytes(std::string_view bytes, std::string& out);

  const Tokenizer& tokenizer_;
  const bool skip_special_;
  const bool adds_space_;
  bool strip_space_;
  char pending_[4] = {};
  size_t pending_size_ = 0;
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_TOKENIZER_H_
