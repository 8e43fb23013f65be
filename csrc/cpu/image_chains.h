// The loops of image_chains, compiled once for every instruction set: one image at a time.
#pragma once

#include <cstdint>

namespace entprop {

// As the codes of entprop_fast/ops/image_chains.py; geometry + kNearest takes the nearest pixel.
enum class ChainCode : int {
  identity,
  autocontrast,
  equalize,
  posterize,
  solarize,
  rotate,
  shear_x,
  shear_y,
  translate_x,
  translate_y,
  brightness,
  color,
  contrast,
  sharpness,
  invert,
};
inline constexpr int kNearest = 64;

// One operation, its code without kNearest.
struct ChainStep {
  ChainCode code;
  bool nearest;
  float strength;
  // Geometry's, from output to input in units of 2^-24 of a pixel, nearest 2^-16; its offsets are
  // the place of the middle of pixel (0, 0).
  int64_t matrix[6];
};

struct ChainImage {
  const uint8_t* in;  // [channels, height, width], or [height, width, channels] if interleaved
  uint8_t* out;
  int64_t channels, height, width;  // 1 or 3 channels
  bool interleaved;
  const ChainStep* steps;  // [chains, depth]
  int64_t chains, depth;
  const float* weights;  // [chains]
  float keep;
  uint8_t* scratch;  // chain_scratch bytes, aligned to 64
};

// Vectors may be stored so far past the last pixel of a plane.
inline constexpr int64_t kPlanePadding = 64;

// Bytes from a channel to the next one in scratch.
inline int64_t chain_plane(int64_t pixels) { return (pixels + 63) / 64 * 64 + kPlanePadding; }

// The image and each chain in planes of bytes, and one image of 4 bytes a pixel.
inline int64_t chain_scratch(int64_t channels, int64_t pixels, int64_t chains) {
  return chain_plane(pixels) * ((chains + 1) * channels + 4);
}

struct ChainKernels {
  void (*image)(const ChainImage&);
};

const ChainKernels& chain_kernels();

}  // namespace entprop
