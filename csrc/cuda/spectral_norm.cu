// spectral_norm on the GPU: all layers and iterations in one cooperative launch, with barriers of the grid in between.
// Sums are merged in an order that depends on the shapes alone.
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include "cuda/launch.cuh"
#include "cuda/spectral_norm.cuh"

namespace fastgan {
namespace {

// Calls f(layer, task) for this block's share of all tasks; count gives those of a layer.
template <typename Count, typename F>
__device__ void each_task(const SpectralNormParams& p, Count count, F f) {
  int layer = 0;
  int64_t before = 0;
  for (int64_t i = blockIdx.x;; i += gridDim.x) {
    while (layer < p.count && i - before >= count(layer)) before += count(layer++);
    if (layer == p.count) return;
    f(layer, i - before);
  }
}

// Whether half step h computes x from c; else c from x.
__device__ bool gathers(const SpectralNormParams& p, int layer, int h) {
  return (p.layers[layer].x_is_u != p.v_first) == (h % 2 == 0);
}

template <typename acc_t>
__device__ void load_vectors(const SpectralNormParams& p) {
  auto plan = [&](int layer) { return SpectralPlan<acc_t>(p.layers[layer], p.workspace); };
  auto size = [&](int layer) { return int64_t(p.layers[layer].rows) * p.layers[layer].inner; };
  auto count = [&](int layer) { return pieces(size(layer) + p.layers[layer].columns, kSpectralThreads); };
  each_task(p, count, [&](int layer, int64_t task) {
    const SpectralNormLayer& l = p.layers[layer];
    const int64_t i = task * kSpectralThreads + threadIdx.x, q = i - size(layer);
    if (q < 0) {
      plan(layer).x[i] = load_x<acc_t>(l, i);
    } else if (q < l.columns) {
      plan(layer).c[q] = load_c<acc_t>(l, q);
    }
  });
}

// Writes u, v and sigma of a layer, scaling what the last two half steps left.
template <typename acc_t>
__device__ void finish(const SpectralNormParams& p, int layer, double* shared) {
  const SpectralNormLayer& l = p.layers[layer];
  const SpectralPlan<acc_t> plan(l, p.workspace);
  const int64_t size = int64_t(l.rows) * l.inner;
  acc_t* sigma = static_cast<acc_t*>(p.sigmas) + layer;
  double below_x = 1, below_c = 1;
  if (p.iterations == 0) {
    double product = 0;
    for (int64_t i = threadIdx.x; i < size; i += kSpectralThreads) {
      product += double(load_x<acc_t>(l, i)) * double(plan.x[i]);
    }
    product = sum_block(product, shared);
    if (threadIdx.x == 0) *sigma = acc_t(product);
  } else {
    const double norm_x = sqrt(sum_array(plan.squares_x, l.rows, shared));
    const double norm_c = sqrt(sum_array(plan.squares_c, plan.merges, shared));
    below_x = denominator(norm_x, p.eps);
    below_c = denominator(norm_c, p.eps);
    const bool x_last = gathers(p, layer, 1);
    if (threadIdx.x == 0) *sigma = acc_t(x_last ? norm_x * norm_x / below_x : norm_c * norm_c / below_c);
  }
  const bool given = p.iterations == 0;
  for (int64_t i = threadIdx.x; i < size; i += kSpectralThreads) {
    const acc_t value = given ? load_x<acc_t>(l, i) : acc_t(double(plan.x[i]) / below_x);
    store_vector(l.x_is_u ? l.new_u : l.new_v, l.vector_type, i, value);
  }
  for (int64_t q = threadIdx.x; q < l.columns; q += kSpectralThreads) {
    const acc_t value = acc_t(double(plan.c[q]) / below_c);
    store_vector(l.x_is_u ? l.new_v : l.new_u, l.vector_type, place_of_c(l, q), value);
  }
}

template <typename scalar_t, typename acc_t>
__global__ void __launch_bounds__(kSpectralThreads, 2)
    spectral_norm_power_iteration_kernel(const __grid_constant__ SpectralNormParams p) {
  __shared__ acc_t shared[kSpectralThreads];
  __shared__ double shared_squares[kSpectralThreads];
  const auto grid = cooperative_groups::this_grid();
  load_vectors<acc_t>(p);
  grid.sync();
  // without iterations one half step gives W c for sigma
  const int half_steps = p.iterations == 0 ? 1 : 2 * p.iterations;
  for (int h = 0; h < half_steps; ++h) {
    auto gather = [&](int layer) { return p.iterations == 0 || gathers(p, layer, h); };
    auto count = [&](int layer) {
      const SpectralPlan<acc_t> plan(p.layers[layer], p.workspace);
      return gather(layer) ? int64_t(p.layers[layer].rows) : plan.tiles * plan.chunks;
    };
    auto merges = [&](int layer) {
      return gather(layer) ? int64_t(0) : pieces(p.layers[layer].columns, kSpectralThreads);
    };
    int known = -1;
    acc_t factor = 1;
    each_task(p, count, [&](int layer, int64_t task) {
      const SpectralNormLayer& l = p.layers[layer];
      const SpectralPlan<acc_t> plan(l, p.workspace);
      if (h > 0 && layer != known) {
        const double squares = gather(layer) ? sum_array(plan.squares_c, plan.merges, shared_squares)
                                             : sum_array(plan.squares_x, l.rows, shared_squares);
        factor = acc_t(1 / denominator(sqrt(squares), p.eps));
        known = layer;
      }
      if (gather(layer)) {
        spectral_gather<scalar_t, acc_t>(l, plan, task, factor, shared, shared_squares);
      } else {
        spectral_scatter<scalar_t, acc_t>(l, plan, task, factor);
      }
    });
    grid.sync();
    bool any = false;
    for (int layer = 0; layer < p.count; ++layer) any |= !gather(layer);
    if (!any) continue;
    each_task(p, merges, [&](int layer, int64_t task) {
      const SpectralPlan<acc_t> plan(p.layers[layer], p.workspace);
      spectral_merge<acc_t>(p.layers[layer], plan, task, shared_squares);
    });
    grid.sync();
  }
  for (int layer = int(blockIdx.x); layer < p.count; layer += int(gridDim.x)) finish<acc_t>(p, layer, shared_squares);
}

template <typename scalar_t, typename acc_t>
__global__ void __launch_bounds__(kSpectralThreads, 2)
    spectral_norm_bwd_kernel(const __grid_constant__ SpectralNormParams p) {
  __shared__ double shared[kSpectralThreads];
  auto count = [&](int layer) {
    const SpectralPlan<acc_t> plan(p.layers[layer], p.workspace);
    return plan.tiles * plan.chunks;
  };
  each_task(p, count, [&](int layer, int64_t task) {
    const SpectralPlan<acc_t> plan(p.layers[layer], p.workspace);
    spectral_product<scalar_t, acc_t>(p.layers[layer], plan, task, shared);
  });
  cooperative_groups::this_grid().sync();
  int known = -1;
  acc_t scale = 0, factor = 0;
  each_task(p, count, [&](int layer, int64_t task) {
    const SpectralPlan<acc_t> plan(p.layers[layer], p.workspace);
    if (layer != known) {
      const double sigma = double(static_cast<const acc_t*>(p.sigmas)[layer]);
      scale = acc_t(1 / sigma);
      factor = acc_t(sum_array(plan.products, count(layer), shared) / (sigma * sigma));
      known = layer;
    }
    spectral_combine<scalar_t, acc_t>(p.layers[layer], plan, task, scale, factor);
  });
}

// As many blocks as run at once, which barriers of the grid need.
cudaError_t launch_together(void (*kernel)(SpectralNormParams), const SpectralNormParams& p, cudaStream_t stream) {
  int device = 0, processors = 0, blocks = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kSpectralThreads, 0);
  }
  if (error != cudaSuccess) return error;
  void* arguments[] = {const_cast<SpectralNormParams*>(&p)};
  return cudaLaunchCooperativeKernel(kernel, dim3(unsigned(processors * blocks)), dim3(kSpectralThreads), arguments, 0,
                                     stream);
}

// Gives each layer its part of the workspace; returns the doubles of all parts.
int64_t place(SpectralNormParams& p) {
  int64_t at = 0;
  for (int layer = 0; layer < p.count; ++layer) {
    p.layers[layer].workspace = at;
    at += SpectralPlan<double>(p.layers[layer], nullptr).size(p.layers[layer]);
  }
  return at;
}

}  // namespace

cudaError_t launch_spectral_norm_power_iteration(SpectralNormParams p, cudaStream_t stream) {
  place(p);
  return with_types(p.type, [&](auto types) {
    using scalar_t = typename decltype(types)::scalar_t;
    using acc_t = typename decltype(types)::acc_t;
    return launch_together(spectral_norm_power_iteration_kernel<scalar_t, acc_t>, p, stream);
  });
}

cudaError_t launch_spectral_norm_bwd(SpectralNormParams p, cudaStream_t stream) {
  place(p);
  return with_types(p.type, [&](auto types) {
    using scalar_t = typename decltype(types)::scalar_t;
    using acc_t = typename decltype(types)::acc_t;
    return launch_together(spectral_norm_bwd_kernel<scalar_t, acc_t>, p, stream);
  });
}

int64_t spectral_norm_workspace(const SpectralNormParams& p) {
  SpectralNormParams placed = p;
  return place(placed);
}

}  // namespace fastgan
