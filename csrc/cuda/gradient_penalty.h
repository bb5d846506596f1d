// Launchers of gradient_penalty; no torch here. Formulas: backends/reference/gradient_penalty.py.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/bias_act.h"

namespace fastgan {

struct GradientPenaltyInterpolateParams {
  const void *real, *fake;  // [batch, inner] each
  const void* t;            // [batch], accumulation type
  void* x;                  // [batch, inner], or where `stack` [3, batch, inner]: real, fake and x
  int64_t batch, inner;     // inner: values of a sample
  Type type;
  bool stack;
};

struct GradientPenaltyParams {
  const void* g;      // [batch, inner]
  void* v;            // [batch, inner]
  void* penalty;      // [1], accumulation type
  double* workspace;  // [gradient_penalty_workspace(p)]
  int64_t batch, inner;
  double weight, target;
  Type type;
  bool one_sided;
};

cudaError_t launch_gradient_penalty_interpolate(const GradientPenaltyInterpolateParams& p, cudaStream_t stream);
// Two launches: the squared norms of the parts of each sample; P and v.
cudaError_t launch_gradient_penalty(const GradientPenaltyParams& p, cudaStream_t stream);
int64_t gradient_penalty_workspace(const GradientPenaltyParams& p);

}  // namespace fastgan
