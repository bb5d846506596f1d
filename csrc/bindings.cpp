// The Python module fastgan._C.
#include <pybind11/stl.h>
// torch/extension.h would bring all of torch, and take longer to compile than the kernels
#include <torch/csrc/utils/pybind.h>

#include "cpu/span.h"
#include "cpu/stems.h"
#ifdef FASTGAN_CUDA
#include "cuda/glue.h"
#endif

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using namespace fastgan;
  // other Python threads may run while a kernel does
  using NoGil = pybind11::call_guard<pybind11::gil_scoped_release>;
  m.def("instruction_set", &instruction_set);
  m.def("autocast", &autocast, NoGil());
  m.def("bias_act_fwd_cpu", &bias_act_fwd_cpu, NoGil());
  m.def("bias_act_bwd_cpu", &bias_act_bwd_cpu, NoGil());
  m.def("bias_act_db_cpu", &bias_act_db_cpu, NoGil());
  m.def("bias_act_bwd_bwd_cpu", &bias_act_bwd_bwd_cpu, NoGil());
  m.def("norm_act_fwd_cpu", &norm_act_fwd_cpu, NoGil());
  m.def("norm_act_eval_cpu", &norm_act_eval_cpu, NoGil());
  m.def("norm_act_bwd_cpu", &norm_act_bwd_cpu, NoGil());
  m.def("norm_act_bwd_bwd_sums_cpu", &norm_act_bwd_bwd_sums_cpu, NoGil());
  m.def("norm_act_bwd_bwd_curve_cpu", &norm_act_bwd_bwd_curve_cpu, NoGil());
  m.def("norm_act_bwd_bwd_cpu", &norm_act_bwd_bwd_cpu, NoGil());
  m.def("norm_act_stats_cpu", &norm_act_stats_cpu, NoGil());
  m.def("conv_norm_act_fwd_cpu", &conv_norm_act_fwd_cpu, NoGil());
  m.def("conv_norm_act_in_pairs_cpu", &conv_norm_act_in_pairs_cpu);
  m.def("conv_norm_act_load_cpu", &conv_norm_act_load_cpu, NoGil());
  m.def("conv_norm_act_dw_cpu", &conv_norm_act_dw_cpu, NoGil());
  m.def("one_pixel_product_cpu", &one_pixel_product_cpu, NoGil());
  m.def("gradient_penalty_interpolate_cpu", &gradient_penalty_interpolate_cpu, NoGil());
  m.def("gradient_penalty_cpu", &gradient_penalty_cpu, NoGil());
  m.def("spectral_norm_power_iteration_cpu", &spectral_norm_power_iteration_cpu, NoGil());
  m.def("spectral_norm_bwd_cpu", &spectral_norm_bwd_cpu, NoGil());
#ifdef FASTGAN_CUDA
  m.def("bias_act_fwd_cuda", &bias_act_fwd_cuda, NoGil());
  m.def("bias_act_bwd_cuda", &bias_act_bwd_cuda, NoGil());
  m.def("bias_act_bwd_bwd_cuda", &bias_act_bwd_bwd_cuda, NoGil());
  m.def("conv_norm_act_gather_cuda", &conv_norm_act_gather_cuda, NoGil());
  m.def("conv_norm_act_scatter_cuda", &conv_norm_act_scatter_cuda, NoGil());
  m.def("conv_norm_act_wgrad_cuda", &conv_norm_act_wgrad_cuda, NoGil());
  m.def("gradient_penalty_interpolate_cuda", &gradient_penalty_interpolate_cuda, NoGil());
  m.def("gradient_penalty_cuda", &gradient_penalty_cuda, NoGil());
  m.def("spectral_norm_power_iteration_cuda", &spectral_norm_power_iteration_cuda, NoGil());
  m.def("spectral_norm_bwd_cuda", &spectral_norm_bwd_cuda, NoGil());
#endif
}
