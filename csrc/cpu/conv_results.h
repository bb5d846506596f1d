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

// Rows of `columns` results for the channels of y; what is behind these nobody reads.
template <typename T>
class Results {
 public:
  Results(const Image& y, int64_t columns, const std::optional<at::Tensor>& bias, Activation activation, double slope)
      : out_(y), columns_(columns) {
    if (!bias.has_value() && activation == Activation::identity) return;
    finish_ = PixelLoop<T>(Pass::forward, activation, slope, columns_);
    std::vector<T> shift = to_vector<T>(bias, out_.channels, T(0)), zeros(columns_, T(0)), ones(columns_, T(1));
    shift.resize(columns_, T(0));
    finish_.set(zeros, ones, shift);
  }

  int64_t columns() const { return columns_; }

  // Rows [first, last) of a region, which are changed.
  void write(const Region& region, T* rows, int64_t first, int64_t last) const {
    if (finish_) finish_((last - first) * columns_, rows, nullptr, rows);
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
      for (int64_t c = 0; c < out_.channels; ++c) {
        moments[c].merge(double(s.rows), double(mean[c]), double(squares[c]));
      }
    }
  }

 private:
  // Values that are summed up in float32 for statistics.
  static constexpr int64_t kSummed = 264;

  void store(const Region& region, const T* rows, int64_t first, int64_t last) const {
    const auto& [n0, h, w] = region;
    // where channels are outermost, 16 streams at a time
    const int64_t block = out_.strides[1] == 1 ? out_.channels : 16;
    for (int64_t c = 0; c < out_.channels; c += block) {
      for (int64_t r = first, n; r < last; r += n) {
        const int64_t line = r / w.count, x = r % w.count;
        n = std::min(last - r, w.count - x);
        Pixels pixels = out_.pixels(n, w.step);
        pixels.channels = std::min(block, out_.channels - c);
        char* to = out_.at(n0 + line / h.count, h.first + line % h.count * h.step, w.first + x * w.step);
        gemm_.store(out_.storage, rows + (r - first) * columns_ + c, columns_, to + c * out_.strides[1] * out_.item,
                    pixels);
      }
    }
  }

  const Gemm<T> gemm_ = gemm<T>();
  Image out_;
  int64_t columns_;
  PixelLoop<T> finish_;
};

}  // namespace fastgan
