// PixMix's rounds over one image, as a plain function over pointers and sizes that is compiled once
// for every instruction set. Only pixmix.cpp knows tensors and threads.
#pragma once

#include <cstdint>

namespace entprop {

// As entprop_fast/ops/pixmix_rounds.py numbers them; any other changes nothing.
enum class Mixing : uint8_t { add = 1, multiply = 2 };

inline constexpr int64_t kLevels = 256;

struct PixmixImage {
  const void* from;
  void* to;
  bool levels;           // uint8, else float
  const uint8_t* start;  // null: `from`
  int64_t values, rounds;
  const uint8_t* const* others;  // [rounds], as all below
  const uint8_t* codes;
  const float* weights;  // [rounds, 2]: of the image, of the other
  const float* logs;     // [kLevels]: log2 of twice a level's value
  float* scratch;        // [rounds, kLevels]
};

using Pixmix = void (*)(const PixmixImage&);

namespace portable {
void pixmix(const PixmixImage&);
}
namespace avx2 {
void pixmix(const PixmixImage&);
}
namespace avx512 {
void pixmix(const PixmixImage&);
}

}  // namespace entprop
