// What the CUDA side offers to bindings.cpp; the conditions on tensors are those of cpu/stems.h.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>
#include <vector>

namespace fastgan {

void bias_act_fwd_cuda(const at::Tensor& x, const std::optional<at::Tensor>& bias, at::Tensor y, int64_t activation,
                       double negative_slope);
void bias_act_bwd_cuda(const at::Tensor& dy, const at::Tensor& s, const std::optional<at::Tensor>& bias, at::Tensor dx,
                       int64_t activation, double negative_slope);
void bias_act_bwd_bwd_cuda(const at::Tensor& ddx, const at::Tensor& dy, const at::Tensor& s,
                           const std::optional<at::Tensor>& bias, at::Tensor ddy, at::Tensor ds, int64_t activation,
                           double negative_slope);

// (y, activation, negative_slope): multiplies by a'(y) what is loaded; y has its strides.
using ConvMask = std::tuple<std::optional<at::Tensor>, int64_t, double>;
// (scale, shift, activation, negative_slope): what is loaded becomes a(scale * it + shift), a number a channel.
using ConvNorm = std::tuple<std::optional<at::Tensor>, std::optional<at::Tensor>, int64_t, double>;
// (stride, padding, dilation), two numbers each.
using ConvGeometry = std::tuple<std::array<int64_t, 2>, std::array<int64_t, 2>, std::array<int64_t, 2>>;

// Images of 1 to 4 channels and kernels up to 7: big, small and the maps are those of the reference's docstring. All
// tensors are of one type but bias; results and weight are dense, dw is contiguous. Use a mask or a norm, not both.
void conv_norm_act_gather_cuda(const at::Tensor& big, const ConvMask& mask, const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias, at::Tensor small, const ConvGeometry& geometry,
                               int64_t activation, double negative_slope);
void conv_norm_act_scatter_cuda(const at::Tensor& small, const ConvMask& mask, const ConvNorm& norm,
                                const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::Tensor big,
                                const ConvGeometry& geometry, int64_t activation, double negative_slope);
void conv_norm_act_wgrad_cuda(const at::Tensor& big, const ConvMask& big_mask, const at::Tensor& small,
                              const ConvMask& small_mask, const ConvNorm& norm, at::Tensor dw,
                              const ConvGeometry& geometry);

void gradient_penalty_interpolate_cuda(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& t,
                                       at::Tensor x, bool stack);
void gradient_penalty_cuda(const at::Tensor& g, at::Tensor penalty, at::Tensor v, double weight, double target,
                           bool one_sided);

// All layers, of one dtype, on one device; u and v are dense.
void spectral_norm_power_iteration_cuda(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& us,
                                        const std::vector<at::Tensor>& vs, const std::vector<int64_t>& dims,
                                        int64_t iterations, double eps, bool v_first,
                                        const std::vector<at::Tensor>& new_us, const std::vector<at::Tensor>& new_vs,
                                        at::Tensor sigmas);
void spectral_norm_bwd_cuda(const std::vector<at::Tensor>& dys, const std::vector<at::Tensor>& weights,
                            const std::vector<at::Tensor>& us, const std::vector<at::Tensor>& vs,
                            const at::Tensor& sigmas, const std::vector<int64_t>& dims,
                            const std::vector<at::Tensor>& gradients);

}  // namespace fastgan
