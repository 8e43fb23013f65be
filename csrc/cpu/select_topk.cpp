// The op select_topk.

#include <numeric>

#include "check.h"

namespace entprop {
namespace {

Tensor select_topk(const Tensor& score, int64_t k) {
  require_floating("score", score, "[B]", score.dim() == 1);
  const int64_t rows = score.numel();
  if (k < 0 || k > rows)
    refuse("k=", std::to_string(k), ": expected 0 to ", std::to_string(rows),
           ", the length of score");
  if (!has_kernel_dtype(score))
    return std::get<0>(call_reference<Tensor>("entprop_fast::select_topk_reference", "", score, k));
  Tensor index = fresh(score, {k}, ScalarType::Long);
  const std::vector<double> key = values<double>(score);
  std::vector<int64_t> order(rows);
  std::iota(order.begin(), order.end(), int64_t{0});
  // A total order, so the selection is the head of a stable sort: NaN first, then the higher score,
  // then the lower index.
  const auto before = [&](int64_t a, int64_t b) {
    const bool nan_a = key[a] != key[a], nan_b = key[b] != key[b];
    if (nan_a != nan_b) return nan_a;
    if (!nan_a && key[a] != key[b]) return key[a] > key[b];
    return a < b;
  };
  std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
  std::copy_n(order.begin(), k, data<int64_t>(index));
  return index;
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("select_topk", TORCH_BOX(&entprop::select_topk));
}
