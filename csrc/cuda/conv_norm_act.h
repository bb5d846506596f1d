// Launchers of conv_norm_act where the image side has 1 to 4 channels; no torch here. Formulas, and the words big,
// small, gather, scatter and wgrad: backends/reference/conv_norm_act.py.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/bias_act.h"

namespace fastgan {

// One side of the convolution and what is done to it while it is loaded: nothing, or one of mask and normalisation.
struct ConvOperand {
  const void* data;                                // [N, channels, height, width] by the strides; null for the result
  const void* y;                                   // like data, which it masks: data * a'(y); or null
  const void *scale, *shift;                       // [channels], accumulation type: a(scale * data + shift); or null
  int channels, height, width;                     // of the image, as torch has them
  int64_t stride_n, stride_c, stride_h, stride_w;  // in elements
  int activation;                                  // a, an index into reference.activation.ACTIVATIONS
  double negative_slope;
};

struct ConvNormActParams {
  ConvOperand big, small;  // big.channels <= 4
  const void* weight;      // [small.channels, big.channels, kernel_h, kernel_w], for wgrad null
  const void* bias;        // [channels of the result], or null
  void* out;               // the result: big, small or weight
  void* workspace;         // [conv_norm_act_wgrad_workspace(p)] of the accumulation type, for wgrad
  int batch;
  int kernel_h, kernel_w;  // <= 7
  int stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  int activation;  // of the result
  double negative_slope;
  Type type;
  bool bias_widened;  // the bias is float32 (float64 with float64 tensors), else of the tensors' type
};

// out = small = act(gather(big, weight) + bias)
cudaError_t launch_conv_norm_act_gather(const ConvNormActParams& p, cudaStream_t stream);
// out = big = act(scatter(small, weight) + bias)
cudaError_t launch_conv_norm_act_scatter(const ConvNormActParams& p, cudaStream_t stream);
// out = weight's gradient, in an order of sums that depends on the shape alone
cudaError_t launch_conv_norm_act_wgrad(const ConvNormActParams& p, cudaStream_t stream);
// elements of the workspace of wgrad
int64_t conv_norm_act_wgrad_workspace(const ConvNormActParams& p);

}  // namespace fastgan
