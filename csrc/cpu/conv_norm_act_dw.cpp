// The weight's gradient on the CPU: for each row of the kernel a product of the small tensor's channels and the shifted
// pixels of the big one, summed over blocks of pixels in a fixed order; or by minimal filtering, conv_point_gradient.h.
#include "cpu/conv_norm_act.h"
#include "cpu/conv_point_gradient.h"
#include "cpu/tasks.h"

namespace fastgan {
namespace {

// Pixels of a block, channels of the small tensor in a task, pixels that a task should have at least, and tasks wanted.
constexpr int64_t kPixels = 256, kChannels = 264, kLeastPixels = 2048, kTasks = 8;
// Columns of a row of the kernel from which on each row is a task: below, loading the small tensor would cost too much.
constexpr int64_t kColumns = 128;

template <typename T>
class WeightGradient {
 public:
  WeightGradient(const Source<T>& big, const Source<T>& small, int64_t kh, int64_t kw, const Sizes& sizes)
      : big_(big), small_(small), kw_(kw), sizes_(sizes) {
    const int64_t channels = small.image.channels, positions = small.image.height, across = small.image.width;
    parts_ = (channels + kChannels - 1) / kChannels;
    part_ = whole_tiles((channels + parts_ - 1) / parts_);
    parts_ = (channels + part_ - 1) / part_;
    high_ = std::clamp<int64_t>(kPixels / across, 1, positions);
    bands_ = (positions + high_ - 1) / high_;
    together_ = bands_ == 1 ? std::clamp<int64_t>(kPixels / (high_ * across), 1, small.image.samples) : 1;
    blocks_ = (small.image.samples + together_ - 1) / together_ * bands_;
    // neighbouring taps of a row are neighbouring pixels of the image
    stretches_ = sizes.dilation[1] == 1 ? 1 : kw;
    const int64_t length = (sizes.dilation[1] == 1 ? kw : 1) * big.image.channels;
    panels_ = (length + gemm_.columns - 1) / gemm_.columns;
    together_rows_ = kw * big.image.channels < kColumns ? kh : 1;
    rows_ = kh / together_rows_;
    row_columns_ = stretches_ * panels_ * gemm_.columns;
    columns_ = together_rows_ * row_columns_;
    width_ = (across - 1) * sizes.stride[1] + (kw - 1) * sizes.dilation[1] + 1;
    const int64_t pixels = small.image.samples * positions * across;
    splits_ = std::min((kTasks + rows_ * parts_ - 1) / (rows_ * parts_), std::max<int64_t>(1, pixels / kLeastPixels));
    splits_ = std::clamp<int64_t>(splits_, 1, blocks_);
  }

  // Writes dw (C_small, C_big, kH, kW) of any strides.
  void run(Tensor& dw) {
    const int64_t size = part_ * columns_, tasks = rows_ * parts_ * splits_;
    T* sums = scratch<T, 9>(tasks * size);
    each_task(tasks, [&](int64_t t) { task(t, sums + t * size); });
    const Image to(dw);
    const int64_t channels = small_.image.channels, big = big_.image.channels;
    at::parallel_for(0, rows_ * parts_, 1, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        T* whole = sums + t * splits_ * size;
        for (int64_t s = 1; s < splits_; ++s) {
          const T* more = whole + s * size;
          for (int64_t i = 0; i < size; ++i) whole[i] += more[i];
        }
        const int64_t c0 = t % parts_ * part_, c1 = std::min(c0 + part_, channels);
        for (int64_t c = c0; c < c1; ++c) {
          for (int64_t r = 0; r < together_rows_ * kw_; ++r) {
            const int64_t kh = t / parts_ * together_rows_ + r / kw_, kw = r % kw_;
            const int64_t column = r / kw_ * row_columns_ + kw * (stretches_ == 1 ? big : panels_ * gemm_.columns);
            // one tap for all big channels
            gemm_.store(to.storage, whole + (c - c0) * columns_ + column, columns_, to.at(c, kh, kw), to.pixels(1));
          }
        }
      }
    });
  }

 private:
  void task(int64_t t, T* sums) const {
    const int64_t split = t % splits_, row = t / splits_ / parts_, part = t / splits_ % parts_;
    bool first = true;
    for (int64_t b = blocks_ * split / splits_; b < blocks_ * (split + 1) / splits_; ++b) {
      block(b, row * together_rows_, part * part_, first, sums);
      first = false;
    }
    if (first) std::fill_n(sums, part_ * columns_, T(0));
  }

  void block(int64_t b, int64_t kh0, int64_t c0, bool first, T* sums) const {
    const Image &small = small_.image, &big = big_.image;
    const int64_t n0 = b / bands_ * together_, n1 = std::min(n0 + together_, small.samples);
    const int64_t m0 = b % bands_ * high_, high = std::min(high_, small.height - m0);
    const int64_t rows = (n1 - n0) * high, pixels = rows * small.width;
    const T* a = pack_small(n0, n1, m0, high, c0, pixels);
    T* band = scratch<T, 0>(rows * width_ * big.channels + gemm_.columns);
    const int64_t step = sizes_.stride[0], from = m0 * step - sizes_.padding[0];
    T* b_panel = scratch<T, 2>(pixels * gemm_.columns);
    for (int64_t row = 0; row < together_rows_; ++row) {
      const int64_t h = from + (kh0 + row) * sizes_.dilation[0];
      big_.load(gemm_, n0, n1, h, high, step, -sizes_.padding[1], width_, band);
      for (int64_t s = 0; s < stretches_; ++s) {
        for (int64_t j = 0; j < panels_; ++j) {
          pack_big(band + s * sizes_.dilation[1] * big.channels + j * gemm_.columns, rows, b_panel);
          T* to = sums + row * row_columns_ + (s * panels_ + j) * gemm_.columns;
          for (int64_t r = 0; r < part_; r += kTileRows) {
            gemm_.packed(pixels, a + r * pixels, b_panel, to + r * columns_, columns_, first);
          }
        }
      }
    }
  }

  // [tile][pixel][kTileRows] of the channels from c0.
  const T* pack_small(int64_t n0, int64_t n1, int64_t m0, int64_t high, int64_t c0, int64_t pixels) const {
    const Image& small = small_.image;
    T* rows = scratch<T, 5>(pixels * small.channels + kSlack);
    small_.load(gemm_, n0, n1, m0, high, 1, 0, small.width, rows);
    T* a = scratch<T, 1>(pixels * part_ + kSlack);
    for (int64_t r = 0; r < part_; r += kTileRows) {
      // channels that are not there belong to rows that nobody reads
      const T* from = rows + std::min(c0 + r, small.channels - 1);
      gemm_.combine_rows(pixels, from, small.channels, {}, a + r * pixels);
    }
    return a;
  }

  // [pixel][columns] of the loaded rows from where position 0 reads.
  void pack_big(const T* from, int64_t rows, T* to) const {
    const int64_t across = small_.image.width, stride = sizes_.stride[1] * big_.image.channels;
    for (int64_t r = 0; r < rows; ++r, from += width_ * big_.image.channels) {
      gemm_.combine_columns(across, from, stride, {}, to);
      to += across * gemm_.columns;
    }
  }

  const Gemm<T> gemm_ = gemm<T>();
  const Source<T>&big_, &small_;
  int64_t kw_;
  Sizes sizes_;
  int64_t parts_, part_, high_, bands_, together_, blocks_, splits_;
  // rows of the kernel in a task, and tasks for all of them; columns of a row and of a task
  int64_t together_rows_, rows_;
  int64_t stretches_, panels_, row_columns_, columns_, width_;
};

template <typename T, typename E>
void weight_gradient(const Source<T>& big, const Source<T>& small, const Sizes& s, Tensor& dw) {
  const int64_t kh = dw.size(2), kw = dw.size(3);
  auto axis = [&](size_t d, int64_t in, int64_t out, int64_t kernel) {
    return make_axis(in, out, kernel, s.stride[d], s.padding[d], s.dilation[d], false);
  };
  const Axis h = axis(0, big.image.height, small.image.height, kh), w = axis(1, big.image.width, small.image.width, kw);
  const MinimalFilter<T, E> filter =
      minimal_filter(products<T, E>(), h, w, std::min(dw.size(0), dw.size(1)), small.image.samples);
  if (filter.taps == 2) {
    PointGradient<T, E, 2>(big, small, filter, h, w).run(dw);
  } else if (filter.taps == 3) {
    PointGradient<T, E, 3>(big, small, filter, h, w).run(dw);
  } else {
    WeightGradient<T>(big, small, kh, kw, s).run(dw);
  }
}

}  // namespace

void conv_norm_act_dw_cpu(const Tensor& x, const Norm& norm, const Tensor& dy, const Mask& mask, Tensor dw,
                          const ConvSizes& sizes) {
  // sums are over pixels, of which minimal filtering adds zeros where one is missing
  with_operands(dw, 0, [&](auto zero, auto operand) {
    using T = decltype(zero);
    const Source<T> source = make_source<T>(x, norm, {}), gradient = make_source<T>(dy, {}, mask);
    const Sizes s(sizes);
    in_large_pages(dw.mutable_data_ptr(), dw.nbytes());
    weight_gradient<T, decltype(operand)>(s.transposed ? gradient : source, s.transposed ? source : gradient, s, dw);
  });
}

}  // namespace fastgan
