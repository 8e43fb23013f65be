// The op image_chains.

#include "image_chains.h"

#include <cmath>

#include "check.h"

namespace entprop {
namespace {

constexpr int64_t kLargestSide = 1 << 15;
constexpr float kLargestStrength = 1 << 15;

void check(const Tensor& images, const Tensor& codes, const Tensor& strengths,
           const Tensor& weights, const Tensor& keep) {
  const bool fits = images.dim() == 4 && (images.size(1) == 1 || images.size(1) == 3) &&
                    images.size(2) > 0 && images.size(3) > 0 && images.size(2) <= kLargestSide &&
                    images.size(3) <= kLargestSide && images.scalar_type() == ScalarType::Byte;
  if (!fits)
    refuse("images: expected torch.uint8 [B, 1 or 3, H, W] with sides of 1 to ",
           std::to_string(kLargestSide), ", got ", described(images));
  const int64_t rows = images.size(0);
  if (codes.dim() != 3 || codes.size(0) != rows || codes.scalar_type() != ScalarType::Byte)
    refuse("codes: expected torch.uint8 [", std::to_string(rows), ", width, depth], got ",
           described(codes));
  require_device("codes", codes, images);
  require("strengths", strengths, codes.sizes(), ScalarType::Float, images);
  require("weights", weights, Sizes(codes.sizes().data(), 2), ScalarType::Float, images);
  require("keep", keep, Sizes(images.sizes().data(), 1), ScalarType::Float, images);
}

// As image_chains_geometry.py makes it.
void set_matrix(ChainStep& step, int64_t height, int64_t width) {
  const double strength = step.strength, middle_x = width / 2.0, middle_y = height / 2.0;
  double a[6] = {1, 0, 0, 0, 1, 0};
  switch (step.code) {
    case ChainCode::rotate: {
      const double angle = strength * (-3.14159265358979323846 / 180);
      const double cos = std::cos(angle), sin = std::sin(angle);
      a[0] = a[4] = cos;
      a[1] = sin;
      a[3] = -sin;
      a[2] = middle_x - cos * middle_x - sin * middle_y;
      a[5] = middle_y + sin * middle_x - cos * middle_y;
      break;
    }
    case ChainCode::shear_x:
      a[1] = strength;
      break;
    case ChainCode::shear_y:
      a[3] = strength;
      break;
    case ChainCode::translate_x:
      a[2] = strength;
      break;
    case ChainCode::translate_y:
      a[5] = strength;
      break;
    default:
      break;
  }
  a[2] = a[2] + a[0] / 2 + a[1] / 2;
  a[5] = a[5] + a[3] / 2 + a[4] / 2;
  const double unit = step.nearest ? 1 << 16 : 1 << 24;
  for (int i = 0; i < 6; ++i) step.matrix[i] = (int64_t)std::floor(a[i] * unit + 0.5);
}

ChainStep step_of(uint8_t code, float strength, int64_t height, int64_t width) {
  ChainStep step{};
  step.code = (ChainCode)(code % kNearest);
  step.nearest = code & kNearest;
  const float number = strength == strength ? strength : 0;
  step.strength = std::min(std::max(number, -kLargestStrength), kLargestStrength);
  set_matrix(step, height, width);
  return step;
}

// The values of a tensor of up to three dimensions, in any strides, by its own order.
template <class T>
std::vector<T> in_order(const Tensor& x) {
  const int64_t n = x.numel();
  const T* from = data<T>(x);
  if (x.is_contiguous()) return std::vector<T>(from, from + n);
  std::vector<T> values(n);
  for (int64_t i = 0; i < n; ++i) {
    int64_t rest = i, at = 0;
    for (int64_t d = x.dim(); d-- > 0; rest /= x.size(d)) at += rest % x.size(d) * x.stride(d);
    values[i] = from[at];
  }
  return values;
}

uint8_t* scratch_of_thread(int64_t bytes) {
  thread_local std::vector<uint8_t> memory;
  constexpr int64_t kAligned = 64;
  if ((int64_t)memory.size() < bytes + kAligned) memory.resize(bytes + kAligned);
  return (uint8_t*)(((uintptr_t)memory.data() + kAligned - 1) / kAligned * kAligned);
}

Tensor image_chains(const Tensor& given, const Tensor& codes, const Tensor& strengths,
                    const Tensor& weights, const Tensor& keep) {
  check(given, codes, strengths, weights, keep);
  const int64_t rows = given.size(0), channels = given.size(1), chains = codes.size(1);
  const int64_t height = given.size(2), width = given.size(3), depth = codes.size(2);
  const bool interleaved = is_channels_last(given);
  std::vector<int64_t> sizes(given.sizes().begin(), given.sizes().end());
  Tensor images = given;
  if (!is_dense(given)) {
    images = fresh(given, sizes, ScalarType::Byte);
    torch::stable::copy_(images, given);
  }
  Tensor out = interleaved ? fresh_like(images) : fresh(images, sizes, ScalarType::Byte);
  const auto code = in_order<uint8_t>(codes);
  const auto strength = in_order<float>(strengths), weight = in_order<float>(weights);
  const auto kept = in_order<float>(keep);

  const int64_t bytes = channels * height * width, steps = chains * depth;
  const uint8_t* from = data<uint8_t>(images);
  uint8_t* to = data<uint8_t>(out);
  constexpr int64_t kWork = 16;  // of a byte and operation, beside what moves it
  in_pieces(pieces(rows, bytes * (1 + steps) * kWork), rows,
            [&](int64_t, int64_t begin, int64_t end) {
              uint8_t* scratch = scratch_of_thread(chain_scratch(channels, height * width, chains));
              std::vector<ChainStep> own(steps);
              for (int64_t row = begin; row < end; ++row) {
                for (int64_t s = 0; s < steps; ++s)
                  own[s] = step_of(code[row * steps + s], strength[row * steps + s], height, width);
                chain_kernels().image({from + row * bytes, to + row * bytes, channels, height,
                                       width, interleaved, own.data(), chains, depth,
                                       weight.data() + row * chains, kept[row], scratch});
              }
            });
  return out;
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("image_chains", TORCH_BOX(&entprop::image_chains));
}
