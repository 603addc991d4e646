// Checks a GGUF file's tokenizer against vectors: compare_vectors MODEL VECTORS COUNT.
//
// VECTORS holds COUNT cases of little-endian numbers: u32 parse_special, u32 bytes, the text, u32
// ids, the ids as u32. Beginning-of-sequence tokens are not added. Every text must also decode to
// itself, U+2581 apart where the tokenizer writes spaces so.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/gguf.h"
#include "tokenizer/tokenizer.h"

namespace reticle::tokenizer {
namespace {

class Reader {
 public:
  explicit Reader(std::string data) : data_(std::move(data)) {}
  bool done() const { return position_ == data_.size(); }
  uint32_t Uint32() {
    uint32_t value = 0;
    const std::string_view bytes = Bytes(sizeof value);
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  std::string_view Bytes(size_t size) {
    if (data_.size() - position_ < size) {
      std::fprintf(stderr, "the vectors end early\n");
      std::exit(1);
    }
    position_ += size;
    return std::string_view(data_).substr(position_ - size, size);
  }

 private:
  std::string data_;
  size_t position_ = 0;
};

void Print(const char* label, const std::vector<TokenId>& tokens) {
  std::fprintf(stderr, "  %s", label);
  for (size_t i = 0; i < tokens.size() && i < 40; ++i) std::fprintf(stderr, " %u", tokens[i]);
  std::fprintf(stderr, "\n");
}

std::string WithSpaces(std::string_view text) {
  std::string result(text);
  for (size_t at; (at = result.find("\xE2\x96\x81")) != std::string::npos;)
    result.replace(at, 3, " ");
  return result;
}

int Run(const char* model, const char* vectors, size_t count) {
  absl::StatusOr<std::unique_ptr<models::GgufFile>> file = models::GgufFile::Open(model);
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", file.status().ToString().c_str());
    return 1;
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(**file);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::ifstream stream(vectors, std::ios::binary);
  Reader reader(std::string(std::istreambuf_iterator<char>(stream), {}));
  size_t cases = 0;
  size_t failures = 0;
  for (; !reader.done(); ++cases) {
    const bool parse_special = reader.Uint32() != 0;
    const std::string_view text = reader.Bytes(reader.Uint32());
    std::vector<TokenId> expected(reader.Uint32());
    for (TokenId& token : expected) token = reader.Uint32();
    const std::vector<TokenId> tokens =
        (*tokenizer)->Encode(text, {.add_special = false, .parse_special = parse_special});
    std::string decoded = (*tokenizer)->Decode(tokens, false);
    const bool round_trip =
        (*tokenizer)->adds_space_prefix() ? decoded == WithSpaces(text) : decoded == text;
    if (tokens == expected && round_trip) continue;
    if (++failures > 10) continue;
    std::fprintf(stderr, "case %zu, \"%.*s\"%s\n", cases, static_cast<int>(text.size()),
                 text.data(), round_trip ? "" : ": does not decode to itself");
    Print("expected", expected);
    Print("got     ", tokens);
  }
  std::printf("%zu cases, %zu failures\n", cases, failures);
  return failures == 0 && cases == count && cases > 0 ? 0 : 1;
}

}  // namespace
}  // namespace reticle::tokenizer

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s MODEL VECTORS COUNT\n", argv[0]);
    return 2;
  }
  return reticle::tokenizer::Run(argv[1], argv[2], std::strtoull(argv[3], nullptr, 10));
}
