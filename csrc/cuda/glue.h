// What the CUDA side offers to bindings.cpp; the conditions on tensors are those of cpu/stems.h.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace fastgan {

void bias_act_fwd_cuda(const at::Tensor& x, const std::optional<at::Tensor>& bias, at::Tensor y, int64_t activation,
                       double negative_slope);
void bias_act_bwd_cuda(const at::Tensor& dy, const at::Tensor& s, const std::optional<at::Tensor>& bias, at::Tensor dx,
                       int64_t activation, double negative_slope);
void bias_act_bwd_bwd_cuda(const at::Tensor& ddx, const at::Tensor& dy, const at::Tensor& s,
                           const std::optional<at::Tensor>& bias, at::Tensor ddy, at::Tensor ds, int64_t activation,
                           double negative_slope);

}  // namespace fastgan
