// The launchers of spectral_norm as C functions, for ctypes.
#include "cuda/spectral_norm.cu"

extern "C" {

int64_t parameters_size() { return sizeof(fastgan::SpectralNormParams); }

int64_t workspace(const fastgan::SpectralNormParams* p) { return fastgan::spectral_norm_workspace(*p); }

int launch(bool backward, const fastgan::SpectralNormParams* p, bool backwards) {
  cuda_on_cpu::backwards = backwards;
  return backward ? fastgan::launch_spectral_norm_bwd(*p, nullptr)
                  : fastgan::launch_spectral_norm_power_iteration(*p, nullptr);
}
}
