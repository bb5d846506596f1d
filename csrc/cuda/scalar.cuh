// The types of tensors on the device: neighbours that travel together, and the way to the accumulation type and back.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace fastgan {

template <typename scalar_t, int N>
struct alignas(sizeof(scalar_t) * N) Pack {
  scalar_t v[N];
};

template <typename acc_t, typename scalar_t>
__device__ inline acc_t widen(scalar_t v) {
  return static_cast<acc_t>(v);
}
template <>
__device__ inline float widen<float, __half>(__half v) {
  return __half2float(v);
}
template <>
__device__ inline float widen<float, __nv_bfloat16>(__nv_bfloat16 v) {
  return __bfloat162float(v);
}

template <typename scalar_t, typename acc_t>
__device__ inline scalar_t narrow(acc_t v) {
  return static_cast<scalar_t>(v);
}
template <>
__device__ inline __half narrow<__half, float>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16, float>(float v) {
  return __float2bfloat16_rn(v);
}

}  // namespace fastgan
