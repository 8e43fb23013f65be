// Operations that move pixels, sampled as Pillow's Image.transform(AFFINE) does, black outside.
// In integers, by the definition of entprop_fast/ops/image_chains_geometry.py.
#pragma once

#include "image_chains_tone_loops.h"

namespace ENTPROP_ISA {

inline constexpr int kFraction = 24, kNearestFraction = 16;  // bits of a place
inline constexpr int kWeight = 11;                           // bits of a bilinear weight
inline constexpr int64_t kHalf = 1 << (kFraction - 1);
inline constexpr int64_t kRounding = 1 << (kFraction - kWeight - 1);

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
ENTPROP_INLINE Ints gather(const uint8_t* packed, Ints index) {
  constexpr int kScale = kPixelBytes<Channels>;
#if defined(__AVX512F__)
  return (Ints)_mm512_i32gather_epi32((__m512i)index, packed, kScale);
#elif defined(__AVX2__)
  return (Ints)_mm256_i32gather_epi32((const int*)packed, (__m256i)index, kScale);
#else
  Ints found;
  for (int k = 0; k < kPixels; ++k)
    found[k] = load_vector<int32_t>(packed + (int64_t)index[k] * kScale);
  return found;
#endif
}

ENTPROP_INLINE Ints clipped(Ints v, int64_t size) {
  const Ints low = {}, high = low + (int)(size - 1);
  v = v > low ? v : low;
  return v < high ? v : high;
}

// The mean of two, in units of 2^-kWeight.
ENTPROP_INLINE Ints weighted(Ints first, Ints second, Ints weight) {
  return (first << kWeight) + (second - first) * weight;
}

// Places along a row of pixels, kPixels of them from `start` on, as whole pixels and a rest that
// fits 32 bits.
struct Walk {
  int64_t start, step;
  int bits;

  ENTPROP_INLINE int whole() const { return (int)(start >> bits); }
  ENTPROP_INLINE Ints rest() const {
    return lanes() * (int)step + (int)(start & ((int64_t{1} << bits) - 1));
  }
};

// The steps that a Walk can take: 15 of them fit its rest.
inline bool is_short(int64_t step, int bits) {
  const int64_t longest = int64_t{1} << (bits + 2);
  return step <= longest && -step <= longest;
}

// Interpolates over columns (Across) and rows (Down); without either, over what is whole anyway.
template <int Channels, bool Across, bool Down>
void bilinear(const Planes& planes, uint8_t* to, const uint8_t* packed, const int64_t* a) {
  const int64_t height = planes.height, width = planes.width;
  constexpr int kShift = (int)(kRounding - kHalf);
  for (int64_t y = 0; y < height; ++y) {
    Walk u{a[1] * y + a[2], a[0], kFraction}, v{a[4] * y + a[5], a[3], kFraction};
    for (int64_t x = 0; x < width; x += kPixels) {
      const Ints rest_u = u.rest(), rest_v = v.rest();
      const Ints cell_u = (rest_u >> kFraction) + u.whole();
      const Ints cell_v = (rest_v >> kFraction) + v.whole();
      const Ints inside = (clipped(cell_u, width) == cell_u) & (clipped(cell_v, height) == cell_v);
      const Ints column = ((rest_u + kShift) >> kFraction) + u.whole();
      const Ints row = ((rest_v + kShift) >> kFraction) + v.whole();
      const Ints right = ((rest_u + kShift) >> (kFraction - kWeight)) & ((1 << kWeight) - 1);
      const Ints low = ((rest_v + kShift) >> (kFraction - kWeight)) & ((1 << kWeight) - 1);
      const Ints left = clipped(column, width), next = clipped(column + 1, width);
      const Ints upper = clipped(row, height) * (int)width;
      const Ints lower = clipped(row + 1, height) * (int)width;
      Ints taps[4];
      taps[0] = gather<Channels>(packed, upper + left);
      if (Across) taps[1] = gather<Channels>(packed, upper + next);
      if (Down) taps[2] = gather<Channels>(packed, lower + left);
      if (Across && Down) taps[3] = gather<Channels>(packed, lower + next);
      for (int c = 0; c < Channels; ++c) {
        const auto tap = [&](int t) ENTPROP_INLINE_LAMBDA { return taps[t] >> (8 * c) & 255; };
        Ints value = tap(0);
        if (Across) value = weighted(value, tap(1), right);
        if (Down) value = weighted(value, Across ? weighted(tap(2), tap(3), right) : tap(2), low);
        value >>= kWeight * (Across + Down);
        store_levels(to + c * planes.stride + y * width + x, value & inside);
      }
      u.start += kPixels * a[0];
      v.start += kPixels * a[3];
    }
  }
}

template <int Channels>
void nearest(const Planes& planes, uint8_t* to, const uint8_t* packed, const int64_t* a) {
  const int64_t height = planes.height, width = planes.width;
  for (int64_t y = 0; y < height; ++y) {
    Walk u{a[1] * y + a[2], a[0], kNearestFraction}, v{a[4] * y + a[5], a[3], kNearestFraction};
    for (int64_t x = 0; x < width; x += kPixels) {
      const Ints column = (u.rest() >> kNearestFraction) + u.whole();
      const Ints row = (v.rest() >> kNearestFraction) + v.whole();
      const Ints left = clipped(column, width), upper = clipped(row, height);
      const Ints inside = (left == column) & (upper == row);
      const Ints pixel = gather<Channels>(packed, upper * (int)width + left) & inside;
      for (int c = 0; c < Channels; ++c)
        store_levels(to + c * planes.stride + y * width + x, pixel >> (8 * c) & 255);
      u.start += kPixels * a[0];
      v.start += kPixels * a[3];
    }
  }
}

// One pixel after the other, with steps of any length.
inline void any_affine(const Planes& planes, uint8_t* to, const uint8_t* packed, const int64_t* a,
                       bool is_nearest) {
  const int bits = is_nearest ? kNearestFraction : kFraction;
  const int64_t scale = planes.channels == 3 ? 4 : 1, width = planes.width;
  const auto clip = [](int64_t v, int64_t size) { return v < 0 ? 0 : v < size ? v : size - 1; };
  for (int64_t i = 0; i < planes.pixels(); ++i) {
    const int64_t x = i % width, y = i / width;
    int64_t u = a[0] * x + a[1] * y + a[2], v = a[3] * x + a[4] * y + a[5];
    const bool inside =
        clip(u >> bits, width) == u >> bits && clip(v >> bits, planes.height) == v >> bits;
    if (!is_nearest) u += kRounding - kHalf, v += kRounding - kHalf;
    const int64_t row[2] = {clip(v >> bits, planes.height), clip((v >> bits) + 1, planes.height)};
    const int64_t column[2] = {clip(u >> bits, width), clip((u >> bits) + 1, width)};
    const int64_t right = u >> (kFraction - kWeight) & ((1 << kWeight) - 1);
    const int64_t low = v >> (kFraction - kWeight) & ((1 << kWeight) - 1);
    for (int64_t c = 0; c < planes.channels; ++c) {
      const auto at = [&](int down, int across) -> int64_t {
        return packed[scale * (row[down] * width + column[across]) + c];
      };
      const auto in_row = [&](int down) {
        return (at(down, 0) << kWeight) + (at(down, 1) - at(down, 0)) * right;
      };
      const int64_t upper = in_row(0), mean = (upper << kWeight) + (in_row(1) - upper) * low;
      const int64_t level = is_nearest ? at(0, 0) : mean >> 2 * kWeight;
      to[c * planes.stride + i] = inside ? (uint8_t)level : 0;
    }
  }
}

template <int Channels>
void affine(const Planes& planes, uint8_t* to, const uint8_t* from, const int64_t* a,
            bool is_nearest, uint8_t* packed) {
  pack<Channels>(planes, packed, from);
  const int bits = is_nearest ? kNearestFraction : kFraction;
  constexpr int64_t kOne = int64_t{1} << kFraction;
  if (!is_short(a[0], bits) || !is_short(a[3], bits)) {
    any_affine(planes, to, packed, a, is_nearest);
  } else if (is_nearest) {
    nearest<Channels>(planes, to, packed, a);
  } else if (a[0] == kOne && a[1] == 0 && a[2] == kOne / 2) {
    bilinear<Channels, false, true>(planes, to, packed, a);
  } else {
    bilinear<Channels, true, true>(planes, to, packed, a);
  }
}

}  // namespace ENTPROP_ISA
