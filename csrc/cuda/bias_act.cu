// bias_act on the GPU: memory-bound, loads and stores of 16 bytes (8 in the second order) where size and pointers
// allow.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/activation.cuh"
#include "cuda/bias_act.h"

namespace fastgan {
namespace {

constexpr int kThreads = 256;

enum class Pass { fwd, bwd, bwd_bwd };

template <typename scalar_t, int N>
struct alignas(sizeof(scalar_t) * N) Pack {
  scalar_t v[N];
};

template <typename acc_t, typename scalar_t>
__device__ acc_t widen(scalar_t v) {
  return static_cast<acc_t>(v);
}
template <>
__device__ float widen<float, __half>(__half v) {
  return __half2float(v);
}
template <>
__device__ float widen<float, __nv_bfloat16>(__nv_bfloat16 v) {
  return __bfloat162float(v);
}

template <typename scalar_t, typename acc_t>
__device__ scalar_t narrow(acc_t v) {
  return static_cast<scalar_t>(v);
}
template <>
__device__ __half narrow<__half, float>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __nv_bfloat16 narrow<__nv_bfloat16, float>(float v) {
  return __float2bfloat16_rn(v);
}

template <typename scalar_t, typename acc_t>
__device__ acc_t load_bias(const BiasActParams& p, int64_t i) {
  if (p.bias == nullptr) return acc_t(0);
  const int64_t c = (i / p.inner) % p.channels;
  return p.bias_widened ? static_cast<const acc_t*>(p.bias)[c] : widen<acc_t>(static_cast<const scalar_t*>(p.bias)[c]);
}

// Each thread handles N neighbouring elements.
template <typename scalar_t, typename acc_t, int A, Pass P, int N>
__global__ void __launch_bounds__(kThreads) bias_act_kernel(const BiasActParams p) {
  using Packed = Pack<scalar_t, N>;
  const int64_t pack = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (pack * N >= p.size) return;
  const acc_t slope = acc_t(p.negative_slope);
  const Packed x = static_cast<const Packed*>(p.x)[pack];
  Packed dy{}, ddx{}, out, out2;
  if constexpr (P != Pass::fwd) dy = static_cast<const Packed*>(p.dy)[pack];
  if constexpr (P == Pass::bwd_bwd) ddx = static_cast<const Packed*>(p.ddx)[pack];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const acc_t s = widen<acc_t>(x.v[k]) + load_bias<scalar_t, acc_t>(p, pack * N + k);
    if constexpr (P == Pass::fwd) {
      out.v[k] = narrow<scalar_t>(act<A>(s, slope));
    } else if constexpr (P == Pass::bwd) {
      out.v[k] = narrow<scalar_t>(widen<acc_t>(dy.v[k]) * dact_saved<A>(s, slope));
    } else {
      const acc_t v = widen<acc_t>(ddx.v[k]);
      out.v[k] = narrow<scalar_t>(v * dact_saved<A>(s, slope));
      out2.v[k] = narrow<scalar_t>(v * widen<acc_t>(dy.v[k]) * ddact_saved<A>(s));
    }
  }
  static_cast<Packed*>(p.out)[pack] = out;
  if constexpr (P == Pass::bwd_bwd) static_cast<Packed*>(p.out2)[pack] = out2;
}

template <typename scalar_t, typename acc_t, int A, Pass P, int N>
cudaError_t run(const BiasActParams& p, cudaStream_t stream) {
  const int64_t blocks = (p.size / N + kThreads - 1) / kThreads;
  bias_act_kernel<scalar_t, acc_t, A, P, N><<<unsigned(blocks), kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

template <typename scalar_t, typename acc_t, int A, Pass P>
cudaError_t with_vectors(const BiasActParams& p, cudaStream_t stream) {
  // the second order has five packs in registers
  constexpr int N = (P == Pass::bwd_bwd ? 8 : 16) / int(sizeof(scalar_t));
  uintptr_t bits = uintptr_t(p.x) | uintptr_t(p.dy) | uintptr_t(p.ddx) | uintptr_t(p.out) | uintptr_t(p.out2);
  return bits % 16 == 0 && p.size % N == 0 ? run<scalar_t, acc_t, A, P, N>(p, stream)
                                           : run<scalar_t, acc_t, A, P, 1>(p, stream);
}

template <typename scalar_t, typename acc_t, Pass P>
cudaError_t with_activation(const BiasActParams& p, cudaStream_t stream) {
  switch (p.activation) {
    case kIdentity:
      return with_vectors<scalar_t, acc_t, kIdentity, P>(p, stream);
    case kRelu:
      return with_vectors<scalar_t, acc_t, kRelu, P>(p, stream);
    case kLeakyRelu:
      return with_vectors<scalar_t, acc_t, kLeakyRelu, P>(p, stream);
    case kTanh:
      return with_vectors<scalar_t, acc_t, kTanh, P>(p, stream);
    case kSigmoid:
      return with_vectors<scalar_t, acc_t, kSigmoid, P>(p, stream);
    case kSilu:
      return with_vectors<scalar_t, acc_t, kSilu, P>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

template <Pass P>
cudaError_t with_type(const BiasActParams& p, cudaStream_t stream) {
  if (p.size == 0) return cudaSuccess;
  switch (p.type) {
    case Type::float16:
      return with_activation<__half, float, P>(p, stream);
    case Type::bfloat16:
      return with_activation<__nv_bfloat16, float, P>(p, stream);
    case Type::float32:
      return with_activation<float, float, P>(p, stream);
    default:
      return with_activation<double, double, P>(p, stream);
  }
}

}  // namespace

cudaError_t launch_bias_act_fwd(const BiasActParams& p, cudaStream_t stream) { return with_type<Pass::fwd>(p, stream); }

cudaError_t launch_bias_act_bwd(const BiasActParams& p, cudaStream_t stream) { return with_type<Pass::bwd>(p, stream); }

cudaError_t launch_bias_act_bwd_bwd(const BiasActParams& p, cudaStream_t stream) {
  return with_type<Pass::bwd_bwd>(p, stream);
}

}  // namespace fastgan
