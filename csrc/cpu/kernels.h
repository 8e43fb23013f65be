// The loops that are compiled once for every instruction set, as tables of plain functions over
// pointers and sizes. Only the op files (dual_batch_norm.cpp, ...) know tensors and threads.
#pragma once

#include <cstdint>

namespace entprop {

struct Bf16 {
  uint16_t bits;
};

template <class T>
struct AccumulatorOf {
  using type = T;
};
template <>
struct AccumulatorOf<Bf16> {
  using type = float;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

// What is added and masked after the norm.
enum class Mode : int { plain, relu, add, add_relu };
// Where the backward finds the ReLU's sign: nowhere (no ReLU), recomputed from x, or in the mask.
enum class Sign : int { none, recompute, mask };
enum class Score : int { entropy, confidence, cross_entropy, margin };

// One group's memory as [outer, side, inner] with `stride` elements between outers.
// Channels innermost (channels_last, or one pixel): inner = C, side = 1, and the arrays per channel
// run along inner. Otherwise planes: outer = rows of the group, inner = H*W, and `side` channels
// that lie side by side in every image, along which the arrays run. `streams`: the whole tensor
// outgrows a cache, so that memory is best read in its own order.
struct Extent {
  int64_t outer, side, inner, stride;
  bool streams;
};

// At most so many channels side by side.
inline constexpr int64_t kMaxSide = 32;
// Planes of fewer pixels are taken as rows of side * inner columns, at most so many: vectors run
// across planes, with no short one at the end of each, and the bits of their mask do as well.
inline constexpr int64_t kSmallPlane = 256;
inline constexpr int64_t kMaxColumns = 2048;

template <class A>
struct Affine {  // y = (x - mean) * scale + shift
  const A *mean, *scale, *shift;
};

// What moments are of: x, or with an addend x + addend, which is then written to `total`.
template <class T>
struct Summands {
  const T *x, *addend;
  T* total;
};

template <class T>
struct NormForward {
  const T *x, *residual;
  T* y;
  uint8_t* mask;
  int64_t mask_stride;
  Extent extent;
  Affine<Accumulator<T>> affine;
  Mode mode;
};

template <class T>
struct NormBackward {
  using A = Accumulator<T>;
  const T *grad, *again, *x;  // `again`: added to grad; null where there is none
  const uint8_t* mask;
  int64_t mask_stride;
  Extent extent;
  Affine<A> affine;
  Sign sign;
  const T* dtotal;  // added to dx; null where there is none
  // Results of the second pass; null when not wanted.
  T *dx, *dresidual;
  // dx = scale * (g - offset - (x - mean) * slope); both null with fixed statistics.
  const A *offset, *slope;
};

// Mean and sum of squared deviations, per channel, of `count` values each.
struct Moments {
  int64_t count;
  double *mean, *m2;
};

// So that the last vector of a row can be written whole.
inline constexpr int64_t kScratchPadding = 16;

template <class T>
struct LossRow {
  using A = Accumulator<T>;
  const T* logits;
  int64_t classes, label, label_b;
  double lam, smoothing;
  Score score_kind;
  T* dlogits;
  A* scratch;  // [classes + kScratchPadding]
  A *loss, *entropy, *score;
};

template <class A>
struct Bounds {  // `period` values each, repeating along the elements
  const A *alpha, *eps, *lo, *hi;
  int64_t period;
};

// x [images, height, width, in] and y [images, height, width, out], densely in memory.
struct WinogradShape {
  int64_t images, height, width, in, out;
};

// So many 2x2 tiles of y are taken together: their transforms stay in the second-level cache.
inline constexpr int64_t kTilesPerBlock = 32;
// Both channel counts have to be whole numbers of this.
inline constexpr int64_t kWinogradChannels = 16;

// 3x3 convolution of float in tiles of 2x2 outputs; `scratch` has winograd_scratch(shape) floats.
struct WinogradKernels {
  // Tiles [first, first + count) of y, count <= kTilesPerBlock, from the transformed weights u
  // [16, in, out].
  void (*forward)(const float* x, const float* u, const WinogradShape& shape, int64_t first,
                  int64_t count, float* scratch, float* y);
  // Adds the tiles' part of the gradient of u.
  void (*weight_grad)(const float* x, const float* grad, const WinogradShape& shape, int64_t first,
                      int64_t count, float* scratch, float* du);
};

inline int64_t winograd_scratch(const WinogradShape& shape) {
  return (shape.in + shape.out) * (1 + 16 * kTilesPerBlock) + 2 * 16 * kScratchPadding;
}

template <class T>
struct Kernels {
  using A = Accumulator<T>;
  // Scratch: 3 * inner accumulators.
  void (*row_moments)(const Summands<T>&, Extent extent, A* scratch, Moments* out);
  void (*plane_moments)(const Summands<T>&, Extent extent, Moments* out);
  // total = x + addend, of `count` elements.
  void (*add_up)(const Summands<T>&, int64_t count);
  void (*row_forward)(const NormForward<T>&);
  void (*plane_forward)(const NormForward<T>&);
  // Adds to sum_g = sum g and sum_gx = sum g (x - mean). Scratch: 2 * inner accumulators.
  void (*row_reduce)(const NormBackward<T>&, A* scratch, double* sum_g, double* sum_gx);
  void (*plane_reduce)(const NormBackward<T>&, double* sum_g, double* sum_gx);
  void (*row_backward)(const NormBackward<T>&);
  void (*plane_backward)(const NormBackward<T>&);
  void (*loss_row)(const LossRow<T>&);
  // x_adv null: out = clip(x + clip(alpha*sign(g), -eps, eps), lo, hi); else from x_adv onwards.
  void (*perturb)(T* out, const T* x_adv, const T* grad, const T* x, int64_t count,
                  const Bounds<A>& bounds);
};

// The table of the chosen instruction set: portable, avx2 or avx512.
const char* instruction_set();
template <class T>
const Kernels<T>& kernels();
const WinogradKernels& winograd_kernels();

}  // namespace entprop
