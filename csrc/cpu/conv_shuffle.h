// A scatter to few channels as a gather: what belongs to one input pixel becomes the columns of one product, and the
// image is shuffled together as it is written (Shi et al. 2016, arXiv:1609.07009).
#pragma once
#include <ATen/ops/zeros.h>

#include "cpu/conv_norm_act.h"
#include "cpu/conv_results.h"
#include "cpu/tiles.h"

namespace fastgan {

// How a scatter is one if tiles multiply it: where the columns of a pixel fit into a panel, and what they read lies
// together.
inline std::optional<Shuffle> shuffle_of(const Tensor& x, const Tensor& y, const Sizes& s) {
  const auto [h, w] = s.stride;
  const bool whole = y.size(2) % h == 0 && y.size(3) % w == 0, pixel = x.size(2) * x.size(3) == 1;
  const bool few = y.size(1) <= kFewChannels && y.size(1) * h * w <= kPanel;
  const bool apart = s.dilation != std::array<int64_t, 2>{1, 1};
  if (tiles() == nullptr || !s.transposed || !whole || pixel || !few || apart) return std::nullopt;
  return Shuffle{h, w};
}

// The weight (C_small, C_big, kH, kW) of a scatter as that of a gather, (columns, C_small, extents), in bfloat16, and
// the sizes of that.
inline std::pair<Tensor, Sizes> shuffled(const Tensor& weight, const Tensor& x, const Tensor& y, Sizes sizes) {
  const Axis h = axis_of(sizes, 0, x.size(2), y.size(2), weight.size(2), true);
  const Axis w = axis_of(sizes, 1, x.size(3), y.size(3), weight.size(3), true);
  const Tensor dense = weight.to(at::kBFloat16).contiguous();
  const int64_t small = dense.size(0), big = dense.size(1), kw = dense.size(3), taps = dense.size(2) * kw;
  const int64_t places = int64_t(h.phases.size() * w.phases.size()), extents = h.extent * w.extent;
  Tensor result = at::zeros({places * big, small, h.extent, w.extent}, dense.options());
  const auto* from = static_cast<const uint16_t*>(dense.const_data_ptr());
  auto* to = static_cast<uint16_t*>(result.mutable_data_ptr());
  for (const Phase& ph : h.phases) {
    for (const Phase& pw : w.phases) {
      for (int64_t b = 0; b < big; ++b) {
        for (int64_t s = 0; s < small; ++s, to += extents) {
          for (const Tap& th : ph.taps) {
            for (const Tap& tw : pw.taps) {
              to[th.offset * w.extent + tw.offset] = from[(s * big + b) * taps + th.kernel * kw + tw.kernel];
            }
          }
        }
      }
    }
  }
  sizes.stride = {1, 1};
  sizes.padding = {-h.origin, -w.origin};
  sizes.transposed = false;
  return {result, sizes};
}

}  // namespace fastgan
