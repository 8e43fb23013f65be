// What the forward and the backward of dual_batch_norm share: how x is cut into groups of rows,
// the groups into spans of memory, and the coefficients per channel.
#pragma once

#include "check.h"

namespace entprop {

// x [N, C, ...] as the kernels see it: rows of C channels, or planes of `pixels` values.
struct View {
  int64_t rows, channels, pixels;
  bool interleaved;  // channels innermost
  bool streams;      // best read in memory's own order

  explicit View(const Tensor& x) : rows(x.size(0)), channels(x.size(1)) {
    // Rows of a few vectors lose more than they win before they outgrow the third-level cache too.
    constexpr int64_t kWideRow = 256, kSecondLevel = 1 << 20, kThirdLevel = 8 << 20;
    const int64_t row = channels * (int64_t)x.element_size();
    pixels = x.numel() / (rows * channels);
    interleaved = is_channels_last(x) || pixels == 1;
    streams = rows * pixels * row > (row < kWideRow ? kThirdLevel : kSecondLevel);
  }

  // Bits of the ReLU mask that follow each other; every run starts on a whole byte.
  // entprop_fast/ops/dual_batch_norm_reference.py has the same rule.
  int64_t mask_run() const {
    if (interleaved) return channels;
    return pixels < kSmallPlane ? channels * pixels : pixels;
  }
  int64_t mask_bytes() const { return (mask_run() + 7) / 8; }
  int64_t mask_runs() const { return rows * channels * pixels / mask_run(); }
};

// Rows [first, first + rows) of the batch, all under the same statistics.
struct Group {
  int which;  // 0 main, 1 auxiliary
  int64_t first, rows;
};

inline std::vector<Group> groups(int64_t num_main, int64_t rows) {
  std::vector<Group> result;
  if (num_main > 0) result.push_back({0, 0, num_main});
  if (num_main < rows) result.push_back({1, num_main, rows - num_main});
  return result;
}

// A piece of a group's memory: where it starts in x and in the mask, and its shape.
struct Span {
  int64_t start, mask_start, mask_stride;
  Extent extent;
};

// Runs [begin, end) of C channels; interleaved only.
inline Span runs(const View& view, const Group& group, int64_t begin, int64_t end) {
  const int64_t run = group.first * view.pixels + begin;
  return {run * view.channels,
          run * view.mask_bytes(),
          view.mask_bytes(),
          {end - begin, 1, view.channels, view.channels, view.streams}};
}

// The planes of `count` channels from `channel` on; not interleaved only.
inline Span planes(const View& view, const Group& group, int64_t channel, int64_t count) {
  const int64_t plane = group.first * view.channels + channel;
  const int64_t image_bytes = view.mask_runs() / view.rows * view.mask_bytes();
  const int64_t channel_bytes =
      view.pixels < kSmallPlane ? channel * view.pixels / 8 : channel * view.mask_bytes();
  return {plane * view.pixels,
          group.first * image_bytes + channel_bytes,
          image_bytes,
          {group.rows, count, view.pixels, view.channels * view.pixels, view.streams}};
}

// How many channels are taken together: small planes several, so that memory is read in runs of
// some kilobytes that start on whole cache lines, and their bits of the mask on whole bytes.
inline int64_t channels_together(int64_t pixels, int64_t element_size) {
  constexpr int64_t kRun = 4096;
  int64_t count = 1;
  while (2 * count * pixels * element_size <= kRun && 2 * count <= kMaxSide) count *= 2;
  if (pixels < kSmallPlane)
    while (count * pixels % 8 != 0) count *= 2;
  return count;
}

// f(channel, count) for every block of channels, on as many threads as it is worth. A channel's
// passes follow each other while its planes are in cache.
template <class F>
void for_channel_blocks(const View& view, const Group& group, int64_t element_size, const F& f) {
  const int64_t block = channels_together(view.pixels, element_size);
  const int64_t blocks = (view.channels + block - 1) / block;
  in_pieces(pieces(blocks, group.rows * view.pixels * element_size * block), blocks,
            [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t b = begin; b < end; ++b)
                f(b * block, std::min(block, view.channels - b * block));
            });
}

// y = (x - mean) * scale + shift, from nothing but what the backward has as well: the ReLU's sign
// that it recomputes is the forward's, bit for bit.
template <class A>
struct Coefficients {
  std::vector<A> weight, bias, mean, scale;

  Coefficients(const OptionalTensor& weight_, const OptionalTensor& bias_, int64_t channels)
      : weight(weight_ ? values<A>(*weight_) : std::vector<A>(channels, 1)),
        bias(bias_ ? values<A>(*bias_) : std::vector<A>(channels, 0)),
        mean(channels),
        scale(channels) {}

  void set(int64_t channel, A mean_, A rstd) {
    mean[channel] = mean_;
    scale[channel] = rstd * weight[channel];
  }

  Affine<A> from(int64_t channel) const {
    return {&mean[channel], &scale[channel], &bias[channel]};
  }
};

inline void check_images(const Tensor& x, const OptionalTensor& residual, int64_t num_main) {
  require_floating("x", x, "[N, C, ...]", x.dim() >= 2);
  if (num_main < 0 || num_main > x.size(0))
    refuse("num_main=", std::to_string(num_main), ": expected 0 to ", std::to_string(x.size(0)),
           ", the rows of x");
  if (residual) require_like("residual", *residual, x);
}

// A [C] parameter or running statistic: of x's dtype, or float32 beside half precision.
inline void check_parameter(const char* name, const OptionalTensor& p, const Tensor& x) {
  if (!p) return;
  const ScalarType dtype = p->scalar_type(), own = x.scalar_type();
  const bool fits = dtype == own || (dtype == ScalarType::Float &&
                                     (own == ScalarType::BFloat16 || own == ScalarType::Half));
  if (!fits || p->dim() != 1 || p->size(0) != x.size(1))
    refuse(name, ": expected shape [", std::to_string(x.size(1)), "] in the dtype of x, ",
           named(own), ", or in float32 beside half precision, got ", described(*p));
  require_device(name, *p, x);
}

inline bool is_covered(const Tensor& x) {
  return has_kernel_dtype(x) && x.numel() > 0 && is_dense(x);
}

}  // namespace entprop
