// The op pixmix_rounds: entprop_fast/ops/pixmix_rounds.py says what it computes.

#include "pixmix.h"

#include <cmath>
#include <string_view>

#include "check.h"

namespace entprop {
namespace {

constexpr float kTiny = 1e-37f;  // the published code raises nothing smaller to a power

Pixmix chosen() {
  const std::string_view isa = instruction_set();
#ifdef ENTPROP_HAVE_AVX512
  if (isa == "avx512") return avx512::pixmix;
#endif
#ifdef ENTPROP_HAVE_AVX2
  if (isa == "avx2") return avx2::pixmix;
#endif
  return portable::pixmix;
}

void check(const Tensor& images, const Tensor& pool, const Tensor& number, const Tensor& codes,
           const Tensor& weights) {
  const ScalarType dtype = images.scalar_type();
  if (images.dim() != 2 ||
      (dtype != ScalarType::Byte && dtype != ScalarType::Float && dtype != ScalarType::Double))
    refuse("images: expected torch.uint8, torch.float32 or torch.float64 [B, values], got ",
           described(images));
  if (pool.dim() != 2 || pool.size(0) == 0)
    refuse("pool: expected [rows, values] with at least a row, got ", listed(pool.sizes()));
  const std::array<int64_t, 2> all{pool.size(0), images.size(1)};
  require("pool", pool, Sizes(all.data(), 2), ScalarType::Byte, images);
  if (codes.dim() != 2) refuse("codes: expected [B, rounds], got ", listed(codes.sizes()));
  const std::array<int64_t, 3> sizes{images.size(0), codes.size(1), 2};
  const std::array<int64_t, 2> numbers{images.size(0), codes.size(1) + 1};
  require("number", number, Sizes(numbers.data(), 2), ScalarType::Long, images);
  require("codes", codes, Sizes(sizes.data(), 2), ScalarType::Byte, images);
  require("weights", weights, Sizes(sizes.data(), 3), ScalarType::Float, images);
}

Tensor pixmix_rounds(const Tensor& images, const Tensor& pool, const Tensor& number,
                     const Tensor& codes, const Tensor& weights) {
  check(images, pool, number, codes, weights);
  if (images.scalar_type() == ScalarType::Double)
    return std::get<0>(call_reference<Tensor>("entprop_fast::pixmix_rounds_reference", "", images,
                                              pool, number, codes, weights));
  using torch::stable::contiguous;
  const Tensor from = contiguous(images), levels = contiguous(pool), rows = contiguous(number);
  const Tensor kinds = contiguous(codes), factors = contiguous(weights);
  const bool whole = images.scalar_type() == ScalarType::Byte;
  const int64_t count = images.size(0), values = images.size(1), rounds = codes.size(1);
  const int64_t bytes = values * (whole ? 1 : 4);
  const Tensor out = fresh(from, {count, values}, images.scalar_type());
  std::vector<float> logs(kLevels);
  for (int64_t y = 0; y < kLevels; ++y)
    logs[y] = std::log2(std::max((float)y * (2.0f / 255), kTiny));
  const auto row = [&](int64_t wanted) {
    return data<uint8_t>(levels) + std::clamp<int64_t>(wanted, 0, pool.size(0) - 1) * values;
  };
  const Pixmix run = chosen();
  in_pieces(pieces(count, values * 4), count, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<float> scratch(rounds * kLevels);
    std::vector<const uint8_t*> others(rounds);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t* wanted = data<int64_t>(rows) + i * (rounds + 1);
      for (int64_t r = 0; r < rounds; ++r) others[r] = row(wanted[r + 1]);
      run({static_cast<const char*>(from.const_data_ptr()) + i * bytes,
           static_cast<char*>(out.mutable_data_ptr()) + i * bytes, whole,
           wanted[0] < 0 ? nullptr : row(wanted[0]), values, rounds, others.data(),
           data<uint8_t>(kinds) + i * rounds, data<float>(factors) + 2 * i * rounds, logs.data(),
           scratch.data()});
    }
  });
  return out;
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("pixmix_rounds", TORCH_BOX(&entprop::pixmix_rounds));
}
