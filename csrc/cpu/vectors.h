// How a tensor's elements are stored, per-channel vectors in the accumulation type, and the dispatch on it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cmath>
#include <optional>
#include <vector>

#include "cpu/span.h"

namespace fastgan {

inline Storage storage_of(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? Storage::bfloat16
         : x.scalar_type() == at::kHalf   ? Storage::float16
                                          : Storage::exact;
}

template <typename T>
std::vector<T> to_vector(const at::Tensor& v) {
  const at::Tensor dense = v.to(c10::CppTypeToScalarType<T>::value).contiguous();
  const T* p = dense.template const_data_ptr<T>();
  return std::vector<T>(p, p + dense.numel());
}

template <typename T>
std::vector<T> to_vector(const std::optional<at::Tensor>& v, int64_t channels, T absent) {
  return v.has_value() ? to_vector<T>(*v) : std::vector<T>(size_t(channels), absent);
}

// Runs f with a float or a double as its argument: the accumulation type of x.
template <typename F>
void with_accumulation_type(const at::Tensor& x, F f) {
  if (x.scalar_type() == at::kDouble) {
    f(double());
  } else {
    f(float());
  }
}

}  // namespace fastgan
