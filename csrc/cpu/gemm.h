// The innermost loops of the convolutions: tiles of a matrix product, and pixels moved between a tensor and a dense
// buffer. No torch header: gemm_loops.h is compiled once per instruction set.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cpu/span.h"
#include "cpu/winograd.h"

namespace fastgan {

// Rows of a tile of the product.
constexpr int64_t kTileRows = 6;

// The rows of as many tiles as `rows` need.
inline int64_t whole_tiles(int64_t rows) { return (rows + kTileRows - 1) / kTileRows * kTileRows; }
// The same where the last tile may be smaller.
inline int64_t whole_pairs(int64_t rows) { return (rows + 1) / 2 * 2; }

// Where `width` pixels of `channels` values lie in a tensor: strides in elements.
struct Pixels {
  int64_t width, channels, pixel_stride, channel_stride;
};

// A part of a sum that is contiguous in the rows of one factor: the term where it begins in them, the operand where it
// begins in the sum, and its operands.
struct Stretch {
  int64_t offset, begin, length;
};

// Two neighbouring terms of a sum in bfloat16, which some processors multiply and add at once.
struct alignas(4) Pair {
  uint16_t terms[2];
};

// Terms of a sum in one operand of a product.
template <typename E>
constexpr int64_t kTermsOf = std::is_same_v<E, Pair> ? 2 : 1;
template <typename E>
using Term = std::conditional_t<std::is_same_v<E, Pair>, uint16_t, E>;

// Products of operands E, with sums in T.
template <typename T, typename E = T>
struct Products {
  // Columns of a tile: two vectors.
  int64_t columns;
  // c[r][n] = (first ? 0 : c[r][n]) + sum_k a[r][offset + k] b[k][n] over all stretches, with b [k][columns] from the
  // first stretch on, and rows of c `stride` apart; for tiles of 2, 4 and 6 rows.
  void (*rows[kTileRows / 2])(const Stretch* stretches, int64_t count, const Term<E>* const* a, const E* b, T* c,
                              int64_t stride, bool first);
  // The same for all rows of a tile with a [k][kTileRows], and rows of b `apart`.
  void (*packed)(int64_t k, const E* a, const E* b, int64_t apart, T* c, int64_t stride, bool first);
  // The next three make operands of values at `count` places `step` apart, of one place or of two, of which the last
  // may have zeros; up to kSlack more are read and written. Sums of neighbours, as many as a tile has columns or rows:
  void (*combine_columns)(int64_t count, const T* from, int64_t step, const Terms<T>& terms, E* to);
  void (*combine_rows)(int64_t count, const T* from, int64_t step, const Terms<T>& terms, E* to);
  // `length` values from each of `rows` rows `row` apart, one after another; results of places `stride` apart.
  void (*unfold)(int64_t count, const T* from, int64_t step, int64_t rows, int64_t row, int64_t length, E* to,
                 int64_t stride);
  // For kernels of 2 and of 3 taps.
  Winograd<T, E> winograd[2];

  // The product of an even number of rows.
  void multiply(const Stretch* stretches, int64_t count, const Term<E>* const* a, int64_t height, const E* b, T* c,
                int64_t stride, bool first) const {
    for (int64_t r = 0; r < height; r += kTileRows) {
      const int64_t left = height - r;
      rows[(left < kTileRows ? left : kTileRows) / 2 - 1](stretches, count, a + r, b, c + r * stride, stride, first);
    }
  }
};

template <typename T>
struct Gemm : Products<T> {
  // Tensor to [width][channels] with pixels `stride` apart, and back, by storage.
  void (*load)(Storage storage, const void* from, Pixels pixels, T* to, int64_t stride);
  void (*store)(Storage storage, const T* from, int64_t stride, void* to, Pixels pixels);
  // Rounds to the storage and back.
  void (*round)(Storage storage, T* values, int64_t n);
};

// Values of a register, at the most.
constexpr int64_t kSlack = 16;

namespace baseline {
template <typename T>
Gemm<T> gemm();
}  // namespace baseline
namespace avx2 {
template <typename T>
Gemm<T> gemm();
}  // namespace avx2
namespace avx512 {
template <typename T>
Gemm<T> gemm();
}  // namespace avx512
namespace avx512_bf16 {
template <typename T>
Gemm<T> gemm();
template <typename T, typename E>
Products<T, E> products();
}  // namespace avx512_bf16

template <typename T>
Gemm<T> gemm();
template <typename T, typename E>
Products<T, E> products();
// Whether this processor multiplies such operands.
template <typename E>
bool multiplies();

}  // namespace fastgan
