// The op prime_chains: entprop_fast/ops/prime_chains.py says what it computes.

#include "prime.h"

#include <cmath>
#include <numbers>
#include <string_view>

#include "check.h"

namespace entprop {
namespace {

PrimeChains chosen() {
  const std::string_view isa = instruction_set();
#ifdef ENTPROP_HAVE_AVX512
  if (isa == "avx512") return avx512::prime_chains;
#endif
#ifdef ENTPROP_HAVE_AVX2
  if (isa == "avx2") return avx2::prime_chains;
#endif
  return portable::prime_chains;
}

// sin(pi mode place / (pixels - 1)) for places 0 ... pixels - 1, by modes 1 ... pixels - 2.
struct Sines {
  int64_t pixels, modes;
  std::vector<float> turn;  // the sine of every (pixels - 1)-th of half a turn

  explicit Sines(int64_t n) : pixels(n), modes(std::max<int64_t>(n - 2, 0)) {
    const int64_t parts = std::max<int64_t>(2 * (n - 1), 1);
    for (int64_t i = 0; i < parts; ++i)
      turn.push_back((float)std::sin(2 * std::numbers::pi * (double)i / (double)parts));
  }

  float at(int64_t place, int64_t mode) const { return turn[place * mode % (int64_t)turn.size()]; }

  std::vector<float> by_place() const {  // [pixels, padded(modes)]
    std::vector<float> table(pixels * padded(modes));
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t m = 0; m < modes; ++m) table[p * padded(modes) + m] = at(p, m + 1);
    return table;
  }

  std::vector<float> by_mode() const {  // [modes, padded(pixels)]
    std::vector<float> table(modes * padded(pixels));
    for (int64_t m = 0; m < modes; ++m)
      for (int64_t p = 0; p < pixels; ++p) table[m * padded(pixels) + p] = at(p, m + 1);
    return table;
  }
};

void check(const Tensor& images, const Tensor& codes, const Tensor& keys, const Tensor& bands,
           const Tensor& scale, const Tensor& weights, const Tensor& keep, int64_t highest,
           int64_t kernel) {
  const ScalarType dtype = images.scalar_type();
  if (images.dim() != 4 || (images.size(1) != 1 && images.size(1) != 3) || images.size(2) == 0 ||
      images.size(3) == 0)
    refuse("images: expected [B, C, H, W] with C of 1 or 3, got ", described(images));
  if (dtype != ScalarType::Byte && dtype != ScalarType::Float)
    refuse("images: expected torch.uint8 or torch.float32, got ", described(images));
  if (codes.dim() != 3) refuse("codes: expected [B, width, depth], got ", listed(codes.sizes()));
  const std::array<int64_t, 4> sizes{images.size(0), codes.size(1), codes.size(2), 2};
  require("codes", codes, Sizes(sizes.data(), 3), ScalarType::Byte, images);
  require("keys", keys, Sizes(sizes.data(), 3), ScalarType::Long, images);
  require("bands", bands, Sizes(sizes.data(), 4), ScalarType::Int, images);
  require("scale", scale, Sizes(sizes.data(), 3), ScalarType::Float, images);
  require("weights", weights, Sizes(sizes.data(), 2), ScalarType::Float, images);
  require("keep", keep, Sizes(sizes.data(), 1), ScalarType::Float, images);
  if (highest < 1 || highest > kMaxFrequency)
    refuse("highest=", std::to_string(highest), ": expected a frequency of 1 to ",
           std::to_string(kMaxFrequency));
  if (kernel != 3 && kernel != 5 && kernel != 7)
    refuse("kernel=", std::to_string(kernel), ": expected 3, 5 or 7 pixels");
}

Tensor prime_chains(const Tensor& images, const Tensor& codes, const Tensor& keys,
                    const Tensor& bands, const Tensor& scale, const Tensor& weights,
                    const Tensor& keep, int64_t highest, int64_t kernel) {
  check(images, codes, keys, bands, scale, weights, keep, highest, kernel);
  const bool last = is_channels_last(images);
  const Tensor from = last ? images : torch::stable::contiguous(images);
  const std::vector<int64_t> sizes(images.sizes().begin(), images.sizes().end());
  const Tensor out = last ? fresh_like(from) : fresh(from, sizes, images.scalar_type());
  const std::array<Tensor, 6> program{
      torch::stable::contiguous(codes),   torch::stable::contiguous(keys),
      torch::stable::contiguous(bands),   torch::stable::contiguous(scale),
      torch::stable::contiguous(weights), torch::stable::contiguous(keep)};

  const int64_t count = images.size(0), chains = codes.size(1), depth = codes.size(2);
  const Sines along_y(images.size(2)), along_x(images.size(3));
  const std::vector<float> sines_y = along_y.by_place(), sines_x = along_x.by_mode();
  const PrimeShape shape{images.size(1), images.size(2), images.size(3), chains,
                         depth,          highest,        kernel,         along_y.modes,
                         along_x.modes,  sines_y.data(), sines_x.data()};
  const bool levels = images.scalar_type() == ScalarType::Byte;
  const int64_t bytes = shape.channels * shape.plane() * (levels ? 1 : 4);
  const PrimeChains run = chosen();
  in_pieces(pieces(count, bytes * chains * depth), count, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<float> scratch(shape.scratch());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t slot = i * chains * depth;
      run(shape,
          {static_cast<const char*>(from.const_data_ptr()) + i * bytes,
           static_cast<char*>(out.mutable_data_ptr()) + i * bytes, levels, last ? 1 : shape.plane(),
           last ? shape.channels : 1, data<uint8_t>(program[0]) + slot,
           data<int64_t>(program[1]) + slot, data<int32_t>(program[2]) + 2 * slot,
           data<float>(program[3]) + slot, data<float>(program[4]) + i * chains,
           data<float>(program[5])[i]},
          scratch.data());
    }
  });
  return out;
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("prime_chains", TORCH_BOX(&entprop::prime_chains));
}
