// The weight of a convolution, times a factor, in the order in which the tiles of the product read it.
#pragma once
#include <c10/util/BFloat16.h>

#include "cpu/conv_axis.h"
#include "cpu/conv_source.h"
#include "cpu/conv_weight_blocks.h"
#include "cpu/tasks.h"
#include "cpu/tiles.h"

namespace fastgan {

// Operands that are summed at a time: a panel of the weight of this depth stays in the first-level cache.
constexpr int64_t kDepth = 320;
// Sums have a multiple of so many terms, with zeros in the weight for those that are not there.
template <typename E>
constexpr int64_t kWholeSum = std::is_same_v<E, Pair> ? kTile * kTermsOf<Pair> : 1;

template <typename E>
int64_t whole_sum(int64_t terms) {
  return (terms + kWholeSum<E> - 1) / kWholeSum<E> * kWholeSum<E>;
}

// The sum of one phase, of `depth` terms with zeros behind: [panel][depth][columns of a tile] from `base`.
struct PhaseWeights {
  int64_t base, depth;
  // over taps and channels, in the loaded rows
  std::vector<Stretch> stretches;

  // Calls f(first stretch, how many) for neighbouring stretches that are summed at a time.
  template <typename F>
  void each_sum(F f) const {
    for (size_t i = 0, end; i < stretches.size(); i = end) {
      const int64_t begin = stretches[i].begin;
      for (end = i + 1; end < stretches.size(); ++end) {
        if (stretches[end].begin + stretches[end].length - begin > kDepth) break;
      }
      f(&stretches[i], int64_t(end - i));
    }
  }
};

// Where operands have several terms, every stretch has a multiple of them.
template <typename T, typename E>
class PackedWeights {
 public:
  PackedWeights() = default;
  // weight (C_small, C_big, kH, kW), dense; the input has the big channels in a gather, the small ones in a scatter.
  // `width` is that of the loaded rows in pixels.
  PackedWeights(const at::Tensor& weight, T scale, const Axis& h, const Axis& w, bool scatter, int64_t width,
                const Products<T, E>& tile)
      : columns_(tile.columns),
        in_(weight.size(scatter ? 0 : 1)),
        out_(weight.size(scatter ? 1 : 0)),
        panels_((out_ + columns_ - 1) / columns_) {
    int64_t size = 0;
    for (const Phase& ph : h.phases) {
      for (const Phase& pw : w.phases) {
        const int64_t terms = int64_t(ph.taps.size() * pw.taps.size()) * in_;
        phases.push_back({size, whole_sum<E>(terms), stretches(ph, pw, width)});
        size += phases.back().depth * panels_ * columns_;
      }
    }
    operands_ = scratch<E, 7>(size / kTermsOf<E>);
    fill(weight, scale, h, w, scatter, tile);
  }

  // weight (C_small, C_big, kH, kW) as one matrix: for each small channel a column for each (kh, kw, big channel).
  PackedWeights(const at::Tensor& weight, T scale, const Products<T, E>& tile)
      : columns_(tile.columns),
        in_(weight.size(0)),
        out_(weight[0].numel()),
        panels_((out_ + columns_ - 1) / columns_) {
    const int64_t depth = whole_sum<E>(in_);
    phases.push_back({0, depth, {}});
    split({0, 0, in_}, phases[0].stretches);
    operands_ = scratch<E, 7>(depth / kTermsOf<E> * panels_ * columns_);
    const at::Tensor dense = weight.to(c10::CppTypeToScalarType<T>::value).contiguous();
    const T* from = dense.const_data_ptr<T>();
    const int64_t big = weight.size(1), taps = weight.size(2) * weight.size(3);
    share_tasks(panels_, in_ * columns_, [&](int64_t j) {
      for (int64_t c = 0; c < depth; ++c) {
        for (int64_t i = 0; i < columns_; ++i) {
          const int64_t n = j * columns_ + i;
          const bool is = c < in_ && n < out_;
          put(j * depth + c, i, is ? scale * from[(c * big + n % big) * taps + n / big] : T(0));
        }
      }
    });
  }

  const E* panel(const PhaseWeights& phase, int64_t j) const {
    return operands_ + (phase.base + j * phase.depth * columns_) / kTermsOf<E>;
  }
  int64_t panels() const { return panels_; }
  // Those that are not zeros behind the last.
  int64_t columns() const { return out_; }

  std::vector<PhaseWeights> phases;

 private:
  // `whole` by its terms.
  static void split(Stretch whole, std::vector<Stretch>& into) {
    TORCH_INTERNAL_ASSERT(whole.length % kTermsOf<E> == 0);
    const int64_t length = whole.length / kTermsOf<E>, parts = (length + kDepth - 1) / kDepth;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t from = length * part / parts, to = length * (part + 1) / parts;
      into.push_back({whole.offset + from * kTermsOf<E>, whole.begin / kTermsOf<E> + from, to - from});
    }
  }

  // Term `line` of all, for column n.
  void put(int64_t line, int64_t n, T value) {
    if constexpr (std::is_same_v<T, E>) {
      operands_[line * columns_ + n] = value;
    } else {
      operands_[line / kTermsOf<E> * columns_ + n].terms[line % kTermsOf<E>] = c10::BFloat16(value).x;
    }
  }

  std::vector<Stretch> stretches(const Phase& ph, const Phase& pw, int64_t width) const {
    std::vector<Stretch> result;
    int64_t begin = 0;
    for (const Tap& th : ph.taps) {
      for (size_t i = 0; i < pw.taps.size();) {
        size_t end = i + 1;
        while (end < pw.taps.size() && pw.taps[end].offset == pw.taps[end - 1].offset + 1) ++end;
        const int64_t length = int64_t(end - i) * in_, offset = (th.offset * width + pw.taps[i].offset) * in_;
        split({offset, begin, length}, result);
        begin += length;
        i = end;
      }
    }
    return result;
  }

  // Calls f(row of operands, rows of a panel, tap) for each tap of panel 0, by phases.
  template <typename F>
  void each_tap(const Axis& h, const Axis& w, int64_t kw, F f) const {
    size_t p = 0;
    for (const Phase& ph : h.phases) {
      for (const Phase& pw : w.phases) {
        const PhaseWeights& phase = phases[p++];
        int64_t line = phase.base / columns_;
        for (const Tap& th : ph.taps) {
          for (const Tap& tw : pw.taps) {
            f(line, phase.depth, th.kernel * kw + tw.kernel);
            line += in_;
          }
        }
      }
    }
  }

  // Whether a weight's terms have only to be moved to where tiles of operands read them.
  bool lies_in_tiles(const at::Tensor& weight, T scale) const {
    const bool whole = in_ % kWholeSum<E> == 0 && out_ % kPanel == 0 && columns_ == kPanel;
    return tiles() != nullptr && whole && scale == T(1) && weight.scalar_type() == at::kBFloat16 &&
           weight.is_contiguous(at::MemoryFormat::ChannelsLast);
  }

  void move(const at::Tensor& weight, const Axis& h, const Axis& w, bool scatter) {
    const int64_t big = weight.size(1), small_stride = weight[0].numel();
    const auto* from = static_cast<const uint16_t*>(weight.const_data_ptr());
    const auto pair = scatter ? tiles()->pair : tiles()->pair_rows;
    share_tasks(panels_, in_ * small_stride / big * columns_, [&](int64_t j) {
      each_tap(h, w, weight.size(3), [&](int64_t line, int64_t depth, int64_t tap) {
        const uint16_t* at = from + tap * big + j * columns_ * (scatter ? 1 : small_stride);
        pair(in_, at, small_stride, operands_ + (line + j * depth) / kTermsOf<E> * columns_);
      });
    });
  }

  void fill_taps(const WeightBlocks<T>& blocks, const Axis& h, const Axis& w, int64_t kw) {
    blocks.each_by_taps([&](int64_t j0, int64_t j1, int64_t c0, int64_t c1) {
      each_tap(h, w, kw, [&](int64_t line, int64_t depth, int64_t tap) {
        for (int64_t j = j0; j < j1; ++j) {
          blocks.read_tap(j, tap, c0, c1, operands_ + (line + j * depth + c0) * columns_);
        }
      });
    });
  }

  // Terms of panel j that are not there.
  void clear(int64_t j, const Axis& h, const Axis& w) {
    size_t p = 0;
    for (const Phase& ph : h.phases) {
      for (const Phase& pw : w.phases) {
        const int64_t depth = phases[p].depth, terms = int64_t(ph.taps.size() * pw.taps.size()) * in_;
        const int64_t line = phases[p++].base / columns_ + j * depth;
        for (int64_t i = terms; i < depth; ++i) {
          for (int64_t n = 0; n < columns_; ++n) put(line + i, n, T(0));
        }
      }
    }
  }

  void fill(const at::Tensor& weight, T scale, const Axis& h, const Axis& w, bool scatter, const Products<T, E>& tile) {
    if constexpr (std::is_same_v<E, Pair>) {
      if (lies_in_tiles(weight, scale)) return move(weight, h, w, scatter);
    }
    const WeightBlocks<T> blocks(weight, scale, scatter, columns_);
    const int64_t kw = weight.size(3), taps = weight.size(2) * kw;
    if constexpr (std::is_same_v<T, E>) {
      if (blocks.by_taps()) return fill_taps(blocks, h, w, kw);
    }
    // where not, pairs are of neighbouring taps, and too few to matter
    const bool whole = in_ % kTermsOf<E> == 0;
    blocks.each([&](int64_t j0, int64_t j1, int64_t c0, int64_t c1) {
      for (int64_t j = j0; j < j1; ++j) {
        if (c0 == 0) clear(j, h, w);
        const T* block = blocks.read(j, c0, c1);
        each_tap(h, w, kw, [&](int64_t line, int64_t depth, int64_t number) {
          const T* tap = block + number * columns_;
          line += j * depth + c0;
          if (whole) {
            E* to = operands_ + line / kTermsOf<E> * columns_;
            tile.unfold(c1 - c0, tap, taps * columns_, 1, 0, columns_, to, columns_);
            return;
          }
          for (int64_t c = 0; c < c1 - c0; ++c) {
            for (int64_t n = 0; n < columns_; ++n) put(line + c, n, tap[c * taps * columns_ + n]);
          }
        });
      }
    });
  }

  int64_t columns_ = 0, in_ = 0, out_ = 0, panels_ = 0;
  // lives as long as nobody packs another weight in this thread
  E* operands_ = nullptr;
};

}  // namespace fastgan
