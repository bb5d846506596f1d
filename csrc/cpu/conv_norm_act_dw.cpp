// The weight's gradient on the CPU: for each row of the kernel, or for all of a thin one, a product of the small
// tensor's channels and the shifted pixels of the big one, summed over blocks of pixels in a fixed order; or by minimal
// filtering, conv_point_gradient.h, or in tiles, conv_tile_gradient.h.
#include "cpu/conv_norm_act.h"
#include "cpu/conv_point_gradient.h"
#include "cpu/conv_tile_gradient.h"
#include "cpu/tasks.h"

namespace fastgan {
namespace {

// Pixels of a block, channels of the small tensor in a task, pixels that a task should have at least, and tasks wanted.
constexpr int64_t kPixels = 256, kChannels = 264, kLeastPixels = 2048, kTasks = 8;
// Columns of a row of the kernel from which on each row is a task: below, loading the small tensor would cost too much.
constexpr int64_t kColumns = 128;
// Big channels whose taps are stored together, and values of the gradient that are worth a thread.
constexpr int64_t kBlock = 64, kStored = 32768;

template <typename T, typename E>
class WeightGradient {
 public:
  WeightGradient(const Source<T>& big, const Source<T>& small, int64_t kh, int64_t kw, const Sizes& sizes)
      : big_(big), small_(small), kh_(kh), kw_(kw), sizes_(sizes) {
    const int64_t channels = small.image.channels, positions = small.image.height, across = small.image.width;
    parts_ = (channels + kChannels - 1) / kChannels;
    part_ = whole_tiles((channels + parts_ - 1) / parts_);
    parts_ = (channels + part_ - 1) / part_;
    high_ = std::clamp<int64_t>(kPixels / across, 1, positions);
    bands_ = (positions + high_ - 1) / high_;
    samples_ = bands_ == 1 ? std::clamp<int64_t>(kPixels / (high_ * across), 1, small.image.samples) : 1;
    blocks_ = (small.image.samples + samples_ - 1) / samples_ * bands_;
    line_ = (across + kTermsOf<E> - 1) / kTermsOf<E>;
    // neighbouring taps of a row are neighbouring pixels of the image
    stretches_ = sizes.dilation[1] == 1 ? 1 : kw;
    together_ = stretches_ == 1 && kw * big.image.channels < kColumns;
    length_ = (stretches_ == 1 ? kw : 1) * big.image.channels;
    panels_ = (length_ * (together_ ? kh : 1) + tile_.columns - 1) / tile_.columns;
    rows_ = together_ ? 1 : kh;
    columns_ = stretches_ * panels_ * tile_.columns;
    width_ = (across - 1) * sizes.stride[1] + (kw - 1) * sizes.dilation[1] + 1;
    const int64_t pixels = small.image.samples * positions * across;
    splits_ = std::min((kTasks + rows_ * parts_ - 1) / (rows_ * parts_), std::max<int64_t>(1, pixels / kLeastPixels));
    splits_ = std::clamp<int64_t>(splits_, 1, blocks_);
  }

  // Writes dw (C_small, C_big, kH, kW), dense.
  void run(Tensor& dw) {
    const int64_t size = part_ * columns_, tasks = rows_ * parts_ * splits_;
    T* sums = scratch<T, 9>(tasks * size);
    each_task(tasks, [&](int64_t t) { task(t, sums + t * size); });
    const Image to(dw);
    share_tasks(to.samples, to.channels * kh_ * kw_, [&](int64_t c) { store(c, sums, to); }, kStored);
  }

 private:
  void task(int64_t t, T* sums) const {
    const int64_t split = t % splits_, row = t / splits_ / parts_, part = t / splits_ % parts_;
    bool first = true;
    for (int64_t b = blocks_ * split / splits_; b < blocks_ * (split + 1) / splits_; ++b) {
      block(b, row, part * part_, first, sums);
      first = false;
    }
    if (first) std::fill_n(sums, part_ * columns_, T(0));
  }

  // Samples [n0, n1) and rows [m0, m0 + high) of the small tensor.
  struct Block {
    int64_t n0, n1, m0, high;
    int64_t lines() const { return (n1 - n0) * high; }
  };

  void block(int64_t number, int64_t kh, int64_t c0, bool first, T* sums) const {
    const int64_t n0 = number / bands_ * samples_, m0 = number % bands_ * high_;
    const Block b{n0, std::min(n0 + samples_, small_.image.samples), m0, std::min(high_, small_.image.height - m0)};
    const int64_t depth = b.lines() * line_;
    const E* a = pack_small(b, c0, depth);
    const int64_t rows = together_ ? (b.high - 1) * sizes_.stride[0] + (kh_ - 1) * sizes_.dilation[0] + 1 : b.high;
    const int64_t values = (b.n1 - b.n0) * rows * width_ * big_.image.channels;
    T* band = scratch<T, 0>(values + tile_.columns + kSlack);
    const int64_t h = b.m0 * sizes_.stride[0] - sizes_.padding[0] + kh * sizes_.dilation[0];
    big_.load(gemm_, b.n0, b.n1, h, rows, together_ ? 1 : sizes_.stride[0], -sizes_.padding[1], width_, band);
    if (together_) {
      E* columns = scratch<E, 2>(depth * columns_ + kSlack);
      unfold(band, b, rows, columns);
      for (int64_t j = 0; j < columns_; j += tile_.columns) multiply(a, columns + j, columns_, depth, first, sums + j);
      return;
    }
    E* panel = scratch<E, 2>(depth * tile_.columns + kSlack);
    for (int64_t s = 0; s < stretches_; ++s) {
      for (int64_t j = 0; j < panels_; ++j) {
        pack_big(band + s * sizes_.dilation[1] * big_.image.channels + j * tile_.columns, b.lines(), panel);
        multiply(a, panel, tile_.columns, depth, first, sums + (s * panels_ + j) * tile_.columns);
      }
    }
  }

  // Adds the products of all channels of a part with the columns of a tile.
  void multiply(const E* a, const E* b, int64_t apart, int64_t depth, bool first, T* sums) const {
    for (int64_t r = 0; r < part_; r += kTileRows) {
      tile_.packed(depth, a + r * depth, b, apart, sums + r * columns_, columns_, first);
    }
  }

  // [tile][operand of pixels][kTileRows] of the channels from c0.
  const E* pack_small(const Block& b, int64_t c0, int64_t depth) const {
    const Image& small = small_.image;
    T* rows = scratch<T, 5>(b.lines() * small.width * small.channels + kSlack);
    small_.load(gemm_, b.n0, b.n1, b.m0, b.high, 1, 0, small.width, rows);
    E* a = scratch<E, 1>(depth * part_ + kSlack);
    for (int64_t r = 0; r < part_; r += kTileRows) {
      // channels that are not there belong to rows that nobody reads
      const T* from = rows + std::min(c0 + r, small.channels - 1);
      for (int64_t line = 0; line < b.lines(); ++line, from += small.width * small.channels) {
        tile_.combine_rows(small.width, from, small.channels, {}, a + (r * depth + line * line_ * kTileRows));
      }
    }
    return a;
  }

  // [operand of pixels][columns] of the loaded rows from where position 0 reads.
  void pack_big(const T* from, int64_t lines, E* to) const {
    const int64_t stride = sizes_.stride[1] * big_.image.channels;
    for (int64_t line = 0; line < lines; ++line, from += width_ * big_.image.channels) {
      tile_.combine_columns(small_.image.width, from, stride, {}, to + line * line_ * tile_.columns);
    }
  }

  // The same with columns for all taps; columns that are not there nobody reads from the result.
  void unfold(const T* band, const Block& b, int64_t rows, E* to) const {
    const int64_t row = width_ * big_.image.channels, step = sizes_.stride[1] * big_.image.channels;
    for (int64_t line = 0; line < b.lines(); ++line, to += line_ * columns_) {
      const T* from = band + (line / b.high * rows + line % b.high * sizes_.stride[0]) * row;
      tile_.unfold(small_.image.width, from, step, kh_, sizes_.dilation[0] * row, length_, to, columns_);
    }
  }

  // The sums of all splits for one small channel, to all its taps: a few big channels at a time.
  void store(int64_t c, const T* sums, const Image& to) const {
    const int64_t size = part_ * columns_, part = c / part_, taps = kh_ * kw_;
    T* block = scratch<T, 6>(taps * kBlock);
    for (int64_t b = 0; b < to.channels; b += kBlock) {
      const int64_t count = std::min(kBlock, to.channels - b);
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t row = together_ ? 0 : tap / kw_, of_row = together_ ? tap : tap % kw_;
        const T* from = sums + (row * parts_ + part) * splits_ * size + (c - part * part_) * columns_ + b +
                        of_row * (stretches_ == 1 ? to.channels : panels_ * tile_.columns);
        T* line = block + tap * kBlock;
        std::copy_n(from, count, line);
        for (int64_t s = 1; s < splits_; ++s) {
          for (int64_t i = 0; i < count; ++i) line[i] += from[s * size + i];
        }
      }
      char* at = to.at(c, 0, 0) + b * to.strides[1] * to.item;
      gemm_.store(to.storage, block, kBlock, at, {taps, count, to.strides[3], to.strides[1]});
    }
  }

  const Gemm<T> gemm_ = gemm<T>();
  const Products<T, E> tile_ = products<T, E>();
  const Source<T>&big_, &small_;
  int64_t kh_, kw_;
  Sizes sizes_;
  // parts of the channels, and channels of one; rows of a band, and bands; samples of a block, blocks, and what these
  // are split into; operands of a row of pixels
  int64_t parts_, part_, high_, bands_, samples_, blocks_, splits_, line_;
  // whether a task has all rows of the kernel, and tasks for all of them
  bool together_;
  int64_t rows_;
  // stretches of taps in a row of the kernel, values and panels of one, columns of a task; pixels of a loaded row
  int64_t stretches_, length_, panels_, columns_, width_;
};

template <typename T, typename E>
void weight_gradient(const Source<T>& big, const Source<T>& small, const Sizes& s, Tensor& dw) {
  const int64_t kh = dw.size(2), kw = dw.size(3);
  if constexpr (std::is_same_v<E, Pair>) {
    if (tiles() != nullptr) return TileGradient(big, small, kh, kw, s).run(dw);
  }
  const Axis h = axis_of(s, 0, big.image.height, small.image.height, kh, false);
  const Axis w = axis_of(s, 1, big.image.width, small.image.width, kw, false);
  const MinimalFilter<T, E> filter =
      minimal_filter(products<T, E>(), h, w, std::min(dw.size(0), dw.size(1)), small.image.samples);
  if (filter.taps == 2) {
    PointGradient<T, E, 2>(big, small, filter, h, w).run(dw);
  } else if (filter.taps == 3) {
    PointGradient<T, E, 3>(big, small, filter, h, w).run(dw);
  } else {
    WeightGradient<T, E>(big, small, kh, kw, s).run(dw);
  }
}

}  // namespace

void conv_norm_act_dw_cpu(const Tensor& x, const Norm& norm, const Tensor& dy, const Mask& mask, Tensor dw,
                          const ConvSizes& sizes) {
  // sums are over pixels: where one is missing for a pair there is a zero
  with_operands(dw, true, [&](auto zero, auto operand) {
    using T = decltype(zero);
    const Source<T> source = make_source<T>(x, norm, {}), gradient = make_source<T>(dy, {}, mask);
    const Sizes s(sizes);
    in_large_pages(dw.mutable_data_ptr(), dw.nbytes());
    weight_gradient<T, decltype(operand)>(s.transposed ? gradient : source, s.transposed ? source : gradient, s, dw);
  });
}

}  // namespace fastgan
