// Element-wise steps of the model: vector_ops-inl.h, dispatched.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/kernels/vector_ops.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// Highway's headers come after foreach_target.h.
#include "backends/kernels/kernels.h"
#include "backends/kernels/vector_ops-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

void RmsNormTarget(const float* x, const float* weight, size_t size, float epsilon, float* out) {
  RmsNormInline(x, weight, size, epsilon, out);
}

void SwiGluTarget(const float* gate, const float* up, size_t size, float* out) {
  SwiGluInline(gate, up, size, out);
}

void RopeTarget(float* x, size_t pairs, const float* cosines, const float* sines) {
  RopeInline(x, pairs, cosines, sines);
}

void QuantizeColumnsTarget(const float* x, size_t first, size_t end, size_t row,
                           const QuantizedRows& out) {
  QuantizeColumnsInline(x, first, end, row, out);
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace reticle::backends::kernels {
namespace {
HWY_EXPORT(RmsNormTarget);
HWY_EXPORT(SwiGluTarget);
HWY_EXPORT(RopeTarget);
HWY_EXPORT(QuantizeColumnsTarget);
}  // namespace

void RmsNorm(const float* x, const float* weight, size_t size, float epsilon, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNormTarget)(x, weight, size, epsilon, out);
}

void SwiGlu(const float* gate, const float* up, size_t size, float* out) {
  HWY_DYNAMIC_DISPATCH(SwiGluTarget)(gate, up, size, out);
}

void Rope(float* x, size_t pairs, const float* cosines, const float* sines) {
  HWY_DYNAMIC_DISPATCH(RopeTarget)(x, pairs, cosines, sines);
}

void QuantizeColumns(const float* x, size_t first, size_t end, size_t row,
                     const QuantizedRows& out) {
  HWY_DYNAMIC_DISPATCH(QuantizeColumnsTarget)(x, first, end, row, out);
}

}  // namespace reticle::backends::kernels

#endif  // HWY_ONCE
