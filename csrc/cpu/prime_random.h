// The normal numbers of entprop_fast/counter_random.py: word i of a key's SplitMix64 stream alone
// makes numbers 2 i and 2 i + 1. Logarithm, sine and cosine are Cephes' for float.
#pragma once

#include "vector.h"

namespace ENTPROP_ISA {

using F = Simd<float>::V;
using I = Simd<float>::M;
typedef uint64_t Longs __attribute__((vector_size(8 * kFloatLanes)));

ENTPROP_INLINE F to_float(I i) { return __builtin_convertvector(i, F); }
ENTPROP_INLINE I to_int(F f) { return __builtin_convertvector(f, I); }  // towards zero
ENTPROP_INLINE F broadcast(float value) { return Simd<float>::broadcast(value); }

ENTPROP_INLINE F root(F v) {
  float lanes[kFloatLanes];
  __builtin_memcpy(lanes, &v, sizeof v);
  for (int i = 0; i < kFloatLanes; ++i) lanes[i] = __builtin_sqrtf(lanes[i]);
  __builtin_memcpy(&v, lanes, sizeof v);
  return v;
}

// Of numbers in (0, 1).
ENTPROP_INLINE F logarithm(F x) {
  const I bits = (I)x;
  F exponent = to_float((bits >> 23) - 126);
  F m = (F)((bits & 0x7fffff) | 0x3f000000);
  const I small = m < 0.70710678f;
  exponent = small ? exponent - 1 : exponent;
  m = (small ? m + m : m) - 1;
  const F z = m * m;
  F y = m * 7.0376836292e-2f - 1.1514610310e-1f;
  y = y * m + 1.1676998740e-1f;
  y = y * m - 1.2420140846e-1f;
  y = y * m + 1.4249322787e-1f;
  y = y * m - 1.6668057665e-1f;
  y = y * m + 2.0000714765e-1f;
  y = y * m - 2.4999993993e-1f;
  y = y * m + 3.3333331174e-1f;
  y = y * m * z - 2.12194440e-4f * exponent - 0.5f * z;
  return m + y + 0.693359375f * exponent;
}

// Sine and cosine of t quarter turns, t >= 0.
ENTPROP_INLINE void sine_cosine(F t, F* sine, F* cosine) {
  const I quarter = to_int(t + 0.5f);
  const F r = (t - to_float(quarter)) * 1.57079632679489662f;
  const F z = r * r;
  const F s = ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
  const F c =
      ((z * 2.443315711809948e-5f - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z -
      0.5f * z + 1;
  const I odd = (quarter & 1) != 0;
  const F first = odd ? c : s, second = odd ? s : c;
  *sine = (quarter & 2) != 0 ? -first : first;
  *cosine = ((quarter + 1) & 2) != 0 ? -second : second;
}

// Numbers 2 i and 2 i + 1 for the words i of [word, word + lanes) of a key.
ENTPROP_INLINE void normal_pairs(uint64_t key, int64_t word, F* even, F* odd) {
  Longs w;
  for (int i = 0; i < kFloatLanes; ++i) w[i] = (uint64_t)(word + 1 + i);
  w = w * 0x9e3779b97f4a7c15ull + key;
  w = (w ^ (w >> 30)) * 0xbf58476d1ce4e5b9ull;
  w = (w ^ (w >> 27)) * 0x94d049bb133111ebull;
  w ^= w >> 31;
  const I low = (I) __builtin_convertvector(w & 0xffffffffull, Words);
  const I high = (I) __builtin_convertvector(w >> 32, Words);
  const F radius_u = (to_float((low >> 9) & 0x7fffff) + 0.5f) * 0x1p-23f;
  const F angle_u = (to_float((high >> 9) & 0x7fffff) + 0.5f) * 0x1p-23f;
  const F radius = root(-2 * logarithm(radius_u));
  F sine, cosine;
  sine_cosine(angle_u * 4, &sine, &cosine);
  *even = radius * cosine;
  *odd = radius * sine;
}

}  // namespace ENTPROP_ISA
