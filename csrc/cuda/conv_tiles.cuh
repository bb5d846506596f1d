// Tiles of a convolution in shared memory, already masked or normalised, and the products of two of them.
//
// All three maps are matrix products over P, the patches of big that each pixel of small sees, [pixels, taps], with
// taps = (channel of big, row, column): gather is small = P w^T, scatter is P = small w, wgrad is dw = small^T P.
#pragma once
#include <climits>
#include <type_traits>

#include "cuda/activation.cuh"
#include "cuda/conv_norm_act.h"
#include "cuda/scalar.cuh"

namespace fastgan {

constexpr int kThreads = 256;
constexpr int kColumns = 64;  // channels of small or taps in a tile
constexpr int kDepth = 32;    // length of the sums between two barriers
// neighbouring rows begin in different banks, at multiples of 16 bytes
constexpr int kDepthPitch = kDepth + 4, kColumnPitch = kColumns + 4;
constexpr int kOutside = INT_MIN / 2;

// A tile has 16 by 16 threads; each has 4 columns, and rows that are 16 apart.
template <typename acc_t>
constexpr int kRows = sizeof(acc_t) == 8 ? 4 : 8;
template <typename acc_t>
constexpr int kPixels = 16 * kRows<acc_t>;
template <typename scalar_t>
constexpr int kVector = 16 / int(sizeof(scalar_t));

__host__ __device__ constexpr int least(int a, int b) { return a < b ? a : b; }
__host__ __device__ constexpr int parts(int whole, int part) { return (whole - 1) / part + 1; }
__host__ __device__ constexpr int taps(const ConvNormActParams& p) { return p.big.channels * p.kernel_h * p.kernel_w; }

template <typename F>
__device__ inline void with_activation(int activation, F f) {
  switch (activation) {
    case kRelu:
      return f(std::integral_constant<int, kRelu>{});
    case kLeakyRelu:
      return f(std::integral_constant<int, kLeakyRelu>{});
    case kTanh:
      return f(std::integral_constant<int, kTanh>{});
    case kSigmoid:
      return f(std::integral_constant<int, kSigmoid>{});
    case kSilu:
      return f(std::integral_constant<int, kSilu>{});
    default:
      return;
  }
}

// V neighbouring channels from c on, masked or normalised.
template <typename scalar_t, typename acc_t, int V>
__device__ inline void load(const ConvOperand& o, int64_t offset, int c, acc_t (&u)[V]) {
  using Packed = Pack<scalar_t, V>;
  const acc_t slope = acc_t(o.negative_slope);
  const Packed x = *reinterpret_cast<const Packed*>(static_cast<const scalar_t*>(o.data) + offset);
#pragma unroll
  for (int v = 0; v < V; ++v) u[v] = widen<acc_t>(x.v[v]);
  if (o.y != nullptr) {
    const Packed y = *reinterpret_cast<const Packed*>(static_cast<const scalar_t*>(o.y) + offset);
    with_activation(o.activation, [&](auto a) {
#pragma unroll
      for (int v = 0; v < V; ++v) u[v] *= dact_saved<decltype(a)::value>(widen<acc_t>(y.v[v]), slope);
    });
  }
  if (o.scale != nullptr) {
    const acc_t *scale = static_cast<const acc_t*>(o.scale) + c, *shift = static_cast<const acc_t*>(o.shift) + c;
#pragma unroll
    for (int v = 0; v < V; ++v) u[v] = scale[v] * u[v] + shift[v];
    with_activation(o.activation, [&](auto a) {
#pragma unroll
      for (int v = 0; v < V; ++v) u[v] = act<decltype(a)::value>(u[v], slope);
    });
  }
}

template <typename scalar_t, typename acc_t>
__device__ inline acc_t load_bias(const ConvNormActParams& p, int c) {
  if (p.bias == nullptr) return acc_t(0);
  return p.bias_widened ? static_cast<const acc_t*>(p.bias)[c] : widen<acc_t>(static_cast<const scalar_t*>(p.bias)[c]);
}

// Where a pixel of small is, or -1, and where it begins to look at big.
struct Window {
  int64_t small, big;
  int h, w;
};

__device__ inline Window window(const ConvNormActParams& p, int n, int pixel) {
  const ConvOperand &s = p.small, &b = p.big;
  if (pixel >= s.height * s.width) return {-1, 0, kOutside, kOutside};
  const int i = pixel / s.width, j = pixel - i * s.width;
  const int h = i * p.stride_h - p.padding_h, w = j * p.stride_w - p.padding_w;
  return {n * s.stride_n + i * s.stride_h + j * s.stride_w, n * b.stride_n + h * b.stride_h + w * b.stride_w, h, w};
}

// tile[pixel][t - t0] for TAPS taps: a thread stays at its tap, so a warp reads the rows of one patch.
template <typename scalar_t, typename acc_t, int PIXELS, int TAPS, int PITCH>
__device__ inline void load_patches(const ConvNormActParams& p, const Window* windows, int t0, acc_t* tile) {
  const int column = threadIdx.x % TAPS, t = t0 + column, area = p.kernel_h * p.kernel_w;
  const bool within = t < taps(p);
  const int c = t / area, h = t % area / p.kernel_w * p.dilation_h, w = t % p.kernel_w * p.dilation_w;
  const int64_t offset = c * p.big.stride_c + h * p.big.stride_h + w * p.big.stride_w;
#pragma unroll 4
  for (int pixel = threadIdx.x / TAPS; pixel < PIXELS; pixel += kThreads / TAPS) {
    const Window at = windows[pixel];
    acc_t u[1] = {};
    if (within && unsigned(at.h + h) < unsigned(p.big.height) && unsigned(at.w + w) < unsigned(p.big.width))
      load<scalar_t>(p.big, at.big + offset, c, u);
    tile[pixel * PITCH + column] = u[0];
  }
}

// tile[pixel][k - k0] for CHANNELS channels; at(pixel) is where the pixel is, or -1. With vectors the channels of
// small are neighbours, else threads go along pixels.
template <typename scalar_t, typename acc_t, int PIXELS, int CHANNELS, int PITCH, typename At>
__device__ inline void load_small(const ConvOperand& small, At at, int k0, bool vectors, acc_t* tile) {
  if (!vectors) {
    for (int i = threadIdx.x; i < PIXELS * CHANNELS; i += kThreads) {
      const int pixel = i % PIXELS, column = i / PIXELS, k = k0 + column;
      const int64_t offset = at(pixel);
      acc_t u[1] = {};
      if (offset >= 0 && k < small.channels) load<scalar_t>(small, offset + k * small.stride_c, k, u);
      tile[pixel * PITCH + column] = u[0];
    }
    return;
  }
  constexpr int V = kVector<scalar_t>, W = kVector<acc_t>, lanes = CHANNELS / V;
#pragma unroll 2
  for (int i = threadIdx.x; i < PIXELS * lanes; i += kThreads) {
    const int pixel = i / lanes, column = i % lanes * V, k = k0 + column;
    const int64_t offset = at(pixel);
    acc_t u[V] = {};
    if (offset >= 0 && k < small.channels) load<scalar_t>(small, offset + k, k, u);
#pragma unroll
    for (int v = 0; v < V; v += W) {
      Pack<acc_t, W> part;
#pragma unroll
      for (int i = 0; i < W; ++i) part.v[i] = u[v + i];
      *reinterpret_cast<Pack<acc_t, W>*>(tile + pixel * PITCH + column + v) = part;
    }
  }
}

// acc += a b for rows 16 apart of a[row][kDepthPitch] and 4 columns of b[depth][kColumnPitch].
template <typename acc_t>
__device__ inline void multiply(const acc_t* a, const acc_t* b, int depth, acc_t (&acc)[kRows<acc_t>][4]) {
  using Packed = Pack<acc_t, 4>;
  for (int d = 0; d < depth; d += 4) {
    Packed bs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) bs[i] = *reinterpret_cast<const Packed*>(b + (d + i) * kColumnPitch);
#pragma unroll
    for (int j = 0; j < kRows<acc_t>; ++j) {
      const Packed as = *reinterpret_cast<const Packed*>(a + 16 * j * kDepthPitch + d);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int v = 0; v < 4; ++v) acc[j][v] += as.v[i] * bs[i].v[v];
      }
    }
  }
}

// acc += a^T b for 4 columns of a[kDepth][kColumns] and 4 of b, alike.
template <typename acc_t>
__device__ inline void multiply_transposed(const acc_t* a, const acc_t* b, acc_t (&acc)[4][4]) {
  using Packed = Pack<acc_t, 4>;
#pragma unroll 4
  for (int d = 0; d < kDepth; ++d) {
    const Packed as = *reinterpret_cast<const Packed*>(a + d * kColumns);
    const Packed bs = *reinterpret_cast<const Packed*>(b + d * kColumns);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) acc[i][j] += as.v[i] * bs.v[j];
    }
  }
}

}  // namespace fastgan
