// The ops gather_perturb, gather_perturb.out and perturb_.

#include <cmath>

#include "perturb_check.h"

namespace entprop {
namespace {

// The four per-channel bounds, repeated so that a period is a whole number of vectors' worth.
template <class A>
struct Pattern {
  std::array<std::vector<A>, 4> values;
  int64_t channels;
  bool finite = true;

  Pattern(std::array<const Tensor*, 4> bounds, int64_t repeats) : channels(bounds[0]->numel()) {
    for (size_t b = 0; b < 4; ++b) {
      const std::vector<A> once = entprop::values<A>(*bounds[b]);
      for (const A v : once) finite &= b == 0 ? std::isfinite(v) : !std::isnan(v);
      values[b].reserve(channels * repeats);
      for (int64_t r = 0; r < repeats; ++r)
        values[b].insert(values[b].end(), once.begin(), once.end());
    }
  }

  Bounds<A> from(int64_t channel, int64_t period) const {
    return {&values[0][channel], &values[1][channel], &values[2][channel], &values[3][channel],
            period};
  }
};

// The rows of x that the index names, from 0 on.
std::vector<int64_t> chosen_rows(const Tensor& index, int64_t available) {
  const int64_t* given = data<int64_t>(index);
  const int64_t rows = index.numel(), stride = index.stride(0);
  std::vector<int64_t> chosen(rows);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = given[r * stride];
    if (row < -available || row >= available)  // an IndexError in Python
      throw std::out_of_range(joined("index ", std::to_string(row), " is out of bounds for ",
                                     std::to_string(available), " rows of x"));
    chosen[r] = row < 0 ? row + available : row;
  }
  return chosen;
}

constexpr int64_t kRepeats = 64;

// Whether the kernels take these bounds; if not, nothing has been written.
template <class T>
bool try_perturb(const Tensor& out, bool onward, const Step& step,
                 const std::vector<int64_t>& chosen) {
  using A = Accumulator<T>;
  const Tensor& x = step.x;
  const int64_t rows = (int64_t)chosen.size(), channels = x.size(1);
  const int64_t per_row = x.numel() / x.size(0);
  const bool interleaved = !x.is_contiguous();
  const Pattern<A> pattern({&step.alpha, &step.eps, &step.lo, &step.hi},
                           interleaved ? kRepeats : 1);
  if (!pattern.finite) return false;

  // One task is a plane of one image, or the whole image where the channels interleave.
  const int64_t planes = interleaved ? 1 : channels, plane = per_row / planes;
  const auto& loops = kernels<T>();
  in_pieces(pieces(rows * planes, plane * sizeof(T)), rows * planes,
            [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t task = begin; task < end; ++task) {
                const int64_t row = task / planes, channel = task % planes;
                const int64_t from = chosen[row] * per_row + channel * plane;
                T* to = data<T>(out) + row * per_row + channel * plane;
                const T* g = data<T>(step.grad) + (onward ? to - data<T>(out) : from);
                loops.perturb(
                    to, onward ? to : nullptr, g, data<T>(x) + from, plane,
                    interleaved ? pattern.from(0, channels * kRepeats) : pattern.from(channel, 1));
              }
            });
  return true;
}

// Whether the kernels cover the arguments; if not, nothing has been written.
bool run(const Tensor& out, bool onward, const Step& step) {
  const Tensor& x = step.x;
  const std::vector<int64_t> chosen = chosen_rows(step.index, x.size(0));
  if (!has_kernel_dtype(x) || x.numel() == 0 || !is_dense(x) || !same_layout(step.grad, x) ||
      !same_layout(out, x))
    return false;
  return with_dtype(
      x, [&](auto type) { return try_perturb<decltype(type)>(out, onward, step, chosen); });
}

void gather(const Step& s, const Tensor& out) {
  if (!run(out, false, s))
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
  Tensor out = is_channels_last(x) ? fresh(x, sizes.data(), x.strides().data(), 4, x.scalar_type())
                                   : fresh(x, sizes, x.scalar_type());
  gather(step, out);
  return out;
}

void perturb_(Tensor x_adv, const Tensor& grad, const Tensor& x, const Tensor& index,
              const Tensor& alpha, const Tensor& eps, const Tensor& lo, const Tensor& hi) {
  const Step step{grad, x, index, alpha, eps, lo, hi};
  step.check_perturb(x_adv);
  if (!run(x_adv, true, step))
    call_reference("entprop_fast::perturb__reference", "", x_adv, grad, x, index, alpha, eps, lo,
                   hi);
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("gather_perturb", TORCH_BOX(&entprop::gather_perturb));
  m.impl("gather_perturb.out", TORCH_BOX(&entprop::gather_perturb_out));
  m.impl("perturb_", TORCH_BOX(&entprop::perturb_));
}
