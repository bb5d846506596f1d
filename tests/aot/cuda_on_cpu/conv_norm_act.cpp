// The launchers of conv_norm_act as C functions, for ctypes.
#include "cuda/conv_norm_act.cu"

extern "C" {

int64_t parameters_size() { return sizeof(fastgan::ConvNormActParams); }

int64_t workspace(const fastgan::ConvNormActParams* p) { return fastgan::conv_norm_act_wgrad_workspace(*p); }

int launch(int pass, const fastgan::ConvNormActParams* p, bool backwards) {
  cuda_on_cpu::backwards = backwards;
  if (pass == 0) return fastgan::launch_conv_norm_act_gather(*p, nullptr);
  if (pass == 1) return fastgan::launch_conv_norm_act_scatter(*p, nullptr);
  return fastgan::launch_conv_norm_act_wgrad(*p, nullptr);
}
}
