// Geometry that leaves rows rows: shears along x, and shifts. Each row of the result is one or two
// rows of the image, shifted; no pixel is looked for.
#pragma once

#include "image_chains_geometry_loops.h"

namespace ENTPROP_ISA {

inline bool keeps_rows(const int64_t* a, bool is_nearest) {
  return a[0] == int64_t{1} << (is_nearest ? kNearestFraction : kFraction) && a[3] == 0;
}

// Columns of a row of the result whose places are inside.
struct Stretch {
  int64_t begin, end;
};

inline Stretch inside(int64_t whole, int64_t width) {  // 0 <= x + whole < width
  const int64_t begin = whole < 0 ? -whole : 0, end = whole > 0 ? width - whole : width;
  return begin < end ? Stretch{begin, end} : Stretch{0, 0};
}

// One row of a plane: `upper` and `lower` from their first pixels on, `shift` columns further, and
// their weights. Columns beyond a row's ends repeat them.
inline void mixed_row(uint8_t* to, const uint8_t* upper, const uint8_t* lower, int64_t width,
                      Stretch stretch, int64_t shift, int right, int low) {
  const auto clip = [&](int64_t x) { return x < 0 ? 0 : x < width ? x : width - 1; };
  const auto at = [&](int64_t x) {
    const int64_t left = clip(x + shift), next = clip(x + shift + 1);
    const int first = (upper[left] << kWeight) + (upper[next] - upper[left]) * right;
    const int second = (lower[left] << kWeight) + (lower[next] - lower[left]) * right;
    to[x] = (uint8_t)(((first << kWeight) + (second - first) * low) >> 2 * kWeight);
  };
  const Ints rights = Ints{} + right, lows = Ints{} + low;
  const int64_t before = shift < 0 ? -shift - 1 : -1;  // its place is left of the first pixel
  int64_t x = stretch.begin;
  if (x == before && x < stretch.end) at(x++);
  for (; x < stretch.end; x += kPixels) {  // past the end of the row too, see kPlanePadding
    const auto in_row = [&](const uint8_t* row) ENTPROP_INLINE_LAMBDA {
      const uint8_t* p = row + x + shift;
      return weighted(load_levels(p), load_levels(p + 1), rights);
    };
    const Ints first = in_row(upper);
    store_levels(to + x,
                 low == 0 ? first >> kWeight : weighted(first, in_row(lower), lows) >> 2 * kWeight);
  }
  const int64_t last = width - 1 - shift;  // has no pixel to its right
  if (last >= stretch.begin && last < stretch.end) at(last);
}

// `from` is not `to`.
inline void shifted(const Planes& planes, uint8_t* to, const uint8_t* from, const int64_t* a,
                    bool is_nearest) {
  const int64_t width = planes.width, height = planes.height;
  const int bits = is_nearest ? kNearestFraction : kFraction;
  const auto weight = [&](int64_t place) {
    return is_nearest ? 0 : (int)(place >> (kFraction - kWeight) & ((1 << kWeight) - 1));
  };
  const auto clip = [&](int64_t row) { return row < 0 ? 0 : row < height ? row : height - 1; };
  for (int64_t y = 0; y < height; ++y) {
    int64_t u = a[1] * y + a[2], v = a[4] * y + a[5];
    Stretch stretch = inside(u >> bits, width);
    if (v >> bits < 0 || v >> bits >= height) stretch = {0, 0};
    if (!is_nearest) u += kRounding - kHalf, v += kRounding - kHalf;
    const int64_t shift = u >> bits, row = v >> bits;
    const int right = weight(u), low = weight(v);
    for (int64_t c = 0; c < planes.channels; ++c) {
      const uint8_t* plane = from + c * planes.stride;
      const uint8_t* upper = plane + clip(row) * width;
      uint8_t* out = to + c * planes.stride + y * width;
      __builtin_memset(out, 0, stretch.begin);
      if (right == 0 && low == 0)  // the stretch lies inside: it is of whole pixels
        __builtin_memcpy(out + stretch.begin, upper + stretch.begin + shift,
                         stretch.end - stretch.begin);
      else
        mixed_row(out, upper, plane + clip(row + 1) * width, width, stretch, shift, right, low);
      __builtin_memset(out + stretch.end, 0, width - stretch.end);
    }
  }
}

}  // namespace ENTPROP_ISA
