// Minimal filtering in two dimensions: two neighbouring outputs of r taps from r + 1 products instead of 2 r, in each
// dimension (S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin and S. Gray, "Fast Algorithms for
// Convolutional Neural Networks", CVPR 2016). An output depends on its own r inputs alone, for infinities too; a
// weight's gradient also on inputs that the direct sum would multiply by zeros.
// No torch header: winograd_loops.h is compiled once per instruction set.
#pragma once
#include <cstdint>

namespace fastgan {

// y = output ((filter g) (input d)), the inner product element by element.
template <int R>
struct Minimal;

template <>
struct Minimal<2> {
  static constexpr int kPoints = 3;
  static constexpr int kInput[3][3] = {{1, -1, 0}, {0, 1, 0}, {0, -1, 1}};
  static constexpr int kOutput[2][3] = {{1, 1, 0}, {0, 1, 1}};
  static constexpr double kFilter[3][2] = {{1, 0}, {1, 1}, {0, 1}};
};

template <>
struct Minimal<3> {
  static constexpr int kPoints = 4;
  static constexpr int kInput[4][4] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
  static constexpr int kOutput[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};
  static constexpr double kFilter[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
};

// A sum of 1, 2 or 4 values, each at an offset and times a factor; as it is made, the value itself.
template <typename T>
struct Terms {
  int64_t count = 1, offset[4] = {0};
  T factor[4] = {1};
};

// What is multiplied is written as operands E of gemm.h.
template <typename T, typename E = T>
struct Winograd {
  // One tile of n channels, which fill operands: input i, j at from + i row + j column, and
  // product (i, j) at to + (i points + j) stride.
  void (*input)(int64_t n, const T* from, int64_t row, int64_t column, E* to, int64_t stride);
  // Back: the first `rows` x `columns` of the tile's 2 x 2 outputs.
  void (*output)(int64_t n, const T* from, int64_t stride, T* to, int64_t row, int64_t column, int64_t rows,
                 int64_t columns);
  // The channels of one operand of the weight, `channel` apart, for the columns of a tile of the product: tap t at
  // g[t].
  void (*filter)(const T* const* g, int64_t channel, E* to, int64_t stride);
};

}  // namespace fastgan
