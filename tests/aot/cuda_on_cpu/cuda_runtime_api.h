// Enough of CUDA to run kernels as host C++, one block at a time, without a GPU or its toolkit.
//
// Threads of a block are fibers, which go from barrier to barrier one after another. Their order can be reversed:
// a kernel whose result depends on it lacks a barrier.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline dim3 threadIdx, blockIdx, gridDim;

namespace cuda_on_cpu {

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 16);
  bool done = false;
};

inline bool backwards = false;
inline ucontext_t scheduler;
inline Fiber* running = nullptr;
inline void (*call)(void*) = nullptr;
inline void* argument = nullptr;

inline void enter() {
  call(argument);
  running->done = true;
}

inline void barrier() { swapcontext(&running->context, &scheduler); }

inline void run_block(std::vector<Fiber>& fibers) {
  for (Fiber& fiber : fibers) {
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, enter, 0);
  }
  const size_t count = fibers.size();
  for (size_t left = count; left > 0;) {
    const size_t before = left;
    for (size_t i = 0; i < count; ++i) {
      const size_t thread = backwards ? count - 1 - i : i;
      running = &fibers[thread];
      threadIdx = dim3(unsigned(thread));
      swapcontext(&scheduler, &running->context);
      left -= running->done;
    }
    // on a GPU, a barrier that only some threads reach hangs
    if (left != before && left != 0) std::abort();
  }
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::barrier(); }

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  auto bound = [&] { kernel(arguments...); };
  cuda_on_cpu::call = [](void* f) { (*static_cast<decltype(bound)*>(f))(); };
  cuda_on_cpu::argument = &bound;
  static std::vector<cuda_on_cpu::Fiber> fibers;
  fibers.resize(config->blockDim.x);
  gridDim = config->gridDim;
  for (unsigned y = 0; y < config->gridDim.y; ++y) {
    for (unsigned x = 0; x < config->gridDim.x; ++x) {
      blockIdx = dim3(x, y);
      cuda_on_cpu::run_block(fibers);
    }
  }
  return cudaSuccess;
}

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 1;
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}

// Of kernels with one argument, on one block.
template <typename Parameter>
cudaError_t cudaLaunchCooperativeKernel(void (*kernel)(Parameter), dim3 grid, dim3 block, void** arguments, size_t,
                                        cudaStream_t stream) {
  if (grid.x != 1) return cudaErrorInvalidValue;
  cudaLaunchConfig_t config{grid, block, 0, stream};
  return cudaLaunchKernelEx(&config, kernel, *static_cast<Parameter*>(arguments[0]));
}
