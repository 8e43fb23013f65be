// gather_perturb, gather_perturb.out and perturb_ for CUDA tensors, through the stable ABI.
// Compiled with -DUSE_CUDA, which declares aoti_torch_get_current_cuda_stream.

#include <limits>

#include "../cpu/perturb_check.h"
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

bool covered(const Step& s, const Tensor& out) {
  const Tensor& x = s.x;
  if (!kernel_type(x) || x.numel() == 0 || !is_dense(x)) return false;
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  const int64_t per_row = x.numel() / x.size(0);
  if (per_row > kMax || s.index.numel() > kMax / (per_row / cuda::kThreads + 1)) return false;
  for (const Tensor* bound : {&s.alpha, &s.eps, &s.lo, &s.hi})
    if (!bound->is_contiguous()) return false;
  return x.is_cuda() && same_layout(s.grad, x) && same_layout(out, x);
}

using Kernel = cudaError_t (*)(cuda::Type, void*, const void*, const void*, cuda::Rows,
                               cuda::Bounds, cuda::Images, cudaStream_t);

void launch(Kernel kernel, const Step& step, const Tensor& out) {
  const auto& [grad, x, index, alpha, eps, lo, hi] = step;
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

void gather(const Step& s, const Tensor& out) {
  if (covered(s, out))
    launch(cuda::gather_perturb, s, out);
  else
    call_reference("entprop_fast::gather_perturb_reference", "out", s.x, s.grad, s.index, s.alpha,
                   s.eps, s.lo, s.hi, out);
}

void gather_perturb_out(const Tensor& x, const Tensor& grad, const Tensor& index,
                        const Tensor& alpha, const Tensor& eps, const Tensor& lo, const Tensor& hi,
                        Tensor out) {
  const Step step{grad, x, index, alpha, eps, lo, hi};
  step.check_gather_out(out);
  gather(step, out);
}

Tensor gather_perturb(const Tensor& x, const Tensor& grad, const Tensor& index, const Tensor& alpha,
                      const Tensor& eps, const Tensor& lo, const Tensor& hi) {
  const Step step{grad, x, index, alpha, eps, lo, hi};
  step.check_gather();
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes[0] = index.numel();
  const auto format = is_channels_last(x) ? torch::headeronly::MemoryFormat::ChannelsLast
                                          : torch::headeronly::MemoryFormat::Contiguous;
  Tensor out =
      torch::stable::empty(sizes, x.scalar_type(), std::nullopt, x.device(), std::nullopt, format);
  gather(step, out);
  return out;
}

void perturb_(Tensor x_adv, const Tensor& grad, const Tensor& x, const Tensor& index,
              const Tensor& alpha, const Tensor& eps, const Tensor& lo, const Tensor& hi) {
  const Step step{grad, x, index, alpha, eps, lo, hi};
  step.check_perturb(x_adv);
  if (covered(step, x_adv))
    launch(cuda::perturb, step, x_adv);
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
