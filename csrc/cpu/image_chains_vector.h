// Vectors over 8-bit levels, for the instruction set that the including file is compiled for. Where
// GCC makes single elements of a conversion of vectors there is an intrinsic.
#pragma once

// GCC 12's own intrinsics of AVX-512 begin with a register that they leave undefined.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <cstdint>

#include "image_chains.h"
#include "vector.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ENTPROP_ISA {

// A register holds so many pixels of 32 bits.
#if defined(__AVX512F__)
inline constexpr int64_t kPixels = 16;
#elif defined(__AVX2__)
inline constexpr int64_t kPixels = 8;
#else
inline constexpr int64_t kPixels = 4;
#endif

typedef uint8_t Bytes __attribute__((vector_size(kPixels)));
typedef int32_t Ints __attribute__((vector_size(4 * kPixels)));
typedef float Floats __attribute__((vector_size(4 * kPixels)));
// Whole registers.
typedef uint16_t Shorts __attribute__((vector_size(4 * kPixels)));
typedef uint8_t Wide __attribute__((vector_size(4 * kPixels)));

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

ENTPROP_INLINE Ints lanes() {
  Ints v;
  for (int k = 0; k < kPixels; ++k) v[k] = k;
  return v;
}

ENTPROP_INLINE Ints load_levels(const uint8_t* p) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
#elif defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128(), four = _mm_cvtsi32_si128(load_vector<int32_t>(p));
  return (Ints)_mm_unpacklo_epi16(_mm_unpacklo_epi8(four, zero), zero);
#else
  return __builtin_convertvector(load_vector<Bytes>(p), Ints);
#endif
}

// All in 0..255.
ENTPROP_INLINE void store_levels(uint8_t* p, Ints v) {
#if defined(__AVX512F__)
  _mm_storeu_si128((__m128i*)p, _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v));
#elif defined(__AVX2__)
  const __m256i words = _mm256_packus_epi32((__m256i)v, (__m256i)v);
  const __m128i first = _mm256_castsi256_si128(_mm256_permute4x64_epi64(words, 0x08));
  _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(first, first));
#elif defined(__SSE2__)
  const __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
  store_vector(p, _mm_cvtsi128_si32(_mm_packus_epi16(words, words)));
#else
  store_vector(p, __builtin_convertvector(v, Bytes));
#endif
}

// kPixels of three bytes each, as three low bytes; kColours of them have to be there.
#if defined(__AVX512F__)
inline constexpr int64_t kColours = kPixels;
#elif defined(__AVX2__)
inline constexpr int64_t kColours = kPixels + 2;
#else
inline constexpr int64_t kColours = INT64_MAX / 2;  // there is no shuffle: none are
#endif

ENTPROP_INLINE Ints load_colours(const uint8_t* p) {
#if defined(__AVX2__)
  const __m128i spread =
      _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);  // in each 16 bytes
#endif
#if defined(__AVX512F__)
  const __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 11);
  const __m512i all = _mm512_maskz_loadu_epi8((uint64_t{1} << 48) - 1, p);
  return (Ints)_mm512_shuffle_epi8(_mm512_maskz_permutexvar_epi32(0xffff, place, all),
                                   _mm512_maskz_broadcast_i32x4(0xffff, spread));
#elif defined(__AVX2__)
  const __m256i all = _mm256_loadu2_m128i((const __m128i*)(p + 12), (const __m128i*)p);
  return (Ints)_mm256_shuffle_epi8(all, _mm256_broadcastsi128_si256(spread));
#else
  return load_levels(p);
#endif
}

ENTPROP_INLINE void store_colours(uint8_t* p, Ints v) {
#if defined(__AVX2__)
  const __m128i close = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
#endif
#if defined(__AVX512F__)
  const __m512i place = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15);
  const __m512i close4 = _mm512_maskz_broadcast_i32x4(0xffff, close);
  const __m512i all =
      _mm512_maskz_permutexvar_epi32(0xffff, place, _mm512_shuffle_epi8((__m512i)v, close4));
  _mm512_mask_storeu_epi8(p, (uint64_t{1} << 48) - 1, all);
#elif defined(__AVX2__)
  const __m256i all = _mm256_shuffle_epi8((__m256i)v, _mm256_broadcastsi128_si256(close));
  const __m128i halves[2] = {_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)};
  __builtin_memcpy(p, &halves[0], 12);
  __builtin_memcpy(p + 12, &halves[1], 12);
#else
  store_levels(p, v);
#endif
}

// 2 * kPixels levels of 16 bits.
ENTPROP_INLINE Shorts load_shorts(const uint8_t* p) {
#if defined(__AVX512F__)
  return (Shorts)_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__AVX2__)
  return (Shorts)_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
#elif defined(__SSE2__)
  return (Shorts)_mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i*)p), _mm_setzero_si128());
#else
  Shorts v;
  for (int k = 0; k < 2 * kPixels; ++k) v[k] = p[k];
  return v;
#endif
}

// The upper 16 bits of the products.
ENTPROP_INLINE Shorts high_product(Shorts v, uint16_t factor) {
  const Shorts factors = Shorts{} + factor;
#if defined(__AVX512F__)
  return (Shorts)_mm512_mulhi_epu16((__m512i)v, (__m512i)factors);
#elif defined(__AVX2__)
  return (Shorts)_mm256_mulhi_epu16((__m256i)v, (__m256i)factors);
#elif defined(__SSE2__)
  return (Shorts)_mm_mulhi_epu16((__m128i)v, (__m128i)factors);
#else
  for (int k = 0; k < 2 * kPixels; ++k) v[k] = (uint16_t)((uint32_t)v[k] * factors[k] >> 16);
  return v;
#endif
}

ENTPROP_INLINE Ints first_half(Shorts v) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtepu16_epi32(_mm512_castsi512_si256((__m512i)v));
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepu16_epi32(_mm256_castsi256_si128((__m256i)v));
#elif defined(__SSE2__)
  return (Ints)_mm_unpacklo_epi16((__m128i)v, _mm_setzero_si128());
#else
  Ints half;
  for (int k = 0; k < kPixels; ++k) half[k] = v[k];
  return half;
#endif
}

ENTPROP_INLINE Ints second_half(Shorts v) {
#if defined(__AVX512F__)
  return (Ints)_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64((__m512i)v, 1));
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepu16_epi32(_mm256_extracti128_si256((__m256i)v, 1));
#elif defined(__SSE2__)
  return (Ints)_mm_unpackhi_epi16((__m128i)v, _mm_setzero_si128());
#else
  Ints half;
  for (int k = 0; k < kPixels; ++k) half[k] = v[kPixels + k];
  return half;
#endif
}

ENTPROP_INLINE Floats as_floats(Ints v) { return __builtin_convertvector(v, Floats); }

// Towards zero and into 0..255; NaN is 0.
ENTPROP_INLINE Ints as_levels(Floats v) {
  const Floats low = {}, high = low + 255.0f;
#if defined(__AVX512F__)
  v = (Floats)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)v, (__m512)low));
#elif defined(__AVX2__)
  v = (Floats)_mm256_min_ps((__m256)high, _mm256_max_ps((__m256)v, (__m256)low));
#elif defined(__SSE2__)
  v = (Floats)_mm_min_ps((__m128)high, _mm_max_ps((__m128)v, (__m128)low));
#else
  v = v > low ? v : low;
  v = v < high ? v : high;
#endif
  return __builtin_convertvector(v, Ints);
}

// What Pillow's blend makes of `from` and `to`: float32, product and sum rounded apart.
ENTPROP_INLINE Ints blended(Ints from, Ints to, float alpha) {
  return as_levels(as_floats(from) + alpha * as_floats(to - from));
}

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

// to[i] = table[from[i]] for i < n, and for some more, see kPlanePadding.
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
