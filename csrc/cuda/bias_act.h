// Launchers of bias_act; no torch here. Formulas: backends/reference/bias_act.py.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace fastgan {

enum class Type { float16, bfloat16, float32, float64 };

struct BiasActParams {
  const void *x, *dy, *ddx;  // [size] each; in the backward passes x is the saved tensor
  const void* bias;          // [channels], or null
  void *out, *out2;          // [size]
  int64_t size;              // elements
  int64_t channels, inner;   // element i belongs to channel (i / inner) % channels
  int activation;            // index into reference.activation.ACTIVATIONS
  double negative_slope;
  Type type;
  bool bias_widened;  // the bias is float32 (float64 with float64 tensors), else of the tensors' type
};

cudaError_t launch_bias_act_fwd(const BiasActParams& p, cudaStream_t stream);      // out = y
cudaError_t launch_bias_act_bwd(const BiasActParams& p, cudaStream_t stream);      // out = dx
cudaError_t launch_bias_act_bwd_bwd(const BiasActParams& p, cudaStream_t stream);  // out = ddy, out2 = ds

}  // namespace fastgan
