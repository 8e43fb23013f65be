// PRIME's chains over one image, of planes of float: colour, filter, and how chains are mixed.
#pragma once

#include "prime_warp_loops.h"

namespace ENTPROP_ISA {

// x + the sum over k of [first, last] of amplitudes[k - first] sin(pi k x), clamped: Clenshaw's sum
// in Reinsch's form, which keeps its accuracy at dark values. Bright ones are mirrored, where every
// other sine changes its sign.
template <int vectors>
ENTPROP_INLINE void bend_some(const float* amplitudes, int64_t first, int64_t last, const float* x,
                              float* y) {
  using S = Simd<float>;
  F given[vectors], sign[vectors], mirrored[vectors], delta[vectors];
  F sum[vectors] = {}, step[vectors] = {};
  for (int v = 0; v < vectors; ++v) {
    given[v] = S::load(x + v * S::lanes);
    const I bright = given[v] > 0.5f;
    sign[v] = bright ? broadcast(-1) : broadcast(1);
    mirrored[v] = bright ? 1 - given[v] : given[v];
    F sine, cosine;
    sine_cosine(mirrored[v], &sine, &cosine);  // of half the angle
    delta[v] = -4 * sine * sine;
  }
  for (int64_t k = last; k >= first; --k) {
    const F amplitude = broadcast(amplitudes[k - first]);
    for (int v = 0; v < vectors; ++v) {
      const F ahead = k & 1 ? step[v] + amplitude : step[v] + amplitude * sign[v];
      step[v] = ahead + delta[v] * sum[v];
      sum[v] += step[v];
    }
  }
  for (int v = 0; v < vectors; ++v) {
    F sine, before, unused;
    sine_cosine(mirrored[v] * (float)(2 * first), &sine, &unused);
    sine_cosine(mirrored[v] * (float)(2 * (first - 1)), &before, &unused);
    const F bent = given[v] + sum[v] * sine - (sum[v] - step[v]) * before;
    S::store(y + v * S::lanes, clamp(bent, F{}, F{} + 1));
  }
}

// May write up to the next whole vector, and reads as far.
inline void bend(const float* amplitudes, int64_t first, int64_t last, const float* x, float* y,
                 int64_t count) {
  constexpr int kVectors = 4;
  constexpr int64_t kLanes = Simd<float>::lanes;
  int64_t i = 0;
  for (; i + kVectors * kLanes <= count; i += kVectors * kLanes)
    bend_some<kVectors>(amplitudes, first, last, x + i, y + i);
  for (; i < count; i += kLanes) bend_some<1>(amplitudes, first, last, x + i, y + i);
}

// amplitudes [channels][last - first + 1], with `stride` from one channel to the next.
inline void curves(uint64_t key, int64_t first, int64_t last, float scale, int64_t channels,
                   float* drawn, float* amplitudes, int64_t stride) {
  const int64_t begin = kColorChannels * (first - 1), end = kColorChannels * last;
  const int64_t base = begin / 2;
  for (int64_t word = base; 2 * word < end; word += kFloatLanes) {
    F even, odd;
    normal_pairs(key, word, &even, &odd);
    even *= scale;
    odd *= scale;
    float* out = drawn + 2 * (word - base);
    for (int i = 0; i < kFloatLanes; ++i) {
      out[2 * i] = even[i];
      out[2 * i + 1] = odd[i];
    }
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t k = first; k <= last; ++k)
      amplitudes[c * stride + k - first] = drawn[kColorChannels * (k - 1) + c - 2 * base];
}

// Correlates each plane of `from`, zero outside, with a kernel of side `side`, clamped.
template <int side>
ENTPROP_INLINE void filter_planes(const PrimeShape& shape, const float* kernel, const float* from,
                                  float* frame, float* to) {
  using S = Simd<float>;
  constexpr int64_t reach = side / 2;
  const int64_t stride = shape.frame_stride(), width = shape.width;
  for (int64_t i = 0; i < shape.frame() * stride; ++i) frame[i] = 0;
  for (int64_t c = 0; c < shape.channels; ++c) {
    const float* p = from + c * shape.plane();
    for (int64_t y = 0; y < shape.height; ++y)
      __builtin_memcpy(frame + (y + reach) * stride + reach, p + y * width, sizeof(float) * width);
    for (int64_t y = 0; y < shape.height; ++y)
      for (int64_t x = 0; x < width; x += S::lanes) {
        F sum = {};
        for (int i = 0; i < side; ++i)
          for (int j = 0; j < side; ++j)
            sum += kernel[i * side + j] * S::load(frame + (y + i) * stride + x + j);
        const int64_t lanes = width - x < S::lanes ? width - x : S::lanes;
        store(to + c * shape.plane() + y * width + x, clamp(sum, F{}, F{} + 1), lanes);
      }
  }
}

inline void filter(const PrimeShape& shape, uint64_t key, float scale, const float* from,
                   float* frame, float* to) {
  float kernel[kMaxKernel * kMaxKernel + 2 * kFloatLanes];
  const int64_t side = shape.kernel, count = side * side;
  for (int64_t word = 0; 2 * word < count; word += kFloatLanes) {
    F even, odd;
    normal_pairs(key, word, &even, &odd);
    for (int i = 0; i < kFloatLanes && 2 * (word + i) < count; ++i) {
      kernel[2 * (word + i)] = even[i] * scale;
      kernel[2 * (word + i) + 1] = odd[i] * scale;
    }
  }
  kernel[(side + 1) / 2 * (side + 1)] += 1;
  if (side == 3) filter_planes<3>(shape, kernel, from, frame, to);
  if (side == 5) filter_planes<5>(shape, kernel, from, frame, to);
  if (side == 7) filter_planes<7>(shape, kernel, from, frame, to);
}

// Cut from one piece of scratch memory.
struct Room {
  float *start, *here, *there, *mixed, *frame, *drawn, *amplitudes;
  Field field;

  Room(const PrimeShape& shape, float* p) {
    const auto take = [&](int64_t count) {
      float* taken = p;
      p += count;
      return taken;
    };
    start = take(shape.image());
    here = take(shape.image());
    there = take(shape.image());
    mixed = take(shape.image());
    field = {take(shape.field()), take(shape.field()), take(shape.modes()), take(shape.modes()),
             take(shape.partial())};
    frame = take(shape.frame() * shape.frame_stride());
    drawn = take(shape.curve());
    amplitudes = take(shape.curve());
  }
};

template <class T>
ENTPROP_INLINE void read(const PrimeShape& shape, const PrimeImage& image, float* start) {
  constexpr float unit = sizeof(T) == 1 ? 1.0f / 255 : 1.0f;
  for (int64_t c = 0; c < shape.channels; ++c) {
    const T* p = static_cast<const T*>(image.from) + c * image.channel_stride;
    for (int64_t i = 0; i < shape.plane(); ++i)
      start[c * shape.plane() + i] = (float)p[i * image.pixel_stride] * unit;
  }
}

template <class T>
ENTPROP_INLINE void write(const PrimeShape& shape, const PrimeImage& image, const float* mixed) {
  for (int64_t c = 0; c < shape.channels; ++c) {
    T* p = static_cast<T*>(image.to) + c * image.channel_stride;
    for (int64_t i = 0; i < shape.plane(); ++i) {
      const float value = mixed[c * shape.plane() + i];
      if constexpr (sizeof(T) == 1) {
        const float level = value * 255 + 0.5f;
        p[i * image.pixel_stride] = (T)(level > 255 ? 255.0f : (level >= 0 ? level : 0.0f));
      } else {
        p[i * image.pixel_stride] = value;
      }
    }
  }
}

// Whether the values of the image are the 256 levels, of which there are fewer than pixels.
ENTPROP_INLINE bool by_table(const PrimeShape& shape, const PrimeImage& image) {
  return image.levels && shape.plane() > 256;
}

inline void color(const PrimeShape& shape, const PrimeImage& image, int64_t slot, bool untouched,
                  const Room& room, const float* from, float* to) {
  const auto within = [&](int64_t k) {
    return k < 1 ? 1 : (k > shape.highest ? shape.highest : k);
  };
  const int64_t first = within(image.bands[2 * slot]), last = within(image.bands[2 * slot + 1]);
  const int64_t stride = shape.highest + kPrimePadding, plane = shape.plane();
  curves((uint64_t)image.keys[slot], first, last, image.scale[slot], shape.channels, room.drawn,
         room.amplitudes, stride);
  for (int64_t c = 0; c < shape.channels; ++c) {
    const float* amplitudes = room.amplitudes + c * stride;
    if (!untouched || !by_table(shape, image)) {
      bend(amplitudes, first, last, from + c * plane, to + c * plane, plane);
      continue;
    }
    float levels[256], bent[256];
    for (int i = 0; i < 256; ++i) levels[i] = (float)i * (1.0f / 255);
    bend(amplitudes, first, last, levels, bent, 256);
    const uint8_t* p = static_cast<const uint8_t*>(image.from) + c * image.channel_stride;
    for (int64_t i = 0; i < plane; ++i) to[c * plane + i] = bent[p[i * image.pixel_stride]];
  }
}

// The result of a chain, in one of the images of the room.
inline const float* chain(const PrimeShape& shape, const PrimeImage& image, int64_t number,
                          const Room& room) {
  const float* from = room.start;
  float *to = room.here, *other = room.there;
  for (int64_t slot = number * shape.depth; slot < (number + 1) * shape.depth; ++slot) {
    const uint64_t key = (uint64_t)image.keys[slot];
    const int64_t cut = image.bands[2 * slot + 1];
    switch ((Primitive)image.codes[slot]) {
      case Primitive::warp:
        displacements(shape, key, cut < 1 ? 1 : (cut > shape.highest ? shape.highest : cut),
                      image.scale[slot], room.field);
        remap(shape, room.field, from, to);
        break;
      case Primitive::color:
        color(shape, image, slot, from == room.start, room, from, to);
        break;
      case Primitive::filter:
        filter(shape, key, image.scale[slot], from, room.frame, to);
        break;
      default:
        continue;
    }
    from = to;
    to = other;
    other = const_cast<float*>(from);
  }
  return from;
}

// `scratch` holds shape.scratch() floats, none of them NaN.
void prime_chains(const PrimeShape& shape, const PrimeImage& image, float* scratch) {
  const Room room(shape, scratch);
  const int64_t count = shape.channels * shape.plane();
  if (image.levels)
    read<uint8_t>(shape, image, room.start);
  else
    read<float>(shape, image, room.start);
  for (int64_t i = 0; i < count; ++i) room.mixed[i] = image.keep * room.start[i];
  for (int64_t number = 0; number < shape.chains; ++number) {
    const float* result = chain(shape, image, number, room);
    const float weight = image.weights[number];
    for (int64_t i = 0; i < count; ++i) room.mixed[i] += weight * result[i];
  }
  if (image.levels)
    write<uint8_t>(shape, image, room.mixed);
  else
    write<float>(shape, image, room.mixed);
}

}  // namespace ENTPROP_ISA
