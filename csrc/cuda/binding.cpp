// gather_perturb, gather_perturb.out and perturb_ for CUDA tensors, through the stable ABI.
// Compiled with -DUSE_CUDA, which declares aoti_torch_get_current_cuda_stream.

#include <limits>

#include "../cpu/tensor.h"
#include "perturb.h"

namespace entprop {
namespace {

std::optional<cuda::Type> kernel_type(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return cuda::Type::float32;
    case ScalarType::Double:
      return cuda::Type::float64;
    case ScalarType::Half:
      return cuda::Type::float16;
    case ScalarType::BFloat16:
      return cuda::Type::bfloat16;
    default:
      return std::nullopt;
  }
}

bool on_device_of(const Tensor& x, const Tensor& t) {
  return t.is_cuda() && t.get_device_index() == x.get_device_index();
}

bool covered(const Tensor& x, const Tensor& index, std::initializer_list<const Tensor*> like,
             std::initializer_list<const Tensor*> bounds) {
  if (!kernel_type(x) || x.dim() < 2 || x.numel() == 0 || !is_dense(x)) return false;
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  const int64_t per_row = x.numel() / x.size(0);
  if (per_row > kMax || index.numel() > kMax / (per_row / cuda::kThreads + 1)) return false;
  if (index.scalar_type() != ScalarType::Long || !on_device_of(x, index)) return false;
  for (const Tensor* t : like)
    if (t->scalar_type() != x.scalar_type() || !same_layout(*t, x) || !on_device_of(x, *t))
      return false;
  for (const Tensor* b : bounds)
    if (b->scalar_type() != x.scalar_type() || b->numel() != x.size(1) || !b->is_contiguous() ||
        !on_device_of(x, *b))
      return false;
  return true;
}

using Kernel = cudaError_t (*)(cuda::Type, void*, const void*, const void*, cuda::Rows,
                               cuda::Bounds, cuda::Images, cudaStream_t);

void launch(Kernel kernel, const Tensor& out, const Tensor& grad, const Tensor& x,
            const Tensor& index, const Tensor& alpha, const Tensor& eps, const Tensor& lo,
            const Tensor& hi) {
  if (index.numel() == 0) return;
  const auto device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const cuda::Images images{index.numel(), x.size(0), x.size(1),
                            x.numel() / (x.size(0) * x.size(1)), !x.is_contiguous()};
  const cuda::Bounds bounds{alpha.const_data_ptr(), eps.const_data_ptr(), lo.const_data_ptr(),
                            hi.const_data_ptr()};
  const cuda::Rows rows{static_cast<const int64_t*>(index.const_data_ptr()), index.stride(0)};
  const cudaError_t error =
      kernel(*kernel_type(x), out.mutable_data_ptr(), grad.const_data_ptr(), x.const_data_ptr(),
             rows, bounds, images, static_cast<cudaStream_t>(stream));
  STD_TORCH_CHECK(error == cudaSuccess, "entprop_fast: kernel launch failed, CUDA error ",
                  static_cast<int>(error));
}

void gather_perturb_out(const Tensor& x, const Tensor& grad, const Tensor& index,
                        const Tensor& alpha, const Tensor& eps, const Tensor& lo, const Tensor& hi,
                        Tensor out) {
  if (covered(x, index, {&grad, &out}, {&alpha, &eps, &lo, &hi}))
    launch(cuda::gather_perturb, out, grad, x, index, alpha, eps, lo, hi);
  else
    call_reference("entprop_fast::gather_perturb_reference", "out", x, grad, index, alpha, eps, lo,
                   hi, out);
}

Tensor gather_perturb(const Tensor& x, const Tensor& grad, const Tensor& index, const Tensor& alpha,
                      const Tensor& eps, const Tensor& lo, const Tensor& hi) {
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes[0] = index.numel();
  const auto format = is_channels_last(x) ? torch::headeronly::MemoryFormat::ChannelsLast
                                          : torch::headeronly::MemoryFormat::Contiguous;
  Tensor out =
      torch::stable::empty(sizes, x.scalar_type(), std::nullopt, x.device(), std::nullopt, format);
  gather_perturb_out(x, grad, index, alpha, eps, lo, hi, out);
  return out;
}

void perturb_(Tensor x_adv, const Tensor& grad, const Tensor& x, const Tensor& index,
              const Tensor& alpha, const Tensor& eps, const Tensor& lo, const Tensor& hi) {
  if (covered(x, index, {&grad, &x_adv}, {&alpha, &eps, &lo, &hi}))
    launch(cuda::perturb, x_adv, grad, x, index, alpha, eps, lo, hi);
  else
    call_reference("entprop_fast::perturb__reference", "", x_adv, grad, x, index, alpha, eps, lo,
                   hi);
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CUDA, m) {
  m.impl("gather_perturb", TORCH_BOX(&entprop::gather_perturb));
  m.impl("gather_perturb.out", TORCH_BOX(&entprop::gather_perturb_out));
  m.impl("perturb_", TORCH_BOX(&entprop::perturb_));
}
