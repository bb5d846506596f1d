// The direct product of a convolution: rows, read where they lie in loaded pixels, times a packed weight.
#pragma once
#include "cpu/conv_weights.h"
#include "cpu/tasks.h"

namespace fastgan {

// Rows of the product in tiles of operands, at most, and with a single tile of columns, and at least.
constexpr int64_t kRowsOfTiles = 256, kRowsOfOneTile = 1024, kLeastRowsOfTiles = 128;

// Where rows of terms begin, whole ones (see DirectProduct); `even` neighbouring ones are equally far from one another.
template <typename E>
struct Rows {
  const Term<E>** begin;
  int64_t count, even;
};

template <typename T, typename E>
class DirectProduct {
 public:
  DirectProduct() = default;
  // `channels` of the pixels.
  DirectProduct(const Products<T, E>& tile, PackedWeights<T, E> weights, int64_t channels)
      : tile_(tile), weights_(std::move(weights)), channels_(channels) {}

  // Columns of a row of results.
  int64_t columns() const {
    return in_tiles() ? tiles_for(weights_.columns()) * kTile : weights_.panels() * tile_.columns;
  }

  // Rows that are computed for so many.
  static int64_t whole_rows(int64_t rows) { return in_tiles() ? tiles_for(rows) * kTile : whole_pairs(rows); }

  void multiply(size_t phase, const Rows<E>& rows, T* result) const {
    each_chunk(phase, rows, true, result, [](auto...) {});
  }

  // The same; done(first, last, their result) is called for rows that are complete. Unless they are `kept`, the next
  // may be where these were.
  template <typename Done>
  void each_chunk(size_t phase, const Rows<E>& rows, bool kept, T* result, Done done) const {
    if constexpr (std::is_same_v<E, Pair>) {
      if (in_tiles()) return multiply_tiles(weights_.phases[phase], rows, kept, result, done);
    }
    multiply_panels(weights_.phases[phase], rows, result);
    done(0, rows.count, result);
  }

 private:
  // Multiplications that are worth a thread.
  static constexpr int64_t kWork = int64_t(1) << 18;
  // Steps of tiles of operands that are summed up at a time: the weight stays in the second-level cache.
  static constexpr int64_t kSteps = 32;
  // Operands of a weight that stays there whole; operands that are gathered at a time, and their results.
  static constexpr int64_t kWeight = int64_t(1) << 18, kGathered = int64_t(1) << 14, kResults = int64_t(1) << 13;

  static bool in_tiles() { return std::is_same_v<E, Pair> && tiles() != nullptr; }

  // On all threads where this is the only task.
  void multiply_panels(const PhaseWeights& weights, const Rows<E>& rows, T* result) const {
    if (weights.depth == 0) std::fill_n(result, rows.count * columns(), T(0));
    const int64_t work = rows.count * weights.depth * tile_.columns;
    at::parallel_for(0, weights_.panels(), grain(work, kWork), [&](int64_t j0, int64_t j1) {
      bool first = true;
      weights.each_sum([&](const Stretch* s, int64_t count) {
        for (int64_t j = j0; j < j1; ++j) {
          const E* panel = weights_.panel(weights, j) + s->begin * tile_.columns;
          tile_.multiply(s, count, rows.begin, rows.count, panel, result + j * tile_.columns, columns(), first);
        }
        first = false;
      });
    });
  }

  template <typename Done>
  void multiply_tiles(const PhaseWeights& weights, const Rows<E>& rows, bool kept, T* result, Done done) const {
    TORCH_INTERNAL_ASSERT(tile_.columns == kPanel);
    const int64_t depth = weights.depth / kTermsOf<E>, all = depth / kTile;
    const int64_t most = depth * weights_.panels() * kPanel <= kWeight ? all : kSteps;
    const Stretch* stretches = weights.stretches.data();
    const int64_t count = int64_t(weights.stretches.size());
    const bool lie = rows.even % kTile == 0 && channels_ % kWholeSum<E> == 0;
    // results stay in the first-level cache at best, what is gathered near it
    const int64_t gathered = lie ? kRowsOfTiles : kGathered / std::max<int64_t>(1, most * kTile);
    const int64_t chunk = std::max<int64_t>(std::min(gathered, kResults / columns()) / (2 * kTile), 1) * 2 * kTile;
    E* a = lie ? nullptr : scratch<E, 15>(chunk * most * kTile);
    int64_t s = 0;
    do {
      const int64_t steps = std::min(most, all - s), from = s * kTile;
      const E* panel = weights_.panel(weights, 0) + from * kPanel;
      for (int64_t r = 0; r < rows.count; r += chunk) {
        const int64_t some = std::min(chunk, rows.count - r);
        const Term<E>** begin = rows.begin + r;
        T* to = result + (kept || all > most ? r : 0) * columns();
        if (lie) {
          tiles()->multiply_rows(stretches, count, begin, some, begin[1] - begin[0], from, steps, panel, depth * kPanel,
                                 columns(), to, columns(), s == 0);
        } else {
          tiles()->gather(stretches, count, begin, some, from, steps, a);
          tiles()->multiply(some / kTile, steps, a, panel, kPanel, depth * kPanel, columns(), to, columns(), s == 0);
        }
        if (s + steps == all) done(r, r + some, to);
      }
      s += steps;
    } while (s < all);
  }

  Products<T, E> tile_ = products<T, E>();
  PackedWeights<T, E> weights_;
  int64_t channels_ = 0;
};

}  // namespace fastgan
