// The op dual_batch_norm_merge.

#include "norm_moments.h"

namespace entprop {
namespace {

using Outputs = std::tuple<Tensor, Tensor, Tensor>;

struct Running {  // what of a half moves
  const OptionalTensor &mean, &variance, &num_batches;
  const std::optional<double>& momentum;
};

// The half's moments over all processes, one after the other; `found` has room for C means, C
// biased variances and the number of values.
template <class A>
void merge_half(const Tensor& gathered, int64_t which, const Running& half, A* mean_out,
                A* variance_out, A* count_out) {
  const int64_t processes = gathered.size(0), width = gathered.size(2), channels = width / 2;
  std::vector<double> mean(channels, 0.0), m2(channels, 0.0);
  double total = 0;
  for (int64_t process = 0; process < processes; ++process) {
    const A* row = data<A>(gathered) + (2 * process + which) * width;
    const double count = row[2 * channels];
    if (count == 0) continue;
    for (int64_t c = 0; c < channels; ++c)
      merge(mean[c], m2[c], row[c], row[channels + c], count, total);
    total += count;
  }
  for (int64_t c = 0; c < channels; ++c) {
    mean_out[c] = (A)mean[c];
    variance_out[c] = (A)(m2[c] / std::max(total, 1.0));
  }
  *count_out = (A)total;
  if (total == 0) return;
  double rate = half.momentum.value_or(0);
  if (half.num_batches) {
    const int64_t batches = ++*data<int64_t>(*half.num_batches);
    if (!half.momentum) rate = 1.0 / (double)batches;
  }
  move_running(half.mean, mean, 1, rate);
  move_running(half.variance, m2, 1 / std::max(total - 1, 1.0), rate);
}

void check_running(const char* name, const OptionalTensor& t, const Tensor& gathered,
                   std::vector<Named>& moved) {
  if (!t) return;
  const int64_t channels = gathered.size(2) / 2;
  if (!is_floating(*t) || t->dim() != 1 || t->size(0) != channels)
    refuse(name, ": expected floating [", std::to_string(channels), "], got ", described(*t));
  require_device(name, *t, gathered);
  moved.push_back({name, &*t});
}

constexpr std::array<std::array<const char*, 3>, 2> kNames{
    {{"running_mean", "running_var", "num_batches"},
     {"aux_running_mean", "aux_running_var", "aux_num_batches"}}};

void check(const Tensor& gathered, const std::array<Running, 2>& halves) {
  const ScalarType dtype = gathered.scalar_type();
  const bool fits = gathered.dim() == 3 && gathered.size(0) > 0 && gathered.size(1) == 2 &&
                    gathered.size(2) % 2 == 1;
  if (!fits || (dtype != ScalarType::Float && dtype != ScalarType::Double))
    refuse("gathered: expected torch.float32 or torch.float64 [processes, 2, 2C + 1], got ",
           described(gathered));
  std::vector<Named> moved;
  for (size_t which = 0; which < 2; ++which) {
    const Running& half = halves[which];
    const auto [mean, variance, num_batches] = kNames[which];
    check_running(mean, half.mean, gathered, moved);
    check_running(variance, half.variance, gathered, moved);
    if (half.num_batches) {
      require(num_batches, *half.num_batches, Sizes(nullptr, (size_t)0), ScalarType::Long,
              gathered);
      moved.push_back({num_batches, &*half.num_batches});
    } else if (!half.momentum) {
      refuse(num_batches, ": needed with ", which ? "aux_" : "", "momentum=None");
    }
  }
  require_apart(moved, {{"gathered", &gathered}});
}

template <class A>
Outputs run(const Tensor& gathered, const std::array<Running, 2>& halves) {
  const int64_t channels = gathered.size(2) / 2;
  Tensor mean = fresh(gathered, {2, channels}, kScalarType<A>);
  Tensor variance = fresh(gathered, {2, channels}, kScalarType<A>);
  Tensor count = fresh(gathered, {2}, kScalarType<A>);
  for (int64_t which = 0; which < 2; ++which)
    merge_half<A>(gathered, which, halves[which], data<A>(mean) + which * channels,
                  data<A>(variance) + which * channels, data<A>(count) + which);
  return {mean, variance, count};
}

Outputs dual_batch_norm_merge(const Tensor& gathered, const OptionalTensor& running_mean,
                              const OptionalTensor& running_var, const OptionalTensor& num_batches,
                              const OptionalTensor& aux_running_mean,
                              const OptionalTensor& aux_running_var,
                              const OptionalTensor& aux_num_batches,
                              const std::optional<double> momentum,
                              const std::optional<double> aux_momentum) {
  const std::array<Running, 2> halves{
      Running{running_mean, running_var, num_batches, momentum},
      Running{aux_running_mean, aux_running_var, aux_num_batches, aux_momentum}};
  check(gathered, halves);
  bool covered = gathered.is_contiguous() && gathered.numel() > 0;
  for (const Running& half : halves)
    for (const OptionalTensor* t : {&half.mean, &half.variance})
      covered = covered && (!*t || has_kernel_dtype(**t));
  if (!covered)
    return call_reference<Tensor, Tensor, Tensor>(
        "entprop_fast::dual_batch_norm_merge_reference", "", gathered, running_mean, running_var,
        num_batches, aux_running_mean, aux_running_var, aux_num_batches, momentum, aux_momentum);
  return gathered.scalar_type() == ScalarType::Double ? run<double>(gathered, halves)
                                                      : run<float>(gathered, halves);
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("dual_batch_norm_merge", TORCH_BOX(&entprop::dual_batch_norm_merge));
}
