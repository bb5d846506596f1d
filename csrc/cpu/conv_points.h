// The product of minimal filtering: a matrix product for each point of the tiles, a few runs, channels and panels at a
// time, so that what is transformed and what is summed stays in the second-level cache.
#pragma once
#include <ATen/Parallel.h>

#include "cpu/conv_filter.h"
#include "cpu/conv_weights.h"

namespace fastgan {

// The weight in the order in which the product reads it: [phase][block of panels][run][block of channels][point][panel]
// [channel][columns of a tile].
template <typename T>
class PointWeights {
 public:
  // Panels and channels of a block.
  static constexpr int64_t kPanels = 8, kChannels = 64;

  PointWeights() = default;
  // weight (C_small, C_big, kH, kW), dense; the input has the big channels in a gather, the small ones in a scatter.
  PointWeights(const at::Tensor& weight, T scale, const MinimalFilter<T>& filter, bool scatter, int64_t columns)
      : columns_(columns),
        in_(weight.size(scatter ? 0 : 1)),
        points_(filter.points * filter.points),
        depth_(filter.runs() * in_),
        panels_((weight.size(scatter ? 1 : 0) + columns - 1) / columns) {
    memory_ = scratch<T, 7>(int64_t(filter.h.size() * filter.w.size()) * phase_size());
    const WeightBlocks<T> blocks(weight, scatter, columns_);
    const int64_t kw = weight.size(3), taps = weight.size(2) * kw;
    at::parallel_for(0, panels_, blocks.grain(), [&](int64_t first, int64_t last) {
      T* block = scratch<T, 8>(blocks.size());
      for (int64_t j = first; j < last; ++j) {
        for (int64_t c = 0; c < in_; c += blocks.kChannels) {
          const int64_t channels = blocks.read(j, c, block);
          for (int64_t i = 0; i < channels; ++i) {
            transform(block + i * taps * columns_, kw, scale, filter, j, c + i);
          }
        }
      }
    });
  }

  int64_t panels() const { return panels_; }
  // Channels [c0, c0 + kChannels) of a run at point f, for panel j.
  const T* panel(int64_t phase, int64_t run, int64_t c0, int64_t f, int64_t j) const {
    return memory_ + place(phase, run, c0, j) + f * point_size(c0, j);
  }

 private:
  // Channel c of panel j, [tap][columns], to its places.
  void transform(const T* channel, int64_t kernel_width, T scale, const MinimalFilter<T>& filter, int64_t j,
                 int64_t c) const {
    const int64_t c0 = c / kChannels * kChannels;
    int64_t p = 0;
    filter.each_phase([&](const auto& h, const auto& w) {
      int64_t run = 0;
      for (const Run& rh : h) {
        for (const Run& rw : w) {
          T* to = memory_ + place(p, run++, c0, j) + (c - c0) * columns_;
          filter.transform(channel, columns_, kernel_width, rh, rw, scale, to, point_size(c0, j));
        }
      }
      ++p;
    });
  }

  int64_t phase_size() const { return points_ * depth_ * panels_ * columns_; }
  int64_t block_of(int64_t j) const { return j / kPanels * kPanels; }
  int64_t width(int64_t j) const { return std::min(kPanels, panels_ - block_of(j)) * columns_; }
  int64_t channels(int64_t c0) const { return std::min(kChannels, in_ - c0); }
  int64_t point_size(int64_t c0, int64_t j) const { return width(j) * channels(c0); }
  int64_t place(int64_t phase, int64_t run, int64_t c0, int64_t j) const {
    return phase * phase_size() + block_of(j) * columns_ * points_ * depth_ + width(j) * points_ * (run * in_ + c0) +
           (j - block_of(j)) * columns_ * channels(c0);
  }

  int64_t columns_ = 0, in_ = 0, points_ = 0, depth_ = 0, panels_ = 0;
  // lives as long as nobody packs another weight in this thread
  T* memory_ = nullptr;
};

template <typename T>
class PointProduct {
 public:
  PointProduct() = default;
  PointProduct(const Gemm<T>& gemm, const MinimalFilter<T>& filter, const Axis& h, const Axis& w,
               const at::Tensor& weight, T scale, bool scatter)
      : gemm_(gemm),
        filter_(filter),
        weights_(weight, scale, filter, scatter, gemm.columns),
        channels_(weight.size(scatter ? 0 : 1)),
        columns_(weights_.panels() * gemm.columns),
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
    const int64_t rows = whole_tiles(tiles), apart = rows * columns_ + kApart;
    T* products = scratch<T, 11>(points * apart);
    for (int64_t j = 0; j < weights_.panels(); j += Weights::kPanels) {
      int64_t run = 0;
      for (const Run& rh : filter_.h[size_t(phase) / filter_.w.size()]) {
        for (const Run& rw : filter_.w[size_t(phase) % filter_.w.size()]) {
          for (int64_t c = 0; c < channels_; c += Weights::kChannels) {
            const T* corner = b.pixels + (rh.offset * b.width + rw.offset) * channels_ + c;
            multiply(phase, run, c, j, load(b, corner, c, rows), tiles, products, apart);
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
  using Weights = PointWeights<T>;
  // Between points: what is written together must not fall on the same lines of the cache.
  static constexpr int64_t kApart = 16;

  static int64_t tiles_in(const Band& b) { return b.samples * tiles_of(b.high) * tiles_of(b.wide); }
  int64_t depth(int64_t c) const { return std::min(Weights::kChannels, channels_ - c); }

  template <typename F>
  static void each_tile(const Band& b, F f) {
    int64_t t = 0;
    for (int64_t n = 0; n < b.samples; ++n) {
      for (int64_t m = 0; m < b.high; m += 2) {
        for (int64_t w = 0; w < b.wide; w += 2) f(t++, n, m, w);
      }
    }
  }

  // [point][tile][channel]
  const T* load(const Band& b, const T* corner, int64_t c, int64_t rows) const {
    const int64_t n = depth(c), apart = rows * n + kApart, row = b.width * channels_;
    T* input = scratch<T, 10>(filter_.points * filter_.points * apart);
    each_tile(b, [&](int64_t t, int64_t sample, int64_t m, int64_t w) {
      const T* from = corner + (sample * b.rows + m * down_) * row + w * right_ * channels_;
      filter_.loops.input(n, from, down_ * row, right_ * channels_, input + t * n, apart);
    });
    return input;
  }

  // Adds what channels from c on give to the panels of the block of j.
  void multiply(int64_t phase, int64_t run, int64_t c, int64_t j, const T* input, int64_t tiles, T* products,
                int64_t apart) const {
    const int64_t n = depth(c), last = std::min(j + Weights::kPanels, weights_.panels());
    const int64_t rows = whole_tiles(tiles);
    const T** begin = scratch<const T*, 1>(rows);
    const Stretch all{0, 0, n};
    for (int64_t f = 0; f < filter_.points * filter_.points; ++f) {
      for (int64_t i = 0; i < rows; ++i) begin[i] = input + f * (rows * n + kApart) + std::min(i, tiles - 1) * n;
      for (int64_t panel = j; panel < last; ++panel) {
        const T* weights = weights_.panel(phase, run, c, f, panel);
        T* to = products + f * apart + panel * gemm_.columns;
        for (int64_t r = 0; r < rows; r += kTileRows) {
          gemm_.rows(&all, 1, begin + r, weights, to + r * columns_, columns_, run + c == 0);
        }
      }
    }
  }

  Gemm<T> gemm_{};
  MinimalFilter<T> filter_;
  Weights weights_;
  int64_t channels_ = 0, columns_ = 0, down_ = 1, right_ = 1;
};

}  // namespace fastgan
