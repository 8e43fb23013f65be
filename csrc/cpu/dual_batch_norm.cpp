// The op dual_batch_norm.

#include <cmath>

#include "norm_moments.h"

namespace entprop {
namespace {

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

struct Norm {  // one group's arguments
  const OptionalTensor &weight, &bias, &running_mean, &running_var, &num_batches;
  bool training;
  double momentum, eps;
};

// x + addend of a group whose moments nobody takes.
template <class T>
void add_up_rows(const Summands<T>& summands, const View& view, const Group& group) {
  const int64_t row = view.channels * view.pixels;
  in_pieces(pieces(group.rows, row * sizeof(T)), group.rows,
            [&](int64_t, int64_t begin, int64_t end) {
              kernels<T>().add_up(from(summands, (group.first + begin) * row), (end - begin) * row);
            });
}

template <class T>
void forward_group(const NormForward<T>& whole, const Summands<T>& summands, const View& view,
                   const Group& group, const Norm& norm, Accumulator<T>* mean_out,
                   Accumulator<T>* rstd_out) {
  using A = Accumulator<T>;
  const int64_t channels = view.channels;
  const double count = (double)(group.rows * view.pixels);
  std::vector<double> mean(channels, 0.0), m2(channels, 0.0);
  Coefficients<A> coefficients(norm.weight, norm.bias, channels);

  auto set = [&](int64_t c, double variance) {
    mean_out[c] = (A)mean[c];
    rstd_out[c] = (A)(1 / std::sqrt(variance + norm.eps));
    coefficients.set(c, mean_out[c], rstd_out[c]);
  };
  auto job = [&](const Span& span, int64_t channel) {
    NormForward<T> result = whole;
    result.x += span.start;
    result.y += span.start;
    if (result.residual) result.residual += span.start;
    if (result.mask) result.mask += span.mask_start;
    result.mask_stride = span.mask_stride;
    result.extent = span.extent;
    result.affine = coefficients.from(channel);
    return result;
  };

  if (!norm.training) {
    mean = values<double>(*norm.running_mean);
    const std::vector<double> variance = values<double>(*norm.running_var);
    for (int64_t c = 0; c < channels; ++c) set(c, variance[c]);
    if (summands.addend) add_up_rows(summands, view, group);
  }
  if (view.interleaved) {
    if (norm.training) {
      interleaved_moments<T>(summands, view, group, mean.data(), m2.data());
      for (int64_t c = 0; c < channels; ++c) set(c, m2[c] / count);
    }
    const int64_t outer = group.rows * view.pixels;
    in_pieces(pieces(outer, channels * sizeof(T)), outer, [&](int64_t, int64_t begin, int64_t end) {
      kernels<T>().row_forward(job(runs(view, group, begin, end), 0));
    });
  } else {
    for_channel_blocks(view, group, sizeof(T), [&](int64_t first, int64_t side) {
      const Span span = planes(view, group, first, side);
      if (norm.training) {
        Moments out{0, &mean[first], &m2[first]};
        kernels<T>().plane_moments(from(summands, span.start), span.extent, &out);
        for (int64_t c = first; c < first + side; ++c) set(c, m2[c] / count);
      }
      kernels<T>().plane_forward(job(span, first));
    });
  }
  if (norm.training) {
    move_running(norm.running_mean, mean, 1, norm.momentum);
    move_running(norm.running_var, m2, 1 / (count - 1), norm.momentum);
    if (norm.num_batches) ++*data<int64_t>(*norm.num_batches);
  }
}

Mode mode_of(bool add, bool relu) {
  if (add) return relu ? Mode::add_relu : Mode::add;
  return relu ? Mode::relu : Mode::plain;
}

template <class T>
Outputs run(const Tensor& x, const OptionalTensor& residual, const std::array<Norm, 2>& norms,
            int64_t num_main, bool relu, const OptionalTensor& addend) {
  using A = Accumulator<T>;
  const View view(x);
  const Mode mode = mode_of(residual.has_value(), relu);
  Tensor y = fresh_like(x);
  Tensor mean = fresh(x, {2, view.channels}, kScalarType<A>);
  Tensor rstd = fresh(x, {2, view.channels}, kScalarType<A>);
  Tensor mask = mode == Mode::add_relu
                    ? fresh(x, {view.mask_runs(), view.mask_bytes()}, ScalarType::Byte)
                    : fresh(x, {0}, ScalarType::Byte);
  std::fill_n(data<A>(mean), 2 * view.channels, A(0));
  std::fill_n(data<A>(rstd), 2 * view.channels, A(0));

  const Tensor added = in_layout_of(residual.value_or(x), x);
  Tensor total = addend ? fresh_like(x) : fresh(x, {0}, x.scalar_type());
  const Tensor second = in_layout_of(addend.value_or(x), x);
  Summands<T> summands{data<T>(x), nullptr, nullptr};
  if (addend) summands = {data<T>(x), data<T>(second), data<T>(total)};

  NormForward<T> whole{};
  whole.x = addend ? data<T>(total) : data<T>(x);
  whole.residual = residual ? data<T>(added) : nullptr;
  whole.y = data<T>(y);
  whole.mask = mode == Mode::add_relu ? data<uint8_t>(mask) : nullptr;
  whole.mode = mode;
  for (const Group& group : groups(num_main, view.rows)) {
    const int64_t row = group.which * view.channels;
    forward_group<T>(whole, summands, view, group, norms[group.which], data<A>(mean) + row,
                     data<A>(rstd) + row);
  }
  return {y, mean, rstd, mask, total};
}

constexpr std::array<std::array<const char*, 5>, 2> kNames{
    {{"weight", "bias", "running_mean", "running_var", "num_batches"},
     {"aux_weight", "aux_bias", "aux_running_mean", "aux_running_var", "aux_num_batches"}}};

// What a group with rows asks for beyond shapes and dtypes.
void check_group(const Norm& norm, const Tensor& x, const Group& group) {
  const char* prefix = group.which ? "aux_" : "";
  const int64_t pixels = x.numel() / std::max<int64_t>(1, x.size(0) * x.size(1));
  if (norm.training && group.rows * pixels == 1) {
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes[0] = group.rows;  // in the words of F.batch_norm
    refuse("Expected more than 1 value per channel when training, got input size torch.Size(",
           listed(Sizes(sizes.data(), sizes.size())), ")");
  }
  if (!norm.training && !(norm.running_mean && norm.running_var))
    refuse(prefix, "running_mean, ", prefix, "running_var: needed with ", prefix, "training=False");
  if (norm.eps < 0 || (norm.training && norm.eps == 0))
    refuse(prefix, "eps=", std::to_string(norm.eps), ": expected ",
           norm.training ? "above 0 in training" : "0 or more");
}

void check(const Tensor& x, const OptionalTensor& residual, const std::array<Norm, 2>& norms,
           int64_t num_main, const OptionalTensor& addend) {
  check_images(x, residual, num_main);
  if (addend) require_like("addend", *addend, x);
  std::vector<Named> moved, read{{"x", &x},
                                 {"residual", residual ? &*residual : nullptr},
                                 {"addend", addend ? &*addend : nullptr}};
  const auto add = [](std::vector<Named>& to, const char* name, const OptionalTensor& t) {
    if (t) to.push_back({name, &*t});
  };
  for (size_t which = 0; which < 2; ++which) {
    const auto& [weight, bias, mean, var, count] = kNames[which];
    const Norm& norm = norms[which];
    check_parameter(weight, norm.weight, x);
    check_parameter(bias, norm.bias, x);
    check_parameter(mean, norm.running_mean, x);
    check_parameter(var, norm.running_var, x);
    if (norm.num_batches)
      require(count, *norm.num_batches, Sizes(nullptr, (size_t)0), ScalarType::Long, x);
    add(read, weight, norm.weight);
    add(read, bias, norm.bias);
  }
  std::vector<Group> all = groups(num_main, x.size(0));
  if (x.size(0) == 0) all.push_back({0, 0, 0});  // an empty batch is the main group's
  for (const Group& group : all) {
    const Norm& norm = norms[group.which];
    check_group(norm, x, group);
    const auto& names = kNames[group.which];
    add(norm.training ? moved : read, names[2], norm.running_mean);
    add(norm.training ? moved : read, names[3], norm.running_var);
    if (norm.training) add(moved, names[4], norm.num_batches);
  }
  require_apart(moved, read);
}

Outputs dual_batch_norm(const Tensor& x, const OptionalTensor& residual,
                        const OptionalTensor& weight, const OptionalTensor& bias,
                        const OptionalTensor& running_mean, const OptionalTensor& running_var,
                        const OptionalTensor& aux_weight, const OptionalTensor& aux_bias,
                        const OptionalTensor& aux_running_mean,
                        const OptionalTensor& aux_running_var, int64_t num_main, bool training,
                        bool aux_training, double momentum, double aux_momentum, double eps,
                        double aux_eps, bool relu, const OptionalTensor& addend,
                        const OptionalTensor& num_batches, const OptionalTensor& aux_num_batches) {
  const std::array<Norm, 2> norms{
      Norm{weight, bias, running_mean, running_var, num_batches, training, momentum, eps},
      Norm{aux_weight, aux_bias, aux_running_mean, aux_running_var, aux_num_batches, aux_training,
           aux_momentum, aux_eps}};
  check(x, residual, norms, num_main, addend);
  if (!is_covered(x))
    return call_reference<Tensor, Tensor, Tensor, Tensor, Tensor>(
        "entprop_fast::dual_batch_norm_reference", "", x, residual, weight, bias, running_mean,
        running_var, aux_weight, aux_bias, aux_running_mean, aux_running_var, num_main, training,
        aux_training, momentum, aux_momentum, eps, aux_eps, relu, addend, num_batches,
        aux_num_batches);
  return with_dtype(x, [&](auto type) {
    return run<decltype(type)>(x, residual, norms, num_main, relu, addend);
  });
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("dual_batch_norm", TORCH_BOX(&entprop::dual_batch_norm));
}
