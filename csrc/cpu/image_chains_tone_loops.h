// Operations that leave every pixel in its place.
#pragma once

#include "image_chains_vector.h"

namespace ENTPROP_ISA {

// One image in planes of bytes, `stride` bytes apart.
struct Planes {
  int64_t channels, height, width, stride;
  int64_t pixels() const { return height * width; }
  int64_t bytes() const { return channels * stride; }
};

// to = f(from), a register at a time; what lies between the planes is changed as well.
template <class F>
ENTPROP_INLINE void bytewise(const Planes& planes, uint8_t* to, const uint8_t* from, F f) {
  for (int64_t i = 0; i < planes.bytes(); i += sizeof(Wide))
    store_vector(to + i, f(load_vector<Wide>(from + i)));
}

inline void posterize(const Planes& planes, uint8_t* to, const uint8_t* from, float strength) {
  const float kept = strength > 0 ? (strength < 8 ? strength : 8) : 0;
  const Wide mask = Wide{} + (uint8_t)(0xff00 >> (int)kept);
  bytewise(planes, to, from, [&](Wide v) ENTPROP_INLINE_LAMBDA { return v & mask; });
}

inline void solarize(const Planes& planes, uint8_t* to, const uint8_t* from, float threshold) {
  if (!(threshold <= 255)) {
    bytewise(planes, to, from, [](Wide v) ENTPROP_INLINE_LAMBDA { return v; });
    return;
  }
  int least = threshold > 0 ? (int)threshold : 0;  // the lowest level that is inverted
  if ((float)least < threshold) ++least;
  const Wide low = Wide{} + (uint8_t)least;
  bytewise(planes, to, from, [&](Wide v) ENTPROP_INLINE_LAMBDA { return v ^ (Wide)(v >= low); });
}

inline void invert(const Planes& planes, uint8_t* to, const uint8_t* from) {
  bytewise(planes, to, from, [](Wide v) ENTPROP_INLINE_LAMBDA { return ~v; });
}

// Lowest and highest level of a plane.
struct Range {
  int low, high;
};

inline Range range_of(const uint8_t* plane, int64_t pixels) {
  Wide low = ~Wide{}, high = {};
  int64_t i = 0;
  for (; i + (int64_t)sizeof(Wide) <= pixels; i += sizeof(Wide)) {
    const Wide v = load_vector<Wide>(plane + i);
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  Range range{255, 0};
  const auto add = [&](int least, int most) {
    range.low = least < range.low ? least : range.low;
    range.high = most > range.high ? most : range.high;
  };
  for (; i < pixels; ++i) add(plane[i], plane[i]);
  if (pixels >= (int64_t)sizeof(Wide)) {
    for (int k = 0; k < (int)sizeof(Wide); ++k) add(low[k], high[k]);
  }
  return range;
}

// table[v] = f(v), towards zero and into 0..255.
template <class F>
ENTPROP_INLINE void tabulate(uint8_t* table, F f) {
  for (int v = 0; v < 256; ++v) {
    const double value = f(v);
    table[v] = (uint8_t)(int)(value > 0 ? (value < 255 ? value : 255) : 0);
  }
}

inline void autocontrast(const Planes& planes, uint8_t* to, const uint8_t* from) {
  for (int64_t c = 0; c < planes.channels; ++c) {
    const uint8_t* plane = from + c * planes.stride;
    const Range range = range_of(plane, planes.pixels());
    const double scale = range.high > range.low ? 255.0 / (range.high - range.low) : 1.0;
    const double offset = range.high > range.low ? -range.low * scale : 0.0;
    uint8_t table[256];
    tabulate(table, [&](int v) ENTPROP_INLINE_LAMBDA { return v * scale + offset; });
    look_up(to + c * planes.stride, plane, planes.pixels(), table);
  }
}

// Four histograms side by side, as the same level often comes twice in a row.
inline void count_levels(const uint8_t* plane, int64_t pixels, uint32_t* counts) {
  uint32_t apart[4][256] = {};
  int64_t i = 0;
  for (; i + 8 <= pixels; i += 8) {
    uint64_t eight;
    __builtin_memcpy(&eight, plane + i, 8);
    for (int k = 0; k < 8; ++k) ++apart[k % 4][eight >> (8 * k) & 255];
  }
  for (; i < pixels; ++i) ++apart[0][plane[i]];
  for (int v = 0; v < 256; ++v) counts[v] = apart[0][v] + apart[1][v] + apart[2][v] + apart[3][v];
}

inline void equalize(const Planes& planes, uint8_t* to, const uint8_t* from) {
  for (int64_t c = 0; c < planes.channels; ++c) {
    const uint8_t* plane = from + c * planes.stride;
    uint32_t counts[256];
    count_levels(plane, planes.pixels(), counts);
    int last = 255;
    while (counts[last] == 0) --last;
    const int64_t step = (planes.pixels() - counts[last]) / 255;
    if (step == 0) {  // a single level as well
      __builtin_memmove(to + c * planes.stride, plane, planes.pixels());
      continue;
    }
    double before[256];  // whole numbers, whose quotients no rounding takes across a whole number
    int64_t n = step / 2;
    for (int v = 0; v < 256; ++v, n += counts[v - 1]) before[v] = (double)n;
    uint8_t table[256];
    tabulate(table, [&](int v) ENTPROP_INLINE_LAMBDA { return before[v] / (double)step; });
    look_up(to + c * planes.stride, plane, planes.pixels(), table);
  }
}

inline void blend_all(const Planes& planes, uint8_t* to, const uint8_t* from, int level,
                      float alpha) {
  uint8_t table[256];
  const Ints degenerate = Ints{} + level;
  Ints value = lanes();
  for (int v = 0; v < 256; v += kPixels, value += (int)kPixels)
    store_levels(table + v, blended(degenerate, value, alpha));
  look_up(to, from, planes.bytes(), table);
}

// Sixteen pixels' luma as Pillow's convert("L").
ENTPROP_INLINE Ints luma(const Planes& planes, const uint8_t* from) {
  const Ints red = load_levels(from), green = load_levels(from + planes.stride);
  const Ints blue = load_levels(from + 2 * planes.stride);
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
}

inline void contrast(const Planes& planes, uint8_t* to, const uint8_t* from, float alpha) {
  const int64_t pixels = planes.pixels();
  int64_t total = 0;
  constexpr int64_t kSummed = 1 << 20;  // so many pixels' sums of a lane fit 32 bits
  for (int64_t first = 0; first < pixels; first += kSummed) {
    const int64_t end = pixels - first < kSummed ? pixels : first + kSummed;
    Ints sum = {};
    for (int64_t i = first; i < end; i += kPixels) {
      const Ints v = planes.channels == 3 ? luma(planes, from + i) : load_levels(from + i);
      sum += end - i >= kPixels ? v : (lanes() < Ints{} + (int)(end - i) ? v : Ints{});
    }
    for (int k = 0; k < kPixels; ++k) total += sum[k];
  }
  blend_all(planes, to, from, (int)((double)total / (double)pixels + 0.5), alpha);
}

// Of three channels.
inline void color(const Planes& planes, uint8_t* to, const uint8_t* from, float alpha) {
  for (int64_t i = 0; i < planes.pixels(); i += kPixels) {
    const Ints grey = luma(planes, from + i);
    for (int64_t c = 0; c < 3; ++c) {
      const Ints v = load_levels(from + c * planes.stride + i);
      store_levels(to + c * planes.stride + i, blended(grey, v, alpha));
    }
  }
}

// `from` is not `to`: a pixel's neighbours are read after it is written. Nine pixels are summed
// across the ends of rows too, and the outermost pixels put back.
inline void sharpness(const Planes& planes, uint8_t* to, const uint8_t* from, float alpha) {
  const int64_t width = planes.width, pixels = planes.pixels();
  if (width < 3 || planes.height < 3) return (void)__builtin_memcpy(to, from, planes.bytes());
  for (int64_t c = 0; c < planes.channels; ++c, to += planes.stride, from += planes.stride) {
    for (int64_t i = width + 1; i < pixels - width - 1; i += 2 * kPixels) {
      const uint8_t* in = from + i;
      Shorts sum = load_shorts(in) << 2;
      for (int64_t right = -1; right <= 1; ++right)
        sum += load_shorts(in - width + right) + load_shorts(in + right) +
               load_shorts(in + width + right);
      // (sum + 6.5) / 13 down to a whole number: 2 sum + 13 is odd, so that Pillow's float32 cannot
      // fall on the other side of one. 20165 / 2^19 is 1/26 and a little more.
      const Shorts smooth = high_product(2 * sum + 13, 20165) >> 3;
      store_levels(to + i, blended(first_half(smooth), load_levels(in), alpha));
      store_levels(to + i + kPixels,
                   blended(second_half(smooth), load_levels(in + kPixels), alpha));
    }
    __builtin_memcpy(to, from, width);
    __builtin_memcpy(to + pixels - width, from + pixels - width, width);
    for (int64_t i = 0; i < pixels; i += width) {
      to[i] = from[i];
      to[i + width - 1] = from[i + width - 1];
    }
  }
}

}  // namespace ENTPROP_ISA
