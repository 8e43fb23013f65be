// The ops conv3x3 and conv3x3_backward: stride 1, padding 1, channels_last.

#include "check.h"

namespace entprop {
namespace {

// [out, in, 3, 3] in any strides, or, with `turned`, the weights of the input's gradient: rotated
// by half a turn, in and out exchanged.
struct Weights {
  const float* values;
  int64_t out, in;
  int64_t out_stride, in_stride, row_stride, column_stride;

  Weights(const Tensor& w, bool turned)
      : values(data<float>(w)),
        out(w.size(turned ? 1 : 0)),
        in(w.size(turned ? 0 : 1)),
        out_stride(w.stride(turned ? 1 : 0)),
        in_stride(w.stride(turned ? 0 : 1)),
        row_stride(w.stride(2)),
        column_stride(w.stride(3)) {
    if (!turned) return;
    values += 2 * row_stride + 2 * column_stride;
    row_stride = -row_stride;
    column_stride = -column_stride;
  }
};

// G g of three values, G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1].
void spread(const float* g, int64_t stride, float* out, int64_t out_stride) {
  const float first = g[0], middle = g[stride], last = g[2 * stride];
  const float ends = 0.5f * (first + last), half = 0.5f * middle;
  out[0] = first;
  out[out_stride] = ends + half;
  out[2 * out_stride] = ends - half;
  out[3 * out_stride] = last;
}

// G^T d of four values.
void gather(const double* d, int64_t stride, double* out, int64_t out_stride) {
  const double sum = 0.5 * (d[stride] + d[2 * stride]);
  out[0] = d[0] + sum;
  out[out_stride] = 0.5 * (d[stride] - d[2 * stride]);
  out[2 * out_stride] = sum + d[3 * stride];
}

// u [16, in, out] = G g G^T of every pair of channels.
std::vector<float> transformed(const Weights& w) {
  std::vector<float> u(16 * w.in * w.out);
  for (int64_t i = 0; i < w.in; ++i)
    for (int64_t o = 0; o < w.out; ++o) {
      const float* g = w.values + o * w.out_stride + i * w.in_stride;
      float down[4][3], both[4][4];
      for (int s = 0; s < 3; ++s) spread(g + s * w.column_stride, w.row_stride, &down[0][s], 3);
      for (int r = 0; r < 4; ++r) spread(down[r], 1, both[r], 1);
      for (int f = 0; f < 16; ++f) u[(f * w.in + i) * w.out + o] = both[f / 4][f % 4];
    }
  return u;
}

// dw = G^T du G.
void write_weight_grad(const double* du, int64_t in, int64_t out, const Tensor& dw) {
  float* values = data<float>(dw);
  for (int64_t o = 0; o < out; ++o)
    for (int64_t i = 0; i < in; ++i) {
      double all[4][4], down[3][4], both[3][3];
      for (int f = 0; f < 16; ++f) all[f / 4][f % 4] = du[(f * in + i) * out + o];
      for (int s = 0; s < 4; ++s) gather(&all[0][s], 4, &down[0][s], 4);
      for (int r = 0; r < 3; ++r) gather(down[r], 1, both[r], 1);
      float* at = values + o * dw.stride(0) + i * dw.stride(1);
      for (int r = 0; r < 3; ++r)
        for (int s = 0; s < 3; ++s) narrow(both[r][s], at[r * dw.stride(2) + s * dw.stride(3)]);
    }
}

int64_t tiles(const WinogradShape& shape) {
  return shape.images * ((shape.height + 1) / 2) * ((shape.width + 1) / 2);
}

// f(piece, first tile, tiles, scratch) for every block, on as many threads as it is worth.
template <class F>
void for_blocks(const WinogradShape& shape, int64_t parts, const F& f) {
  const int64_t all = tiles(shape), blocks = (all + kTilesPerBlock - 1) / kTilesPerBlock;
  in_pieces(parts, blocks, [&](int64_t part, int64_t begin, int64_t end) {
    std::vector<float> scratch(winograd_scratch(shape));
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kTilesPerBlock;
      f(part, first, std::min(kTilesPerBlock, all - first), scratch.data());
    }
  });
}

int64_t parts_of(const WinogradShape& shape) {
  const int64_t blocks = (tiles(shape) + kTilesPerBlock - 1) / kTilesPerBlock;
  return pieces(blocks, kTilesPerBlock * (shape.in + shape.out) * 64);
}

WinogradShape shape_of(const Tensor& x, int64_t out) {
  return {x.size(0), x.size(2), x.size(3), x.size(1), out};
}

Tensor convolved(const Tensor& x, const Weights& weights) {
  const WinogradShape shape = shape_of(x, weights.out);
  const std::array<int64_t, 4> sizes{shape.images, shape.out, shape.height, shape.width};
  const std::array<int64_t, 4> strides{shape.height * shape.width * shape.out, 1,
                                       shape.width * shape.out, shape.out};
  Tensor y = fresh(x, sizes.data(), strides.data(), 4, ScalarType::Float);
  const std::vector<float> u = transformed(weights);
  const float* in = data<float>(x);
  float* out = data<float>(y);
  for_blocks(shape, parts_of(shape), [&](int64_t, int64_t first, int64_t count, float* scratch) {
    winograd_kernels().forward(in, u.data(), shape, first, count, scratch, out);
  });
  return y;
}

// Float sums over so many blocks of tiles are added up in double: a sum over all tiles of a large
// batch would be off by more than PyTorch's.
constexpr int64_t kBlocksInFloat = 16;

Tensor weight_grad(const Tensor& grad, const Tensor& x, const Tensor& weight) {
  const WinogradShape shape = shape_of(x, weight.size(0));
  const int64_t size = 16 * shape.in * shape.out, parts = parts_of(shape);
  std::vector<float> recent(parts * size, 0.0f);
  std::vector<double> total(parts * size, 0.0);
  std::vector<int64_t> blocks(parts, 0);
  const auto flush = [&](int64_t part) {
    float* from = recent.data() + part * size;
    double* to = total.data() + part * size;
    for (int64_t i = 0; i < size; ++i) to[i] += from[i];
    std::fill_n(from, size, 0.0f);
  };
  const float *in = data<float>(x), *g = data<float>(grad);
  for_blocks(shape, parts, [&](int64_t part, int64_t first, int64_t count, float* scratch) {
    float* du = recent.data() + part * size;
    winograd_kernels().weight_grad(in, g, shape, first, count, scratch, du);
    if (++blocks[part] % kBlocksInFloat == 0) flush(part);
  });
  for (int64_t part = 0; part < parts; ++part) flush(part);
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t i = 0; i < size; ++i) total[i] += total[part * size + i];
  Tensor dw = fresh_like(weight);
  write_weight_grad(total.data(), shape.in, shape.out, dw);
  return dw;
}

void check(const Tensor& x, const Tensor& weight) {
  require_floating("x", x, "[N, C, H, W]", x.dim() == 4 && x.size(2) > 0 && x.size(3) > 0);
  const bool fits = weight.dim() == 4 && weight.size(1) == x.size(1) && weight.size(2) == 3 &&
                    weight.size(3) == 3 && weight.scalar_type() == x.scalar_type();
  if (!fits)
    refuse("weight: expected ", named(x.scalar_type()), " [K, ", std::to_string(x.size(1)),
           ", 3, 3], got ", described(weight));
  require_device("weight", weight, x);
}

bool covered(const Tensor& x, const Tensor& weight) {
  return x.scalar_type() == ScalarType::Float && x.numel() > 0 && is_channels_last(x) &&
         is_dense(weight) && x.size(1) % kWinogradChannels == 0 &&
         weight.size(0) % kWinogradChannels == 0 && weight.size(0) > 0;
}

Tensor conv3x3(const Tensor& x, const Tensor& weight) {
  check(x, weight);
  if (!covered(x, weight))
    return std::get<0>(call_reference<Tensor>("entprop_fast::conv3x3_reference", "", x, weight));
  return convolved(x, Weights(weight, false));
}

std::tuple<Tensor, Tensor> conv3x3_backward(const Tensor& grad, const Tensor& x,
                                            const Tensor& weight, bool want_x, bool want_weight) {
  check(x, weight);
  const std::array<int64_t, 4> sizes{x.size(0), weight.size(0), x.size(2), x.size(3)};
  require("grad", grad, Sizes(sizes.data(), sizes.size()), x.scalar_type(), x);
  if (!covered(x, weight))
    return call_reference<Tensor, Tensor>("entprop_fast::conv3x3_backward_reference", "", grad, x,
                                          weight, want_x, want_weight);
  Tensor incoming = grad;
  if (!is_channels_last(grad)) {
    const auto [n, c, h, w] = sizes;
    const std::array<int64_t, 4> strides{h * w * c, 1, w * c, c};
    incoming = fresh(x, sizes.data(), strides.data(), 4, ScalarType::Float);
    torch::stable::copy_(incoming, grad);
  }
  Tensor dx =
      want_x ? convolved(incoming, Weights(weight, true)) : fresh(x, {0}, ScalarType::Float);
  Tensor dw = want_weight ? weight_grad(incoming, x, weight) : fresh(x, {0}, ScalarType::Float);
  return {dx, dw};
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("conv3x3", TORCH_BOX(&entprop::conv3x3));
  m.impl("conv3x3_backward", TORCH_BOX(&entprop::conv3x3_backward));
}
