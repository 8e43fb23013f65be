// Vectors over 8-bit levels, for the instruction set that the including file is compiled for.
#pragma once

#include "image_chains.h"
#include "vector.h"

namespace ENTPROP_ISA {

// Sixteen pixels: 8 bits each in memory, 32 in registers (several where these are narrower).
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));
inline constexpr int64_t kPixels = 16;

// A whole register of bytes.
typedef uint8_t Wide __attribute__((vector_size(64)));

template <class V>
ENTPROP_INLINE V load_vector(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
ENTPROP_INLINE void store_vector(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

ENTPROP_INLINE Ints load_levels(const uint8_t* p) {
  return __builtin_convertvector(load_vector<Bytes>(p), Ints);
}

ENTPROP_INLINE Bytes low_bytes(Ints v) {
#if defined(__AVX512F__)
  return (Bytes)_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v);
#elif defined(__AVX2__)
  const __m256i* half = (const __m256i*)&v;
  const __m256i words = _mm256_packus_epi32(half[0], half[1]);
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  return (Bytes)_mm_packus_epi16(_mm256_castsi256_si128(ordered),
                                 _mm256_extracti128_si256(ordered, 1));
#else
  return __builtin_convertvector(v, Bytes);
#endif
}

ENTPROP_INLINE void store_levels(uint8_t* p, Ints v) { store_vector(p, low_bytes(v)); }

ENTPROP_INLINE Floats as_floats(Ints v) { return __builtin_convertvector(v, Floats); }

// Towards zero and into 0..255; no NaN.
ENTPROP_INLINE Ints as_levels(Floats v) {
  const Floats low = {}, high = low + 255.0f;
  v = v > low ? v : low;
  return __builtin_convertvector(v < high ? v : high, Ints);
}

// What Pillow's blend makes of `from` and `to`: float32, product and sum rounded apart.
ENTPROP_INLINE Ints blended(Ints from, Ints to, float alpha) {
  return as_levels(as_floats(from) + alpha * as_floats(to - from));
}

// to[i] = table[from[i]] for i < n, and for some more.
#if defined(__AVX512F__)
__attribute__((target("avx512vbmi"))) inline void look_up_vbmi(uint8_t* to, const uint8_t* from,
                                                               int64_t n, const uint8_t* table) {
  __m512i part[4];
  for (int i = 0; i < 4; ++i) part[i] = _mm512_loadu_si512(table + 64 * i);
  for (int64_t i = 0; i < n; i += 64) {
    const __m512i index = _mm512_loadu_si512(from + i);
    const __m512i low = _mm512_permutex2var_epi8(part[0], index, part[1]);
    const __m512i high = _mm512_permutex2var_epi8(part[2], index, part[3]);
    const __mmask64 upper = _mm512_movepi8_mask(index);
    _mm512_storeu_si512(to + i, _mm512_mask_blend_epi8(upper, low, high));
  }
}
#endif

inline void look_up(uint8_t* to, const uint8_t* from, int64_t n, const uint8_t* table) {
#if defined(__AVX512F__)
  static const bool vbmi = __builtin_cpu_supports("avx512vbmi");
  if (vbmi) return look_up_vbmi(to, from, n, table);
#endif
  for (int64_t i = 0; i < n; i += 8) {
    uint8_t found[8];
    for (int k = 0; k < 8; ++k) found[k] = table[from[i + k]];
    __builtin_memcpy(to + i, found, 8);
  }
}

}  // namespace ENTPROP_ISA
