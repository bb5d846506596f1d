// A scatter to few channels, or of a single pixel: all input pixels are multiplied by all taps first, and what falls on
// the same output is added up, row by row.
#pragma once
#include "cpu/conv_norm_act.h"

namespace fastgan {

template <typename T>
class Overlap {
 public:
  Overlap() = default;
  Overlap(const Image& in, const Image& out, const at::Tensor& weight, const Sizes& sizes)
      : stride_(sizes.stride),
        padding_(sizes.padding),
        dilation_(sizes.dilation),
        kernel_{weight.size(2), weight.size(3)},
        channels_(out.channels),
        in_width_(in.width),
        out_width_(out.width) {
    // neighbouring taps are neighbours in the result, too
    taps_ = dilation_[1] == 1 ? 1 : kernel_[1];
    segment_ = kernel_[1] / taps_ * channels_;
    const int64_t reach = (kernel_[1] - 1) * dilation_[1] + 1;
    line_ = std::max((in_width_ - 1) * stride_[1] + reach, padding_[1] + out_width_) * channels_;
    apart_ = (reach + stride_[1] - 1) / stride_[1];
  }

  // Row h of a sample's result, [out width][channels], from the products [row][column][tap][channel], pixels `pixel`
  // apart, of input rows [top, top + rows).
  void row(int64_t h, const T* products, int64_t pixel, int64_t top, int64_t rows, T* to) const {
    T* line = scratch<T, 12>(line_);
    std::fill_n(line, line_, T(0));
    for (int64_t k = 0; k < kernel_[0]; ++k) {
      const int64_t at = h + padding_[0] - k * dilation_[0], r = at / stride_[0] - top;
      if (at < 0 || at % stride_[0] != 0 || r < 0 || r >= rows) continue;
      const T* from = products + r * in_width_ * pixel + k * kernel_[1] * channels_;
      // what was just written is not read again at once: pixels whose results do not touch come first
      for (int64_t first = 0; first < std::min(apart_, in_width_); ++first) {
        for (int64_t w = first; w < in_width_; w += apart_) add(from + w * pixel, line + w * stride_[1] * channels_);
      }
    }
    std::copy_n(line + padding_[1] * channels_, out_width_ * channels_, to);
  }

 private:
  void add(const T* __restrict from, T* __restrict to) const {
    for (int64_t t = 0; t < taps_; ++t, from += segment_, to += dilation_[1] * channels_) {
      for (int64_t i = 0; i < segment_; ++i) to[i] += from[i];
    }
  }

  std::array<int64_t, 2> stride_{}, padding_{}, dilation_{}, kernel_{};
  int64_t channels_ = 0, in_width_ = 0, out_width_ = 0;
  // stretches of taps that lie side by side, elements of one; elements of a line; pixels whose results do not touch
  int64_t taps_ = 1, segment_ = 0, line_ = 0, apart_ = 1;
};

}  // namespace fastgan
