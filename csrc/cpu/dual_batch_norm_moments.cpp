// The op dual_batch_norm_moments.

#include "norm_moments.h"

namespace entprop {
namespace {

// [2, 2C + 1]: of each group that trains C means, C sums of squared deviations, their number.
template <class T>
Tensor run(const Tensor& x, int64_t num_main, std::array<bool, 2> training) {
  using A = Accumulator<T>;
  const View view(x);
  const int64_t channels = view.channels, width = 2 * channels + 1;
  Tensor result = fresh(x, {2, width}, kScalarType<A>);
  std::fill_n(data<A>(result), 2 * width, A(0));
  for (const Group& group : groups(num_main, view.rows)) {
    if (!training[group.which]) continue;
    std::vector<double> mean(channels, 0.0), m2(channels, 0.0);
    group_moments<T>({data<T>(x), nullptr, nullptr}, view, group, mean.data(), m2.data());
    A* row = data<A>(result) + group.which * width;
    for (int64_t c = 0; c < channels; ++c) {
      row[c] = (A)mean[c];
      row[channels + c] = (A)m2[c];
    }
    row[2 * channels] = (A)(group.rows * view.pixels);
  }
  return result;
}

Tensor dual_batch_norm_moments(const Tensor& x, int64_t num_main, bool training,
                               bool aux_training) {
  check_images(x, std::nullopt, num_main);
  if (!is_covered(x))
    return std::get<0>(call_reference<Tensor>("entprop_fast::dual_batch_norm_moments_reference", "",
                                              x, num_main, training, aux_training));
  return with_dtype(
      x, [&](auto type) { return run<decltype(type)>(x, num_main, {training, aux_training}); });
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("dual_batch_norm_moments", TORCH_BOX(&entprop::dual_batch_norm_moments));
}
