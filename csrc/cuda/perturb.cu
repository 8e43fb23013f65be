#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "perturb.h"

namespace entprop::cuda {
namespace {

constexpr int kBlocks = 4;  // a multiprocessor, at least: 64 registers a thread at most
constexpr int kBytes = 16;  // of one access

constexpr int64_t kMaxBlocks = 0x7fffffff;

// How the elements of one access spread over channels.
enum class Spread {
  plane,        // all in one: contiguous, pixels a multiple of the access
  planes,       // contiguous, may run from one plane into the next
  interleaved,  // channels_last
};

template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};

template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T values[N];
};

template <class T>
struct TypedBounds {
  const T *alpha, *eps, *lo, *hi;
};

// NaN in the value or in a bound gives NaN, as torch.clamp.
template <class A>
__device__ A clamp(A v, A lo, A hi) {
  v = v >= lo ? v : (v != v ? v : lo);
  return v <= hi ? v : (v != v ? v : hi);
}

// One channel's bounds in the type of the arithmetic.
template <class A>
struct Step {
  A alpha, eps, lo, hi;

  template <class T>
  __device__ Step(const TypedBounds<T>& bounds, uint32_t channel)
      : alpha(bounds.alpha[channel]),
        eps(bounds.eps[channel]),
        lo(bounds.lo[channel]),
        hi(bounds.hi[channel]) {}

  // `moved` is x_adv - x0 so far. sign(NaN) = 0, as torch.sign.
  __device__ A operator()(A x0, A moved, A grad) const {
    const A sign = A(int(grad > A(0)) - int(grad < A(0)));
    return clamp(x0 + clamp(moved + alpha * sign, -eps, eps), lo, hi);
  }
};

// `blocks_per_row` blocks for each row. With `Onward`, grad has the output's rows and `out` is
// read.
template <class T, int N, Spread kSpread, bool Onward>
__global__ void __launch_bounds__(kThreads, kBlocks)
    perturb_rows(T* out, const T* __restrict__ grad, const T* __restrict__ x, Rows rows,
                 TypedBounds<T> bounds, Images images, uint32_t blocks_per_row) {
  using A = typename Accumulator<T>::type;
  using P = Pack<T, N>;
  const uint32_t channels = images.channels, pixels = images.pixels;
  const int64_t per_row = images.channels * images.pixels;
  const uint32_t packs = per_row / N;
  const uint32_t row = blockIdx.x / blocks_per_row;
  const uint32_t pack = (blockIdx.x - row * blocks_per_row) * kThreads + threadIdx.x;
  if (pack >= packs) return;

  P* const to = reinterpret_cast<P*>(out + row * per_row) + pack;
  const int64_t given = rows.index[row * rows.stride];
  const int64_t from = given < 0 ? given + images.available : given;
  P result;
  if (from < 0 || from >= images.available) {
#pragma unroll
    for (int i = 0; i < N; ++i) result.values[i] = T(nanf(""));
    *to = result;
    return;
  }
  const int64_t grad_row = Onward ? row : from;
  const P x0 = reinterpret_cast<const P*>(x + from * per_row)[pack];
  const P g = reinterpret_cast<const P*>(grad + grad_row * per_row)[pack];
  if constexpr (Onward) result = *to;

  const uint32_t first = pack * N;
  uint32_t channel = kSpread == Spread::interleaved ? first % channels : first / pixels;
  uint32_t pixel = kSpread == Spread::planes ? first - channel * pixels : 0;
  Step<A> step(bounds, channel);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const A start = A(x0.values[i]);
    const A moved = Onward ? A(result.values[i]) - start : A(0);
    result.values[i] = T(step(start, moved, A(g.values[i])));
    if (kSpread == Spread::plane || i + 1 == N) continue;
    if (kSpread == Spread::interleaved) {
      channel = channel + 1 == channels ? 0 : channel + 1;
      step = Step<A>(bounds, channel);
    } else if (++pixel == pixels) {
      pixel = 0;
      step = Step<A>(bounds, ++channel);
    }
  }
  *to = result;
}

template <class T, int N, Spread kSpread, bool Onward>
cudaError_t launch(T* out, const T* grad, const T* x, Rows rows, const Bounds& b,
                   const Images& images, cudaStream_t stream) {
  const TypedBounds<T> bounds{static_cast<const T*>(b.alpha), static_cast<const T*>(b.eps),
                              static_cast<const T*>(b.lo), static_cast<const T*>(b.hi)};
  const int64_t packs = images.channels * images.pixels / N;
  const int64_t blocks = (packs + kThreads - 1) / kThreads;
  if (blocks * images.rows > kMaxBlocks) return cudaErrorInvalidConfiguration;
  perturb_rows<T, N, kSpread, Onward>
      <<<blocks * images.rows, kThreads, 0, stream>>>(out, grad, x, rows, bounds, images, blocks);
  return cudaGetLastError();
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kBytes == 0; }

template <class T, bool Onward>
cudaError_t choose(void* out, const void* grad, const void* x, Rows rows, const Bounds& bounds,
                   const Images& images, cudaStream_t stream) {
  constexpr int kWide = kBytes / sizeof(T);
  auto* o = static_cast<T*>(out);
  const auto *g = static_cast<const T*>(grad), *s = static_cast<const T*>(x);
  // Every row starts aligned only if the first does and a row is a whole number of accesses.
  const bool wide =
      aligned(out) && aligned(grad) && aligned(x) && images.channels * images.pixels % kWide == 0;
  if (images.channels_last) {
    if (wide)
      return launch<T, kWide, Spread::interleaved, Onward>(o, g, s, rows, bounds, images, stream);
    return launch<T, 1, Spread::interleaved, Onward>(o, g, s, rows, bounds, images, stream);
  }
  if (wide && images.pixels % kWide == 0)
    return launch<T, kWide, Spread::plane, Onward>(o, g, s, rows, bounds, images, stream);
  if (wide) return launch<T, kWide, Spread::planes, Onward>(o, g, s, rows, bounds, images, stream);
  return launch<T, 1, Spread::plane, Onward>(o, g, s, rows, bounds, images, stream);
}

template <bool Onward>
cudaError_t dispatch(Type type, void* out, const void* grad, const void* x, Rows rows,
                     const Bounds& bounds, const Images& images, cudaStream_t stream) {
  switch (type) {
    case Type::float32:
      return choose<float, Onward>(out, grad, x, rows, bounds, images, stream);
    case Type::float64:
      return choose<double, Onward>(out, grad, x, rows, bounds, images, stream);
    case Type::float16:
      return choose<__half, Onward>(out, grad, x, rows, bounds, images, stream);
    case Type::bfloat16:
      return choose<__nv_bfloat16, Onward>(out, grad, x, rows, bounds, images, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t gather_perturb(Type type, void* out, const void* grad, const void* x, Rows rows,
                           Bounds bounds, Images images, cudaStream_t stream) {
  return dispatch<false>(type, out, grad, x, rows, bounds, images, stream);
}

cudaError_t perturb(Type type, void* x_adv, const void* grad, const void* x, Rows rows,
                    Bounds bounds, Images images, cudaStream_t stream) {
  return dispatch<true>(type, x_adv, grad, x, rows, bounds, images, stream);
}

}  // namespace entprop::cuda
