// What every process knows of its rows, and what moves by the statistics of all of them.
#pragma once

#include "norm.h"

namespace entprop {

// Chan's update of a mean and a sum of squared deviations of `count` values with those of `n`.
inline void merge(double& mean, double& m2, double mean_n, double m2_n, double n, double count) {
  const double delta = mean_n - mean;
  mean += delta * (n / (count + n));
  m2 += m2_n + delta * delta * (count * n / (count + n));
}

template <class T>
Summands<T> from(const Summands<T>& whole, int64_t start) {
  if (!whole.addend) return {whole.x + start, nullptr, nullptr};
  return {whole.x + start, whole.addend + start, whole.total + start};
}

// Adds the group's moments, channels innermost, to mean and m2 (zeros on entry).
template <class T>
void interleaved_moments(const Summands<T>& x, const View& view, const Group& group, double* mean,
                         double* m2) {
  using A = Accumulator<T>;
  const int64_t channels = view.channels, outer = group.rows * view.pixels;
  const int64_t parts = pieces(outer, channels * sizeof(T));
  std::vector<double> partial(2 * parts * channels, 0.0);
  std::vector<double> count(parts);
  in_pieces(parts, outer, [&](int64_t part, int64_t begin, int64_t end) {
    std::vector<A> scratch(3 * channels);
    double* own = partial.data() + 2 * part * channels;
    Moments out{0, own, own + channels};
    const Span span = runs(view, group, begin, end);
    kernels<T>().row_moments(from(x, span.start), span.extent, scratch.data(), &out);
    count[part] = (double)out.count;
  });
  double total = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const double* own = partial.data() + 2 * part * channels;
    for (int64_t c = 0; c < channels; ++c)
      merge(mean[c], m2[c], own[c], own[channels + c], count[part], total);
    total += count[part];
  }
}

// Adds the group's moments in any layout to mean and m2 (zeros on entry).
template <class T>
void group_moments(const Summands<T>& x, const View& view, const Group& group, double* mean,
                   double* m2) {
  if (view.interleaved) return interleaved_moments<T>(x, view, group, mean, m2);
  for_channel_blocks(view, group, sizeof(T), [&](int64_t first, int64_t side) {
    const Span span = planes(view, group, first, side);
    Moments out{0, mean + first, m2 + first};
    kernels<T>().plane_moments(from(x, span.start), span.extent, &out);
  });
}

// running = (1 - momentum) * running + momentum * factor * value.
inline void move_running(const OptionalTensor& running, const std::vector<double>& value,
                         double factor, double momentum) {
  if (!running) return;
  const int64_t stride = running->stride(0);
  with_dtype(*running, [&](auto type) {
    auto* p = data<decltype(type)>(*running);
    for (size_t c = 0; c < value.size(); ++c, p += stride)
      narrow((1 - momentum) * widen(*p) + momentum * factor * value[c], *p);
  });
}

}  // namespace entprop
