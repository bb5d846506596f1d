// The weight's gradient by minimal filtering, the transpose of PointProduct in conv_points.h: for each point a
// product of the transformed tiles of both tensors, summed over blocks of tiles in a fixed order.
#pragma once
#include "cpu/conv_filter.h"
#include "cpu/conv_norm_act.h"
#include "cpu/tasks.h"

namespace fastgan {

template <typename T, typename E, int R>
class PointGradient {
 public:
  PointGradient(const Source<T>& big, const Source<T>& small, const MinimalFilter<T, E>& filter, const Axis& h,
                const Axis& w)
      : big_(big), small_(small), filter_(filter), h_(h), w_(w) {
    const Image& image = small.image;
    across_ = tiles_of(image.width);
    const int64_t down = tiles_of(image.height);
    high_ = std::clamp<int64_t>(kTiles / across_, 1, down);
    bands_ = (down + high_ - 1) / high_;
    together_ = bands_ == 1 ? std::clamp<int64_t>(kTiles / (high_ * across_), 1, image.samples) : 1;
    blocks_ = (image.samples + together_ - 1) / together_ * bands_;
    parts_ = (image.channels + kChannels - 1) / kChannels;
    part_ = whole_tiles((image.channels + parts_ - 1) / parts_);
    parts_ = (image.channels + part_ - 1) / part_;
    panels_ = (big.image.channels + tile_.columns - 1) / tile_.columns;
    row_ = panels_ * tile_.columns;
    columns_ = kPoints * filter.runs() * row_;
    line_ = (across_ + kTermsOf<E> - 1) / kTermsOf<E>;
    width_ = (2 * across_ - 1) * w.step + w.extent;
    splits_ = (kTasks + kPoints * parts_ - 1) / (kPoints * parts_);
    // an even number of tasks, where there are blocks for it
    splits_ = std::clamp<int64_t>(splits_ + kPoints * parts_ * splits_ % 2, 1, blocks_);
  }

  // Writes dw (C_small, C_big, kH, kW) of any strides.
  void run(Tensor& dw) {
    const int64_t size = part_ * columns_, tasks = kPoints * parts_ * splits_;
    T* sums = scratch<T, 9>(tasks * size);
    each_task(tasks, [&](int64_t t) { task(t, sums + t * size); });
    const int64_t channels = small_.image.channels;
    const Image to(dw);
    share_tasks(channels, kThread, [&](int64_t c) { finish(c, sums, to); });
  }

 private:
  static constexpr int kPoints = Minimal<R>::kPoints;
  // Tiles of a block, channels of the small tensor in a task, and tasks wanted.
  static constexpr int64_t kTiles = 64, kChannels = 132, kTasks = 8;

  // Tasks in the order [part][point of a column][split].
  void task(int64_t t, T* sums) const {
    const int64_t split = t % splits_, point = t / splits_ % kPoints, part = t / splits_ / kPoints;
    const int64_t first = blocks_ * split / splits_, last = blocks_ * (split + 1) / splits_;
    for (int64_t b = first; b < last; ++b) block(b, int(point), part * part_, b == first, sums);
  }

  void block(int64_t b, int fh, int64_t c0, bool first, T* sums) const {
    const Image &small = small_.image, &big = big_.image;
    const int64_t n0 = b / bands_ * together_, n1 = std::min(n0 + together_, small.samples);
    const int64_t m0 = b % bands_ * high_, high = std::min(high_, tiles_of(small.height) - m0);
    const int64_t lines = (n1 - n0) * high, depth = lines * line_;
    T* images = scratch<T, 5>(lines * 4 * across_ * small.channels + kSlack);
    small_.load(gemm_, n0, n1, 2 * m0, 2 * high, 1, 0, 2 * across_, images);
    E* a = scratch<E, 1>(kPoints * part_ * depth + kSlack);
    for (int fw = 0; fw < kPoints; ++fw) pack_small(images, fh, fw, lines, c0, a + fw * part_ * depth);

    const int64_t rows = (2 * high - 1) * h_.step + h_.extent;
    T* band = scratch<T, 0>((n1 - n0) * rows * width_ * big.channels + kSlack + tile_.columns);
    big_.load(gemm_, n0, n1, 2 * m0 * h_.step + h_.origin, rows, 1, w_.origin, width_, band);
    E* panel = scratch<E, 2>(depth * tile_.columns + kSlack);
    for (int fw = 0; fw < kPoints; ++fw) {
      int64_t run = 0;
      for (const Run& rh : filter_.h[0]) {
        for (const Run& rw : filter_.w[0]) {
          const T* corner = band + (rh.offset * width_ + rw.offset) * big.channels;
          for (int64_t j = 0; j < panels_; ++j) {
            pack_big(corner + j * tile_.columns, fh, fw, lines, high, rows, panel);
            T* to = sums + (fw * filter_.runs() + run) * row_ + j * tile_.columns;
            for (int64_t r = 0; r < part_; r += kTileRows) {
              tile_.packed(depth, a + fw * part_ * depth + r * depth, panel, tile_.columns, to + r * columns_, columns_,
                           first);
            }
          }
          ++run;
        }
      }
    }
  }

  // A sum of the neighbours (i, j) with factors row[i] column[j].
  template <int N, typename F>
  static Terms<T> terms(F row, F column, int64_t down, int64_t right) {
    Terms<T> result;
    result.count = 0;
    for (int i = 0; i < N; ++i) {
      for (int j = 0; j < N; ++j) {
        if (row(i) == 0 || column(j) == 0) continue;
        result.offset[result.count] = i * down + j * right;
        result.factor[result.count++] = T(row(i) * column(j));
      }
    }
    return result;
  }

  // [row of tiles of the product][operand of tiles][kTileRows] of the channels from c0.
  void pack_small(const T* images, int fh, int fw, int64_t lines, int64_t c0, E* to) const {
    const int64_t c = small_.image.channels, depth = lines * line_;
    const auto factor = [](int f) { return [f](int i) { return Minimal<R>::kOutput[i][f]; }; };
    const Terms<T> sum = terms<2>(factor(fh), factor(fw), 2 * across_ * c, c);
    for (int64_t r = 0; r < part_; r += kTileRows) {
      // channels that are not there belong to rows that nobody reads
      const T* from = images + std::min(c0 + r, c - 1);
      for (int64_t line = 0; line < lines; ++line) {
        tile_.combine_rows(across_, from + line * 4 * across_ * c, 2 * c, sum,
                           to + r * depth + line * line_ * kTileRows);
      }
    }
  }

  // [operand of tiles][columns] of a run.
  void pack_big(const T* from, int fh, int fw, int64_t lines, int64_t high, int64_t rows, E* to) const {
    const int64_t c = big_.image.channels, down = h_.step * width_ * c, right = w_.step * c;
    const auto factor = [](int f) { return [f](int i) { return Minimal<R>::kInput[f][i]; }; };
    const Terms<T> sum = terms<kPoints>(factor(fh), factor(fw), down, right);
    for (int64_t line = 0; line < lines; ++line) {
      const T* corner = from + line / high * rows * width_ * c + line % high * 2 * down;
      tile_.combine_columns(across_, corner, 2 * right, sum, to + line * line_ * tile_.columns);
    }
  }

  // The taps of one small channel from its points.
  void finish(int64_t c, T* sums, const Image& to) const {
    const int64_t size = part_ * columns_, part = c / part_, runs = filter_.runs();
    T* total = sums + part * kPoints * splits_ * size + c % part_ * columns_;
    for (int64_t fh = 0; fh < kPoints; ++fh) {
      T* whole = total + fh * splits_ * size;
      for (int64_t s = 1; s < splits_; ++s) {
        for (int64_t i = 0; i < columns_; ++i) whole[i] += whole[s * size + i];
      }
    }
    T* tap = scratch<T, 6>(row_);
    int64_t run = 0;
    for (const Run& rh : filter_.h[0]) {
      for (const Run& rw : filter_.w[0]) {
        for (int i = 0; i < R; ++i) {
          for (int j = 0; j < R; ++j) {
            std::fill_n(tap, row_, T(0));
            for (int64_t fh = 0; fh < kPoints; ++fh) {
              for (int64_t fw = 0; fw < kPoints; ++fw) {
                const T factor = T(Minimal<R>::kFilter[fh][i] * Minimal<R>::kFilter[fw][j]);
                const T* point = total + fh * splits_ * size + (fw * runs + run) * row_;
                if (factor == T(0)) continue;
                for (int64_t n = 0; n < row_; ++n) tap[n] += factor * point[n];
              }
            }
            const int64_t kh = rh.kernel[size_t(i)], kw = rw.kernel[size_t(j)];
            gemm_.store(to.storage, tap, row_, to.at(c, kh, kw), to.pixels(1));
          }
        }
        ++run;
      }
    }
  }

  const Gemm<T> gemm_ = gemm<T>();
  const Products<T, E> tile_ = products<T, E>();
  const Source<T>&big_, &small_;
  const MinimalFilter<T, E>& filter_;
  const Axis &h_, &w_;
  // tiles across, operands of these, and tiles down in a band; samples of a block
  int64_t across_, line_, high_, bands_, together_, blocks_, parts_, part_, splits_;
  int64_t panels_, row_, columns_, width_;
};

}  // namespace fastgan
