// How packed weights become vectors, for each instruction set: scales, minima, and quants of every
// format. Included once for every target by Highway.
#if defined(RETICLE_BACKENDS_KERNELS_WEIGHTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_KERNELS_WEIGHTS_INL_H_
#undef RETICLE_BACKENDS_KERNELS_WEIGHTS_INL_H_
#else
#define RETICLE_BACKENDS_KERNELS_WEIGHTS_INL_H_
#endif

#include "backends/kernels/dot-inl.h"
#include "backends/kernels/packed_matrix.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

using DU16 = hn::Rebind<uint16_t, DF>;
using DF16 = hn::Rebind<hwy::float16_t, DF>;
using DBF16 = hn::Rebind<hwy::bfloat16_t, DF>;
using DBytes = hn::Rebind<int8_t, DF>;
using DUBytes = hn::Rebind<uint8_t, DF>;

HWY_INLINE VF LoadHalves(const std::byte* base, size_t index) {
  const DU16 du16;
  const auto bits = hn::LoadU(du16, reinterpret_cast<const uint16_t*>(base) + index);
  return hn::PromoteTo(DF(), hn::BitCast(DF16(), bits));
}

HWY_INLINE VF LoadInt8(const std::byte* base, size_t index) {
  const auto bytes = hn::LoadU(DBytes(), reinterpret_cast<const int8_t*>(base) + index);
  return hn::ConvertTo(DF(), hn::PromoteTo(DI(), bytes));
}

HWY_INLINE VF LoadUint8(const std::byte* base, size_t index) {
  const auto bytes = hn::LoadU(DUBytes(), reinterpret_cast<const uint8_t*>(base) + index);
  return hn::ConvertTo(DF(), hn::PromoteTo(DI(), bytes));
}

template <PackedFormat kFormat>
struct Format {
  static constexpr bool kNibbles = IsNibbles(kFormat);
  static constexpr bool kFive = IsFiveBit(kFormat);
  static constexpr bool kSix =
      kFormat == PackedFormat::kSixBit || kFormat == PackedFormat::kSixBit16;
  static constexpr bool kThree = kFormat == PackedFormat::kThreeBit;
  static constexpr bool kSigned =
      kFormat == PackedFormat::kInt8 || kFormat == PackedFormat::kImageInt8;
  static constexpr bool kMin = HasMin(kFormat);
  static constexpr bool kSuper = IsSuper(kFormat);
  // Columns that share a scale, and the byte-vectors of as many.
  static constexpr size_t kGroup = kFormat == PackedFormat::kSixBit16 ? 16 : 32;
  static constexpr size_t kVectors = VectorsOfGroup(kFormat) * kGroup / 32;
  static constexpr size_t kGroupBytes = kVectors * kPanelRows * 4;
  // Bytes of a group's scales, and of its minima.
  static constexpr size_t kScaleBytes = kPanelRows * (kSuper ? 1 : 2);
  // Whether the parts of a panel lie in units; what of those without is unused.
  static constexpr bool kUnits = HasUnits(kFormat);
  static constexpr UnitLayout kUnit = UnitOf(kFormat);
  static constexpr size_t kUnitGroups = kUnit.groups * 32 / kGroup;
  // What a stored quant is too large by.
  static constexpr int kOffset = QuantOffset(kFormat);
  // Products of pairs of quants and activations that sum up without leaving 16 bits.
  static constexpr size_t kChain = kNibbles || kThree ? 8 : kFive ? 4 : 2;
};

// Where one panel's arrays begin.
struct PanelView {
  const std::byte* values;
  const std::byte* scales;
  const std::byte* super_scales;

  PanelView(const PackedMatrix& w, size_t panel)
      : values(w.values + panel * w.values_stride),
        scales(w.scales + panel * w.scales_stride),
        super_scales(w.super_scales + panel * w.super_stride) {}
};

// Where the parts of one group are; unused are those that the format lacks.
struct GroupView {
  const std::byte* quants;
  const std::byte* scales;
  const std::byte* mins;
  const std::byte* super_scales;
  const std::byte* super_mins;
};

template <class F>
HWY_INLINE GroupView ViewGroup(const PanelView& panel, size_t group) {
  if constexpr (F::kUnits) {
    const std::byte* const unit = panel.values + group / F::kUnitGroups * F::kUnit.bytes();
    const size_t in_unit = group % F::kUnitGroups;
    return {unit + F::kUnit.quants + in_unit * F::kGroupBytes,
            unit + F::kUnit.scales + in_unit * F::kScaleBytes,
            unit + F::kUnit.mins + in_unit * F::kScaleBytes, unit, unit + F::kUnit.super_mins};
  } else {
    return {panel.values + group * F::kGroupBytes, panel.scales + group * F::kScaleBytes, nullptr,
            panel.super_scales + group * F::kGroup / 256 * kPanelRows * 2, nullptr};
  }
}

// The factors of 256 columns' scales and minima; unused but for kSuper.
struct SuperScales {
  VF scale;
  VF min;
};

template <class F>
HWY_INLINE SuperScales LoadSuper(const GroupView& w, size_t lane) {
  SuperScales super = {hn::Zero(DF()), hn::Zero(DF())};
  if constexpr (F::kSuper) {
    super.scale = LoadHalves(w.super_scales, lane);
    if constexpr (F::kMin) super.min = LoadHalves(w.super_mins, lane);
  }
  return super;
}

template <class F>
HWY_INLINE VF LoadScale(const GroupView& w, size_t lane, const SuperScales& super) {
  if constexpr (F::kSuper) {
    return hn::Mul(super.scale, LoadInt8(w.scales, lane));
  } else {
    return LoadHalves(w.scales, lane);
  }
}

template <class F>
HWY_INLINE VF LoadMin(const GroupView& w, size_t lane, const SuperScales& super) {
  if constexpr (F::kSuper) {
    return hn::Mul(super.min, LoadUint8(w.mins, lane));
  } else {
    return LoadHalves(w.mins, lane);
  }
}

// Bits kFrom .. kFrom + kBits - 1 of every byte, moved to bit kTo.
template <int kFrom, int kBits, int kTo>
HWY_INLINE V8 Field(V8 bytes) {
  const auto wide = hn::BitCast(D16(), bytes);
  const auto mask = hn::Set(D8(), static_cast<int8_t>(((1 << kBits) - 1) << kTo));
  if constexpr (kFrom > kTo) {
    return hn::And(hn::BitCast(D8(), hn::ShiftRight<kFrom - kTo>(wide)), mask);
  } else if constexpr (kFrom < kTo) {
    return hn::And(hn::BitCast(D8(), hn::ShiftLeft<kTo - kFrom>(wide)), mask);
  } else {
    return hn::And(bytes, mask);
  }
}

// The quants of one group in the rows of one vector: codes[j] holds columns 4j .. 4j+3. `bytes` is
// where the group begins, at these rows. Unsigned but for kSigned.
template <class F>
HWY_INLINE void LoadCodes(const std::byte* bytes, V8 (&codes)[F::kGroup / 4]) {
  constexpr size_t kRowBytes = kPanelRows * 4;
  const auto vector = [bytes](size_t i) HWY_ATTR {
    return hn::LoadU(D8(), reinterpret_cast<const int8_t*>(bytes) + i * kRowBytes);
  };
  if constexpr (F::kNibbles || F::kFive) {
    RETICLE_UNROLL for (size_t j = 0; j < 4; ++j) {
      const V8 both = vector(j);
      codes[j] = Field<0, 4, 0>(both);
      codes[j + 4] = Field<4, 4, 0>(both);
    }
    if constexpr (F::kFive) {
      const V8 fifths = vector(4);
      codes[0] = hn::Or(codes[0], Field<0, 1, 4>(fifths));
      codes[1] = hn::Or(codes[1], Field<1, 1, 4>(fifths));
      codes[2] = hn::Or(codes[2], Field<2, 1, 4>(fifths));
      codes[3] = hn::Or(codes[3], Field<3, 1, 4>(fifths));
      codes[4] = hn::Or(codes[4], Field<4, 1, 4>(fifths));
      codes[5] = hn::Or(codes[5], Field<5, 1, 4>(fifths));
      codes[6] = hn::Or(codes[6], Field<6, 1, 4>(fifths));
      codes[7] = hn::Or(codes[7], Field<7, 1, 4>(fifths));
    }
  } else if constexpr (F::kSix) {
    RETICLE_UNROLL for (size_t part = 0; part < F::kGroup / 16; ++part) {
      const V8 a = vector(3 * part);
      const V8 b = vector(3 * part + 1);
      const V8 c = vector(3 * part + 2);
      codes[4 * part] = Field<0, 6, 0>(a);
      codes[4 * part + 1] = Field<0, 6, 0>(b);
      codes[4 * part + 2] = Field<0, 6, 0>(c);
      codes[4 * part + 3] = hn::Or(hn::Or(Field<6, 2, 0>(a), Field<6, 2, 2>(b)), Field<6, 2, 4>(c));
    }
  } else if constexpr (F::kThree) {
    const V8 a = vector(0);
    const V8 b = vector(1);
    const V8 c = vector(2);
    codes[0] = Field<0, 3, 0>(a);
    codes[1] = Field<0, 3, 0>(b);
    codes[2] = Field<0, 3, 0>(c);
    codes[3] = Field<3, 3, 0>(a);
    codes[4] = Field<3, 3, 0>(b);
    codes[5] = Field<3, 3, 0>(c);
    codes[6] = hn::Or(Field<6, 2, 0>(a), Field<6, 1, 2>(b));
    codes[7] = hn::Or(Field<6, 2, 0>(c), Field<7, 1, 2>(b));
  } else {
    RETICLE_UNROLL for (size_t j = 0; j < F::kGroup / 4; ++j) codes[j] = vector(j);
  }
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_KERNELS_WEIGHTS_INL_H_
