// What becomes of a convolution's results: bias, activation, statistics, and where they belong.
#pragma once
#include "cpu/conv_source.h"
#include "cpu/norm_act.h"

namespace fastgan {

// Places in one dimension of y.
struct Places {
  int64_t first, step, count;
};

// Samples from n0 on, and the places in them that rows of results belong to, neighbours in width first.
struct Region {
  int64_t n0;
  Places h, w;
};

// Pixels of y in each dimension that one place stands for.
struct Shuffle {
  int64_t h = 1, w = 1;

  // y with these pixels as channels; its strides are still those of y.
  Image before(Image y) const {
    y.channels *= h * w;
    y.height /= h;
    y.width /= w;
    return y;
  }
};

// Rows of `columns` results: for each pixel of a place the channels of y; what is behind these nobody reads.
template <typename T>
class Results {
 public:
  Results(const Image& y, const Shuffle& shuffle, int64_t columns, const std::optional<at::Tensor>& bias,
          Activation activation, double slope)
      : out_(y), shuffle_(shuffle), columns_(columns) {
    divide();
    if (!bias.has_value() && activation == Activation::identity) return;
    finish_ = PixelLoop<T>(Pass::forward, activation, slope, columns_);
    const std::vector<T> of_channels = to_vector<T>(bias, out_.channels, T(0));
    std::vector<T> shift(columns_, T(0)), zeros(columns_, T(0)), ones(columns_, T(1));
    for (int64_t c = 0; c < used(); ++c) shift[c] = of_channels[c % out_.channels];
    finish_.set(zeros, ones, shift);
  }

  int64_t columns() const { return columns_; }
  // Those of y, for which there are statistics.
  int64_t channels() const { return out_.channels; }

  // Where the first `count` rows of a region lie in y as they are computed, null if they do not.
  T* place(const Region& region, int64_t count) const {
    const auto& [n0, h, w] = region;
    const int64_t *strides = out_.strides, line = w.count * columns_;
    const bool pixels = out_.storage == Storage::exact && strides[1] == 1 && columns_ == out_.channels;
    const bool lines = w.step == 1 && strides[3] == columns_ && h.step == 1 && strides[2] == line;
    const bool samples = count <= h.count * w.count || strides[0] == h.count * line;
    return pixels && lines && samples ? reinterpret_cast<T*>(out_.at(n0, h.first, w.first)) : nullptr;
  }

  // Bias and activation of rows.
  void finish(T* rows, int64_t count) const {
    if (finish_) finish_(count * columns_, rows, nullptr, rows);
  }

  // Rows [first, last) of a region, which are changed.
  void write(const Region& region, T* rows, int64_t first, int64_t last) const {
    finish(rows, last - first);
    store(region, rows, first, last);
  }

  // Adds the statistics of what was written, which is changed, in two passes over pixels that are in the cache, as few
  // at a time as keep sums exact.
  void statistics(T* rows, int64_t count, Moments* moments) const {
    gemm_.round(out_.storage, rows, count * columns_);
    T *sum = scratch<T, 4>(3 * columns_), *mean = sum + columns_, *squares = mean + columns_;
    for (int64_t done = 0; done < count; done += kSummed) {
      std::fill_n(sum, 3 * columns_, T(0));
      Span<T> s{};
      s.rows = std::min(kSummed, count - done), s.width = s.stride = columns_;
      s.x = rows + done * columns_, s.mean = sum, s.acc[0] = mean;
      loop<T>({Pass::sum, Activation::identity, Storage::exact, true, false})(s);
      for (int64_t c = 0; c < columns_; ++c) mean[c] /= T(s.rows);
      s.mean = mean, s.acc[0] = squares;
      loop<T>({Pass::squares, Activation::identity, Storage::exact, true, false})(s);
      for (int64_t c = 0; c < used(); ++c) {
        moments[c % out_.channels].merge(double(s.rows), double(mean[c]), double(squares[c]));
      }
    }
  }

 private:
  // Values that are summed up in float32 for statistics.
  static constexpr int64_t kSummed = 264;

  // Neighbouring columns, and where they belong in a pixel of y and among the pixels of a place.
  struct Part {
    int64_t column, count, channel, h, w;
  };

  // Columns that are used.
  int64_t used() const { return shuffle_.h * shuffle_.w * out_.channels; }

  void divide() {
    // pixels of a row that lie side by side are one; where channels are outermost, 16 streams at a time
    const bool innermost = out_.strides[1] == 1, joined = innermost && out_.strides[3] == out_.channels;
    const int64_t across = joined ? shuffle_.w : 1, block = innermost ? across * out_.channels : 16;
    for (int64_t column = 0; column < used();) {
      const int64_t pixel = column / out_.channels, channel = column % out_.channels;
      const int64_t count = std::min(block, across * out_.channels - channel);
      parts_.push_back({column, count, channel, pixel / shuffle_.w, pixel % shuffle_.w});
      column += count;
    }
  }

  void store(const Region& region, const T* rows, int64_t first, int64_t last) const {
    const auto& [n0, h, w] = region;
    for (const Part& p : parts_) {
      for (int64_t r = first, n; r < last; r += n) {
        const int64_t line = r / w.count, x = r % w.count;
        n = std::min(last - r, w.count - x);
        Pixels pixels = out_.pixels(n, w.step * shuffle_.w);
        pixels.channels = p.count;
        char* to = out_.at(n0 + line / h.count, (h.first + line % h.count * h.step) * shuffle_.h + p.h,
                           (w.first + x * w.step) * shuffle_.w + p.w);
        gemm_.store(out_.storage, rows + (r - first) * columns_ + p.column, columns_,
                    to + p.channel * out_.strides[1] * out_.item, pixels);
      }
    }
  }

  const Gemm<T> gemm_ = gemm<T>();
  Image out_;
  Shuffle shuffle_;
  int64_t columns_;
  std::vector<Part> parts_;
  PixelLoop<T> finish_;
};

}  // namespace fastgan
