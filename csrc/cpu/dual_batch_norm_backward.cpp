// The ops dual_batch_norm_backward and dual_batch_norm_dx, its second pass alone.

#include <functional>

#include "norm.h"

namespace entprop {
namespace {

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Adds sum g and sum g (x - mean) of the group, channels innermost, to the two arrays.
template <class T>
void interleaved_sums(const std::function<NormBackward<T>(const Span&)>& job, const View& view,
                      const Group& group, double* sum_g, double* sum_gx) {
  using A = Accumulator<T>;
  const int64_t channels = view.channels, outer = group.rows * view.pixels;
  const int64_t parts = pieces(outer, channels * sizeof(T));
  std::vector<double> partial(2 * parts * channels, 0.0);
  in_pieces(parts, outer, [&](int64_t part, int64_t begin, int64_t end) {
    std::vector<A> scratch(2 * channels);
    double* own = partial.data() + 2 * part * channels;
    kernels<T>().row_reduce(job(runs(view, group, begin, end)), scratch.data(), own,
                            own + channels);
  });
  for (int64_t part = 0; part < parts; ++part) {
    const double* own = partial.data() + 2 * part * channels;
    for (int64_t c = 0; c < channels; ++c) {
      sum_g[c] += own[c];
      sum_gx[c] += own[channels + c];
    }
  }
}

template <class A>
struct Results {  // of one group; null where not wanted
  A *dweight, *dbias;
};

template <class A>
struct Given {  // a group's sums over the rows of all processes; null where they are its own
  const A *sum_g, *sum_gx;  // of g and of g x'
  A count;
};

template <class T>
void backward_group(const NormBackward<T>& whole, const View& view, const Group& group,
                    const Coefficients<Accumulator<T>>& coefficients, const Accumulator<T>* rstd,
                    bool training, const Results<Accumulator<T>>& results,
                    const Given<Accumulator<T>>& given) {
  using A = Accumulator<T>;
  const int64_t channels = view.channels;
  const double count = (double)(group.rows * view.pixels);
  const bool corrects = training && whole.dx;
  const bool sums = (corrects && !given.sum_g) || results.dweight || results.dbias;
  const bool writes = whole.dx || whole.dresidual;
  std::vector<double> sum_g(channels, 0.0), sum_gx(channels, 0.0);
  std::vector<A> offset(channels), slope(channels);

  // With x' = (x - mean) rstd: dbias = sum g, dweight = sum g x', and in training
  // dx = scale (g - dbias/n - x' dweight/n).
  auto set = [&](int64_t c) {
    const double r = rstd[c];
    if (results.dweight) results.dweight[c] = (A)(r * sum_gx[c]);
    if (results.dbias) results.dbias[c] = (A)sum_g[c];
    offset[c] = (A)(sum_g[c] / count);
    slope[c] = (A)(r * r * sum_gx[c] / count);
  };
  if (given.sum_g && corrects)
    for (int64_t c = 0; c < channels; ++c) {
      const double n = std::max<double>(given.count, 1);
      offset[c] = (A)(given.sum_g[c] / n);
      slope[c] = (A)((double)rstd[c] * given.sum_gx[c] / n);
    }
  auto job = [&](const Span& span, int64_t channel) {
    NormBackward<T> result = whole;
    result.grad += span.start;
    if (result.again) result.again += span.start;
    if (result.dtotal) result.dtotal += span.start;
    result.x += span.start;
    if (result.mask) result.mask += span.mask_start;
    if (result.dx) result.dx += span.start;
    if (result.dresidual) result.dresidual += span.start;
    result.mask_stride = span.mask_stride;
    result.extent = span.extent;
    result.affine = coefficients.from(channel);
    result.offset = corrects ? &offset[channel] : nullptr;
    result.slope = corrects ? &slope[channel] : nullptr;
    return result;
  };

  if (view.interleaved) {
    if (sums) {
      interleaved_sums<T>([&](const Span& span) { return job(span, 0); }, view, group, sum_g.data(),
                          sum_gx.data());
      for (int64_t c = 0; c < channels; ++c) set(c);
    }
    const int64_t outer = group.rows * view.pixels;
    if (writes)
      in_pieces(pieces(outer, channels * sizeof(T)), outer,
                [&](int64_t, int64_t begin, int64_t end) {
                  kernels<T>().row_backward(job(runs(view, group, begin, end), 0));
                });
    return;
  }
  for_channel_blocks(view, group, sizeof(T), [&](int64_t first, int64_t side) {
    const Span span = planes(view, group, first, side);
    if (sums) {
      kernels<T>().plane_reduce(job(span, first), &sum_g[first], &sum_gx[first]);
      for (int64_t c = first; c < first + side; ++c) set(c);
    }
    if (writes) kernels<T>().plane_backward(job(span, first));
  });
}

Sign sign_of(const Tensor& mask, bool relu) {
  if (!relu) return Sign::none;
  return mask.numel() ? Sign::mask : Sign::recompute;
}

template <class T>
Outputs run(const Tensor& grad, const Tensor& x,
            const std::array<const OptionalTensor*, 2>& weights,
            const std::array<const OptionalTensor*, 2>& biases, const Tensor& mean,
            const Tensor& rstd, const Tensor& mask, int64_t num_main, std::array<bool, 2> training,
            bool relu, const std::vector<bool>& wanted, const OptionalTensor& again,
            const OptionalTensor& dtotal, const Tensor* sums = nullptr,
            const Tensor* count = nullptr) {
  using A = Accumulator<T>;
  const View view(x);
  const int64_t channels = view.channels;
  auto image = [&](bool want) { return want ? fresh_like(x) : fresh(x, {0}, x.scalar_type()); };
  auto parameter = [&](bool want) {
    Tensor result = want ? fresh(x, {2, channels}, kScalarType<A>) : fresh(x, {0}, kScalarType<A>);
    if (want) std::fill_n(data<A>(result), 2 * channels, A(0));
    return result;
  };
  Tensor dx = image(wanted[0]), dresidual = image(wanted[1]);
  Tensor dweight = parameter(wanted[2]), dbias = parameter(wanted[3]);

  const Tensor first = in_layout_of(grad, x), second = in_layout_of(again.value_or(x), x);
  const Tensor added = in_layout_of(dtotal.value_or(x), x);
  NormBackward<T> whole{};
  whole.grad = data<T>(first);
  whole.again = again ? data<T>(second) : nullptr;
  whole.dtotal = dtotal ? data<T>(added) : nullptr;
  whole.x = data<T>(x);
  whole.sign = sign_of(mask, relu);
  whole.mask = whole.sign == Sign::mask ? data<uint8_t>(mask) : nullptr;
  whole.dx = wanted[0] ? data<T>(dx) : nullptr;
  whole.dresidual = wanted[1] ? data<T>(dresidual) : nullptr;
  for (const Group& group : groups(num_main, view.rows)) {
    const int64_t row = group.which * channels;
    const A *mean_row = data<A>(mean) + row, *rstd_row = data<A>(rstd) + row;
    Coefficients<A> coefficients(*weights[group.which], *biases[group.which], channels);
    for (int64_t c = 0; c < channels; ++c) coefficients.set(c, mean_row[c], rstd_row[c]);
    Given<A> given{};
    if (sums)
      given = {data<A>(*sums) + row, data<A>(*sums) + 2 * channels + row,
               data<A>(*count)[group.which]};
    backward_group<T>(
        whole, view, group, coefficients, rstd_row, training[group.which],
        {wanted[2] ? data<A>(dweight) + row : nullptr, wanted[3] ? data<A>(dbias) + row : nullptr},
        given);
  }
  return {dx, dresidual, dweight, dbias};
}

void check(const Tensor& grad, const Tensor& x, const OptionalTensor& residual,
           const std::array<const OptionalTensor*, 4>& parameters, const Tensor& mean,
           const Tensor& rstd, const Tensor& mask, int64_t num_main, size_t wanted,
           const OptionalTensor& again = std::nullopt,
           const OptionalTensor& dtotal = std::nullopt) {
  check_images(x, residual, num_main);
  require_like("grad", grad, x);
  if (again) require_like("again", *again, x);
  if (dtotal) require_like("dtotal", *dtotal, x);
  constexpr std::array<const char*, 4> kNames{"weight", "bias", "aux_weight", "aux_bias"};
  for (size_t i = 0; i < 4; ++i) check_parameter(kNames[i], *parameters[i], x);
  const bool wide = x.scalar_type() == ScalarType::Double;
  const std::array<int64_t, 2> sizes{2, x.size(1)};
  for (const Named& statistic : {Named{"mean", &mean}, Named{"rstd", &rstd}})
    require(statistic.name, *statistic.tensor, Sizes(sizes.data(), 2),
            wide ? ScalarType::Double : ScalarType::Float, x);
  require_device("mask", mask, x);
  std::array<int64_t, 2> runs{0, 0};
  if (x.numel() > 0) {
    const View view(x);
    runs = {view.mask_runs(), view.mask_bytes()};
  }
  const bool fits =
      mask.numel() == 0 || (mask.dim() == 2 && mask.size(0) == runs[0] && mask.size(1) == runs[1]);
  if (mask.scalar_type() != ScalarType::Byte || !fits)
    refuse("mask: expected torch.uint8 [0] or ", listed(Sizes(runs.data(), 2)), ", got ",
           described(mask));
  if (wanted != 4) refuse("wanted: expected four of True and False, got ", std::to_string(wanted));
}

bool covers(const Tensor& x, const OptionalTensor& residual, const Tensor& mean, const Tensor& rstd,
            const Tensor& mask, bool relu) {
  // The sign of norm(x) + residual is recomputed by the reference only.
  return is_covered(x) && mean.is_contiguous() && rstd.is_contiguous() && mask.is_contiguous() &&
         !(relu && residual && mask.numel() == 0);
}

Outputs dual_batch_norm_backward(const Tensor& grad, const Tensor& x,
                                 const OptionalTensor& residual, const OptionalTensor& weight,
                                 const OptionalTensor& bias, const OptionalTensor& aux_weight,
                                 const OptionalTensor& aux_bias, const Tensor& mean,
                                 const Tensor& rstd, const Tensor& mask, int64_t num_main,
                                 bool training, bool aux_training, bool relu,
                                 const std::vector<bool> wanted, const OptionalTensor& again,
                                 const OptionalTensor& dtotal) {
  check(grad, x, residual, {&weight, &bias, &aux_weight, &aux_bias}, mean, rstd, mask, num_main,
        wanted.size(), again, dtotal);
  if (!covers(x, residual, mean, rstd, mask, relu)) {
    const std::array<bool, 4> flags{wanted[0], wanted[1], wanted[2], wanted[3]};
    return call_reference<Tensor, Tensor, Tensor, Tensor>(
        "entprop_fast::dual_batch_norm_backward_reference", "", grad, x, residual, weight, bias,
        aux_weight, aux_bias, mean, rstd, mask, num_main, training, aux_training, relu,
        torch::headeronly::HeaderOnlyArrayRef<bool>(flags.data(), flags.size()), again, dtotal);
  }
  return with_dtype(x, [&](auto type) {
    return run<decltype(type)>(grad, x, {&weight, &aux_weight}, {&bias, &aux_bias}, mean, rstd,
                               mask, num_main, {training, aux_training}, relu, wanted, again,
                               dtotal);
  });
}

Tensor dual_batch_norm_dx(const Tensor& grad, const Tensor& x, const OptionalTensor& residual,
                          const OptionalTensor& weight, const OptionalTensor& bias,
                          const OptionalTensor& aux_weight, const OptionalTensor& aux_bias,
                          const Tensor& mean, const Tensor& rstd, const Tensor& mask,
                          const Tensor& sums, const Tensor& count, int64_t num_main, bool training,
                          bool aux_training, bool relu) {
  const std::vector<bool> wanted{true, false, false, false};
  check(grad, x, residual, {&weight, &bias, &aux_weight, &aux_bias}, mean, rstd, mask, num_main,
        wanted.size());
  const std::array<int64_t, 3> sizes{2, 2, x.size(1)};
  require("sums", sums, Sizes(sizes.data(), 3), mean.scalar_type(), x);
  require("count", count, Sizes(sizes.data(), 1), mean.scalar_type(), x);
  if (!covers(x, residual, mean, rstd, mask, relu) || !sums.is_contiguous() ||
      !count.is_contiguous())
    return std::get<0>(call_reference<Tensor>("entprop_fast::dual_batch_norm_dx_reference", "",
                                              grad, x, residual, weight, bias, aux_weight, aux_bias,
                                              mean, rstd, mask, sums, count, num_main, training,
                                              aux_training, relu));
  return with_dtype(x, [&](auto type) {
    return std::get<0>(run<decltype(type)>(
        grad, x, {&weight, &aux_weight}, {&bias, &aux_bias}, mean, rstd, mask, num_main,
        {training, aux_training}, relu, wanted, std::nullopt, std::nullopt, &sums, &count));
  });
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("dual_batch_norm_backward", TORCH_BOX(&entprop::dual_batch_norm_backward));
  m.impl("dual_batch_norm_dx", TORCH_BOX(&entprop::dual_batch_norm_dx));
}
