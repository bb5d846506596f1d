// The only place where torch and CUDA meet: tensors become parameter structs, on the current stream of their device.
#include "cuda/glue.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <climits>

#include "cuda/bias_act.h"
#include "cuda/conv_norm_act.h"
#include "cuda/gradient_penalty.h"
#include "cuda/spectral_norm.h"

namespace fastgan {
namespace {

using at::Tensor;

Type type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case at::kHalf:
      return Type::float16;
    case at::kBFloat16:
      return Type::bfloat16;
    case at::kFloat:
      return Type::float32;
    case at::kDouble:
      return Type::float64;
    default:
      TORCH_CHECK_TYPE(false, "fastgan: dtype must be a floating point type, got ", t.scalar_type());
  }
}

at::ScalarType accumulated(const Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// What a kernel reads in place of a bias: dense, and of x's type or of the type that x is accumulated in.
struct Bias {
  std::optional<Tensor> dense;
  bool widened = false;

  Bias(const std::optional<Tensor>& bias, const Tensor& x) {
    if (!bias.has_value()) return;
    const at::ScalarType wide = accumulated(x);
    const bool known = bias->scalar_type() == wide || bias->scalar_type() == x.scalar_type();
    dense = (known ? *bias : bias->to(wide)).contiguous();
    widened = dense->scalar_type() == wide;
  }
  const void* data() const { return dense ? dense->const_data_ptr() : nullptr; }
};

// Launches f with `x` as the tensor that gives sizes and type.
void launch(cudaError_t (*f)(const BiasActParams&, cudaStream_t), const Tensor& x, const std::optional<Tensor>& bias,
            BiasActParams p, int64_t activation, double negative_slope) {
  const c10::cuda::CUDAGuard guard(x.device());
  const bool channels_inner = x.dim() == 2 || x.size(1) == 1 || !x.is_contiguous();
  const Bias dense_bias(bias, x);
  p.x = x.const_data_ptr();
  p.bias = dense_bias.data();
  p.bias_widened = dense_bias.widened;
  p.type = type_of(x);
  p.size = x.numel();
  p.channels = x.size(1);
  p.inner = channels_inner || x.numel() == 0 ? 1 : x.numel() / (x.size(0) * x.size(1));
  p.activation = int(activation);
  p.negative_slope = negative_slope;
  const cudaError_t error = f(p, c10::cuda::getCurrentCUDAStream());
  TORCH_CHECK(error == cudaSuccess, "fastgan: bias_act did not launch: ", cudaGetErrorString(error));
}

// Positions of 7 taps stay below 2**31.
int as_int(int64_t size) {
  TORCH_CHECK_VALUE(size <= 1 << 28, "fastgan: conv_norm_act: sizes must be at most 2**28, got ", size);
  return int(size);
}

ConvOperand operand(const Tensor& t) {
  ConvOperand o{};
  o.channels = as_int(t.size(1));
  o.height = as_int(t.size(2));
  o.width = as_int(t.size(3));
  as_int(t.size(2) * t.size(3));
  o.stride_n = t.stride(0);
  o.stride_c = t.stride(1);
  o.stride_h = t.stride(2);
  o.stride_w = t.stride(3);
  return o;
}

// The vectors of `norm` must be dense and of the accumulation type, and live until the launch.
ConvOperand operand(const Tensor& t, const ConvMask& mask, const ConvNorm& norm) {
  ConvOperand o = operand(t);
  const auto& [y, mask_activation, mask_slope] = mask;
  const auto& [scale, shift, norm_activation, norm_slope] = norm;
  TORCH_INTERNAL_ASSERT(!(y && scale) && scale.has_value() == shift.has_value());
  TORCH_INTERNAL_ASSERT(!scale || (scale->scalar_type() == accumulated(t) && shift->scalar_type() == accumulated(t)));
  o.data = t.const_data_ptr();
  o.y = y ? y->const_data_ptr() : nullptr;
  o.scale = scale ? scale->const_data_ptr() : nullptr;
  o.shift = shift ? shift->const_data_ptr() : nullptr;
  o.activation = int(y ? mask_activation : norm_activation);
  o.negative_slope = y ? mask_slope : norm_slope;
  return o;
}

ConvNormActParams convolution(const ConvOperand& big, const ConvOperand& small, const Tensor& weight, const Tensor& out,
                              int64_t batch, const ConvGeometry& geometry) {
  const auto& [stride, padding, dilation] = geometry;
  ConvNormActParams p{};
  p.big = big;
  p.small = small;
  p.out = out.mutable_data_ptr();
  p.batch = as_int(batch);
  p.kernel_h = as_int(weight.size(2));
  p.kernel_w = as_int(weight.size(3));
  p.stride_h = as_int(stride[0]);
  p.stride_w = as_int(stride[1]);
  p.padding_h = as_int(padding[0]);
  p.padding_w = as_int(padding[1]);
  p.dilation_h = as_int(dilation[0]);
  p.dilation_w = as_int(dilation[1]);
  p.type = type_of(out);
  return p;
}

void launch(cudaError_t (*f)(const ConvNormActParams&, cudaStream_t), ConvNormActParams p, const Tensor& weight,
            const std::optional<Tensor>& bias, int64_t activation, double negative_slope) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const Tensor dense_weight = weight.contiguous();
  const Bias dense_bias(bias, weight);
  p.weight = dense_weight.const_data_ptr();
  p.bias = dense_bias.data();
  p.bias_widened = dense_bias.widened;
  p.activation = int(activation);
  p.negative_slope = negative_slope;
  const cudaError_t error = f(p, c10::cuda::getCurrentCUDAStream());
  TORCH_CHECK(error == cudaSuccess, "fastgan: conv_norm_act did not launch: ", cudaGetErrorString(error));
}

// 32 bits, as the kernels count rows and columns.
int as_extent(int64_t size) {
  TORCH_CHECK_VALUE(size <= INT_MAX, "fastgan: spectral_norm: sizes must be below 2**31, got ", size);
  return int(size);
}

// The weight is contiguous, or channels last with dim 0 or 1; u and v are of one type.
SpectralNormLayer spectral_layer(const Tensor& weight, const Tensor& u, const Tensor& v, int64_t dim) {
  const auto sizes = weight.sizes();
  const bool last = !weight.is_contiguous();
  const int64_t before = c10::multiply_integers(sizes.slice(0, dim)),
                after = c10::multiply_integers(sizes.slice(dim + 1));
  SpectralNormLayer l{};
  l.x_is_u = last ? dim == 0 : before == 1;
  l.rows = as_extent(l.x_is_u ? sizes[dim] : last ? before * after : before);
  l.columns = as_extent(l.x_is_u ? after : sizes[dim]);
  l.inner = as_extent(l.x_is_u || last ? 1 : after);
  l.pixels = last && l.x_is_u ? as_extent(after / sizes[1]) : 1;
  l.weight = weight.const_data_ptr();
  l.u = u.const_data_ptr();
  l.v = v.const_data_ptr();
  TORCH_CHECK_TYPE(u.scalar_type() == v.scalar_type(), "fastgan: spectral_norm: u and v must share a dtype");
  l.vector_type = type_of(u);
  return l;
}

// Launches f for as many layers at a time as a launch takes; set(layer, i) completes the description of layer i.
template <typename Set>
void launch(cudaError_t (*f)(SpectralNormParams, cudaStream_t), const std::vector<Tensor>& weights,
            const std::vector<Tensor>& us, const std::vector<Tensor>& vs, const std::vector<int64_t>& dims,
            void* sigmas, SpectralNormParams p, Set set) {
  const c10::cuda::CUDAGuard guard(weights[0].device());
  const int64_t item = accumulated(weights[0]) == at::kDouble ? 8 : 4;
  p.type = type_of(weights[0]);
  for (size_t first = 0; first < weights.size(); first += kSpectralLayers) {
    p.count = int(std::min<size_t>(kSpectralLayers, weights.size() - first));
    p.sigmas = static_cast<char*>(sigmas) + int64_t(first) * item;
    for (int i = 0; i < p.count; ++i) {
      const size_t at = first + i;
      TORCH_CHECK_TYPE(weights[at].scalar_type() == weights[0].scalar_type(),
                       "fastgan: spectral_norm: weights must share a dtype, got ", weights[at].scalar_type());
      p.layers[i] = spectral_layer(weights[at], us[at], vs[at], dims[at]);
      set(p.layers[i], at);
    }
    const Tensor workspace = at::empty({spectral_norm_workspace(p)}, weights[0].options().dtype(at::kDouble));
    p.workspace = workspace.mutable_data_ptr<double>();
    const cudaError_t error = f(p, c10::cuda::getCurrentCUDAStream());
    TORCH_CHECK(error == cudaSuccess, "fastgan: spectral_norm did not launch: ", cudaGetErrorString(error));
  }
}

}  // namespace

void bias_act_fwd_cuda(const Tensor& x, const std::optional<Tensor>& bias, Tensor y, int64_t activation,
                       double negative_slope) {
  BiasActParams p{};
  p.out = y.mutable_data_ptr();
  launch(launch_bias_act_fwd, x, bias, p, activation, negative_slope);
}

void bias_act_bwd_cuda(const Tensor& dy, const Tensor& s, const std::optional<Tensor>& bias, Tensor dx,
                       int64_t activation, double negative_slope) {
  BiasActParams p{};
  p.dy = dy.const_data_ptr();
  p.out = dx.mutable_data_ptr();
  launch(launch_bias_act_bwd, s, bias, p, activation, negative_slope);
}

void bias_act_bwd_bwd_cuda(const Tensor& ddx, const Tensor& dy, const Tensor& s, const std::optional<Tensor>& bias,
                           Tensor ddy, Tensor ds, int64_t activation, double negative_slope) {
  BiasActParams p{};
  p.dy = dy.const_data_ptr();
  p.ddx = ddx.const_data_ptr();
  p.out = ddy.mutable_data_ptr();
  p.out2 = ds.mutable_data_ptr();
  launch(launch_bias_act_bwd_bwd, s, bias, p, activation, negative_slope);
}

void conv_norm_act_gather_cuda(const Tensor& big, const ConvMask& mask, const Tensor& weight,
                               const std::optional<Tensor>& bias, Tensor small, const ConvGeometry& geometry,
                               int64_t activation, double negative_slope) {
  const auto p = convolution(operand(big, mask, {}), operand(small), weight, small, big.size(0), geometry);
  launch(launch_conv_norm_act_gather, p, weight, bias, activation, negative_slope);
}

void conv_norm_act_scatter_cuda(const Tensor& small, const ConvMask& mask, const ConvNorm& norm, const Tensor& weight,
                                const std::optional<Tensor>& bias, Tensor big, const ConvGeometry& geometry,
                                int64_t activation, double negative_slope) {
  const auto p = convolution(operand(big), operand(small, mask, norm), weight, big, big.size(0), geometry);
  launch(launch_conv_norm_act_scatter, p, weight, bias, activation, negative_slope);
}

void conv_norm_act_wgrad_cuda(const Tensor& big, const ConvMask& big_mask, const Tensor& small,
                              const ConvMask& small_mask, const ConvNorm& norm, Tensor dw,
                              const ConvGeometry& geometry) {
  const c10::cuda::CUDAGuard guard(dw.device());
  auto p = convolution(operand(big, big_mask, {}), operand(small, small_mask, norm), dw, dw, big.size(0), geometry);
  const Tensor workspace = at::empty({conv_norm_act_wgrad_workspace(p)}, dw.options().dtype(accumulated(dw)));
  p.workspace = workspace.mutable_data_ptr();
  launch(launch_conv_norm_act_wgrad, p, dw, std::nullopt, 0, 0);
}

void gradient_penalty_interpolate_cuda(const Tensor& real, const Tensor& fake, const Tensor& t, Tensor x, bool stack) {
  const c10::cuda::CUDAGuard guard(real.device());
  GradientPenaltyInterpolateParams p{};
  p.real = real.const_data_ptr();
  p.fake = fake.const_data_ptr();
  p.t = t.const_data_ptr();
  p.x = x.mutable_data_ptr();
  p.batch = real.size(0);
  p.inner = p.batch > 0 ? real.numel() / p.batch : 0;
  p.type = type_of(real);
  p.stack = stack;
  const cudaError_t error = launch_gradient_penalty_interpolate(p, c10::cuda::getCurrentCUDAStream());
  TORCH_CHECK(error == cudaSuccess, "fastgan: gradient_penalty did not launch: ", cudaGetErrorString(error));
}

void gradient_penalty_cuda(const Tensor& g, Tensor penalty, Tensor v, double weight, double target, bool one_sided) {
  const c10::cuda::CUDAGuard guard(g.device());
  GradientPenaltyParams p{};
  p.g = g.const_data_ptr();
  p.v = v.mutable_data_ptr();
  p.penalty = penalty.mutable_data_ptr();
  p.batch = g.size(0);
  p.inner = p.batch > 0 ? g.numel() / p.batch : 0;
  p.weight = weight;
  p.target = target;
  p.type = type_of(g);
  p.one_sided = one_sided;
  const Tensor workspace = at::empty({gradient_penalty_workspace(p)}, g.options().dtype(at::kDouble));
  p.workspace = workspace.mutable_data_ptr<double>();
  const cudaError_t error = launch_gradient_penalty(p, c10::cuda::getCurrentCUDAStream());
  TORCH_CHECK(error == cudaSuccess, "fastgan: gradient_penalty did not launch: ", cudaGetErrorString(error));
}

void spectral_norm_power_iteration_cuda(const std::vector<Tensor>& weights, const std::vector<Tensor>& us,
                                        const std::vector<Tensor>& vs, const std::vector<int64_t>& dims,
                                        int64_t iterations, double eps, bool v_first, const std::vector<Tensor>& new_us,
                                        const std::vector<Tensor>& new_vs, Tensor sigmas) {
  SpectralNormParams p{};
  p.eps = eps;
  p.iterations = as_extent(iterations);
  p.v_first = v_first;
  launch(launch_spectral_norm_power_iteration, weights, us, vs, dims, sigmas.mutable_data_ptr(), p,
         [&](SpectralNormLayer& l, size_t i) {
           l.new_u = new_us[i].mutable_data_ptr();
           l.new_v = new_vs[i].mutable_data_ptr();
         });
}

void spectral_norm_bwd_cuda(const std::vector<Tensor>& dys, const std::vector<Tensor>& weights,
                            const std::vector<Tensor>& us, const std::vector<Tensor>& vs, const Tensor& sigmas,
                            const std::vector<int64_t>& dims, const std::vector<Tensor>& gradients) {
  launch(launch_spectral_norm_bwd, weights, us, vs, dims, const_cast<void*>(sigmas.const_data_ptr()), {},
         [&](SpectralNormLayer& l, size_t i) {
           l.dy = dys[i].const_data_ptr();
           l.out = gradients[i].mutable_data_ptr();
         });
}

}  // namespace fastgan
