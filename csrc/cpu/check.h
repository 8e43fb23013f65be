// What the ops require of their arguments, once, where an op is implemented. A
// std::invalid_argument is a ValueError in Python, a std::out_of_range an IndexError;
// entprop_fast/ops/checks.py says the same there. No check reads a tensor's values.
#pragma once

#include <numeric>
#include <stdexcept>
#include <string>

#include "tensor.h"

namespace entprop {

using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

inline std::string named(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Long:
      return "torch.int64";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::Bool:
      return "torch.bool";
    default:
      return torch::headeronly::toString(dtype);
  }
}

template <class... Parts>
std::string joined(const Parts&... parts) {
  std::string text;
  (text.append(parts), ...);
  return text;
}

inline std::string listed(Sizes sizes) {
  std::string text = "[";
  for (const int64_t size : sizes) {
    if (text.size() > 1) text.append(", ");
    text.append(std::to_string(size));
  }
  return joined(text, "]");
}

inline std::string described(const Tensor& t) {
  return joined(named(t.scalar_type()), " ", listed(t.sizes()));
}

// A ValueError in Python.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw std::invalid_argument(joined(parts...));
}

inline void require_device(const char* name, const Tensor& t, const Tensor& x) {
  int32_t type, type_of_x;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &type_of_x));
  const auto index = t.get_device_index(), index_of_x = x.get_device_index();
  if (type == type_of_x && index == index_of_x) return;
  const auto told = [](int32_t device, int64_t number) {
    const char* what = device == aoti_torch_device_type_cpu()    ? "cpu"
                       : device == aoti_torch_device_type_cuda() ? "cuda"
                                                                 : "another device";
    return number < 0 ? std::string(what) : joined(what, ":", std::to_string(number));
  };
  refuse(name, ": expected a tensor on ", told(type_of_x, index_of_x), ", got one on ",
         told(type, index));
}

inline bool is_floating(const Tensor& t) {
  return has_kernel_dtype(t) || t.scalar_type() == ScalarType::Half;
}

inline void require_floating(const char* name, const Tensor& t, const char* shape, bool fits) {
  if (!fits || !is_floating(t)) refuse(name, ": expected floating ", shape, ", got ", described(t));
}

inline void require(const char* name, const Tensor& t, Sizes sizes, ScalarType dtype,
                    const Tensor& x) {
  const Sizes own = t.sizes();
  if (t.scalar_type() != dtype || own.size() != sizes.size() ||
      !std::equal(own.begin(), own.end(), sizes.begin()))
    refuse(name, ": expected ", named(dtype), " ", listed(sizes), ", got ", described(t));
  require_device(name, t, x);
}

inline void require_like(const char* name, const Tensor& t, const Tensor& x) {
  require(name, t, x.sizes(), x.scalar_type(), x);
}

// int64 [rows]; any number of them with rows < 0.
inline void require_index(const char* name, const Tensor& t, int64_t rows, const Tensor& x) {
  if (t.scalar_type() != ScalarType::Long || t.dim() != 1 || (rows >= 0 && t.size(0) != rows))
    refuse(name, ": expected int64 [", rows < 0 ? "m" : std::to_string(rows), "], got ",
           described(t));
  require_device(name, t, x);
}

struct Named {
  const char* name;
  const Tensor* tensor;  // null where there is none
};

// The range of memory of a tensor with elements.
struct Memory {
  const char* name;
  const Tensor* tensor;
  int64_t first, end;  // bytes

  explicit Memory(const Named& named) : name(named.name), tensor(named.tensor) {
    first = (int64_t)tensor->const_data_ptr();
    int64_t last = 0;
    const Sizes sizes = tensor->sizes(), strides = tensor->strides();
    for (size_t d = 0; d < sizes.size(); ++d) last += (sizes[d] - 1) * strides[d];
    end = first + (last + 1) * (int64_t)tensor->element_size();
  }

  bool overlaps_itself() const {
    if (tensor->is_contiguous()) return false;
    const Sizes sizes = tensor->sizes(), strides = tensor->strides();
    std::vector<std::pair<int64_t, int64_t>> steps;
    for (size_t d = 0; d < sizes.size(); ++d)
      if (sizes[d] > 1) steps.emplace_back(strides[d], sizes[d]);
    std::sort(steps.begin(), steps.end());
    int64_t reach = 0;
    for (const auto& [step, size] : steps) {
      if (step <= reach) return true;
      reach += (size - 1) * step;
    }
    return false;
  }

  bool meets(const Memory& other) const { return first < other.end && other.first < end; }

  // As far as can be told, of two whose ranges meet.
  bool shares(const Memory& other) const {
    int64_t period = 0;  // columns of one table take the same steps, and start apart
    for (const Memory* m : {this, &other}) {
      const Tensor& t = *m->tensor;
      if (t.dim() > 1 && !is_dense(t)) return false;
      for (int64_t d = 0; d < t.dim(); ++d)
        if (t.size(d) > 1) period = std::gcd(period, t.stride(d) * (int64_t)t.element_size());
    }
    if (period == 0) return true;
    const int64_t apart = ((other.first - first) % period + period) % period;
    return apart < (int64_t)tensor->element_size() ||
           period - apart < (int64_t)other.tensor->element_size();
  }
};

// No written tensor shares memory with another one or with itself, as for PyTorch's `out=`. As
// there, strided views that reach into each other's range of memory pass: what takes them computes
// everything before it writes anything.
inline void require_apart(const std::vector<Named>& written, const std::vector<Named>& others) {
  std::vector<Memory> all;
  all.reserve(written.size() + others.size());
  const auto add = [&](const std::vector<Named>& list) {
    for (const Named& n : list)
      if (n.tensor && n.tensor->numel() > 0) all.emplace_back(n);
    return all.size();
  };
  const size_t changed = add(written);
  add(others);
  for (size_t i = 0; i < changed; ++i) {
    if (all[i].overlaps_itself())
      refuse(all[i].name,
             ": more than one of its elements refers to a single memory location; give it memory "
             "of its own (",
             all[i].name, ".clone())");
    for (size_t j = i + 1; j < all.size(); ++j)
      if (all[i].meets(all[j]) && all[i].shares(all[j]))
        refuse(all[i].name, ": some of its elements and some of ", all[j].name,
               " refer to a single memory location; give it memory of its own (", all[i].name,
               ".clone())");
  }
}

}  // namespace entprop
