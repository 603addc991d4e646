// Products of packed weights with activations: matmul-inl.h for every format, dispatched.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// Highway's headers come after foreach_target.h.
#include "backends/kernels/kernels.h"
#include "backends/kernels/matmul-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

template <bool kVnni>
void MatMulBy(const PackedMatrix& w, size_t first, size_t end, const Activations& x, size_t tokens,
              float* out, size_t stride, bool add) {
  const QuantizedRows& q = x.quantized;
  switch (w.format) {
    case PackedFormat::kF32:
      return FloatMatMul<PackedFormat::kF32>(w, first, end, x, tokens, out, stride, add);
    case PackedFormat::kF16:
      return FloatMatMul<PackedFormat::kF16>(w, first, end, x, tokens, out, stride, add);
    case PackedFormat::kBF16:
      return FloatMatMul<PackedFormat::kBF16>(w, first, end, x, tokens, out, stride, add);
    case PackedFormat::kInt8:
      return QuantMatMul<PackedFormat::kInt8, kVnni>(w, first, end, q, tokens, out, stride, add);
    case PackedFormat::kInt8Min:
      return QuantMatMul<PackedFormat::kInt8Min, kVnni>(w, first, end, q, tokens, out, stride, add);
    case PackedFormat::kInt8SuperMin:
      return QuantMatMul<PackedFormat::kInt8SuperMin, kVnni>(w, first, end, q, tokens, out, stride,
                                                             add);
    case PackedFormat::kInt8Super16:
      return QuantMatMul<PackedFormat::kInt8Super16, kVnni>(w, first, end, q, tokens, out, stride,
                                                            add);
    case PackedFormat::kNibbles:
      return QuantMatMul<PackedFormat::kNibbles, kVnni>(w, first, end, q, tokens, out, stride, add);
    case PackedFormat::kNibblesMin:
      return QuantMatMul<PackedFormat::kNibblesMin, kVnni>(w, first, end, q, tokens, out, stride,
                                                           add);
    case PackedFormat::kNibblesSuperMin:
      return QuantMatMul<PackedFormat::kNibblesSuperMin, kVnni>(w, first, end, q, tokens, out,
                                                                stride, add);
    case PackedFormat::kSixBit:
      return QuantMatMul<PackedFormat::kSixBit, kVnni>(w, first, end, q, tokens, out, stride, add);
    case PackedFormat::kThreeBit:
      return QuantMatMul<PackedFormat::kThreeBit, kVnni>(w, first, end, q, tokens, out, stride,
                                                         add);
  }
}

void MatMulTarget(const PackedMatrix& w, size_t first, size_t end, const Activations& x,
                  size_t tokens, float* out, size_t out_stride, bool add, int vnni_bits) {
  if (UsesVnni(vnni_bits)) return MatMulBy<true>(w, first, end, x, tokens, out, out_stride, add);
  MatMulBy<false>(w, first, end, x, tokens, out, out_stride, add);
}

const char* TargetName(int vnni_bits) {
#if HWY_TARGET == HWY_AVX3
  return UsesVnni(vnni_bits) ? "AVX3+VNNI" : "AVX3";
#elif HWY_TARGET == HWY_AVX2
  return UsesVnni(vnni_bits) ? "AVX2+VNNI" : "AVX2";
#else
  return hwy::TargetName(HWY_TARGET);
#endif
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace reticle::backends::kernels {
namespace {

HWY_EXPORT(MatMulTarget);
HWY_EXPORT(TargetName);

std::atomic<bool> vnni_disabled{false};

int DetectVnni() {
  int bits = 0;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & (1u << 11))) bits |= 2;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4))) bits |= 1;
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

std::string KernelTarget() { return HWY_DYNAMIC_DISPATCH(TargetName)(VnniBits()); }

void DisableVnniForTest(bool disable) { vnni_disabled.store(disable, std::memory_order_relaxed); }

}  // namespace reticle::backends::kernels

#endif  // HWY_ONCE
