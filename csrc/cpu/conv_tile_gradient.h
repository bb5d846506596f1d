// The weight's gradient in tiles of pairs of bfloat16, see tiles.h: the small tensor's channels, turned once for all,
// times the shifted pixels of the big one for each tap, summed over blocks of pixels in a fixed order. Of many channels
// of the big tensor a slab of a panel is taken at a time: what all taps read of it fits into a cache.
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
    slab_ = big.image.channels % kPanel == 0 ? kPanel : big.image.channels;
    slabs_ = big.image.channels / slab_;
    // neighbouring taps of a row are neighbouring pixels of the image
    stretches_ = sizes.dilation[1] == 1 ? 1 : kw;
    length_ = (stretches_ == 1 ? kw : 1) * slab_;
    row_ = whole_panels(length_);
    taps_ = std::clamp<int64_t>(kSums / (channels_ * row_), 1, kh);
    parts_ = (kh + taps_ - 1) / taps_;
    groups_ = slabs_ * parts_ * stretches_;
    width_ = (image.width - 1) * sizes.stride[1] + (kw - 1) * sizes.dilation[1] + 1;
    rows_ = (high_ - 1) * sizes.stride[0] + (kh - 1) * sizes.dilation[0] + 1;
    few_ = slabs_ == 1 && groups_ * group_size() <= kFewSums;
    chunk_ = std::clamp<int64_t>(kHeld / (kTermsOf<Pair> * turned_size() + slabs_ * band_size()), 1, blocks_);
    splits_ = few_ ? std::min(2 * kTasks, blocks_) : std::clamp<int64_t>((kTasks + groups_ - 1) / groups_, 1, chunk_);
  }

  // Writes dw (C_small, C_big, kH, kW) of any strides.
  void run(Tensor& dw) {
    const Image to(dw);
    if (!few_ && splits_ == 1 && chunk_ == blocks_) return each_group(to);
    float* sums = scratch<float, 9>(groups_ * splits_ * group_size());
    few_ ? each_split(sums) : each_chunk(sums);
    each_task(groups_, [&](int64_t g) {
      float* whole = sums + g * splits_ * group_size();
      const int64_t size = (place(g).end - place(g).begin) * channels_ * row_;
      for (int64_t s = 1; s < splits_; ++s) {
        for (int64_t i = 0; i < size; ++i) whole[i] += whole[s * group_size() + i];
      }
      store(g, whole, to);
    });
  }

 private:
  // Pixels of a block, tasks wanted, and terms of both tensors that are held at a time.
  static constexpr int64_t kPixels = 1024, kTasks = 8, kHeld = int64_t(1) << 23;
  // Sums of a group that stay in the second-level cache, and those that a task can make all of.
  static constexpr int64_t kSums = int64_t(1) << 17, kFewSums = int64_t(1) << 15;

  static int64_t whole_panels(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

  // Sums of a group; operands of a block's turned channels, and terms of a slab of it.
  int64_t group_size() const { return taps_ * channels_ * row_; }
  int64_t turned_size() const { return channels_ * steps_ * kTile; }
  int64_t band_size() const { return together_ * rows_ * width_ * slab_ + kPanel; }

  // A task for each split of the blocks: what it loads stays in its cache.
  void each_split(float* sums) const {
    each_task(splits_, [&](int64_t split) {
      const int64_t first = blocks_ * split / splits_, last = blocks_ * (split + 1) / splits_;
      const Chunk one{0, 1, scratch<Pair, 13>(turned_size()), scratch<uint16_t, 17>(band_size())};
      for (int64_t b = first; b < last; ++b) {
        turn(block(b), one.turned);
        load(block(b), one.bands);
        for (int64_t g = 0; g < groups_; ++g) {
          multiply(g, block(b), one, 0, b == first, sums + (g * splits_ + split) * group_size());
        }
      }
    });
  }

  // What blocks from `begin` on read, in the order in which products do: turned channels, and slabs of the big tensor.
  struct Chunk {
    int64_t begin, count;
    Pair* turned;
    uint16_t* bands;
  };
  Chunk hold(int64_t begin) const {
    const int64_t count = std::min(chunk_, blocks_ - begin);
    const Chunk c{begin, count, scratch<Pair, 13>(count * turned_size()),
                  scratch<uint16_t, 17>(count * slabs_ * band_size())};
    each_task(2 * count, [&](int64_t t) {
      const int64_t b = t / 2;
      if (t % 2 == 0) {
        load(block(begin + b), c.bands + b * slabs_ * band_size());
      } else {
        turn(block(begin + b), c.turned + b * turned_size());
      }
    });
    return c;
  }

  // The sums of a group over blocks [first, last) of a chunk; `begins`: they are the first ones.
  void multiply(int64_t group, const Chunk& c, int64_t first, int64_t last, bool begins, float* sums) const {
    for (int64_t b = first; b < last; ++b) multiply(group, block(c.begin + b), c, b, begins && b == first, sums);
  }

  // A task for each group, which stores its sums.
  void each_group(const Image& to) const {
    const Chunk all = hold(0);
    each_task(groups_, [&](int64_t g) {
      float* sums = scratch<float, 9>(group_size());
      multiply(g, all, 0, all.count, true, sums);
      store(g, sums, to);
    });
  }

  // A task for each group and split of a chunk.
  void each_chunk(float* sums) const {
    for (int64_t begin = 0; begin < blocks_; begin += chunk_) {
      const Chunk c = hold(begin);
      each_task(groups_ * splits_, [&](int64_t t) {
        const int64_t split = t % splits_, first = c.count * split / splits_, last = c.count * (split + 1) / splits_;
        multiply(t / splits_, c, first, last, begin == 0, sums + t * group_size());
      });
    }
  }

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
  void turn(const Block& b, Pair* to) const {
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

  // What a block reads of the big tensor, slab by slab.
  void load(const Block& b, uint16_t* to) const {
    const int64_t top = b.m0 * sizes_.stride[0] - sizes_.padding[0], left = -sizes_.padding[1];
    if (slabs_ == 1) return big_.load_terms(gemm_, b.n0, b.n1, top, rows_, 1, left, width_, to);
    const int64_t pixels = rows_ * width_;
    uint16_t* sample = scratch<uint16_t, 0>(pixels * big_.image.channels);
    for (int64_t n = b.n0; n < b.n1; ++n, to += pixels * slab_) {
      big_.load_terms(gemm_, n, n + 1, top, rows_, 1, left, width_, sample);
      for (int64_t i = 0; i < pixels; ++i) {
        const uint16_t* from = sample + i * big_.image.channels;
        for (int64_t s = 0; s < slabs_; ++s, from += kPanel) {
          std::memcpy(to + s * band_size() + i * kPanel, from, kPanel * sizeof(uint16_t));
        }
      }
    }
  }

  // Slab, rows of the kernel and stretch of them that a group of columns belongs to.
  struct Place {
    int64_t slab, begin, end, stretch;
  };
  Place place(int64_t group) const {
    const int64_t begin = group / stretches_ % parts_ * taps_;
    return {group / stretches_ / parts_, begin, std::min(begin + taps_, kh_), group % stretches_};
  }

  // Adds to [row of the kernel][panel][small channel][column] what a block, the b-th of a chunk, gives to a group; the
  // second half of the last panel stays as it is where nobody reads it.
  void multiply(int64_t group, const Block& pixels, const Chunk& c, int64_t b, bool first, float* sums) const {
    const Place p = place(group);
    const int64_t line = width_ * slab_, step = sizes_.stride[1] * slab_;
    const uint16_t* band = c.bands + (b * slabs_ + p.slab) * band_size() + p.stretch * sizes_.dilation[1] * slab_;
    Pair* panel = panel_for(pixels);
    for (int64_t kh = p.begin; kh < p.end; ++kh) {
      for (int64_t j = 0; j < row_; j += kPanel, sums += kPanel * channels_) {
        const uint16_t* tap = band + kh * sizes_.dilation[0] * line + j;
        for (int64_t i = 0; i < pixels.lines(); ++i) {
          const uint16_t* from = tap + (i / pixels.high * rows_ + i % pixels.high * sizes_.stride[0]) * line;
          tiles_.pair(small_.image.width, from, step, panel + i * line_ * kPanel);
        }
        tiles_.multiply(channels_ / kTile, steps_, c.turned + b * turned_size(), panel, kPanel, 0,
                        std::min(length_ - j, kPanel), sums, kPanel, first);
      }
    }
  }

  // The columns of a group, which are taps and big channels.
  void store(int64_t group, const float* sums, const Image& to) const {
    const Place p = place(group);
    // the small channels as pixels; where taps are innermost, one channel at a time
    const int64_t together = to.strides[1] == 1 ? small_.image.channels : 1;
    for (int64_t small = 0; small < small_.image.channels; small += together) {
      for (int64_t kh = p.begin; kh < p.end; ++kh) {
        const float* row = sums + (kh - p.begin) * channels_ * row_ + small * kPanel;
        for (int64_t q = 0; q < length_;) {
          const int64_t tap = q / slab_, channel = q % slab_, column = q % kPanel;
          const int64_t count = std::min(slab_ - channel, kPanel - column);
          const Pixels pixels{together, count, to.strides[0], to.strides[1]};
          char* at = to.at(small, kh, p.stretch + tap) + (p.slab * slab_ + channel) * to.strides[1] * to.item;
          gemm_.store(to.storage, row + (q - column) * channels_ + column, kPanel, at, pixels);
          q += count;
        }
      }
    }
  }

  const Gemm<float> gemm_ = gemm<float>();
  const Tiles tiles_ = *tiles();
  const Source<float>&big_, &small_;
  int64_t kh_;
  Sizes sizes_;
  // small channels of whole panels; rows of a block, and blocks one below the other; samples of a block, blocks, those
  // held at a time, and what these are split into; operands of a row of pixels, and steps of a block
  int64_t channels_, high_, bands_, together_, blocks_, chunk_, splits_, line_, steps_;
  // channels of a slab, and slabs; stretches of taps in a row of the kernel, values of one, and columns for them; rows
  // of the kernel in a group, groups for all of them, and in all; rows and columns of pixels that a block reads of a
  // sample
  int64_t slab_, slabs_, stretches_, length_, row_, taps_, parts_, groups_, rows_, width_;
  // whether the sums are few
  bool few_;
};

}  // namespace fastgan
