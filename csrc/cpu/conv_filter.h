// Minimal filtering of a convolution, see winograd.h: which convolutions it serves, and how their taps fall into runs.
#pragma once
#include "cpu/conv_axis.h"
#include "cpu/conv_source.h"

namespace fastgan {

// Channels of both tensors, and tiles of the output, from which on minimal filtering pays.
constexpr int64_t kManyChannels = 32, kManyTiles = 96;

// A tile has two outputs in each dimension.
inline int64_t tiles_of(int64_t positions) { return (positions + 1) / 2; }

using Runs = std::vector<std::vector<Run>>;

template <typename T, typename E = T>
struct MinimalFilter {
  // runs of each phase
  Runs h, w;
  // of a run, in one dimension; 0 where minimal filtering does not serve
  int64_t taps = 0, points = 0;
  Winograd<T, E> loops{};

  MinimalFilter() = default;
  // Serves where both dimensions have runs of 2, or of 3, taps.
  MinimalFilter(const Products<T, E>& products, const Axis& height, const Axis& width)
      : h(runs_of(height)), w(runs_of(width)) {
    if (h.empty() || w.empty()) return;
    const int64_t length = int64_t(h[0][0].kernel.size());
    if (length != int64_t(w[0][0].kernel.size()) || (length != 2 && length != 3)) return;
    taps = length, points = length + 1;
    loops = products.winograd[length - 2];
  }

  explicit operator bool() const { return taps != 0; }

  // Runs of a phase: the same number in all of them.
  int64_t runs() const { return int64_t(h[0].size() * w[0].size()); }

  template <typename F>
  void each_phase(F f) const {
    for (const auto& ph : h) {
      for (const auto& pw : w) f(ph, pw);
    }
  }

  // The channels of one operand of the weight, [channel][tap][columns], to their points, `apart` from each other.
  void transform(const T* block, int64_t columns, int64_t kernel_taps, int64_t kernel_width, const Run& rh,
                 const Run& rw, E* to, int64_t apart) const {
    const T* g[9];
    for (int64_t i = 0; i < taps; ++i) {
      for (int64_t j = 0; j < taps; ++j) {
        g[i * taps + j] = block + (rh.kernel[size_t(i)] * kernel_width + rw.kernel[size_t(j)]) * columns;
      }
    }
    loops.filter(g, kernel_taps * columns, to, apart);
  }
};

// Minimal filtering where the product takes the time and is large enough to pay for the larger weight; `channels` are
// those of the smaller side.
template <typename T, typename E>
MinimalFilter<T, E> minimal_filter(const Products<T, E>& products, const Axis& h, const Axis& w, int64_t channels,
                                   int64_t samples) {
  const int64_t tiles = samples * tiles_of(h.positions()) * tiles_of(w.positions());
  const bool pays = channels >= kManyChannels && tiles >= kManyTiles;
  return pays ? MinimalFilter<T, E>(products, h, w) : MinimalFilter<T, E>();
}

}  // namespace fastgan
