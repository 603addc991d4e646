// A Jinja2 template, in the subset and with the settings that chat templates use.
//
//   ASSIGN_OR_RETURN(auto hello, Template::Create("Hello {{ name }}!"));
//   ASSIGN_OR_RETURN(Text text, hello->Render({{"name", Value("you")}}));
#ifndef RETICLE_TOKENIZER_JINJA_TEMPLATE_H_
#define RETICLE_TOKENIZER_JINJA_TEMPLATE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/text.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer::jinja {

// Immutable after Create, so thread-safe.
class Template {
 public:
  static constexpr size_t kMaxSourceBytes = size_t{1} << 20;

  using Variables = std::vector<std::pair<std::string, Value>>;

  // INVALID_ARGUMENT with line and column for a syntax error, RESOURCE_EXHAUSTED for a template
  // that is too large or nests too deep.
  static absl::StatusOr<std::unique_ptr<const Template>> Create(std::string_view source,
                                                                const Limits& limits = {});

  // The rendered text, each byte marked as its source was. INVALID_ARGUMENT or OUT_OF_RANGE, with
  // the line, when the template raises an exception or does what Python would refuse;
  // RESOURCE_EXHAUSTED when a limit is passed. `now_unix_s` is for strftime_now.
  absl::StatusOr<Text> Render(const Variables& variables, int64_t now_unix_s = 0) const;

 private:
  Template(std::unique_ptr<const Ast> ast, const Limits& limits);

  const std::unique_ptr<const Ast> ast_;
  const Limits limits_;
  absl::flat_hash_map<std::string, uint32_t> name_ids_;
  std::vector<std::pair<uint32_t, Value>> globals_;  // those that the template mentions
};

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_TEMPLATE_H_
