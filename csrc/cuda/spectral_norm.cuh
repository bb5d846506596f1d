// The parts of spectral_norm's kernels: tasks of a block, whose cut depends on the shapes alone.
#pragma once
#include <cstdint>

#include "cuda/scalar.cuh"
#include "cuda/spectral_norm.h"

namespace fastgan {

constexpr int kSpectralThreads = 256;

__host__ __device__ inline int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

// How a layer is cut, and where its part of the workspace holds what.
template <typename acc_t>
struct SpectralPlan {
  int64_t row_size, tiles, chunk, chunks, merges;
  double *squares_x, *squares_c, *products;  // [rows], [merges], and in the backward [tiles * chunks]
  acc_t *x, *c, *partial;                    // [rows, inner], [columns], [chunks, row_size]

  __host__ __device__ SpectralPlan(const SpectralNormLayer& l, double* workspace) {
    row_size = int64_t(l.columns) * l.inner;
    tiles = pieces(row_size, kSpectralThreads);
    chunk = 32;
    while (pieces(l.rows, chunk) > 2 * chunk) chunk *= 2;
    chunks = pieces(l.rows, chunk);
    merges = pieces(l.columns, kSpectralThreads);
    products = squares_x = workspace + l.workspace;
    squares_c = squares_x + l.rows;
    x = reinterpret_cast<acc_t*>(squares_c + merges);
    c = x + int64_t(l.rows) * l.inner;
    partial = c + l.columns;
  }

  // doubles, enough for both kernels
  int64_t size(const SpectralNormLayer& l) const {
    return l.rows + merges + int64_t(l.rows) * l.inner + l.columns + chunks * row_size + tiles * chunks;
  }
};

template <typename acc_t>
__device__ inline acc_t load_vector(const void* v, Type type, int64_t i) {
  switch (type) {
    case Type::float16:
      return acc_t(widen<float>(static_cast<const __half*>(v)[i]));
    case Type::bfloat16:
      return acc_t(widen<float>(static_cast<const __nv_bfloat16*>(v)[i]));
    case Type::float32:
      return acc_t(static_cast<const float*>(v)[i]);
    default:
      return acc_t(static_cast<const double*>(v)[i]);
  }
}

template <typename acc_t>
__device__ inline void store_vector(void* v, Type type, int64_t i, acc_t value) {
  switch (type) {
    case Type::float16:
      static_cast<__half*>(v)[i] = narrow<__half>(float(value));
      break;
    case Type::bfloat16:
      static_cast<__nv_bfloat16*>(v)[i] = narrow<__nv_bfloat16>(float(value));
      break;
    case Type::float32:
      static_cast<float*>(v)[i] = float(value);
      break;
    default:
      static_cast<double*>(v)[i] = double(value);
  }
}

// Where entry q of c is in the vector that it is a copy of.
__device__ inline int64_t place_of_c(const SpectralNormLayer& l, int64_t q) {
  const int channels = l.columns / l.pixels;
  return l.x_is_u ? (q % channels) * l.pixels + q / channels : q;
}
template <typename acc_t>
__device__ inline acc_t load_x(const SpectralNormLayer& l, int64_t i) {
  return load_vector<acc_t>(l.x_is_u ? l.u : l.v, l.vector_type, i);
}
template <typename acc_t>
__device__ inline acc_t load_c(const SpectralNormLayer& l, int64_t q) {
  return load_vector<acc_t>(l.x_is_u ? l.v : l.u, l.vector_type, place_of_c(l, q));
}

// Sums what the `groups` threads of each class hold, thread = group * classes + class, and gives it to group 0.
template <typename T>
__device__ inline T sum_groups(T value, int classes, int groups, T* shared) {
  const int thread = int(threadIdx.x), group = thread / classes;
  shared[thread] = value;
  for (int left = groups; left > 1;) {
    const int half = (left + 1) / 2;
    __syncthreads();
    if (group + half < left) shared[thread] += shared[thread + half * classes];
    left = half;
  }
  __syncthreads();
  const T total = shared[thread];
  __syncthreads();
  return total;
}

// The sum over the block, for all its threads.
__device__ inline double sum_block(double value, double* shared) {
  sum_groups(value, 1, kSpectralThreads, shared);
  const double total = shared[0];
  __syncthreads();
  return total;
}

__device__ inline double sum_array(const double* values, int64_t n, double* shared) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSpectralThreads) total += values[i];
  return sum_block(total, shared);
}

// F.normalize's denominator; NaN stays NaN.
__device__ inline double denominator(double norm, double eps) { return norm < eps ? eps : norm; }

// One row of x = W c / below.
template <typename scalar_t, typename acc_t>
__device__ void spectral_gather(const SpectralNormLayer& l, const SpectralPlan<acc_t>& plan, int64_t row, acc_t factor,
                                acc_t* shared, double* shared_squares) {
  const scalar_t* w = static_cast<const scalar_t*>(l.weight) + row * plan.row_size;
  double squares = 0;
  for (int first = 0; first < l.inner; first += kSpectralThreads) {
    const int classes = l.inner - first < kSpectralThreads ? l.inner - first : kSpectralThreads;
    const int groups = kSpectralThreads / classes;
    const int k = int(threadIdx.x) % classes, group = int(threadIdx.x) / classes;
    acc_t total = 0;
    if (group < groups) {
#pragma unroll 4
      for (int64_t q = group; q < l.columns; q += groups) {
        total += widen<acc_t>(w[q * l.inner + first + k]) * (plan.c[q] * factor);
      }
    }
    total = sum_groups(total, classes, groups, shared);
    if (group == 0) {
      plan.x[row * l.inner + first + k] = total;
      squares += double(total) * double(total);
    }
  }
  squares = sum_block(squares, shared_squares);
  if (threadIdx.x == 0) plan.squares_x[row] = squares;
}

// A tile of columns times a chunk of rows of c = W x / below.
template <typename scalar_t, typename acc_t>
__device__ void spectral_scatter(const SpectralNormLayer& l, const SpectralPlan<acc_t>& plan, int64_t task,
                                 acc_t factor) {
  const int64_t i = task % plan.tiles * kSpectralThreads + threadIdx.x, chunk = task / plan.tiles;
  if (i >= plan.row_size) return;
  const int64_t begin = chunk * plan.chunk, end = begin + plan.chunk < l.rows ? begin + plan.chunk : l.rows;
  const scalar_t* w = static_cast<const scalar_t*>(l.weight) + i;
  const acc_t* x = plan.x + i % l.inner;
  acc_t total = 0;
#pragma unroll 8
  for (int64_t p = begin; p < end; ++p) total += widen<acc_t>(w[p * plan.row_size]) * (x[p * l.inner] * factor);
  plan.partial[chunk * plan.row_size + i] = total;
}

// Sums chunks and inner dimension for a thread's column.
template <typename acc_t>
__device__ void spectral_merge(const SpectralNormLayer& l, const SpectralPlan<acc_t>& plan, int64_t task,
                               double* shared) {
  const int64_t q = task * kSpectralThreads + threadIdx.x;
  double total = 0;
  if (q < l.columns) {
    for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
      const acc_t* partial = plan.partial + chunk * plan.row_size + q * l.inner;
      for (int k = 0; k < l.inner; ++k) total += double(partial[k]);
    }
    plan.c[q] = acc_t(total);
  }
  const double rounded = double(acc_t(total)), squares = sum_block(rounded * rounded, shared);
  if (threadIdx.x == 0) plan.squares_c[task] = squares;
}

// <dy, W> in a tile of columns and a chunk of rows.
template <typename scalar_t, typename acc_t>
__device__ void spectral_product(const SpectralNormLayer& l, const SpectralPlan<acc_t>& plan, int64_t task,
                                 double* shared) {
  const int64_t i = task % plan.tiles * kSpectralThreads + threadIdx.x, begin = task / plan.tiles * plan.chunk;
  const int64_t end = begin + plan.chunk < l.rows ? begin + plan.chunk : l.rows;
  acc_t total = 0;
  if (i < plan.row_size) {
    const scalar_t *w = static_cast<const scalar_t*>(l.weight) + i, *dy = static_cast<const scalar_t*>(l.dy) + i;
#pragma unroll 4
    for (int64_t p = begin; p < end; ++p) {
      total += widen<acc_t>(w[p * plan.row_size]) * widen<acc_t>(dy[p * plan.row_size]);
    }
  }
  const double product = sum_block(double(total), shared);
  if (threadIdx.x == 0) plan.products[task] = product;
}

// out = scale dy - factor x c in a tile of columns and a chunk of rows.
template <typename scalar_t, typename acc_t>
__device__ void spectral_combine(const SpectralNormLayer& l, const SpectralPlan<acc_t>& plan, int64_t task, acc_t scale,
                                 acc_t factor) {
  const int64_t i = task % plan.tiles * kSpectralThreads + threadIdx.x, begin = task / plan.tiles * plan.chunk;
  const int64_t end = begin + plan.chunk < l.rows ? begin + plan.chunk : l.rows;
  if (i >= plan.row_size) return;
  const acc_t c = load_c<acc_t>(l, i / l.inner);
  const scalar_t* dy = static_cast<const scalar_t*>(l.dy) + i;
  scalar_t* out = static_cast<scalar_t*>(l.out) + i;
  for (int64_t p = begin; p < end; ++p) {
    const acc_t x = load_x<acc_t>(l, p * l.inner + i % l.inner);
    out[p * plan.row_size] = narrow<scalar_t>(scale * widen<acc_t>(dy[p * plan.row_size]) - factor * x * c);
  }
}

}  // namespace fastgan
