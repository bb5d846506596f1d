// The only place where torch and CUDA meet: tensors become parameter structs, on the current stream of their device.
#include "cuda/glue.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/bias_act.h"

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

// Launches f with `x` as the tensor that gives sizes and type.
void launch(cudaError_t (*f)(const BiasActParams&, cudaStream_t), const Tensor& x, const std::optional<Tensor>& bias,
            BiasActParams p, int64_t activation, double negative_slope) {
  const c10::cuda::CUDAGuard guard(x.device());
  const bool channels_inner = x.dim() == 2 || x.size(1) == 1 || !x.is_contiguous();
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::optional<Tensor> dense_bias;
  if (bias.has_value()) {
    const bool known = bias->scalar_type() == wide || bias->scalar_type() == x.scalar_type();
    dense_bias = (known ? *bias : bias->to(wide)).contiguous();
  }
  p.x = x.const_data_ptr();
  p.bias = dense_bias ? dense_bias->const_data_ptr() : nullptr;
  p.bias_widened = dense_bias && dense_bias->scalar_type() == wide;
  p.type = type_of(x);
  p.size = x.numel();
  p.channels = x.size(1);
  p.inner = channels_inner || x.numel() == 0 ? 1 : x.numel() / (x.size(0) * x.size(1));
  p.activation = int(activation);
  p.negative_slope = negative_slope;
  const cudaError_t error = f(p, c10::cuda::getCurrentCUDAStream());
  TORCH_CHECK(error == cudaSuccess, "fastgan: bias_act did not launch: ", cudaGetErrorString(error));
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

}  // namespace fastgan
