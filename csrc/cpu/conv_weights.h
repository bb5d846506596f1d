// The weight of a convolution, times a factor, in the order in which the tiles of the product read it.
#pragma once
#include <ATen/Parallel.h>

#include "cpu/conv_axis.h"
#include "cpu/conv_source.h"

namespace fastgan {

// A stretch of the sum over taps and channels that is contiguous in the loaded rows.
struct Stretch {
  int64_t offset, begin, length;  // in the loaded rows, and in the sum
};

// The sum of one phase: [panel][depth][columns of a tile] from `base`.
struct PhaseWeights {
  int64_t base, depth;
  std::vector<Stretch> stretches;
};

// Longest stretch: a panel of the weight of this depth stays in the first-level cache.
constexpr int64_t kDepth = 320;

template <typename T>
class PackedWeights {
 public:
  PackedWeights() = default;
  // weight (C_small, C_big, kH, kW), dense; the input has the big channels in a gather, the small ones in a scatter.
  // `width` is that of the loaded rows in pixels.
  PackedWeights(const at::Tensor& weight, T scale, const Axis& h, const Axis& w, bool scatter, int64_t width,
                int64_t columns)
      : columns_(columns),
        in_(weight.size(scatter ? 0 : 1)),
        out_(weight.size(scatter ? 1 : 0)),
        panels_((out_ + columns - 1) / columns) {
    int64_t size = 0;
    for (const Phase& ph : h.phases) {
      for (const Phase& pw : w.phases) {
        phases.push_back({size, int64_t(ph.taps.size() * pw.taps.size()) * in_, stretches(ph, pw, width)});
        size += phases.back().depth * panels_ * columns_;
      }
    }
    memory_ = scratch<T, 7>(size);
    fill(weight, scale, h, w, scatter);
  }

  // weight (C_small, C_big, kH, kW) as one matrix: for each small channel a column for each (kh, kw, big channel).
  PackedWeights(const at::Tensor& weight, T scale, int64_t columns)
      : columns_(columns), in_(weight.size(0)), out_(weight[0].numel()), panels_((out_ + columns - 1) / columns) {
    phases.push_back({0, in_, {}});
    split({0, 0, in_}, phases[0].stretches);
    memory_ = scratch<T, 7>(in_ * panels_ * columns);
    const at::Tensor dense = weight.to(c10::CppTypeToScalarType<T>::value).contiguous();
    const T* from = dense.const_data_ptr<T>();
    const int64_t big = weight.size(1), taps = weight.size(2) * weight.size(3);
    at::parallel_for(0, panels_, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, in_ * columns)),
                     [&](int64_t first, int64_t last) {
                       for (int64_t j = first; j < last; ++j) {
                         for (int64_t c = 0; c < in_; ++c) {
                           T* line = memory_ + (j * in_ + c) * columns_;
                           for (int64_t i = 0; i < columns_; ++i) {
                             const int64_t n = j * columns_ + i;
                             line[i] = n < out_ ? scale * from[(c * big + n % big) * taps + n / big] : T(0);
                           }
                         }
                       }
                     });
  }

  const T* panel(const PhaseWeights& phase, int64_t j) const {
    return memory_ + phase.base + j * phase.depth * columns_;
  }
  int64_t panels() const { return panels_; }

  std::vector<PhaseWeights> phases;

 private:
  // Channels packed together, and elements that keep the columns of a block out of each other's cache lines.
  static constexpr int64_t kChannels = 8, kColumnsApart = 4;

  static void split(Stretch whole, std::vector<Stretch>& into) {
    const int64_t parts = (whole.length + kDepth - 1) / kDepth;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t from = whole.length * part / parts, to = whole.length * (part + 1) / parts;
      into.push_back({whole.offset + from, whole.begin + from, to - from});
    }
  }

  std::vector<Stretch> stretches(const Phase& ph, const Phase& pw, int64_t width) const {
    std::vector<Stretch> result;
    int64_t begin = 0;
    for (const Tap& th : ph.taps) {
      for (size_t i = 0; i < pw.taps.size();) {
        size_t end = i + 1;
        while (end < pw.taps.size() && pw.taps[end].offset == pw.taps[end - 1].offset + 1) ++end;
        const int64_t length = int64_t(end - i) * in_, offset = (th.offset * width + pw.taps[i].offset) * in_;
        split({offset, begin, length}, result);
        begin += length;
        i = end;
      }
    }
    return result;
  }

  void fill(const at::Tensor& weight, T scale, const Axis& h, const Axis& w, bool scatter) {
    const at::Tensor dense = weight.to(c10::CppTypeToScalarType<T>::value).contiguous();
    const T* from = dense.const_data_ptr<T>();
    const int64_t kw = weight.size(3), taps = weight.size(2) * kw;
    const int64_t out_stride = (scatter ? 1 : weight.size(1)) * taps, in_stride = (scatter ? weight.size(1) : 1) * taps;
    at::parallel_for(0, panels_, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, in_ * taps * columns_)),
                     [&](int64_t first, int64_t last) {
                       for (int64_t j = first; j < last; ++j) {
                         const int64_t valid = std::min(columns_, out_ - j * columns_);
                         // a few channels at a time, all taps of all columns: what is read in long strides is read once
                         const int64_t width = kChannels * taps + kColumnsApart;
                         T* block = scratch<T, 8>(columns_ * width);
                         for (int64_t c0 = 0; c0 < in_; c0 += kChannels) {
                           const int64_t channels = std::min(kChannels, in_ - c0);
                           for (int64_t n = 0; n < columns_; ++n) {
                             const T* source = from + (j * columns_ + n) * out_stride + c0 * in_stride;
                             for (int64_t c = 0; c < channels; ++c) {
                               T* to = block + n * width + c * taps;
                               if (n < valid) {
                                 std::copy_n(source + c * in_stride, taps, to);
                               } else {
                                 std::fill_n(to, taps, T(0));
                               }
                             }
                           }
                           size_t p = 0;
                           for (const Phase& ph : h.phases) {
                             for (const Phase& pw : w.phases) {
                               const PhaseWeights& phase = phases[p++];
                               T* to = memory_ + phase.base + (j * phase.depth + c0) * columns_;
                               int64_t t = 0;
                               for (const Tap& th : ph.taps) {
                                 for (const Tap& tw : pw.taps) {
                                   const T* tap = block + th.kernel * kw + tw.kernel;
                                   T* lines = to + t++ * in_ * columns_;
                                   for (int64_t c = 0; c < channels; ++c, lines += columns_) {
                                     for (int64_t n = 0; n < columns_; ++n)
                                       lines[n] = scale * tap[n * width + c * taps];
                                   }
                                 }
                               }
                             }
                           }
                         }
                       }
                     });
  }

  int64_t columns_ = 0, in_ = 0, out_ = 0, panels_ = 0;
  // lives as long as nobody packs another weight in this thread
  T* memory_ = nullptr;
};

}  // namespace fastgan
