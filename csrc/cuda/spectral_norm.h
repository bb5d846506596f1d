// Launchers of spectral_norm; no torch here. Formulas: backends/reference/spectral_norm.py. As on the CPU, a weight is
// W [rows, columns, inner] in the order of memory, with x [rows, inner] and c [columns], of which one is u.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/bias_act.h"

namespace fastgan {

// Layers of one launch: kernel parameters are limited to 4096 bytes.
constexpr int kSpectralLayers = 32;

struct SpectralNormLayer {
  const void* weight;   // [rows, columns, inner]
  const void *u, *v;    // of vector_type; x is u if x_is_u, else v
  void *new_u, *new_v;  // like u and v; null in the backward
  const void* dy;       // like weight; null in the iteration
  void* out;            // like weight; null in the iteration
  int64_t workspace;    // where this layer's part begins, in doubles; the launcher fills it in
  int rows, columns, inner;
  int pixels;  // v is [columns / pixels, pixels], c its transpose; 1 unless channels are last in memory
  Type vector_type;
  bool x_is_u;
};

struct SpectralNormParams {
  SpectralNormLayer layers[kSpectralLayers];
  void* sigmas;       // [count], accumulation type; read in the backward
  double* workspace;  // [spectral_norm_workspace(p)]
  double eps;
  int count;  // layers
  int iterations;
  Type type;  // of the weights
  bool v_first;
};

cudaError_t launch_spectral_norm_power_iteration(SpectralNormParams p, cudaStream_t stream);
cudaError_t launch_spectral_norm_bwd(SpectralNormParams p, cudaStream_t stream);
// doubles that either launch needs
int64_t spectral_norm_workspace(const SpectralNormParams& p);

}  // namespace fastgan
