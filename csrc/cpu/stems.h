// What the CPU side offers to bindings.cpp. Tensors are dense, in one memory format and one dtype per call; the caller
// allocates the results. Formulas: backends/reference/<stem>.py.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>
#include <vector>

namespace fastgan {

using at::Tensor;
using Vector = std::optional<Tensor>;  // (C,) or nothing

// A cast that torch keeps until its context of autocast ends.
Tensor autocast(const Tensor& leaf);

void bias_act_fwd_cpu(const Tensor& x, const Vector& bias, Tensor y, int64_t activation, double negative_slope);
void bias_act_bwd_cpu(const Tensor& dy, const Tensor& s, const Vector& bias, Tensor dx, int64_t activation,
                      double negative_slope);
// db (C,), in the accumulation type: sum of dy a'(y); the activation is piecewise linear.
void bias_act_db_cpu(const Tensor& dy, const Tensor& y, Tensor db, int64_t activation, double negative_slope);
void bias_act_bwd_bwd_cpu(const Tensor& ddx, const Tensor& dy, const Tensor& s, const Vector& bias, Tensor ddy,
                          Tensor ds, int64_t activation, double negative_slope);

// mean and var are written by the first, read by all others.
void norm_act_fwd_cpu(const Tensor& x, const Vector& weight, const Vector& bias, Tensor y, Tensor mean, Tensor var,
                      double eps, int64_t activation, double negative_slope, bool act_first);
void norm_act_eval_cpu(const Tensor& x, const Vector& weight, const Vector& bias, const Tensor& mean, const Tensor& var,
                       Tensor y, double eps, int64_t activation, double negative_slope, bool act_first);
void norm_act_bwd_cpu(const Tensor& dy, const Tensor& x, const Vector& weight, const Vector& bias, const Tensor& mean,
                      const Tensor& var, Tensor dx, Tensor dw, Tensor db, bool training, double eps, int64_t activation,
                      double negative_slope, bool act_first);
// sums: (5, C), of g, g xh, v, v xh, v g.
void norm_act_bwd_bwd_sums_cpu(const Tensor& ddx, const Tensor& dy, const Tensor& x, const Vector& weight,
                               const Vector& bias, const Tensor& mean, const Tensor& var, Tensor sums, double eps,
                               int64_t activation, double negative_slope, bool act_first);
// t: (3, C), coefficients of v, xh, 1 in t; sums: (2, C), of q and q xh.
void norm_act_bwd_bwd_curve_cpu(const Tensor& ddx, const Tensor& dy, const Tensor& x, const Vector& weight,
                                const Vector& bias, const Tensor& mean, const Tensor& var, const Tensor& t, Tensor sums,
                                double eps, int64_t activation, double negative_slope);
// first: (3, C), of g, xh, 1 in du; second: (5, C), of v, g, q, xh, 1 in k.
void norm_act_bwd_bwd_cpu(const Tensor& ddx, const Tensor& dy, const Tensor& x, const Vector& weight,
                          const Vector& bias, const Tensor& mean, const Tensor& var, const Tensor& t,
                          const Tensor& first, const Tensor& second, Tensor ddy, Tensor dx, double eps,
                          int64_t activation, double negative_slope, bool act_first);

// mean and var of x, nothing else.
void norm_act_stats_cpu(const Tensor& x, Tensor mean, Tensor var);

// Stride, padding and dilation of both dimensions; transposed.
using ConvSizes = std::tuple<std::array<int64_t, 2>, std::array<int64_t, 2>, std::array<int64_t, 2>, bool>;
// What x passes through while it is loaded: weight, bias, mean, var, eps, activation, slope; nothing without mean.
using Norm = std::tuple<Vector, Vector, Vector, Vector, double, int64_t, double>;
// What a gradient is masked by while it is loaded: a result y of the activation, the activation, its slope.
using Mask = std::tuple<Vector, int64_t, double>;

// Tensors are (N, C, H, W) of any strides and one dtype, weight (C_small, C_big, kH, kW); y is written as it lies,
// mean_y and var_y get its statistics unless they are empty; scale has no dimensions and multiplies the weight.
void conv_norm_act_fwd_cpu(const Tensor& x, const Norm& norm, const Mask& mask, const Tensor& weight,
                           const Vector& bias, const Vector& scale, Tensor y, Tensor mean_y, Tensor var_y,
                           const ConvSizes& sizes, int64_t activation, double negative_slope);
// Whether a convolution of bfloat16 and its gradients have sums of pairs, and pay: thin ones, what minimal
// filtering serves, and all where there are tiles; by the shapes of x and weight and the result's height and width.
bool conv_norm_act_in_pairs_cpu(std::array<int64_t, 4> x, std::array<int64_t, 4> weight, std::array<int64_t, 2> out,
                                const ConvSizes& sizes);
// What a convolution loads, written to `to`: (N, C, H, W) channels last, in the accumulation type.
void conv_norm_act_load_cpu(const Tensor& x, const Norm& norm, const Mask& mask, Tensor to);
// dw is dense; x and dy may be of the accumulation type, if they are what the above wrote.
void conv_norm_act_dw_cpu(const Tensor& x, const Norm& norm, const Tensor& dy, const Mask& mask, Tensor dw,
                          const ConvSizes& sizes);

// y (N, 1) = rows (N, K) times vector (K,), plus bias (1,); contiguous, of one type of 16 bits, the bias of any.
void one_pixel_product_cpu(const Tensor& rows, const Tensor& vector, const Vector& bias, Tensor y);

// t: (B,) of the accumulation type; x: B samples, or where `stack` 3 B: real, fake and x.
void gradient_penalty_interpolate_cpu(const Tensor& real, const Tensor& fake, const Tensor& t, Tensor x, bool stack);
// penalty: one number of the accumulation type.
void gradient_penalty_cpu(const Tensor& g, Tensor penalty, Tensor v, double weight, double target, bool one_sided);

// Lists have an entry for each layer. Weights, gradients dys and results are of one format and type for each layer:
// contiguous, or channels last with dim 0 or 1. sigmas: (L,), of the accumulation type, which all layers share.
void spectral_norm_power_iteration_cpu(const std::vector<Tensor>& weights, const std::vector<Tensor>& us,
                                       const std::vector<Tensor>& vs, const std::vector<int64_t>& dims,
                                       int64_t iterations, double eps, bool v_first, const std::vector<Tensor>& new_us,
                                       const std::vector<Tensor>& new_vs, Tensor sigmas);
void spectral_norm_bwd_cpu(const std::vector<Tensor>& dys, const std::vector<Tensor>& weights,
                           const std::vector<Tensor>& us, const std::vector<Tensor>& vs, const Tensor& sigmas,
                           const std::vector<int64_t>& dims, const std::vector<Tensor>& gradients);

}  // namespace fastgan
