// A vector of accumulators over one of the stored types, for the instruction set this file is
// compiled for. Included by the loops only, inside their namespace: no torch, no standard library
// templates, so that no inline function compiled for AVX-512 can be linked into portable code.
#pragma once

#include <cstdint>

#include "kernels.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

// Everything here is inlined: no vector is ever passed by the ABI that the warning is about.
#pragma GCC diagnostic ignored "-Wpsabi"
#define ENTPROP_INLINE inline __attribute__((always_inline))
#define ENTPROP_INLINE_LAMBDA __attribute__((always_inline))

namespace ENTPROP_ISA {

// At least eight lanes, so that a vector fills whole bytes of a bit mask; where a register is
// narrower the compiler uses several.
#if defined(__AVX512F__)
inline constexpr int kFloatLanes = 16;
#else
inline constexpr int kFloatLanes = 8;
#endif

typedef uint16_t Halves __attribute__((vector_size(2 * kFloatLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kFloatLanes)));

template <class A>
struct Lanes;
template <>
struct Lanes<float> {
  static constexpr int count = kFloatLanes;
  typedef float V __attribute__((vector_size(4 * count)));
  typedef int32_t M __attribute__((vector_size(4 * count)));
  typedef double Wide __attribute__((vector_size(8 * count)));
};
template <>
struct Lanes<double> {
  static constexpr int count = 8;
  typedef double V __attribute__((vector_size(8 * count)));
  typedef int64_t M __attribute__((vector_size(8 * count)));
  typedef double Wide __attribute__((vector_size(8 * count)));
};

template <int N>
struct Doubles {
  typedef double V __attribute__((vector_size(8 * N)));
};

template <int N>
ENTPROP_INLINE double sum_halves(typename Doubles<N>::V v) {
  if constexpr (N == 2) {
    return v[0] + v[1];
  } else {
    typename Doubles<N / 2>::V half[2];
    __builtin_memcpy(half, &v, sizeof v);
    return sum_halves<N / 2>(half[0] + half[1]);
  }
}

// Loads and stores of the stored type T as vectors of its accumulator A.
template <class T>
struct Simd {
  using A = Accumulator<T>;
  using V = typename Lanes<A>::V;
  using M = typename Lanes<A>::M;
  using Wide = typename Lanes<A>::Wide;
  static constexpr int lanes = Lanes<A>::count;

  static ENTPROP_INLINE V broadcast(A value) { return value - V{}; }

  static ENTPROP_INLINE V load(const T* p) {
    if constexpr (sizeof(T) == sizeof(A)) {
      V v;
      __builtin_memcpy(&v, p, sizeof v);
      return v;
    } else {
      Halves h;
      __builtin_memcpy(&h, p, sizeof h);
      return widened(h);
    }
  }

  static ENTPROP_INLINE void store(T* p, V v) {
    if constexpr (sizeof(T) == sizeof(A)) {
      __builtin_memcpy(p, &v, sizeof v);
    } else {
      const Halves h = narrowed(v);
      __builtin_memcpy(p, &h, sizeof h);
    }
  }

  // The first n < lanes elements; the other lanes hold `fill`. Never reads past them. With AVX-512
  // by intrinsics: of a loop GCC 12 makes masked vextract, which may not touch the next page.
  static ENTPROP_INLINE V load_some(const T* p, int64_t n, V fill) {
#if defined(__AVX512F__)
    const uint32_t exist = (1u << n) - 1;
    if constexpr (sizeof(T) == 4)
      return (V)_mm512_mask_loadu_ps((__m512)fill, (__mmask16)exist, p);
    else if constexpr (sizeof(T) == 8)
      return (V)_mm512_mask_loadu_pd((__m512d)fill, (__mmask8)exist, p);
    else
      return first(n) ? widened((Halves)_mm256_maskz_loadu_epi16((__mmask16)exist, p)) : fill;
#else
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
      return first(n) ? (V)_mm256_maskload_ps(p, (__m256i)first(n)) : fill;
#endif
    T buffer[lanes] = {};
    for (int i = 0; i < lanes; ++i)
      if (i < n) buffer[i] = p[i];
    return first(n) ? load(buffer) : fill;
#endif
  }

  static ENTPROP_INLINE void store_some(T* p, int64_t n, V v) {
#if defined(__AVX512F__)
    const uint32_t exist = (1u << n) - 1;
    if constexpr (sizeof(T) == 4)
      _mm512_mask_storeu_ps(p, (__mmask16)exist, (__m512)v);
    else if constexpr (sizeof(T) == 8)
      _mm512_mask_storeu_pd(p, (__mmask8)exist, (__m512d)v);
    else
      _mm256_mask_storeu_epi16(p, (__mmask16)exist, (__m256i)narrowed(v));
#else
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return _mm256_maskstore_ps(p, (__m256i)first(n), (__m256)v);
#endif
    T buffer[lanes];
    store(buffer, v);
    for (int i = 0; i < lanes; ++i)
      if (i < n) p[i] = buffer[i];
#endif
  }

  // bfloat16 to float and back, to the nearest even.
  static ENTPROP_INLINE V widened(Halves h) { return (V)(__builtin_convertvector(h, Words) << 16); }

  static ENTPROP_INLINE Halves narrowed(V v) {
    const Words bits = (Words)v;
    const Words even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Words quiet_nan = Words{} + 0x7fc0;
    const Words rounded = v == v ? even : quiet_nan;
    return __builtin_convertvector(rounded, Halves);
  }

  // Lanes below n.
  static ENTPROP_INLINE M first(int64_t n) { return index() < (M{} + (decltype(M{}[0] + 0))n); }

  static ENTPROP_INLINE M index() {
    M m;
    for (int i = 0; i < lanes; ++i) m[i] = i;
    return m;
  }

  // Lane i as bit i.
  static ENTPROP_INLINE uint32_t bits(M m) {
#if defined(__AVX512F__)
    if constexpr (sizeof(A) == 4) return _mm512_movepi32_mask((__m512i)m);
    if constexpr (sizeof(A) == 8) return _mm512_movepi64_mask((__m512i)m);
#elif defined(__AVX2__)
    if constexpr (sizeof(A) == 4) return (uint32_t)_mm256_movemask_ps((__m256)m);
#endif
    uint32_t result = 0;
    for (int i = 0; i < lanes; ++i) result |= (m[i] != 0 ? 1u : 0u) << i;
    return result;
  }

  static ENTPROP_INLINE M from_bits(uint32_t value) {
    M bit;
    for (int i = 0; i < lanes; ++i) bit[i] = 1 << i;
    return ((M{} + (decltype(M{}[0] + 0))value) & bit) != 0;
  }

  // A bit mask starts on a byte for every row; `n` is how many of the lanes exist.
  static ENTPROP_INLINE void store_bits(uint8_t* p, M m, int64_t n) {
    const uint32_t value = bits(m);
    p[0] = (uint8_t)value;
    if (lanes > 8 && n > 8) p[1] = (uint8_t)(value >> 8);
  }

  static ENTPROP_INLINE M load_bits(const uint8_t* p, int64_t n) {
    uint32_t value = p[0];
    if (lanes > 8 && n > 8) value |= (uint32_t)p[1] << 8;
    return from_bits(value);
  }

  static ENTPROP_INLINE Wide widen(V v) { return __builtin_convertvector(v, Wide); }

  static ENTPROP_INLINE double sum(Wide v) { return sum_halves<lanes>(v); }
};

template <class T>
ENTPROP_INLINE Accumulator<T> scalar(const T* p) {
  if constexpr (sizeof(T) == 2) {
    const uint32_t bits = (uint32_t)p->bits << 16;
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
  } else {
    return *p;
  }
}

// load and store of n <= lanes elements; with n a constant the branch is gone.
template <class T>
ENTPROP_INLINE typename Simd<T>::V load(const T* p, int64_t n) {
  return n == Simd<T>::lanes ? Simd<T>::load(p) : Simd<T>::load_some(p, n, typename Simd<T>::V{});
}

template <class T>
ENTPROP_INLINE void store(T* p, typename Simd<T>::V v, int64_t n) {
  if (n == Simd<T>::lanes)
    Simd<T>::store(p, v);
  else
    Simd<T>::store_some(p, n, v);
}

// As if stored and loaded again. The empty statement keeps a product that is added to from becoming
// half of a fused multiply-add, which rounds once.
template <class T>
ENTPROP_INLINE typename Simd<T>::V rounded(typename Simd<T>::V v) {
  if constexpr (sizeof(T) < sizeof(Accumulator<T>)) return Simd<T>::widened(Simd<T>::narrowed(v));
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__AVX2__)
  if constexpr (sizeof v == 32)
    asm("" : "+x"(v));
  else
    asm("" : "+m"(v));
#else
  asm("" : "+m"(v));
#endif
  return v;
}

// f(offset, n) over [0, count) in vectors, the last one short.
template <class T, class F>
ENTPROP_INLINE void vectorwise(int64_t count, F f) {
  int64_t i = 0;
  for (; i + Simd<T>::lanes <= count; i += Simd<T>::lanes) f(i, Simd<T>::lanes);
  if (i < count) f(i, count - i);
}

template <class T>
ENTPROP_INLINE void narrow(Accumulator<T> value, T* p) {
  Simd<T>::store_some(p, 1, Simd<T>::broadcast(value));
}

// NaN goes through: a comparison with it is false.
template <class V>
ENTPROP_INLINE V clamp(V x, V lo, V hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

}  // namespace ENTPROP_ISA
