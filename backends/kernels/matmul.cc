// Products of packed weights with activations: matmul-inl.h for every format, dispatched.
#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// Highway's headers come after foreach_target.h.
#include "backends/kernels/kernels.h"
#include "backends/kernels/matmul-inl.h"
#include "backends/kernels/tile-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

template <PackedFormat kFormat, bool kVnni>
void QuantMatMul(const PackedMatrix& w, size_t first, size_t end, const QuantizedRows& x,
                 size_t tokens, float* out, size_t out_stride, bool add) {
  using F = Format<kFormat>;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  if (tokens > kDirectTokens && (kProductsOf<F, kVnni> != Products::kWide || x.wide != nullptr)) {
    return TileMatMul<F, kVnni>(w, first, end, x, tokens, out, out_stride, add);
  }
#endif
  // Panel by panel if there are more tokens, so that weights are read from memory once.
  const size_t panels = tokens > kDirectTokens ? 1 : end - first;
  for (size_t panel = first; panel < end; panel += panels) {
    for (size_t t = 0; t < tokens; t += kDirectTokens) {
      const size_t count = std::min(kDirectTokens, tokens - t);
      DirectMatMul<F, kVnni>(w, panel, panel + panels, x, t, count, out, out_stride, add);
    }
  }
}

template <bool kVnni>
void MatMulBy(const PackedMatrix& w, size_t first, size_t end, const Activations& x, size_t tokens,
              float* out, size_t stride, bool add) {
  const auto floats = [&]<PackedFormat kFormat>() {
    FloatMatMul<kFormat>(w, first, end, x, tokens, out, stride, add);
  };
  const auto quants = [&]<PackedFormat kFormat>() {
    QuantMatMul<kFormat, kVnni>(w, first, end, x.quantized, tokens, out, stride, add);
  };
  switch (w.format) {
    case PackedFormat::kF32:
      return floats.template operator()<PackedFormat::kF32>();
    case PackedFormat::kF16:
      return floats.template operator()<PackedFormat::kF16>();
    case PackedFormat::kBF16:
      return floats.template operator()<PackedFormat::kBF16>();
    case PackedFormat::kInt8:
      return quants.template operator()<PackedFormat::kInt8>();
    case PackedFormat::kImageInt8:
      return quants.template operator()<PackedFormat::kImageInt8>();
    case PackedFormat::kFiveBit:
      return quants.template operator()<PackedFormat::kFiveBit>();
    case PackedFormat::kFiveBitMin:
      return quants.template operator()<PackedFormat::kFiveBitMin>();
    case PackedFormat::kFiveBitSuperMin:
      return quants.template operator()<PackedFormat::kFiveBitSuperMin>();
    case PackedFormat::kSixBit16:
      return quants.template operator()<PackedFormat::kSixBit16>();
    case PackedFormat::kNibbles:
      return quants.template operator()<PackedFormat::kNibbles>();
    case PackedFormat::kNibblesMin:
      return quants.template operator()<PackedFormat::kNibblesMin>();
    case PackedFormat::kNibblesSuperMin:
      return quants.template operator()<PackedFormat::kNibblesSuperMin>();
    case PackedFormat::kSixBit:
      return quants.template operator()<PackedFormat::kSixBit>();
    case PackedFormat::kThreeBit:
      return quants.template operator()<PackedFormat::kThreeBit>();
  }
}

void MatMulTarget(const PackedMatrix& w, size_t first, size_t end, const Activations& x,
                  size_t tokens, float* out, size_t out_stride, bool add, int vnni_bits) {
  if (UsesVnni(vnni_bits)) return MatMulBy<true>(w, first, end, x, tokens, out, out_stride, add);
  MatMulBy<false>(w, first, end, x, tokens, out, out_stride, add);
}

bool NeedsWideTarget([[maybe_unused]] int vnni_bits) { return kHasTiles && !UsesVnni(vnni_bits); }

const char* TargetName(int vnni_bits) {
#if HWY_TARGET == HWY_AVX3
  return UsesVnni(vnni_bits) ? "avx512+vnni" : "avx512";
#elif HWY_TARGET == HWY_AVX2
  return UsesVnni(vnni_bits) ? "avx2+vnni" : "avx2";
#elif HWY_TARGET == HWY_NEON
  return UsesVnni(vnni_bits) ? "neon+dotprod" : "neon";
#else
  return hwy::TargetName(HWY_TARGET);
#endif
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <atomic>

#include "absl/strings/ascii.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace reticle::backends::kernels {
namespace {

HWY_EXPORT(MatMulTarget);
HWY_EXPORT(TargetName);
HWY_EXPORT(NeedsWideTarget);

std::atomic<bool> vnni_disabled{false};

int DetectVnni() {
  int bits = 0;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & (1u << 11))) bits |= 2;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4))) bits |= 1;
#elif defined(__aarch64__) && defined(__linux__)
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) bits |= 4;
#endif
  return bits;
}

}  // namespace

int VnniBits() {
  static const int bits = DetectVnni();
  return vnni_disabled.load(std::memory_order_relaxed) ? 0 : bits;
}

void MatMul(const PackedMatrix& weights, size_t first_panel, size_t end_panel, const Activations& x,
            size_t tokens, float* out, size_t out_stride, bool add) {
  HWY_DYNAMIC_DISPATCH(MatMulTarget)
  (weights, first_panel, end_panel, x, tokens, out, out_stride, add, VnniBits());
}

bool NeedsWideQuants() { return HWY_DYNAMIC_DISPATCH(NeedsWideTarget)(VnniBits()); }

std::string KernelTarget() {
  return absl::AsciiStrToLower(HWY_DYNAMIC_DISPATCH(TargetName)(VnniBits()));
}

void DisableVnni(bool disable) { vnni_disabled.store(disable, std::memory_order_relaxed); }

}  // namespace reticle::backends::kernels

#endif  // HWY_ONCE
