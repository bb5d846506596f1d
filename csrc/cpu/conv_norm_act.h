// What the convolutions take beside tensors, and what they multiply.
#pragma once
#include "cpu/conv_axis.h"
#include "cpu/conv_source.h"
#include "cpu/stems.h"

namespace fastgan {

// Channels up to which a convolution is thin.
constexpr int64_t kFewChannels = 8;

struct Sizes {
  std::array<int64_t, 2> stride, padding, dilation;
  bool transposed;
  explicit Sizes(const ConvSizes& s)
      : stride(std::get<0>(s)), padding(std::get<1>(s)), dilation(std::get<2>(s)), transposed(std::get<3>(s)) {}
};

inline Axis axis_of(const Sizes& s, size_t d, int64_t in, int64_t out, int64_t kernel, bool scatter) {
  return make_axis(in, out, kernel, s.stride[d], s.padding[d], s.dilation[d], scatter);
}

// Whether the sums of a convolution of so many input channels fall into pairs of neighbours: channels, or channels and
// taps of a thin one.
inline bool sums_of_pairs(int64_t channels, int64_t kernel_width, const Sizes& sizes, bool scatter) {
  const bool neighbours = !scatter && sizes.dilation[1] == 1 && channels <= kFewChannels;
  return (neighbours ? channels * kernel_width : channels) % kTermsOf<Pair> == 0;
}

// Runs f with the accumulation type of x and the operands of its products, pairs where the processor has an instruction
// for them.
template <typename F>
void with_operands(const Tensor& x, bool pairs, F f) {
  if (pairs && x.scalar_type() == at::kBFloat16 && multiplies<Pair>()) {
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
