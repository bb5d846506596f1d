// The innermost loops of the convolutions: tiles of a matrix product, and pixels moved between a tensor and a dense
// buffer. No torch header: gemm_loops.h is compiled once per instruction set.
#pragma once
#include <cstdint>

#include "cpu/span.h"
#include "cpu/winograd.h"

namespace fastgan {

// Rows of a tile of the product.
constexpr int64_t kTileRows = 6;

// The rows of as many tiles as `rows` need.
inline int64_t whole_tiles(int64_t rows) { return (rows + kTileRows - 1) / kTileRows * kTileRows; }

// Where `width` pixels of `channels` values lie in a tensor: strides in elements.
struct Pixels {
  int64_t width, channels, pixel_stride, channel_stride;
};

// A part of a sum that is contiguous in the rows of one operand: where it begins in them, and in the sum.
struct Stretch {
  int64_t offset, begin, length;
};

template <typename T>
struct Gemm {
  // Columns of a tile: two vectors.
  int64_t columns;
  // c[r][n] = (first ? 0 : c[r][n]) + sum_k a[r][offset + k] b[k][n] over all stretches, with b [k][columns] from the
  // first stretch on, and rows of c `stride` apart.
  void (*rows)(const Stretch* stretches, int64_t count, const T* const* a, const T* b, T* c, int64_t stride,
               bool first);
  // The same with a [k][kTileRows].
  void (*packed)(int64_t k, const T* a, const T* b, T* c, int64_t stride, bool first);
  // Tensor to [width][channels] with pixels `stride` apart, and back, by storage.
  void (*load)(Storage storage, const void* from, Pixels pixels, T* to, int64_t stride);
  void (*store)(Storage storage, const T* from, int64_t stride, void* to, Pixels pixels);
  // Rounds to the storage and back.
  void (*round)(Storage storage, T* values, int64_t n);
  // Sums of neighbours at `count` places `step` apart, as many values of each place as a tile has columns or rows, one
  // place after another; up to kSlack more are read and written.
  void (*combine_columns)(int64_t count, const T* from, int64_t step, const Terms<T>& terms, T* to);
  void (*combine_rows)(int64_t count, const T* from, int64_t step, const Terms<T>& terms, T* to);
  // For kernels of 2 and of 3 taps.
  Winograd<T> winograd[2];
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

template <typename T>
Gemm<T> gemm();

}  // namespace fastgan
