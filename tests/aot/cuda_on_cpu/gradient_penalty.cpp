// The launchers of gradient_penalty as C functions, for ctypes.
#include "cuda/gradient_penalty.cu"

extern "C" {

int64_t parameters_size(bool interpolate) {
  return interpolate ? sizeof(fastgan::GradientPenaltyInterpolateParams) : sizeof(fastgan::GradientPenaltyParams);
}

int64_t workspace(const fastgan::GradientPenaltyParams* p) { return fastgan::gradient_penalty_workspace(*p); }

int interpolate(const fastgan::GradientPenaltyInterpolateParams* p, bool backwards) {
  cuda_on_cpu::backwards = backwards;
  return fastgan::launch_gradient_penalty_interpolate(*p, nullptr);
}

int penalty(const fastgan::GradientPenaltyParams* p, bool backwards) {
  cuda_on_cpu::backwards = backwards;
  return fastgan::launch_gradient_penalty(*p, nullptr);
}
}
