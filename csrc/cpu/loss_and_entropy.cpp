// The op loss_and_entropy.

#include "check.h"

namespace entprop {
namespace {

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;

std::optional<Score> parse(const std::string& name) {
  if (name == "entropy") return Score::entropy;
  if (name == "confidence") return Score::confidence;
  if (name == "cross_entropy") return Score::cross_entropy;
  if (name == "margin") return Score::margin;
  return std::nullopt;
}

template <class T>
Outputs run(const Tensor& logits, const Tensor& labels, const Tensor& labels_b, double lam,
            double smoothing, Score kind) {
  using A = Accumulator<T>;
  const int64_t rows = logits.size(0), classes = logits.size(1);
  Tensor loss = fresh(logits, {rows}, kScalarType<A>);
  Tensor entropy = fresh(logits, {rows}, kScalarType<A>);
  Tensor score = fresh(logits, {rows}, kScalarType<A>);
  Tensor dlogits = fresh(logits, {rows, classes}, logits.scalar_type());
  // Once each: asking a tensor is a call into torch.
  const T* z = data<T>(logits);
  T* gradient = data<T>(dlogits);
  const int64_t *a = data<int64_t>(labels), *b = data<int64_t>(labels_b);
  A *losses = data<A>(loss), *entropies = data<A>(entropy), *scores = data<A>(score);
  const int64_t stride = logits.stride(0);
  const int64_t label_stride = labels.stride(0), label_b_stride = labels_b.stride(0);
  const auto& loops = kernels<T>();
  // An exponential costs about as much as moving 16 bytes.
  in_pieces(pieces(rows, classes * 16), rows, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<A> scratch(classes + kScratchPadding);
    for (int64_t r = begin; r < end; ++r) {
      loops.loss_row({z + r * stride, classes, a[r * label_stride], b[r * label_b_stride], lam,
                      smoothing, kind, gradient + r * classes, scratch.data(), losses + r,
                      entropies + r, scores + r});
    }
  });
  return {loss, entropy, score, dlogits};
}

void check(const Tensor& logits, const Tensor& labels, const Tensor& labels_b, const Tensor& lam,
           double label_smoothing, const std::string& score, bool known) {
  const bool fits = logits.dim() == 2 && logits.size(1) > 0;
  require_floating("logits", logits, "[B, K]", fits);
  require_index("labels", labels, logits.size(0), logits);
  require_index("labels_b", labels_b, logits.size(0), logits);
  if (lam.dim() != 0 || !is_floating(lam))
    refuse("lam: expected a 0-dim tensor of a floating dtype, got ", described(lam));
  require_device("lam", lam, logits);
  if (!(label_smoothing >= 0 && label_smoothing <= 1))
    refuse("label_smoothing=", std::to_string(label_smoothing), ": expected 0 to 1");
  if (!known)
    refuse("score='", score, "': expected one of entropy, confidence, cross_entropy, margin");
}

Outputs loss_and_entropy(const Tensor& logits, const Tensor& labels, const Tensor& labels_b,
                         const Tensor& lam, double label_smoothing, std::string score) {
  const std::optional<Score> kind = parse(score);
  check(logits, labels, labels_b, lam, label_smoothing, score, kind.has_value());
  const bool covered = has_kernel_dtype(logits) && has_kernel_dtype(lam) && logits.numel() > 0 &&
                       logits.stride(1) == 1;
  if (!covered)
    return call_reference<Tensor, Tensor, Tensor, Tensor>(
        "entprop_fast::loss_and_entropy_reference", "", logits, labels, labels_b, lam,
        label_smoothing, score);
  const double share = values<double>(lam)[0];
  return with_dtype(logits, [&](auto type) {
    return run<decltype(type)>(logits, labels, labels_b, share, label_smoothing, *kind);
  });
}

}  // namespace
}  // namespace entprop

STABLE_TORCH_LIBRARY_IMPL(entprop_fast, CPU, m) {
  m.impl("loss_and_entropy", TORCH_BOX(&entprop::loss_and_entropy));
}
