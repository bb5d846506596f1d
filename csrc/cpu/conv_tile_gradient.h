// The weight's gradient in tiles of pairs of bfloat16, see tiles.h: a product of the small tensor's channels and the
// shifted pixels of the big one for each tap, summed over blocks of pixels in a fixed order.
#pragma once
#include "cpu/conv_norm_act.h"
#include "cpu/tasks.h"
#include "cpu/tiles.h"

namespace fastgan {

class TileGradient {
 public:
  TileGradient(const Source<float>& big, const Source<float>& small, int64_t kh, int64_t kw, const Sizes& sizes)
      : big_(big), small_(small), kh_(kh), kw_(kw), sizes_(sizes) {
    const Image& image = small.image;
    parts_ = (image.channels + kChannels - 1) / kChannels;
    part_ = whole_panels((image.channels + parts_ - 1) / parts_);
    parts_ = (image.channels + part_ - 1) / part_;
    high_ = std::clamp<int64_t>(kPixels / image.width, 1, image.height);
    bands_ = (image.height + high_ - 1) / high_;
    together_ = bands_ == 1 ? std::clamp<int64_t>(kPixels / (high_ * image.width), 1, image.samples) : 1;
    blocks_ = (image.samples + together_ - 1) / together_ * bands_;
    line_ = (image.width + 1) / 2;
    // neighbouring taps of a row are neighbouring pixels of the image
    stretches_ = sizes.dilation[1] == 1 ? 1 : kw;
    row_ = whole_panels((stretches_ == 1 ? kw : 1) * big.image.channels);
    columns_ = kh * stretches_ * row_;
    width_ = (image.width - 1) * sizes.stride[1] + (kw - 1) * sizes.dilation[1] + 1;
    splits_ = std::clamp<int64_t>((kTasks + parts_ - 1) / parts_, 1, blocks_);
  }

  // Writes dw (C_small, C_big, kH, kW) of any strides.
  void run(Tensor& dw) {
    const int64_t size = part_ * columns_;
    float* sums = scratch<float, 9>(parts_ * splits_ * size);
    each_task(parts_ * splits_, [&](int64_t t) { task(t, sums + t * size); });
    const int64_t channels = small_.image.channels;
    const Image to(dw);
    at::parallel_for(0, channels, 1, [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) finish(c, sums + c / part_ * splits_ * size + c % part_ * columns_, to);
    });
  }

 private:
  // Pixels of a block, channels of the small tensor in a task, and tasks wanted.
  static constexpr int64_t kPixels = 1024, kChannels = 256, kTasks = 8;

  static int64_t whole_panels(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

  // Tasks in the order [part][split].
  void task(int64_t t, float* sums) const {
    const int64_t split = t % splits_, first = blocks_ * split / splits_, last = blocks_ * (split + 1) / splits_;
    for (int64_t b = first; b < last; ++b) block(b, t / splits_ * part_, b == first, sums);
  }

  void block(int64_t number, int64_t c0, bool first, float* sums) const {
    const Image &small = small_.image, &big = big_.image;
    const int64_t n0 = number / bands_ * together_, n1 = std::min(n0 + together_, small.samples);
    const int64_t m0 = number % bands_ * high_, high = std::min(high_, small.height - m0);
    const int64_t lines = (n1 - n0) * high, steps = tiles_for(lines * line_), depth = steps * kTile;

    uint16_t* pixels = scratch<uint16_t, 5>(lines * small.width * small.channels + kPanel);
    small_.load_terms(gemm_, n0, n1, m0, high, 0, small.width, pixels);
    Pair* panel = scratch<Pair, 2>(depth * kPanel);
    std::fill(panel + lines * line_ * kPanel, panel + depth * kPanel, Pair{});
    Pair* a = scratch<Pair, 1>(depth * part_);
    for (int64_t r = 0; r < part_; r += kPanel) {
      // channels that are not there belong to rows that nobody reads
      const uint16_t* from = pixels + std::min(c0 + r, small.channels - 1);
      for (int64_t i = 0; i < lines; ++i, from += small.width * small.channels) {
        tiles_.pair(small.width, from, small.channels, panel + i * line_ * kPanel);
      }
      tiles_.turn(panel, steps, a + r * depth);
    }

    const int64_t rows = (high - 1) * sizes_.stride[0] + (kh_ - 1) * sizes_.dilation[0] + 1;
    const int64_t line = width_ * big.channels, step = sizes_.stride[1] * big.channels;
    uint16_t* band = scratch<uint16_t, 0>((n1 - n0) * rows * line + kPanel);
    const int64_t h = m0 * sizes_.stride[0] - sizes_.padding[0];
    big_.load_terms(gemm_, n0, n1, h, rows, -sizes_.padding[1], width_, band);
    for (int64_t kh = 0; kh < kh_; ++kh) {
      for (int64_t s = 0; s < stretches_; ++s) {
        const uint16_t* taps = band + kh * sizes_.dilation[0] * line + s * sizes_.dilation[1] * big.channels;
        for (int64_t j = 0; j < row_; j += kPanel) {
          for (int64_t i = 0; i < lines; ++i) {
            const uint16_t* from = taps + (i / high * rows + i % high * sizes_.stride[0]) * line + j;
            tiles_.pair(small.width, from, step, panel + i * line_ * kPanel);
          }
          float* to = sums + (kh * stretches_ + s) * row_ + j;
          tiles_.multiply(part_ / kTile, steps, a, panel, kPanel, 0, 1, to, columns_, first);
        }
      }
    }
  }

  // The taps of one small channel from its sums.
  void finish(int64_t c, float* sums, const Image& to) const {
    for (int64_t s = 1; s < splits_; ++s) {
      const float* more = sums + s * part_ * columns_;
      for (int64_t i = 0; i < columns_; ++i) sums[i] += more[i];
    }
    for (int64_t tap = 0; tap < kh_ * kw_; ++tap) {
      const int64_t column = tap % kw_ * (stretches_ == 1 ? to.channels : row_);
      const float* from = sums + tap / kw_ * stretches_ * row_ + column;
      gemm_.store(to.storage, from, columns_, to.at(c, tap / kw_, tap % kw_), to.pixels(1));
    }
  }

  const Gemm<float> gemm_ = gemm<float>();
  const Tiles tiles_ = *tiles();
  const Source<float>&big_, &small_;
  int64_t kh_, kw_;
  Sizes sizes_;
  // parts of the small channels, and channels of one; rows of a band, and bands; samples of a block, blocks, and what
  // these are split into; operands of a row of pixels
  int64_t parts_, part_, high_, bands_, together_, blocks_, splits_, line_;
  // stretches of taps in a row of the kernel, columns of one and of all; pixels of a loaded row
  int64_t stretches_, row_, columns_, width_;
};

}  // namespace fastgan
