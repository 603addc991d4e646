// Counts allocations by replacing operator new, which sanitizers do themselves.
#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tokenizer/testing.h"
#include "tokenizer/tokenizer.h"

namespace {
std::atomic<int> allocations{0};
}  // namespace

void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace reticle::tokenizer {
namespace {

TEST(StreamingDetokenizerTest, AllocatesNothing) {
  const TestVocabulary vocabulary = TestVocabulary::ByteLevel("gpt-2", Corpus(), 300);
  const auto tokenizer = vocabulary.Build();
  const std::vector<TokenId> tokens = tokenizer->Encode(Corpus());
  std::string out;
  out.reserve(2 * Corpus().size());
  const int before = allocations;
  StreamingDetokenizer detokenizer(*tokenizer);
  for (TokenId token : tokens) detokenizer.Append(token, out);
  detokenizer.Finish(out);
  const int after = allocations;
  EXPECT_EQ(after, before);
  EXPECT_EQ(out, Corpus());
}

}  // namespace
}  // namespace reticle::tokenizer
