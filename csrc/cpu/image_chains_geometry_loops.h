// Operations that move pixels, sampled as Pillow's Image.transform(AFFINE) does, black outside.
#pragma once

#include "image_chains_tone_loops.h"

namespace ENTPROP_ISA {

typedef int64_t Longs8 __attribute__((vector_size(64)));

// A pixel's channels together, so that one load brings them all: 4 bytes, or the only one.
template <int Channels>
inline constexpr int kPixelBytes = Channels == 3 ? 4 : 1;

template <int Channels>
void pack(const Planes& planes, uint8_t* packed, const uint8_t* from) {
  if constexpr (Channels == 1) {
    __builtin_memcpy(packed, from, planes.pixels());
  } else {
    for (int64_t i = 0; i < planes.pixels(); i += kPixels) {
      const Ints red = load_levels(from + i), green = load_levels(from + planes.stride + i);
      const Ints blue = load_levels(from + 2 * planes.stride + i);
      store_vector(packed + 4 * i, red | green << 8 | blue << 16);
    }
  }
}

template <int Channels>
ENTPROP_INLINE Ints8 gather(const uint8_t* packed, Ints8 index) {
#if defined(__AVX2__)
  return (Ints8)_mm256_i32gather_epi32((const int*)packed, (__m256i)index, kPixelBytes<Channels>);
#else
  Ints8 found;
  for (int k = 0; k < 8; ++k) {
    int32_t pixel;
    __builtin_memcpy(&pixel, packed + (int64_t)index[k] * kPixelBytes<Channels>, 4);
    found[k] = pixel;
  }
  return found;
#endif
}

ENTPROP_INLINE void store_eight(uint8_t* p, Ints8 v) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm256_cvtepi32_epi8((__m256i)v);
  __builtin_memcpy(p, &bytes, 8);
#else
  for (int k = 0; k < 8; ++k) p[k] = (uint8_t)v[k];
#endif
}

ENTPROP_INLINE Doubles8 as_doubles(Ints8 v) { return __builtin_convertvector(v, Doubles8); }

ENTPROP_INLINE Ints8 floor_of(Doubles8 v) {
  const Ints8 cut = __builtin_convertvector(v, Ints8);
  return cut + __builtin_convertvector(as_doubles(cut) > v, Ints8);
}

ENTPROP_INLINE Ints8 clipped(Ints8 v, int64_t size) {
  const Ints8 low = {}, high = low + (int)(size - 1);
  v = v > low ? v : low;
  return v < high ? v : high;
}

// Across: columns are interpolated, else the place in a row is a whole number; Down: rows are.
template <int Channels, bool Across, bool Down>
void bilinear(const Planes& planes, uint8_t* to, const uint8_t* packed, const double* m) {
  const Doubles8 lane = {0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5};
  const int64_t height = planes.height, width = planes.width;
  const Doubles8 none = {}, wide = none + (double)width, high = none + (double)height;
  for (int64_t y = 0; y < height; ++y) {
    const double down = (double)y + 0.5, across_of_y = m[1] * down, down_of_y = m[4] * down;
    for (int64_t x = 0; x < width; x += 8) {
      const Doubles8 right = lane + (double)x;
      Doubles8 u = (m[0] * right + across_of_y) + m[2];
      Doubles8 v = (m[3] * right + down_of_y) + m[5];
      const Longs8 within = (u >= none) & (u < wide) & (v >= none) & (v < high);
      u -= 0.5;
      v -= 0.5;
      const Ints8 column = floor_of(u), row = floor_of(v);
      const Doubles8 dx = u - as_doubles(column), dy = v - as_doubles(row);
      const Ints8 inside = __builtin_convertvector(within, Ints8);
      const Ints8 left = clipped(column, width), next = clipped(column + 1, width);
      const Ints8 upper = clipped(row, height) * (int)width;
      const Ints8 lower = clipped(row + 1, height) * (int)width;
      const Ints8 taps[4] = {
          gather<Channels>(packed, upper + left),
          Across ? gather<Channels>(packed, upper + next) : Ints8{},
          Down ? gather<Channels>(packed, lower + left) : Ints8{},
          Across && Down ? gather<Channels>(packed, lower + next) : Ints8{},
      };
      for (int c = 0; c < Channels; ++c) {
        Ints8 level[4];
        for (int t = 0; t < 4; ++t) level[t] = taps[t] >> (8 * c) & 255;
        const auto between = [&](Ints8 a, Ints8 b) ENTPROP_INLINE_LAMBDA {
          return Across ? as_doubles(a) + as_doubles(b - a) * dx : as_doubles(a);
        };
        Doubles8 value = between(level[0], level[1]);
        if (Down) value = value + (between(level[2], level[3]) - value) * dy;
        const Ints8 found = __builtin_convertvector(value, Ints8) & inside;
        store_eight(to + c * planes.stride + y * width + x, found);
      }
    }
  }
}

// Pillow's walk in steps of 1/65536 of a pixel.
template <int Channels>
void nearest(const Planes& planes, uint8_t* to, const uint8_t* packed, const double* m) {
  const auto fixed = [](double v) {
    return (int64_t)__builtin_floor(v * 65536.0 + 0.5);
  };
  const int64_t across = fixed(m[0]), down = fixed(m[3]);
  const int64_t height = planes.height, width = planes.width;
  int64_t first_u = fixed(m[2] + m[0] * 0.5 + m[1] * 0.5);
  int64_t first_v = fixed(m[5] + m[3] * 0.5 + m[4] * 0.5);
  const Ints8 lane = {0, 1, 2, 3, 4, 5, 6, 7};
  for (int64_t y = 0; y < height; ++y) {
    // Every coordinate of an image fits 32 bits; the sums are taken modulo them.
    const Ints8 step_u = lane * (int)across + (int)first_u;
    const Ints8 step_v = lane * (int)down + (int)first_v;
    for (int64_t x = 0; x < width; x += 8) {
      const Ints8 column = (step_u + (int)(x * across)) >> 16;
      const Ints8 row = (step_v + (int)(x * down)) >> 16;
      const Ints8 left = clipped(column, width), upper = clipped(row, height);
      const Ints8 inside = (left == column) & (upper == row);
      const Ints8 pixel = gather<Channels>(packed, upper * (int)width + left) & inside;
      for (int c = 0; c < Channels; ++c)
        store_eight(to + c * planes.stride + y * width + x, pixel >> (8 * c) & 255);
    }
    first_u += fixed(m[1]);
    first_v += fixed(m[4]);
  }
}

}  // namespace ENTPROP_ISA
