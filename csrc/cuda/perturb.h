// The sign step of gather_perturb and perturb_ on CUDA: pointers, sizes and a stream, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace entprop::cuda {

constexpr int kThreads = 256;  // of a block; each row of images has blocks of its own

enum class Type : int { float32, float64, float16, bfloat16 };

// Images [rows, channels, pixels], or [rows, pixels, channels] where `channels_last`; a row of
// them has fewer than 2^31 elements.
struct Images {
  int64_t rows;       // of the output, the length of `index`
  int64_t available;  // rows of x
  int64_t channels, pixels;
  bool channels_last;
};

struct Rows {
  const int64_t* index;
  int64_t stride;
};

struct Bounds {  // [channels] each, in the images' type
  const void *alpha, *eps, *lo, *hi;
};

// out[r] = clip(x0 + clip(alpha * sign(grad[index[r]]), -eps, eps), lo, hi), x0 = x[index[r]].
// A negative index counts from the end; a row whose index is outside
// [-available, available) becomes NaN.
cudaError_t gather_perturb(Type type, void* out, const void* grad, const void* x, Rows rows,
                           Bounds bounds, Images images, cudaStream_t stream);

// x_adv[r] = clip(x0 + clip(x_adv[r] - x0 + alpha * sign(grad[r]), -eps, eps), lo, hi).
cudaError_t perturb(Type type, void* x_adv, const void* grad, const void* x, Rows rows,
                    Bounds bounds, Images images, cudaStream_t stream);

}  // namespace entprop::cuda
