// Included once per instruction set: tiles of a matrix product, and what makes their operands.
#include "cpu/winograd_loops.h"

namespace fastgan {
namespace FASTGAN_ISA {

template <typename T, typename E, int Rows = kTileRows>
struct Tile {
  static constexpr int kLanesOfVector = FASTGAN_VECTOR_BYTES / sizeof(T), kColumns = 2 * kLanesOfVector;
  using Of = Operand<T, E>;
  using Vec = typename Of::Vec;

  typedef Vec Sums[Rows][2];

  static inline __attribute__((always_inline)) void clear(Sums& acc, T* c, int64_t stride) {
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      acc[r][0] = acc[r][1] = Vec{};
      // needed at the end, and by then in the first-level cache
      __builtin_prefetch(c + r * stride, 1);
      __builtin_prefetch(c + r * stride + kColumns - 1, 1);
    }
  }

  // a(r, i): term i of row r.
  template <typename A>
  static inline __attribute__((always_inline)) void add(Sums& acc, int64_t k, A a, const E* b,
                                                        int64_t apart = kColumns) {
    for (int64_t i = 0; i < k; ++i) {
      const auto b0 = Of::read(b + i * apart), b1 = Of::read(b + i * apart + kLanesOfVector);
#pragma GCC unroll 6
      for (int r = 0; r < Rows; ++r) {
        const E v = a(r, i);
        acc[r][0] = Of::add(acc[r][0], v, b0);
        acc[r][1] = Of::add(acc[r][1], v, b1);
      }
    }
  }

  static inline __attribute__((always_inline)) void put(const Sums& acc, T* c, int64_t stride, bool first) {
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      Vec* to = reinterpret_cast<Vec*>(c + r * stride);
      Vec* next = reinterpret_cast<Vec*>(c + r * stride + kLanesOfVector);
      *to = first ? acc[r][0] : *to + acc[r][0];
      *next = first ? acc[r][1] : *next + acc[r][1];
    }
  }

  static void rows(const Stretch* stretches, int64_t count, const Term<E>* const* a, const E* b, T* c, int64_t stride,
                   bool first) {
    Sums acc;
    clear(acc, c, stride);
    for (int64_t s = 0; s < count; ++s) {
      const int64_t k = stretches[s].length, offset = stretches[s].offset;
      auto row = [=](int r) __attribute__((always_inline)) { return a[r < Rows ? r : 0] + offset; };
      const Term<E>*a0 = row(0), *a1 = row(1), *a2 = row(2), *a3 = row(3), *a4 = row(4), *a5 = row(5);
      auto at = [=](int r, int64_t i) __attribute__((always_inline)) {
        return Of::at(r == 0 ? a0 : r == 1 ? a1 : r == 2 ? a2 : r == 3 ? a3 : r == 4 ? a4 : a5, i);
      };
      add(acc, k, at, b);
      b += k * kColumns;
    }
    put(acc, c, stride, first);
  }

  static void packed(int64_t k, const E* a, const E* b, int64_t apart, T* c, int64_t stride, bool first) {
    Sums acc;
    clear(acc, c, stride);
    add(acc, k, [=](int r, int64_t i) __attribute__((always_inline)) { return a[i * Rows + r]; }, b, apart);
    put(acc, c, stride, first);
  }
};

template <typename T, typename E>
Products<T, E> products() {
  return {
      Tile<T, E>::kColumns,
      {Tile<T, E, 2>::rows, Tile<T, E, 4>::rows, Tile<T, E>::rows},
      Tile<T, E>::packed,
      Combine<T, E, Tile<T, E>::kColumns>::any,
      Combine<T, E, kTileRows>::any,
      unfold<T, E>,
      {MinimalLoops<T, E, 2>::loops(), MinimalLoops<T, E, 3>::loops()},
  };
}

}  // namespace FASTGAN_ISA
}  // namespace fastgan
