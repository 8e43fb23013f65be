// What gather_perturb and perturb_ require of their arguments, on the CPU and on CUDA.
#pragma once

#include "check.h"

namespace entprop {

struct Step {  // the arguments that all of the ops have
  const Tensor &grad, &x, &index, &alpha, &eps, &lo, &hi;

  void check() const {
    require_floating("x", x, "[N, C, ...]", x.dim() >= 2);
    require_index("index", index, -1, x);
    const std::array<int64_t, 1> channels{x.size(1)};
    for (const auto& [name, bound] :
         {Named{"alpha", &alpha}, Named{"eps", &eps}, Named{"lo", &lo}, Named{"hi", &hi}})
      require(name, *bound, Sizes(channels.data(), 1), x.scalar_type(), x);
    if (x.size(0) == 0 && index.numel() > 0)
      throw std::out_of_range(
          joined("index: expected int64 [0], x has no rows, got ", listed(index.sizes())));
  }

  // Like x, with so many rows.
  void check_images(const char* name, const Tensor& images, int64_t rows) const {
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes[0] = rows;
    require(name, images, Sizes(sizes.data(), sizes.size()), x.scalar_type(), x);
  }

  // Has memory of its own.
  void check_written(const char* name, const Tensor& written) const {
    require_apart({{name, &written}}, {{"x", &x},
                                       {"index", &index},
                                       {"alpha", &alpha},
                                       {"eps", &eps},
                                       {"lo", &lo},
                                       {"hi", &hi},
                                       {"grad", &grad}});
  }

  void check_gather() const {
    check();
    check_images("grad", grad, x.size(0));
  }

  void check_gather_out(const Tensor& out) const {
    check_gather();
    check_images("out", out, index.numel());
    check_written("out", out);
  }

  void check_perturb(const Tensor& x_adv) const {
    check();
    check_images("x_adv", x_adv, index.numel());
    check_images("grad", grad, index.numel());
    check_written("x_adv", x_adv);
  }
};

}  // namespace entprop
