#include "tokenizer/vocabulary.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "base/status.h"
#include "models/gguf.h"

namespace reticle::tokenizer {
namespace {

// Moves `value` to `field`; an absent key leaves the field as it is.
template <typename T, typename Field>
absl::Status Assign(absl::StatusOr<T> value, Field& field) {
  if (value.ok()) {
    field = *std::move(value);
  } else if (value.status().code() != absl::StatusCode::kNotFound) {
    return std::move(value).status();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Vocabulary> ReadVocabulary(const models::GgufFile& file) {
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.tokens"}) {
    if (!file.Has(key)) return InvalidArgumentError("the file has no tokenizer: %s is absent", key);
  }
  Vocabulary v;
  RETURN_IF_ERROR(Assign(file.GetString("tokenizer.ggml.model"), v.model));
  RETURN_IF_ERROR(Assign(file.GetString("tokenizer.ggml.pre"), v.pre));
  RETURN_IF_ERROR(Assign(file.GetStringArray("tokenizer.ggml.tokens"), v.tokens));
  RETURN_IF_ERROR(Assign(file.GetFloatArray("tokenizer.ggml.scores"), v.scores));
  RETURN_IF_ERROR(Assign(file.GetIntArray("tokenizer.ggml.token_type"), v.token_type));
  RETURN_IF_ERROR(Assign(file.GetStringArray("tokenizer.ggml.merges"), v.merges));
  RETURN_IF_ERROR(Assign(file.GetUint("tokenizer.ggml.bos_token_id"), v.bos_token_id));
  RETURN_IF_ERROR(Assign(file.GetUint("tokenizer.ggml.eos_token_id"), v.eos_token_id));
  RETURN_IF_ERROR(Assign(file.GetUint("tokenizer.ggml.eot_token_id"), v.eot_token_id));
  RETURN_IF_ERROR(Assign(file.GetUint("tokenizer.ggml.eom_token_id"), v.eom_token_id));
  RETURN_IF_ERROR(Assign(file.GetUint("tokenizer.ggml.unknown_token_id"), v.unknown_token_id));
  RETURN_IF_ERROR(Assign(file.GetBool("tokenizer.ggml.add_bos_token"), v.add_bos_token));
  RETURN_IF_ERROR(Assign(file.GetBool("tokenizer.ggml.add_eos_token"), v.add_eos_token));
  RETURN_IF_ERROR(Assign(file.GetBool("tokenizer.ggml.add_space_prefix"), v.add_space_prefix));
  RETURN_IF_ERROR(
      Assign(file.GetBool("tokenizer.ggml.remove_extra_whitespaces"), v.remove_extra_whitespaces));
  return v;
}

std::string Abbreviated(std::string_view text) {
  constexpr size_t kMaxBytes = 48;
  const std::string head(text.substr(0, kMaxBytes));
  return absl::CHexEscape(head) + (text.size() > kMaxBytes ? "..." : "");
}

}  // namespace reticle::tokenizer
