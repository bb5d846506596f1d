// What the convolutions take beside tensors.
#pragma once
#include "cpu/conv_source.h"
#include "cpu/stems.h"

namespace fastgan {

struct Sizes {
  std::array<int64_t, 2> stride, padding, dilation;
  bool transposed;
  explicit Sizes(const ConvSizes& s)
      : stride(std::get<0>(s)), padding(std::get<1>(s)), dilation(std::get<2>(s)), transposed(std::get<3>(s)) {}
};

// Runs f with the accumulation type of x and the operands of minimal filtering, for sums of so many terms.
template <typename F>
void with_operands(const Tensor& x, int64_t terms, F f) {
  if (x.scalar_type() == at::kBFloat16 && terms % kTermsOf<Pair> == 0 && multiplies<Pair>()) {
    f(float(), Pair());
  } else {
    with_accumulation_type(x, [&](auto zero) { f(zero, zero); });
  }
}

template <typename T>
Source<T> make_source(const Tensor& x, const Norm& norm, const Mask& mask) {
  Source<T> source(x);
  const auto& [weight, bias, mean, var, eps, norm_activation, norm_slope] = norm;
  const auto& [y, activation, slope] = mask;
  if (mean.has_value()) {
    source.normalise(weight, bias, *mean, *var, eps, Activation(norm_activation), norm_slope);
  } else if (y.has_value()) {
    source.mask(*y, Activation(activation), slope);
  }
  return source;
}

}  // namespace fastgan
