#include "backends/cpu/bench/peak_kernels.h"

#include <cstring>

#include "backends/kernels/kernels.h"
#include "backends/kernels/sdot.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

// Sums that no product waits for, as many as hide its latency.
#define RETICLE_PEAK_REPEAT_8(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)
#define RETICLE_PEAK_REPEAT_12(what) RETICLE_PEAK_REPEAT_8(what) what(8) what(9) what(10) what(11)

namespace reticle::backends::cpu::bench {
namespace {

[[maybe_unused]] bool Always() { return true; }

#if defined(__x86_64__)

// The empty asm statements keep the compiler from seeing that operands never change.

bool HasSsse3() { return __builtin_cpu_supports("ssse3") != 0; }
bool HasAvx2() { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }
bool HasAvx512() { return __builtin_cpu_supports("avx512bw") != 0; }
bool HasAvxVnni() { return HasAvx2() && (kernels::VnniBits() & 1) != 0; }
bool HasAvx512Vnni() { return HasAvx512() && (kernels::VnniBits() & 2) != 0; }

__attribute__((target("ssse3"))) void Int8Ssse3(uint64_t rounds) {
  __m128i sum[8] = {};
  __m128i a = _mm_set1_epi8(3), b = _mm_set1_epi8(5), ones = _mm_set1_epi16(1);
#define RETICLE_PAIRS_128(i)  \
  asm volatile("" : "+x"(b)); \
  sum[i] = _mm_add_epi32(sum[i], _mm_madd_epi16(_mm_maddubs_epi16(a, b), ones));
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_8(RETICLE_PAIRS_128)
  }
  for (const __m128i& value : sum) asm volatile("" : : "x"(value));
}

__attribute__((target("avx2"))) void Int8Avx2(uint64_t rounds) {
  __m256i sum[8] = {};
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
#define RETICLE_PAIRS_256(i)  \
  asm volatile("" : "+x"(b)); \
  sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_8(RETICLE_PAIRS_256)
  }
  for (const __m256i& value : sum) asm volatile("" : : "x"(value));
}

__attribute__((target("avx512f,avx512bw"))) void Int8Avx512(uint64_t rounds) {
  __m512i sum[8] = {};
  __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5), ones = _mm512_set1_epi16(1);
#define RETICLE_PAIRS_512(i)  \
  asm volatile("" : "+v"(b)); \
  sum[i] = _mm512_add_epi32(sum[i], _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), ones));
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_8(RETICLE_PAIRS_512)
  }
  for (const __m512i& value : sum) asm volatile("" : : "v"(value));
}

// In assembly, so that no target beyond AVX2 need be known to the compiler.
__attribute__((target("avx2"))) void Int8AvxVnni(uint64_t rounds) {
  __m256i sum[12] = {};
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
#define RETICLE_DOT_256(i) \
  asm volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum[i]) : "x"(a), "x"(b));
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_12(RETICLE_DOT_256)
  }
  for (const __m256i& value : sum) asm volatile("" : : "x"(value));
}

__attribute__((target("avx512f"))) void Int8Avx512Vnni(uint64_t rounds) {
  __m512i sum[12] = {};
  __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
#define RETICLE_DOT_512(i) asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum[i]) : "v"(a), "v"(b));
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_12(RETICLE_DOT_512)
  }
  for (const __m512i& value : sum) asm volatile("" : : "v"(value));
}

void FloatSse(uint64_t rounds) {
  __m128 sum[8] = {};
  __m128 a = _mm_set1_ps(0.5f), b = _mm_set1_ps(0.25f);
#define RETICLE_MUL_ADD_128(i) \
  asm volatile("" : "+x"(b));  \
  sum[i] = _mm_add_ps(sum[i], _mm_mul_ps(a, b));
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_8(RETICLE_MUL_ADD_128)
  }
  for (const __m128& value : sum) asm volatile("" : : "x"(value));
}

__attribute__((target("avx2,fma"))) void FloatAvx2(uint64_t rounds) {
  __m256 sum[12] = {};
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
#define RETICLE_FMA_256(i) sum[i] = _mm256_fmadd_ps(a, b, sum[i]);
  for (uint64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+x"(a), "+x"(b));
    RETICLE_PEAK_REPEAT_12(RETICLE_FMA_256)
  }
  for (const __m256& value : sum) asm volatile("" : : "x"(value));
}

__attribute__((target("avx512f"))) void FloatAvx512(uint64_t rounds) {
  __m512 sum[12] = {};
  __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
#define RETICLE_FMA_512(i) sum[i] = _mm512_fmadd_ps(a, b, sum[i]);
  for (uint64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+v"(a), "+v"(b));
    RETICLE_PEAK_REPEAT_12(RETICLE_FMA_512)
  }
  for (const __m512& value : sum) asm volatile("" : : "v"(value));
}

constexpr PeakKernel kKernels[] = {
    {"ssse3", true, HasSsse3, Int8Ssse3, 8 * 16 * 2},
    {"avx2", true, HasAvx2, Int8Avx2, 8 * 32 * 2},
    {"avx2+vnni", true, HasAvxVnni, Int8AvxVnni, 12 * 32 * 2},
    {"avx512", true, HasAvx512, Int8Avx512, 8 * 64 * 2},
    {"avx512+vnni", true, HasAvx512Vnni, Int8Avx512Vnni, 12 * 64 * 2},
    {"sse", false, Always, FloatSse, 8 * 4 * 2},
    {"avx2", false, HasAvx2, FloatAvx2, 12 * 8 * 2},
    {"avx512", false, HasAvx512, FloatAvx512, 12 * 16 * 2},
};

#elif defined(__aarch64__)

bool HasDotProduct() {
  constexpr unsigned long kHwcapAsimdDp = 1ul << 20;
  return (getauxval(AT_HWCAP) & kHwcapAsimdDp) != 0;
}

void Int8Neon(uint64_t rounds) {
  int32x4_t sum[8] = {};
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
#define RETICLE_PAIRS_NEON(i) \
  asm volatile("" : "+w"(b)); \
  sum[i] = vpadalq_s16(sum[i], vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b));
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_8(RETICLE_PAIRS_NEON)
  }
  for (const int32x4_t& value : sum) asm volatile("" : : "w"(value));
}

void Int8NeonDot(uint64_t rounds) {
  int32x4_t sum[12] = {};
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
#define RETICLE_DOT_NEON(i) asm volatile(RETICLE_SDOT : "+w"(sum[i]) : "w"(a), "w"(b));
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_12(RETICLE_DOT_NEON)
  }
  for (const int32x4_t& value : sum) asm volatile("" : : "w"(value));
}

void FloatNeon(uint64_t rounds) {
  float32x4_t sum[12] = {};
  float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0.25f);
#define RETICLE_FMA_NEON(i) sum[i] = vfmaq_f32(sum[i], a, b);
  for (uint64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+w"(a), "+w"(b));
    RETICLE_PEAK_REPEAT_12(RETICLE_FMA_NEON)
  }
  for (const float32x4_t& value : sum) asm volatile("" : : "w"(value));
}

constexpr PeakKernel kKernels[] = {
    {"neon", true, Always, Int8Neon, 8 * 16 * 2},
    {"neon+dotprod", true, HasDotProduct, Int8NeonDot, 12 * 16 * 2},
    {"neon", false, Always, FloatNeon, 12 * 4 * 2},
};

#else

void Int8Scalar(uint64_t rounds) {
  int32_t sum[8] = {};
  int32_t a = 3, b = 5;
#define RETICLE_SCALAR_INT(i) \
  asm volatile("" : "+r"(b)); \
  sum[i] += a * b;
  for (uint64_t r = 0; r < rounds; ++r) {
    RETICLE_PEAK_REPEAT_8(RETICLE_SCALAR_INT)
  }
  for (const int32_t value : sum) asm volatile("" : : "r"(value));
}

void FloatScalar(uint64_t rounds) {
  float sum[8] = {};
  float a = 0.5f, b = 0.25f;
#define RETICLE_SCALAR_FLOAT(i) sum[i] += a * b;
  for (uint64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+m"(a), "+m"(b));
    RETICLE_PEAK_REPEAT_8(RETICLE_SCALAR_FLOAT)
  }
  for (const float& value : sum) asm volatile("" : : "m"(value));
}

constexpr PeakKernel kKernels[] = {
    {"scalar", true, Always, Int8Scalar, 8 * 2},
    {"scalar", false, Always, FloatScalar, 8 * 2},
};

#endif

using Line = uint64_t __attribute__((vector_size(64)));

// Far enough that the line is there when it is read, near enough to stay within a page mostly.
constexpr size_t kPrefetchBytes = 1024;

#define RETICLE_READ_MEMORY(bytes, prefetch)                         \
  Line sum[4] = {};                                                  \
  for (size_t at = 0; at < (bytes); at += 4 * sizeof(Line)) {        \
    for (size_t i = 0; i < 4; ++i) {                                 \
      const std::byte* const line = data + at + i * sizeof(Line);    \
      if (prefetch) __builtin_prefetch(line + kPrefetchBytes, 0, 0); \
      sum[i] ^= *reinterpret_cast<const Line*>(line);                \
    }                                                                \
  }                                                                  \
  sum[0] ^= sum[1] ^ sum[2] ^ sum[3];                                \
  uint64_t words[sizeof(Line) / sizeof(uint64_t)];                   \
  std::memcpy(words, &sum[0], sizeof(words));                        \
  uint64_t all = 0;                                                  \
  for (const uint64_t word : words) all ^= word;                     \
  return all;

template <bool kPrefetch>
uint64_t ReadPlain(const std::byte* data, size_t bytes) {
  RETICLE_READ_MEMORY(bytes, kPrefetch)
}

#if defined(__x86_64__)
template <bool kPrefetch>
__attribute__((target("avx2"))) uint64_t ReadAvx2(const std::byte* data, size_t bytes) {
  RETICLE_READ_MEMORY(bytes, kPrefetch)
}

template <bool kPrefetch>
__attribute__((target("avx512f"))) uint64_t ReadAvx512(const std::byte* data, size_t bytes) {
  RETICLE_READ_MEMORY(bytes, kPrefetch)
}
#endif

}  // namespace

std::span<const PeakKernel> PeakKernels() { return kKernels; }

uint64_t ReadMemory(const std::byte* data, size_t bytes, bool prefetch) {
#if defined(__x86_64__)
  if (HasAvx512()) return prefetch ? ReadAvx512<true>(data, bytes) : ReadAvx512<false>(data, bytes);
  if (HasAvx2()) return prefetch ? ReadAvx2<true>(data, bytes) : ReadAvx2<false>(data, bytes);
#endif
  return prefetch ? ReadPlain<true>(data, bytes) : ReadPlain<false>(data, bytes);
}

}  // namespace reticle::backends::cpu::bench
