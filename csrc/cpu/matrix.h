// The innermost loops of spectral_norm and one_pixel: a few rows of a matrix times a vector, from either side. No torch
// header: matrix_loops.h is compiled once per instruction set.
#pragma once
#include <cstdint>

namespace fastgan {

// Rows that one call takes at most, and bytes of lanes for which the loops keep all in registers.
constexpr int64_t kMatrixRows = 4;
constexpr int kLineBytes = 64;
// Those lanes, and terms that a lane adds up in T.
template <typename T>
constexpr int64_t kMatrixLanes = kLineBytes / int64_t(sizeof(T));
constexpr int64_t kTerms = 128;

// Rows of n values lie `stride` apart; value i of a row belongs to lane i % lanes.
template <typename T>
struct MatrixLoops {
  // acc[r][lane] += w[r][i] c[i]
  void (*gather)(int64_t rows, int64_t n, int64_t stride, int64_t lanes, const T* w, const T* c, T* acc);
  // acc[i] += sum_r w[r][i] x[r][lane]
  void (*scatter)(int64_t rows, int64_t n, int64_t stride, int64_t lanes, const T* w, const T* x, T* acc);
  // out[i] = scale dy[i] - x[lane] c[i]
  void (*combine)(int64_t n, int64_t lanes, const T* dy, T scale, const T* x, const T* c, T* out);
};

namespace baseline {
template <typename T>
MatrixLoops<T> matrix_loops();
}  // namespace baseline
namespace avx2 {
template <typename T>
MatrixLoops<T> matrix_loops();
}  // namespace avx2

template <typename T>
MatrixLoops<T> matrix_loops();

// Adds lanes to the totals of their `inner` classes: pairwise in T, then in double. Spoils the lanes.
template <typename T>
void fold_lanes(T* acc, int64_t lanes, int64_t inner, double* totals) {
  while (lanes > inner && lanes > 8) {
    lanes /= 2;
    for (int64_t i = 0; i < lanes; ++i) acc[i] += acc[i + lanes];
  }
  for (int64_t i = 0; i < lanes; i += inner) {
    for (int64_t k = 0; k < inner; ++k) totals[k] += double(acc[i + k]);
  }
}

}  // namespace fastgan
