// The way from a parameter struct to a kernel of the right type.
#pragma once
#include <cuda_runtime.h>

#include <climits>
#include <cstdint>

#include "cuda/bias_act.h"
#include "cuda/scalar.cuh"

namespace fastgan {

template <typename T, typename A>
struct Types {
  using scalar_t = T;
  using acc_t = A;
};

// Runs f with the types that tensors are stored and accumulated in.
template <typename F>
cudaError_t with_types(Type type, F f) {
  switch (type) {
    case Type::float16:
      return f(Types<__half, float>{});
    case Type::bfloat16:
      return f(Types<__nv_bfloat16, float>{});
    case Type::float32:
      return f(Types<float, float>{});
    default:
      return f(Types<double, double>{});
  }
}

struct Blocks {
  int64_t x, y = 1;
};

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), Blocks blocks, int threads, cudaStream_t stream,
                   Arguments... arguments) {
  if (blocks.x > INT_MAX || blocks.y > 65535) return cudaErrorInvalidValue;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(blocks.x), unsigned(blocks.y));
  config.blockDim = dim3(unsigned(threads));
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace fastgan
