// PixMix's rounds: one pass over an image, in blocks that stay in the first-level cache.
#pragma once

#include "image_chains_vector.h"
#include "pixmix.h"

namespace ENTPROP_ISA {

inline constexpr int64_t kBlock = 2048;
inline constexpr float kLowestLog = -126;  // of float's normal numbers

// log2 of normal positive numbers, to 2^-22: x = 2^e m with m around 1, and the series of artanh.
ENTPROP_INLINE Floats log2_of(Floats x) {
  constexpr int32_t kHalfRoot = 0x3f3504f3;
  const Ints bits = (Ints)x - kHalfRoot;
  const Floats m = (Floats)((bits & 0x7fffff) + kHalfRoot);
  const Floats s = (m - 1) / (m + 1), z = s * s;
  const Floats series =
      2.88539008f + z * (0.961796694f + z * (0.577078016f + z * (0.412198583f + z * 0.320598898f)));
  return as_floats(bits >> 23) + s * series;
}

// 2^x for kLowestLog <= x < 127, to 2^-22.
ENTPROP_INLINE Floats exp2_of(Floats x) {
  constexpr float kToWhole = 12582912;  // 1.5 * 2^23: the sum is rounded to a whole number
  const Floats whole = (x + kToWhole) - kToWhole, r = x - whole;
  const Floats high =
      0.0555041087f + r * (0.00961812911f + r * (0.00133335581f + r * 1.54035304e-4f));
  const Floats power = 1 + r * (0.693147181f + r * (0.240226507f + r * high));
  return (Floats)((Ints)power + (__builtin_convertvector(whole, Ints) << 23));
}

ENTPROP_INLINE Floats looked_up(const float* table, Ints index) {
#if defined(__AVX512F__)
  return (Floats)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, (__m512i)index, table, 4);
#elif defined(__AVX2__)
  return (Floats)_mm256_i32gather_ps(table, (__m256i)index, 4);
#else
  Floats found;
  for (int k = 0; k < kPixels; ++k) found[k] = table[index[k]];
  return found;
#endif
}

ENTPROP_INLINE Floats within_unit(Floats x) { return clamp(x, Floats{}, Floats{} + 1); }

// Of values in [-1, 1]: a x + b y.
inline void add_levels(float* x, const uint8_t* y, int64_t n, float a, float b) {
  const float scale = b / 255, shift = (1 - a - b) / 2;
  for (int64_t i = 0; i < n; i += kPixels) {
    const Floats other = as_floats(load_levels(y + i)) * scale + shift;
    store_vector(x + i, within_unit(load_vector<Floats>(x + i) * a + other));
  }
}

// Of values in [0, 2]: x^a y^b, by `table` of what a level y adds to the logarithm.
inline void multiply_levels(float* x, const uint8_t* y, int64_t n, float a, const float* table) {
  const Floats lowest = Floats{} + kLowestLog, smallest = Floats{} + 0x1p-126f;
  for (int64_t i = 0; i < n; i += kPixels) {
    const Floats value = load_vector<Floats>(x + i);
    Floats power = log2_of(value > smallest ? value : smallest) * a;
    power += looked_up(table, load_levels(y + i));
    power = exp2_of(power > lowest ? power : lowest);
    store_vector(x + i, value > smallest ? within_unit(power) : Floats{});
  }
}

// Whole vectors at `from`: the block's own, or a copy where the last one is short.
ENTPROP_INLINE const uint8_t* whole_block(const uint8_t* from, int64_t n, uint8_t* copy) {
  if (n % kPixels == 0) return from;
  __builtin_memcpy(copy, from, n);
  return copy;
}

void pixmix(const PixmixImage& image) {
  for (int64_t r = 0; r < image.rounds; ++r) {
    const float a = image.weights[2 * r], b = image.weights[2 * r + 1];
    if (image.codes[r] == (uint8_t)Mixing::multiply)
      for (int64_t y = 0; y < kLevels; ++y)
        image.scratch[r * kLevels + y] = b * image.logs[y] + (a - 1);
  }
  float x[kBlock];
  uint8_t copy[kBlock] = {};
  for (int64_t first = 0; first < image.values; first += kBlock) {
    const int64_t rest = image.values - first, n = rest < kBlock ? rest : kBlock;
    const uint8_t* start = image.start;
    if (!start && image.levels) start = (const uint8_t*)image.from;
    if (start) {
      const uint8_t* levels = whole_block(start + first, n, copy);
      for (int64_t i = 0; i < n; i += kPixels)
        store_vector(x + i, as_floats(load_levels(levels + i)) / 255);
    } else {
      __builtin_memcpy(x, (const float*)image.from + first, n * sizeof(float));
      for (int64_t i = n; i % kPixels != 0; ++i) x[i] = 0;
    }
    for (int64_t r = 0; r < image.rounds; ++r) {
      const Mixing code = (Mixing)image.codes[r];
      if (code != Mixing::add && code != Mixing::multiply) continue;
      const float a = image.weights[2 * r];
      const uint8_t* other = whole_block(image.others[r] + first, n, copy);
      if (code == Mixing::add)
        add_levels(x, other, n, a, image.weights[2 * r + 1]);
      else
        multiply_levels(x, other, n, a, image.scratch + r * kLevels);
    }
    if (image.levels) {
      uint8_t* to = (uint8_t*)image.to + first;
      uint8_t* made = n % kPixels == 0 ? to : copy;
      for (int64_t i = 0; i < n; i += kPixels)
        store_levels(made + i, as_levels(load_vector<Floats>(x + i) * 255 + 0.5f));
      if (made == copy) __builtin_memcpy(to, copy, n);
    } else {
      __builtin_memcpy((float*)image.to + first, x, n * sizeof(float));
    }
  }
}

}  // namespace ENTPROP_ISA
