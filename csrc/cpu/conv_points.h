// The product of minimal filtering: a matrix product for each point of the tiles, a few runs, channels and panels at a
// time, so that what is transformed and what is summed stays in the second-level cache.
#pragma once
#include "cpu/conv_filter.h"
#include "cpu/conv_weights.h"

namespace fastgan {

// The weight in the order in which the product reads it: [phase][block of panels][run][block of channels][point][panel]
// [operand of channels][columns of a tile].
template <typename T, typename E>
class PointWeights {
 public:
  // Panels and operands of a block.
  static constexpr int64_t kPanels = 8, kDepth = 64;

  PointWeights() = default;
  // weight (C_small, C_big, kH, kW), dense; the input has the big channels in a gather, the small ones in a scatter.
  PointWeights(const at::Tensor& weight, T scale, const MinimalFilter<T, E>& filter, bool scatter, int64_t columns)
      : columns_(columns),
        in_(weight.size(scatter ? 0 : 1) / kTermsOf<E>),
        points_(filter.points * filter.points),
        depth_(filter.runs() * in_),
        panels_((weight.size(scatter ? 1 : 0) + columns - 1) / columns) {
    memory_ = scratch<E, 7>(int64_t(filter.h.size() * filter.w.size()) * phase_size());
    const WeightBlocks<T> blocks(weight, scale, scatter, columns_);
    static_assert(WeightBlocks<T>::kChannels % kTermsOf<E> == 0);
    const int64_t kw = weight.size(3), taps = weight.size(2) * kw;
    blocks.each([&](int64_t j0, int64_t j1, int64_t c0, int64_t c1) {
      for (int64_t j = j0; j < j1; ++j) {
        const T* block = blocks.read(j, c0, c1);
        for (int64_t c = c0; c < c1; c += kTermsOf<E>, block += kTermsOf<E> * taps * columns_) {
          transform(block, taps, kw, filter, j, c / kTermsOf<E>);
        }
      }
    });
  }

  int64_t panels() const { return panels_; }
  // Operands [i0, i0 + kDepth) of a run at point f, for panel j.
  const E* panel(int64_t phase, int64_t run, int64_t i0, int64_t f, int64_t j) const {
    return memory_ + place(phase, run, i0, j) + f * point_size(i0, j);
  }

 private:
  // Operand i of panel j, [channel][tap][columns], to its places.
  void transform(const T* channels, int64_t taps, int64_t kernel_width, const MinimalFilter<T, E>& filter, int64_t j,
                 int64_t i) const {
    const int64_t i0 = i / kDepth * kDepth;
    int64_t p = 0;
    filter.each_phase([&](const auto& h, const auto& w) {
      int64_t run = 0;
      for (const Run& rh : h) {
        for (const Run& rw : w) {
          E* to = memory_ + place(p, run++, i0, j) + (i - i0) * columns_;
          filter.transform(channels, columns_, taps, kernel_width, rh, rw, to, point_size(i0, j));
        }
      }
      ++p;
    });
  }

  int64_t phase_size() const { return points_ * depth_ * panels_ * columns_; }
  int64_t block_of(int64_t j) const { return j / kPanels * kPanels; }
  int64_t width(int64_t j) const { return std::min(kPanels, panels_ - block_of(j)) * columns_; }
  int64_t operands(int64_t i0) const { return std::min(kDepth, in_ - i0); }
  int64_t point_size(int64_t i0, int64_t j) const { return width(j) * operands(i0); }
  int64_t place(int64_t phase, int64_t run, int64_t i0, int64_t j) const {
    return phase * phase_size() + block_of(j) * columns_ * points_ * depth_ + width(j) * points_ * (run * in_ + i0) +
           (j - block_of(j)) * columns_ * operands(i0);
  }

  int64_t columns_ = 0, in_ = 0, points_ = 0, depth_ = 0, panels_ = 0;
  // lives as long as nobody packs another weight in this thread
  E* memory_ = nullptr;
};

template <typename T, typename E>
class PointProduct {
 public:
  PointProduct() = default;
  PointProduct(const Products<T, E>& products, const MinimalFilter<T, E>& filter, const Axis& h, const Axis& w,
               const at::Tensor& weight, T scale, bool scatter)
      : tile_(products),
        filter_(filter),
        weights_(weight, scale, filter, scatter, products.columns),
        channels_(weight.size(scatter ? 0 : 1)),
        columns_(weights_.panels() * products.columns),
        down_(h.step),
        right_(w.step) {}

  // Loaded pixels [sample][row][column][channel], and the positions that are wanted of each sample.
  struct Band {
    const T* pixels;
    int64_t samples, rows, width, high, wide;
  };

  // result [sample][high][wide][columns of all panels]
  void operator()(int64_t phase, const Band& b, T* result) const {
    const int64_t points = filter_.points * filter_.points, tiles = tiles_in(b);
    const int64_t rows = whole_pairs(tiles), apart = rows * columns_ + kApart;
    T* products = scratch<T, 11>(points * apart);
    for (int64_t j = 0; j < weights_.panels(); j += Weights::kPanels) {
      int64_t run = 0;
      for (const Run& rh : filter_.h[size_t(phase) / filter_.w.size()]) {
        for (const Run& rw : filter_.w[size_t(phase) % filter_.w.size()]) {
          const T* corner = b.pixels + (rh.offset * b.width + rw.offset) * channels_;
          for (int64_t i = 0; i < operands(); i += Weights::kDepth) {
            multiply(phase, run, i, j, load(b, corner, i, rows), tiles, products, apart);
          }
          ++run;
        }
      }
    }
    each_tile(b, [&](int64_t t, int64_t n, int64_t m, int64_t w) {
      T* to = result + ((n * b.high + m) * b.wide + w) * columns_;
      filter_.loops.output(columns_, products + t * columns_, apart, to, b.wide * columns_, columns_,
                           std::min<int64_t>(2, b.high - m), std::min<int64_t>(2, b.wide - w));
    });
  }

 private:
  using Weights = PointWeights<T, E>;
  // Between points: what is written together must not fall on the same lines of the cache.
  static constexpr int64_t kApart = 16;

  static int64_t tiles_in(const Band& b) { return b.samples * tiles_of(b.high) * tiles_of(b.wide); }
  int64_t operands() const { return channels_ / kTermsOf<E>; }
  int64_t depth(int64_t i) const { return std::min(Weights::kDepth, operands() - i); }

  template <typename F>
  static void each_tile(const Band& b, F f) {
    int64_t t = 0;
    for (int64_t n = 0; n < b.samples; ++n) {
      for (int64_t m = 0; m < b.high; m += 2) {
        for (int64_t w = 0; w < b.wide; w += 2) f(t++, n, m, w);
      }
    }
  }

  // [point][tile][operand], of operands from i on
  const E* load(const Band& b, const T* corner, int64_t i, int64_t rows) const {
    const int64_t n = depth(i), apart = rows * n + kApart, row = b.width * channels_;
    E* input = scratch<E, 10>(filter_.points * filter_.points * apart);
    each_tile(b, [&](int64_t t, int64_t sample, int64_t m, int64_t w) {
      const T* from = corner + (sample * b.rows + m * down_) * row + w * right_ * channels_ + i * kTermsOf<E>;
      filter_.loops.input(n * kTermsOf<E>, from, down_ * row, right_ * channels_, input + t * n, apart);
    });
    return input;
  }

  // Adds what operands from i on give to the panels of the block of j.
  void multiply(int64_t phase, int64_t run, int64_t i, int64_t j, const E* input, int64_t tiles, T* products,
                int64_t apart) const {
    const int64_t n = depth(i), last = std::min(j + Weights::kPanels, weights_.panels());
    const int64_t rows = whole_pairs(tiles);
    const Term<E>** begin = scratch<const Term<E>*, 1>(rows);
    const Stretch all{0, 0, n};
    for (int64_t f = 0; f < filter_.points * filter_.points; ++f) {
      for (int64_t r = 0; r < rows; ++r) {
        const E* row = input + f * (rows * n + kApart) + std::min(r, tiles - 1) * n;
        begin[r] = reinterpret_cast<const Term<E>*>(row);
      }
      for (int64_t panel = j; panel < last; ++panel) {
        const E* weights = weights_.panel(phase, run, i, f, panel);
        T* to = products + f * apart + panel * tile_.columns;
        tile_.multiply(&all, 1, begin, rows, weights, to, columns_, run + i == 0);
      }
    }
  }

  Products<T, E> tile_{};
  MinimalFilter<T, E> filter_;
  Weights weights_;
  int64_t channels_ = 0, columns_ = 0, down_ = 1, right_ = 1;
};

}  // namespace fastgan
