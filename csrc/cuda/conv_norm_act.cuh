// Kernels of conv_norm_act for images of 1 to 4 channels. The tensor with many channels is read or written once, in 16
// bytes where size and pointers allow; the patches of the other one exist in shared memory only.
#pragma once
#include "cuda/conv_tiles.cuh"

namespace fastgan {

constexpr int kSumLanes = 16, kSumColumns = 32;

// How scatter is cut: a tile of small's pixels gives those cells of stride_h * stride_w pixels of big that see no
// pixel outside it. A cell sees `halo` further pixels of small before its own.
struct ScatterTiles {
  int height, width, halo_h, halo_w;  // of the tile, in pixels of small
  int cells_h, cells_w;               // of the tile
  int first_h, first_w;               // cell of big's first pixel
  int tiles_h, tiles_w;               // of an image
  int step_h, step_w;                 // taps that meet the same pixel of big are so far apart
  int channels;                       // of big that share a tile of taps
  bool vectors;
};

// How wgrad is cut: blocks sum equal shares of the chunks of kDepth pixels.
struct WgradSplits {
  int chunks, per_image, per_block, blocks;
  bool vectors;
};

template <typename scalar_t, typename acc_t>
__global__ void __launch_bounds__(kThreads, 2)
    conv_norm_act_gather_kernel(const __grid_constant__ ConvNormActParams p, const bool vectors) {
  constexpr int P = kPixels<acc_t>, V = least(4, kVector<scalar_t>);
  alignas(32) __shared__ acc_t patches[P * kDepthPitch];
  alignas(32) __shared__ acc_t weights[kDepth * kColumnPitch];
  __shared__ Window windows[P];
  const int tiles = parts(p.small.height * p.small.width, P), k0 = blockIdx.y * kColumns;
  if (threadIdx.x < P) windows[threadIdx.x] = window(p, blockIdx.x / tiles, blockIdx.x % tiles * P + threadIdx.x);
  // neighbouring threads store to neighbouring addresses
  const bool last = p.small.stride_c == 1;
  const int row = last ? threadIdx.x / 16 : threadIdx.x % 16;
  const int column = 4 * (last ? threadIdx.x % 16 : threadIdx.x / 16);
  acc_t acc[kRows<acc_t>][4] = {};
  for (int t0 = 0; t0 < taps(p); t0 += kDepth) {
    __syncthreads();
    load_patches<scalar_t, acc_t, P, kDepth, kDepthPitch>(p, windows, t0, patches);
    const int t = t0 + threadIdx.x % kDepth;
    for (int i = threadIdx.x / kDepth; i < kColumns; i += kThreads / kDepth) {
      const bool within = t < taps(p) && k0 + i < p.small.channels;
      const int64_t from = within ? int64_t(k0 + i) * taps(p) + t : 0;
      const acc_t w = widen<acc_t>(static_cast<const scalar_t*>(p.weight)[from]);
      weights[threadIdx.x % kDepth * kColumnPitch + i] = within ? w : acc_t(0);
    }
    __syncthreads();
    multiply(patches + row * kDepthPitch, weights + column, least(kDepth, taps(p) - t0), acc);
  }
  const int k = k0 + column;
#pragma unroll
  for (int v = 0; v < 4; ++v) {
    const acc_t bias = k + v < p.small.channels ? load_bias<scalar_t, acc_t>(p, k + v) : acc_t(0);
#pragma unroll
    for (int j = 0; j < kRows<acc_t>; ++j) acc[j][v] += bias;
  }
  with_activation(p.activation, [&](auto a) {
#pragma unroll
    for (int j = 0; j < kRows<acc_t>; ++j) {
#pragma unroll
      for (int v = 0; v < 4; ++v) acc[j][v] = act<decltype(a)::value>(acc[j][v], acc_t(p.negative_slope));
    }
  });
#pragma unroll
  for (int j = 0; j < kRows<acc_t>; ++j) {
    const int64_t at = windows[row + 16 * j].small;
    if (at < 0) continue;
    scalar_t* out = static_cast<scalar_t*>(p.out) + at;
#pragma unroll
    for (int v = 0; v < 4; v += V) {
      Pack<scalar_t, V> part;
#pragma unroll
      for (int i = 0; i < V; ++i) part.v[i] = narrow<scalar_t>(acc[j][v + i]);
      if (vectors && k + v < p.small.channels) {
        *reinterpret_cast<Pack<scalar_t, V>*>(out + k + v) = part;
        continue;
      }
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (k + v + i < p.small.channels) out[(k + v + i) * p.small.stride_c] = part.v[i];
      }
    }
  }
}

// The first tap that meets a position of big, counted from its padding; at least `step` where none does.
__device__ inline int first_tap(int position, int stride, int dilation, int step) {
  int tap = 0;
  while (tap < step && (position - tap * dilation) % stride != 0) ++tap;
  return tap < step ? tap : INT_MAX / 2;
}

template <typename scalar_t, typename acc_t>
__device__ inline void store_big(const ConvNormActParams& p, int n, int c, int h, int w, acc_t sum) {
  sum += load_bias<scalar_t, acc_t>(p, c);
  with_activation(p.activation, [&](auto a) { sum = act<decltype(a)::value>(sum, acc_t(p.negative_slope)); });
  const int64_t at = n * p.big.stride_n + c * p.big.stride_c + h * p.big.stride_h + w * p.big.stride_w;
  static_cast<scalar_t*>(p.out)[at] = narrow<scalar_t>(sum);
}

// Sums for each pixel of big what the tile's pixels hold for the taps that meet it.
template <typename scalar_t, typename acc_t>
__device__ inline void collect(const ConvNormActParams& p, const ScatterTiles& s, const acc_t* products, int n,
                               int cell_h, int cell_w, int c0) {
  const int width = s.cells_w * p.stride_w, size = s.cells_h * p.stride_h * width;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    const int from_h = cell_h * p.stride_h + i / width, from_w = cell_w * p.stride_w + i % width;
    const int h = from_h - p.padding_h, w = from_w - p.padding_w;
    if (h < 0 || w < 0 || h >= p.big.height || w >= p.big.width) continue;
    const int tap_h = first_tap(from_h, p.stride_h, p.dilation_h, s.step_h);
    const int tap_w = first_tap(from_w, p.stride_w, p.dilation_w, s.step_w);
    for (int c = 0; c < s.channels && c0 + c < p.big.channels; ++c) {
      acc_t sum = 0;
      for (int a = tap_h; a < p.kernel_h; a += s.step_h) {
        const int row = (from_h - a * p.dilation_h) / p.stride_h - cell_h + s.halo_h;
        for (int b = tap_w; b < p.kernel_w; b += s.step_w) {
          const int column = (from_w - b * p.dilation_w) / p.stride_w - cell_w + s.halo_w;
          sum += products[(row * s.width + column) * kColumnPitch + (c * p.kernel_h + a) * p.kernel_w + b];
        }
      }
      store_big<scalar_t>(p, n, c0 + c, h, w, sum);
    }
  }
}

template <typename scalar_t, typename acc_t>
__global__ void __launch_bounds__(kThreads, 2)
    conv_norm_act_scatter_kernel(const __grid_constant__ ConvNormActParams p, const __grid_constant__ ScatterTiles s) {
  constexpr int P = kPixels<acc_t>, loaded = P * kDepthPitch + kDepth * kColumnPitch, made = P * kColumnPitch;
  alignas(32) __shared__ acc_t shared[loaded > made ? loaded : made];
  __shared__ int64_t offsets[P];
  acc_t *const pixels = shared, *const weights = shared + P * kDepthPitch;
  const int n = blockIdx.x / (s.tiles_h * s.tiles_w), tile = blockIdx.x % (s.tiles_h * s.tiles_w);
  const int cell_h = s.first_h + tile / s.tiles_w * s.cells_h, cell_w = s.first_w + tile % s.tiles_w * s.cells_w;
  const int c0 = blockIdx.y * s.channels, area = p.kernel_h * p.kernel_w;
  const int columns = least(s.channels, p.big.channels - c0) * area;
  if (threadIdx.x < P) {
    const int h = cell_h - s.halo_h + int(threadIdx.x) / s.width, w = cell_w - s.halo_w + int(threadIdx.x) % s.width;
    const bool within = h >= 0 && w >= 0 && h < p.small.height && w < p.small.width;
    offsets[threadIdx.x] = within ? n * p.small.stride_n + h * p.small.stride_h + w * p.small.stride_w : -1;
  }
  const int row = threadIdx.x / 16, column = threadIdx.x % 16 * 4;
  acc_t acc[kRows<acc_t>][4] = {};
  for (int k0 = 0; k0 < p.small.channels; k0 += kDepth) {
    __syncthreads();
    const auto at = [&](int pixel) { return offsets[pixel]; };
    load_small<scalar_t, acc_t, P, kDepth, kDepthPitch>(p.small, at, k0, s.vectors, pixels);
    const int t = threadIdx.x % kColumns;
    for (int i = threadIdx.x / kColumns; i < kDepth; i += kThreads / kColumns) {
      const bool within = t < columns && k0 + i < p.small.channels;
      const int64_t from = within ? int64_t(k0 + i) * taps(p) + c0 * area + t : 0;
      const acc_t w = widen<acc_t>(static_cast<const scalar_t*>(p.weight)[from]);
      weights[i * kColumnPitch + t] = within ? w : acc_t(0);
    }
    __syncthreads();
    multiply(pixels + row * kDepthPitch, weights + column, least(kDepth, p.small.channels - k0), acc);
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kRows<acc_t>; ++j) {
    const Pack<acc_t, 4> part{acc[j][0], acc[j][1], acc[j][2], acc[j][3]};
    *reinterpret_cast<Pack<acc_t, 4>*>(shared + (row + 16 * j) * kColumnPitch + column) = part;
  }
  __syncthreads();
  collect<scalar_t>(p, s, shared, n, cell_h, cell_w, c0);
}

// For dilations that reach over a tile: a thread for each pixel of big.
template <typename scalar_t, typename acc_t>
__global__ void __launch_bounds__(kThreads, 2)
    conv_norm_act_scatter_far_kernel(const __grid_constant__ ConvNormActParams p, const int step_h, const int step_w) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, plane = int64_t(p.big.height) * p.big.width;
  if (i >= p.batch * plane) return;
  const int n = int(i / plane), h = int(i % plane / p.big.width), w = int(i % p.big.width);
  const int from_h = h + p.padding_h, from_w = w + p.padding_w, area = p.kernel_h * p.kernel_w;
  acc_t acc[4] = {};
  for (int a = first_tap(from_h, p.stride_h, p.dilation_h, step_h); a < p.kernel_h; a += step_h) {
    const int row = (from_h - a * p.dilation_h) / p.stride_h;
    if (from_h < a * p.dilation_h || row >= p.small.height) continue;
    for (int b = first_tap(from_w, p.stride_w, p.dilation_w, step_w); b < p.kernel_w; b += step_w) {
      const int column = (from_w - b * p.dilation_w) / p.stride_w;
      if (from_w < b * p.dilation_w || column >= p.small.width) continue;
      const int64_t at = n * p.small.stride_n + row * p.small.stride_h + column * p.small.stride_w;
      for (int k = 0; k < p.small.channels; ++k) {
        const scalar_t* weight = static_cast<const scalar_t*>(p.weight) + int64_t(k) * taps(p) + a * p.kernel_w + b;
        acc_t u[1];
        load<scalar_t>(p.small, at + k * p.small.stride_c, k, u);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (c < p.big.channels) acc[c] += u[0] * widen<acc_t>(weight[c * area]);
        }
      }
    }
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    if (c < p.big.channels) store_big<scalar_t>(p, n, c, h, w, acc[c]);
  }
}

template <typename scalar_t, typename acc_t>
__global__ void __launch_bounds__(kThreads, 2)
    conv_norm_act_wgrad_kernel(const __grid_constant__ ConvNormActParams p, const WgradSplits s) {
  alignas(32) __shared__ acc_t pixels[kDepth * kColumns];
  alignas(32) __shared__ acc_t patches[kDepth * kColumns];
  __shared__ Window windows[kDepth];
  const int tiles = parts(taps(p), kColumns);
  const int k0 = blockIdx.y / tiles * kColumns, t0 = blockIdx.y % tiles * kColumns;
  const int begin = blockIdx.x * s.per_block, end = least(begin + s.per_block, s.chunks);
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  const auto look = [&](int chunk) {
    const int n = chunk / s.per_image, pixel = chunk % s.per_image * kDepth + threadIdx.x;
    if (threadIdx.x < kDepth && chunk < end) windows[threadIdx.x] = window(p, n, pixel);
  };
  acc_t acc[4][4] = {};
  look(begin);
  for (int chunk = begin; chunk < end; ++chunk) {
    __syncthreads();
    const auto at = [&](int pixel) { return windows[pixel].small; };
    load_small<scalar_t, acc_t, kDepth, kColumns, kColumns>(p.small, at, k0, s.vectors, pixels);
    load_patches<scalar_t, acc_t, kDepth, kColumns, kColumns>(p, windows, t0, patches);
    __syncthreads();
    look(chunk + 1);
    multiply_transposed(pixels + row, patches + column, acc);
  }
  acc_t* out = static_cast<acc_t*>(p.workspace) + int64_t(blockIdx.x) * p.small.channels * taps(p);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int k = k0 + row + i, t = t0 + column + j;
      if (k < p.small.channels && t < taps(p)) out[int64_t(k) * taps(p) + t] = acc[i][j];
    }
  }
}

// The blocks' sums, merged in double.
template <typename scalar_t, typename acc_t>
__global__ void __launch_bounds__(kSumLanes* kSumColumns)
    conv_norm_act_wgrad_sum_kernel(const acc_t* partial, scalar_t* out, const int64_t size, const int blocks) {
  __shared__ double sums[kSumLanes][kSumColumns];
  const int lane = threadIdx.x / kSumColumns, column = threadIdx.x % kSumColumns;
  const int64_t i = int64_t(blockIdx.x) * kSumColumns + column;
  double sum = 0;
#pragma unroll 8
  for (int b = lane; b < blocks; b += kSumLanes) sum += i < size ? double(partial[b * size + i]) : 0;
  sums[lane][column] = sum;
  __syncthreads();
  if (lane > 0 || i >= size) return;
  for (int b = 1; b < kSumLanes; ++b) sum += sums[b][column];
  out[i] = narrow<scalar_t>(acc_t(sum));
}

}  // namespace fastgan
