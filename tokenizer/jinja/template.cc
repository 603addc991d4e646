#include "tokenizer/jinja/template.h"

#include "base/status.h"
#include "tokenizer/jinja/interpreter.h"
#include "tokenizer/jinja/parser.h"

namespace reticle::tokenizer::jinja {

Template::Template(std::unique_ptr<const Ast> ast, const Limits& limits)
    : ast_(std::move(ast)), limits_(limits) {
  for (size_t i = 0; i < ast_->names.size(); ++i) {
    name_ids_.emplace(ast_->names[i].text().str(), static_cast<uint32_t>(i));
  }
  for (auto& [name, value] : Globals()) {
    const auto id = name_ids_.find(name);
    if (id != name_ids_.end()) globals_.emplace_back(id->second, std::move(value));
  }
}

absl::StatusOr<std::unique_ptr<const Template>> Template::Create(std::string_view source,
                                                                 const Limits& limits) {
  if (source.size() > kMaxSourceBytes) {
    return ResourceExhaustedError("template has %d bytes; the limit is %d", source.size(),
                                  kMaxSourceBytes);
  }
  ASSIGN_OR_RETURN(std::unique_ptr<const Ast> ast, Parse(source));
  return std::unique_ptr<const Template>(new Template(std::move(ast), limits));
}

absl::StatusOr<Text> Template::Render(const Variables& variables, int64_t now_unix_s) const {
  Interpreter interpreter(*ast_, limits_, now_unix_s);
  for (const auto& [id, value] : globals_) interpreter.SetGlobal(id, value);
  for (const auto& [name, value] : variables) {
    const auto id = name_ids_.find(name);
    if (id != name_ids_.end()) interpreter.SetGlobal(id->second, value);
  }
  return interpreter.Run();
}

}  // namespace reticle::tokenizer::jinja
