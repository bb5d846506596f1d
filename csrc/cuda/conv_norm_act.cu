// How the kernels of conv_norm_act are cut into blocks and launched.
#include <cuda_runtime.h>

#include <numeric>

#include "cuda/conv_norm_act.cuh"
#include "cuda/conv_norm_act.h"
#include "cuda/launch.cuh"

namespace fastgan {
namespace {

bool valid(const ConvNormActParams& p) {
  return p.big.channels >= 1 && p.big.channels <= 4 && p.small.channels >= 1 && p.kernel_h >= 1 && p.kernel_h <= 7 &&
         p.kernel_w >= 1 && p.kernel_w <= 7;
}

bool empty(int batch, const ConvOperand& o) { return batch == 0 || o.height == 0 || o.width == 0; }

// Whether small's channels may be moved 16 bytes at a time.
template <typename scalar_t>
bool vectors(const ConvOperand& small, const void* out) {
  const uintptr_t pointers = uintptr_t(small.data) | uintptr_t(small.y) | uintptr_t(out);
  const int64_t sizes = small.channels | small.stride_n | small.stride_h | small.stride_w;
  return small.stride_c == 1 && pointers % 16 == 0 && sizes % kVector<scalar_t> == 0;
}

template <typename scalar_t, typename acc_t>
ScatterTiles cut(const ConvNormActParams& p) {
  ScatterTiles s{};
  s.height = 8;
  s.width = kPixels<acc_t> / s.height;
  s.halo_h = (p.kernel_h - 1) * p.dilation_h / p.stride_h;
  s.halo_w = (p.kernel_w - 1) * p.dilation_w / p.stride_w;
  s.cells_h = s.height - s.halo_h;
  s.cells_w = s.width - s.halo_w;
  s.first_h = p.padding_h / p.stride_h;
  s.first_w = p.padding_w / p.stride_w;
  s.step_h = p.stride_h / std::gcd(p.stride_h, p.dilation_h);
  s.step_w = p.stride_w / std::gcd(p.stride_w, p.dilation_w);
  s.channels = least(p.big.channels, kColumns / (p.kernel_h * p.kernel_w));
  s.vectors = vectors<scalar_t>(p.small, nullptr);
  if (s.cells_h < 1 || s.cells_w < 1) return s;
  s.tiles_h = parts((p.big.height - 1 + p.padding_h) / p.stride_h - s.first_h + 1, s.cells_h);
  s.tiles_w = parts((p.big.width - 1 + p.padding_w) / p.stride_w - s.first_w + 1, s.cells_w);
  return s;
}

// Whether tiles would mostly hold pixels that their neighbours hold too, or give more of big than a block can sum.
bool far(const ConvNormActParams& p, const ScatterTiles& s) {
  if (s.cells_h < 1 || s.cells_w < 1 || p.stride_h > 8 || p.stride_w > 8) return true;
  return 8 * s.cells_h * s.cells_w < s.height * s.width;
}

// Shares depend on the shape alone: about 256 blocks, with 8 to 128 chunks each.
WgradSplits split(const ConvNormActParams& p) {
  WgradSplits s{};
  if (empty(p.batch, p.small) || empty(p.batch, p.big)) return s;
  s.per_image = parts(p.small.height * p.small.width, kDepth);
  s.chunks = p.batch * s.per_image;
  const int tiles = parts(p.small.channels, kColumns) * parts(taps(p), kColumns);
  const int share = parts(s.chunks, parts(256, tiles));
  s.per_block = share < 8 ? 8 : least(share, 128);
  s.blocks = parts(s.chunks, s.per_block);
  return s;
}

}  // namespace

cudaError_t launch_conv_norm_act_gather(const ConvNormActParams& p, cudaStream_t stream) {
  if (!valid(p)) return cudaErrorInvalidValue;
  if (empty(p.batch, p.small)) return cudaSuccess;
  return with_types(p.type, [&](auto types) {
    using scalar_t = typename decltype(types)::scalar_t;
    using acc_t = typename decltype(types)::acc_t;
    const int64_t tiles = int64_t(p.batch) * parts(p.small.height * p.small.width, kPixels<acc_t>);
    return launch(conv_norm_act_gather_kernel<scalar_t, acc_t>, Blocks{tiles, parts(p.small.channels, kColumns)},
                  kThreads, stream, p, vectors<scalar_t>(p.small, p.out));
  });
}

cudaError_t launch_conv_norm_act_scatter(const ConvNormActParams& p, cudaStream_t stream) {
  if (!valid(p)) return cudaErrorInvalidValue;
  if (empty(p.batch, p.big)) return cudaSuccess;
  return with_types(p.type, [&](auto types) {
    using scalar_t = typename decltype(types)::scalar_t;
    using acc_t = typename decltype(types)::acc_t;
    const ScatterTiles s = cut<scalar_t, acc_t>(p);
    if (far(p, s)) {
      const int64_t size = int64_t(p.batch) * p.big.height * p.big.width;
      return launch(conv_norm_act_scatter_far_kernel<scalar_t, acc_t>, Blocks{(size - 1) / kThreads + 1}, kThreads,
                    stream, p, s.step_h, s.step_w);
    }
    return launch(conv_norm_act_scatter_kernel<scalar_t, acc_t>,
                  Blocks{int64_t(p.batch) * s.tiles_h * s.tiles_w, parts(p.big.channels, s.channels)}, kThreads, stream,
                  p, s);
  });
}

cudaError_t launch_conv_norm_act_wgrad(const ConvNormActParams& p, cudaStream_t stream) {
  const int64_t chunks = int64_t(p.batch) * parts(p.small.height * p.small.width, kDepth);
  if (!valid(p) || chunks > INT_MAX) return cudaErrorInvalidValue;
  return with_types(p.type, [&](auto types) {
    using scalar_t = typename decltype(types)::scalar_t;
    using acc_t = typename decltype(types)::acc_t;
    WgradSplits s = split(p);
    s.vectors = vectors<scalar_t>(p.small, nullptr);
    const int tiles = parts(p.small.channels, kColumns) * parts(taps(p), kColumns);
    if (s.blocks > 0) {
      const cudaError_t error =
          launch(conv_norm_act_wgrad_kernel<scalar_t, acc_t>, Blocks{s.blocks, tiles}, kThreads, stream, p, s);
      if (error != cudaSuccess) return error;
    }
    const int64_t size = int64_t(p.small.channels) * taps(p);
    return launch(conv_norm_act_wgrad_sum_kernel<scalar_t, acc_t>, Blocks{(size - 1) / kSumColumns + 1},
                  kSumLanes * kSumColumns, stream, static_cast<const acc_t*>(p.workspace),
                  static_cast<scalar_t*>(p.out), size, s.blocks);
  });
}

int64_t conv_norm_act_wgrad_workspace(const ConvNormActParams& p) {
  return int64_t(split(p).blocks) * p.small.channels * taps(p);
}

}  // namespace fastgan
