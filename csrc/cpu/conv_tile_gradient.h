// The weight's gradient in tiles of pairs of bfloat16, see tiles.h: the small tensor's channels, turned once for all,
// times the shifted pixels of the big one for each tap, summed over blocks of pixels in a fixed order.
#pragma once
#include "cpu/conv_norm_act.h"
#include "cpu/tasks.h"
#include "cpu/tiles.h"

namespace fastgan {

class TileGradient {
 public:
  TileGradient(const Source<float>& big, const Source<float>& small, int64_t kh, int64_t kw, const Sizes& sizes)
      : big_(big), small_(small), kh_(kh), sizes_(sizes) {
    const Image& image = small.image;
    channels_ = whole_panels(image.channels);
    high_ = std::clamp<int64_t>(kPixels / image.width, 1, image.height);
    bands_ = (image.height + high_ - 1) / high_;
    together_ = bands_ == 1 ? std::clamp<int64_t>(kPixels / (high_ * image.width), 1, image.samples) : 1;
    blocks_ = (image.samples + together_ - 1) / together_ * bands_;
    line_ = (image.width + 1) / 2;
    steps_ = tiles_for(together_ * high_ * line_);
    // neighbouring taps of a row are neighbouring pixels of the image
    stretches_ = sizes.dilation[1] == 1 ? 1 : kw;
    length_ = (stretches_ == 1 ? kw : 1) * big.image.channels;
    row_ = whole_panels(length_);
    width_ = (image.width - 1) * sizes.stride[1] + (kw - 1) * sizes.dilation[1] + 1;
    few_ = kh * stretches_ * row_ * channels_ <= kFewSums;
    parts_ = few_ ? 1 : std::clamp<int64_t>((kTasks + kh * stretches_ - 1) / (kh * stretches_), 1, row_ / kPanel);
    part_ = whole_panels((row_ + parts_ - 1) / parts_);
    parts_ = (row_ + part_ - 1) / part_;
    groups_ = kh * stretches_ * parts_;
    chunk_ = std::clamp<int64_t>(kTurned / block_size(), 1, blocks_);
    splits_ = few_ ? std::min(2 * kTasks, blocks_) : std::clamp<int64_t>((kTasks + groups_ - 1) / groups_, 1, chunk_);
  }

  // Writes dw (C_small, C_big, kH, kW) of any strides.
  void run(Tensor& dw) {
    const int64_t size = channels_ * part_;
    float* sums = scratch<float, 9>(groups_ * splits_ * size);
    const Image to(dw);
    few_ ? each_split(sums) : each_group(sums);
    each_task(groups_, [&](int64_t group) {
      float* whole = sums + group * splits_ * size;
      for (int64_t s = 1; s < splits_; ++s) {
        for (int64_t i = 0; i < size; ++i) whole[i] += whole[s * size + i];
      }
      store(group, whole, to);
    });
  }

 private:
  // Pixels of a block, tasks wanted, and operands that are turned at a time.
  static constexpr int64_t kPixels = 1024, kTasks = 8, kTurned = int64_t(1) << 22;
  // Sums that a task can make all of.
  static constexpr int64_t kFewSums = int64_t(1) << 15;

  static int64_t whole_panels(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

  // A task for each split of the blocks: what it turns stays in its cache.
  void each_split(float* sums) {
    each_task(splits_, [&](int64_t split) {
      const int64_t first = blocks_ * split / splits_, last = blocks_ * (split + 1) / splits_;
      Pair* turned = scratch<Pair, 13>(block_size());
      for (int64_t b = first; b < last; ++b) {
        turn(b, turned);
        const Band band = load(block(b), 0, kh_);
        for (int64_t group = 0; group < groups_; ++group) {
          multiply(group, block(b), turned, band, sums + (group * splits_ + split) * channels_ * part_, b == first);
        }
      }
    });
  }

  // A task for each group of columns and split: what is turned is so once for all of them.
  void each_group(float* sums) {
    Pair* turned = scratch<Pair, 13>(chunk_ * block_size());
    for (int64_t begin = 0; begin < blocks_; begin += chunk_) {
      const int64_t count = std::min(chunk_, blocks_ - begin);
      each_task(count, [&](int64_t b) { turn(begin + b, turned + b * block_size()); });
      each_task(groups_ * splits_, [&](int64_t t) {
        const int64_t split = t % splits_, first = count * split / splits_, last = count * (split + 1) / splits_;
        for (int64_t b = first; b < last; ++b) {
          const Block pixels = block(begin + b);
          multiply(t / splits_, pixels, turned + b * block_size(), load(pixels, columns(t / splits_).kh, 1),
                   sums + t * channels_ * part_, begin == 0 && b == first);
        }
      });
    }
  }

  int64_t block_size() const { return channels_ * steps_ * kTile; }

  // Samples and rows of the small tensor, and its lines.
  struct Block {
    int64_t n0, n1, m0, high;
    int64_t lines() const { return (n1 - n0) * high; }
  };
  Block block(int64_t b) const {
    const Image& small = small_.image;
    const int64_t n0 = b / bands_ * together_, m0 = b % bands_ * high_;
    return {n0, std::min(n0 + together_, small.samples), m0, std::min(high_, small.height - m0)};
  }

  // A panel with zeros for the operands that a block does not have.
  Pair* panel_for(const Block& b) const {
    Pair* panel = scratch<Pair, 2>(steps_ * kTile * kPanel);
    std::fill(panel + b.lines() * line_ * kPanel, panel + steps_ * kTile * kPanel, Pair{});
    return panel;
  }

  // The small tensor's channels: [tile][step][channel][operand of pixels].
  void turn(int64_t number, Pair* to) const {
    const Block b = block(number);
    const Image& small = small_.image;
    uint16_t* pixels = scratch<uint16_t, 5>(b.lines() * small.width * small.channels + kPanel);
    small_.load_terms(gemm_, b.n0, b.n1, b.m0, b.high, 1, 0, small.width, pixels);
    Pair* panel = panel_for(b);
    for (int64_t c = 0; c < channels_; c += kPanel) {
      // channels that are not there belong to rows that nobody reads
      const uint16_t* from = pixels + std::min(c, small.channels - 1);
      for (int64_t i = 0; i < b.lines(); ++i, from += small.width * small.channels) {
        tiles_.pair(small.width, from, small.channels, panel + i * line_ * kPanel);
      }
      tiles_.turn(panel, steps_, to + c * steps_ * kTile);
    }
  }

  // A row of the kernel, stretch of it, and the columns from `first` on.
  struct Columns {
    int64_t kh, stretch, first, count;
  };
  Columns columns(int64_t group) const {
    const int64_t first = group % parts_ * part_;
    return {group / parts_ / stretches_, group / parts_ % stretches_, first, std::min(part_, row_ - first)};
  }

  // What a block reads of the big tensor at some rows of the kernel, from kh on: rows of a sample, those from one line
  // of the block to the next, and those from one row of the kernel to the next.
  struct Band {
    const uint16_t* terms;
    int64_t kh, rows, down, tap;
  };
  Band load(const Block& b, int64_t kh, int64_t count) const {
    // of one row of the kernel those alone that it reads
    const int64_t step = count == 1 ? sizes_.stride[0] : 1, down = sizes_.stride[0] / step;
    const int64_t rows = (b.high - 1) * down + (count - 1) * sizes_.dilation[0] + 1;
    uint16_t* terms = scratch<uint16_t, 0>((b.n1 - b.n0) * rows * width_ * big_.image.channels + kPanel);
    const int64_t top = b.m0 * sizes_.stride[0] - sizes_.padding[0] + kh * sizes_.dilation[0];
    big_.load_terms(gemm_, b.n0, b.n1, top, rows, step, -sizes_.padding[1], width_, terms);
    return {terms, kh, rows, down, sizes_.dilation[0]};
  }

  // Adds to [small channel][column] what a block gives to a group of columns.
  void multiply(int64_t group, const Block& b, const Pair* turned, const Band& band, float* sums, bool first) const {
    const Columns c = columns(group);
    const int64_t line = width_ * big_.image.channels, step = sizes_.stride[1] * big_.image.channels;
    const uint16_t* taps = band.terms + (c.kh - band.kh) * band.tap * line +
                           c.stretch * sizes_.dilation[1] * big_.image.channels + c.first;
    Pair* panel = panel_for(b);
    for (int64_t j = 0; j < c.count; j += kPanel) {
      for (int64_t i = 0; i < b.lines(); ++i) {
        const uint16_t* from = taps + (i / b.high * band.rows + i % b.high * band.down) * line + j;
        tiles_.pair(small_.image.width, from, step, panel + i * line_ * kPanel);
      }
      tiles_.multiply(channels_ / kTile, steps_, turned, panel, kPanel, 0, 1, sums + j, part_, first);
    }
  }

  // The columns of a group, which are taps and big channels.
  void store(int64_t group, const float* sums, const Image& to) const {
    const Columns c = columns(group);
    const int64_t big = to.channels, last = std::min(c.first + c.count, length_);
    for (int64_t small = 0; small < small_.image.channels; ++small, sums += part_) {
      for (int64_t q = c.first; q < last;) {
        Pixels channels = to.pixels(1);
        channels.channels = std::min(last - q, big - q % big);
        char* at = to.at(small, c.kh, c.stretch + q / big) + q % big * to.strides[1] * to.item;
        gemm_.store(to.storage, sums + q - c.first, part_, at, channels);
        q += channels.channels;
      }
    }
  }

  const Gemm<float> gemm_ = gemm<float>();
  const Tiles tiles_ = *tiles();
  const Source<float>&big_, &small_;
  int64_t kh_;
  Sizes sizes_;
  // small channels of whole panels; rows of a band, and bands; samples of a block, blocks, those turned at a time, and
  // what these are split into; operands of a row of pixels, and steps of a block
  int64_t channels_, high_, bands_, together_, blocks_, chunk_, splits_, line_, steps_;
  // stretches of taps in a row of the kernel, values of one, and columns for them; parts of these, columns of one, and
  // parts in all; pixels of a loaded row
  int64_t stretches_, length_, row_, parts_, part_, groups_, width_;
  // whether the sums are few
  bool few_;
};

}  // namespace fastgan
