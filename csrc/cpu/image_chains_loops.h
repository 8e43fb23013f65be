// An image's chains, one operation after the other, and their mixture.
#pragma once

#include "image_chains_shift_loops.h"

namespace ENTPROP_ISA {

// to = step(from); false if the image stays as it is, and nothing was written.
inline bool run_step(const ChainStep& step, const Planes& planes, uint8_t* to, const uint8_t* from,
                     uint8_t* packed) {
  switch (step.code) {
    case ChainCode::autocontrast:
      autocontrast(planes, to, from);
      return true;
    case ChainCode::equalize:
      equalize(planes, to, from);
      return true;
    case ChainCode::posterize:
      posterize(planes, to, from, step.strength);
      return true;
    case ChainCode::solarize:
      solarize(planes, to, from, step.strength);
      return true;
    case ChainCode::brightness:
      blend_all(planes, to, from, 0, step.strength);
      return true;
    case ChainCode::contrast:
      contrast(planes, to, from, step.strength);
      return true;
    case ChainCode::color:
      if (planes.channels == 1 || step.strength == 1) return false;
      color(planes, to, from, step.strength);
      return true;
    case ChainCode::sharpness:
      if (step.strength == 1) return false;
      if (to == from) {
        __builtin_memcpy(packed, from, planes.bytes());
        from = packed;
      }
      sharpness(planes, to, from, step.strength);
      return true;
    case ChainCode::invert:
      invert(planes, to, from);
      return true;
    case ChainCode::rotate:
    case ChainCode::shear_x:
    case ChainCode::shear_y:
    case ChainCode::translate_x:
    case ChainCode::translate_y:
      break;
    default:
      return false;
  }
  if (keeps_rows(step.matrix, step.nearest)) {
    if (to == from) {
      __builtin_memcpy(packed, from, planes.bytes());
      from = packed;
    }
    shifted(planes, to, from, step.matrix, step.nearest);
  } else if (planes.channels == 3) {
    affine<3>(planes, to, from, step.matrix, step.nearest, packed);
  } else {
    affine<1>(planes, to, from, step.matrix, step.nearest, packed);
  }
  return true;
}

inline void load_image(const ChainImage& image, const Planes& planes, uint8_t* to) {
  const int64_t pixels = planes.pixels(), stride = planes.stride;
  if (!image.interleaved || planes.channels == 1) {
    for (int64_t c = 0; c < planes.channels; ++c)
      __builtin_memcpy(to + c * stride, image.in + c * pixels, pixels);
    return;
  }
  int64_t i = 0;
  for (; i + kColours <= pixels; i += kPixels) {
    const Ints colours = load_colours(image.in + 3 * i);
    for (int c = 0; c < 3; ++c) store_levels(to + c * stride + i, colours >> (8 * c) & 255);
  }
  for (; i < pixels; ++i)
    for (int64_t c = 0; c < 3; ++c) to[c * stride + i] = image.in[3 * i + c];
}

inline void store_image(const ChainImage& image, const Planes& planes, const uint8_t* from) {
  const int64_t pixels = planes.pixels(), stride = planes.stride;
  if (!image.interleaved || planes.channels == 1) {
    for (int64_t c = 0; c < planes.channels; ++c)
      __builtin_memcpy(image.out + c * pixels, from + c * stride, pixels);
    return;
  }
  int64_t i = 0;
  for (; i + kColours <= pixels; i += kPixels) {
    const Ints red = load_levels(from + i), green = load_levels(from + stride + i);
    store_colours(image.out + 3 * i, red | green << 8 | load_levels(from + 2 * stride + i) << 16);
  }
  for (; i < pixels; ++i)
    for (int64_t c = 0; c < 3; ++c) image.out[3 * i + c] = from[c * stride + i];
}

// to = floor(keep image + sum of weights[w] chain w + 1/2), each product and sum rounded apart.
inline void mix(const ChainImage& image, const Planes& planes, uint8_t* to, const uint8_t* levels,
                const uint8_t* chains) {
  for (int64_t i = 0; i < planes.bytes(); i += kPixels) {
    Floats mixed = image.keep * as_floats(load_levels(levels + i));
    for (int64_t w = 0; w < image.chains; ++w)
      mixed = mixed + image.weights[w] * as_floats(load_levels(chains + w * planes.bytes() + i));
    store_levels(to + i, as_levels(mixed + 0.5f));
  }
}

void chain_image(const ChainImage& image) {
  const int64_t pixels = image.height * image.width;
  const Planes planes{image.channels, image.height, image.width, chain_plane(pixels)};
  uint8_t* levels = image.scratch;
  uint8_t* chains = levels + planes.bytes();
  uint8_t* packed = chains + image.chains * planes.bytes();
  load_image(image, planes, levels);
  for (int64_t w = 0; w < image.chains; ++w) {
    uint8_t* own = chains + w * planes.bytes();
    const uint8_t* current = levels;
    for (int64_t d = 0; d < image.depth; ++d)
      if (run_step(image.steps[w * image.depth + d], planes, own, current, packed)) current = own;
    if (current == levels) __builtin_memcpy(own, levels, planes.bytes());
  }
  if (image.chains == 1 && image.keep == 0 && image.weights[0] == 1)
    return store_image(image, planes, chains);
  mix(image, planes, packed, levels, chains);
  store_image(image, planes, packed);
}

const ChainKernels& chain_table() {
  static constexpr ChainKernels kernels = {chain_image};
  return kernels;
}

}  // namespace ENTPROP_ISA
