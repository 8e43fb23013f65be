// PRIME's chains over one image, as a plain function over pointers and sizes that is compiled once
// for every instruction set. Only prime.cpp knows tensors and threads.
#pragma once

#include <cstdint>

namespace entprop {

// As entprop_fast/ops/prime_chains.py numbers them; any other is the identity.
enum class Primitive : uint8_t { warp = 1, color = 2, filter = 3 };

inline constexpr int64_t kMaxFrequency = 4096;
inline constexpr int64_t kMaxKernel = 7;
inline constexpr int64_t kColorChannels = 3;  // draws are laid out for so many
inline constexpr int64_t kPrimePadding = 16;  // so that the last vector of a row can be whole

// Inlined always: the linker may not choose one instruction set's copy for all.
[[gnu::always_inline]] inline int64_t padded(int64_t count) {
  return (count + kPrimePadding - 1) & -kPrimePadding;
}

struct PrimeShape {
  int64_t channels, height, width, chains, depth, highest, kernel;
  // sin(pi i y) [height, padded(modes_y)], and sin(pi j x) [modes_x, padded(width)].
  int64_t modes_y, modes_x;
  const float *sines_y, *sines_x;

  [[gnu::always_inline]] int64_t plane() const { return height * width; }
  [[gnu::always_inline]] int64_t frame() const { return height + kernel; }  // rows with a border
  [[gnu::always_inline]] int64_t frame_stride() const {
    return padded(width + kernel) + kPrimePadding;
  }
  [[gnu::always_inline]] int64_t image() const {
    return padded(channels * plane() + width + 1) + kPrimePadding;
  }
  [[gnu::always_inline]] int64_t field() const { return height * padded(width); }
  [[gnu::always_inline]] int64_t modes() const { return padded(modes_y) * padded(modes_x); }
  [[gnu::always_inline]] int64_t partial() const { return padded(modes_y) * padded(width); }
  [[gnu::always_inline]] int64_t curve() const {
    return kColorChannels * (highest + 2 * kPrimePadding);
  }
  // Floats that prime_chains wants: four images, two fields, and what a single primitive needs.
  [[gnu::always_inline]] int64_t scratch() const {
    return 4 * image() + 2 * field() + 2 * modes() + partial() + frame() * frame_stride() +
           2 * curve();
  }
};

struct PrimeImage {
  const void* from;
  void* to;
  bool levels;  // uint8, else float
  int64_t channel_stride, pixel_stride;
  const uint8_t* codes;  // [chains, depth]
  const int64_t* keys;   // likewise
  const int32_t* bands;  // [chains, depth, 2]
  const float* scale;    // [chains, depth]
  const float* weights;  // [chains]
  float keep;
};

using PrimeChains = void (*)(const PrimeShape&, const PrimeImage&, float* scratch);

namespace portable {
void prime_chains(const PrimeShape&, const PrimeImage&, float* scratch);
}
namespace avx2 {
void prime_chains(const PrimeShape&, const PrimeImage&, float* scratch);
}
namespace avx512 {
void prime_chains(const PrimeShape&, const PrimeImage&, float* scratch);
}

}  // namespace entprop
