// gradient_penalty on the GPU: memory-bound, loads and stores of 16 bytes where size and pointers allow. The order of
// all sums depends on the shape alone.
#include "cuda/gradient_penalty.h"
#include "cuda/launch.cuh"

namespace fastgan {
namespace {

// Values of a part, and how many parts of a sample there are at most; packs that a thread adds up in acc_t.
constexpr int kThreads = 256, kPart = 8192, kMostParts = 1024, kUnroll = 4;
// Values for which a sample gets a thread more.
constexpr int kPerThread = 16;

// How a batch is cut: samples into parts, a block into samples of `lanes` threads each.
struct Cut {
  int64_t per_part;  // values
  int parts;         // of a sample; more than 1 only where lanes is kThreads
  int lanes, merge;  // threads that read a part, and that add up the parts of a sample; powers of 2
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int threads_for(int64_t work) {
  int threads = 1;
  while (threads < kThreads && threads < work) threads *= 2;
  return threads;
}

Cut cut(int64_t inner) {
  Cut s{};
  s.per_part = kPart * ceil_div(inner, int64_t(kPart) * kMostParts);
  s.parts = inner > 0 ? int(ceil_div(inner, s.per_part)) : 0;
  s.lanes = threads_for(ceil_div(inner, kPerThread));
  s.merge = threads_for(s.parts);
  return s;
}

int64_t blocks(const GradientPenaltyParams& p, const Cut& s) { return ceil_div(p.batch, kThreads / s.lanes) * s.parts; }

// The values of one sample that a thread reads: packs `step` apart, from `begin` to `end`.
struct Range {
  int64_t sample, begin, end, step;
  int part;
};

__device__ Range range(const GradientPenaltyParams& p, const Cut& s, int64_t block, int pack) {
  Range r;
  r.part = int(block % s.parts);
  r.sample = block / s.parts * (kThreads / s.lanes) + threadIdx.x / s.lanes;
  const int64_t first = r.part * s.per_part, last = first + s.per_part;
  r.step = int64_t(s.lanes) * pack;
  r.begin = first + int64_t(threadIdx.x % s.lanes) * pack;
  r.end = r.sample >= p.batch ? 0 : last < p.inner ? last : p.inner;
  return r;
}

// The sum over each `lanes` neighbouring threads, in each of them. All threads must come here.
__device__ double merged(double value, int lanes) {
  __shared__ double sums[kThreads];
  if (lanes == 1) return value;
  const int t = threadIdx.x, lane = t % lanes;
  // the sums of the call before may still be read
  __syncthreads();
  sums[t] = value;
  for (int half = lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) sums[t] += sums[t + half];
  }
  __syncthreads();
  return sums[t - lane];
}

struct Sample {
  double over, c;  // c without 2 weight / B
};

// All threads must come here; s.merge neighbouring ones must ask for the same sample.
__device__ Sample sample(const GradientPenaltyParams& p, const Cut& s, int64_t b) {
  double squared = 0;
  for (int i = threadIdx.x % s.merge; b < p.batch && i < s.parts; i += s.merge) squared += p.workspace[b * s.parts + i];
  squared = merged(squared, s.merge);
  const double norm = sqrt(squared);
  double over = norm - p.target;
  // written so that NaN stays
  if (p.one_sided && over < 0) over = 0;
  return {over, norm == 0 ? (p.target == 0 ? 1.0 : 0.0) : over / norm};
}

template <typename scalar_t, typename acc_t, int N>
__global__ void __launch_bounds__(kThreads)
    gradient_penalty_interpolate_kernel(const GradientPenaltyInterpolateParams p) {
  using Packed = Pack<scalar_t, N>;
  const int64_t pack = int64_t(blockIdx.x) * kThreads + threadIdx.x, packs = p.batch * p.inner / N;
  if (pack >= packs) return;
  const acc_t t = static_cast<const acc_t*>(p.t)[pack * N / p.inner];
  const Packed real = static_cast<const Packed*>(p.real)[pack], fake = static_cast<const Packed*>(p.fake)[pack];
  Packed x;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    x.v[k] = narrow<scalar_t>(t * widen<acc_t>(real.v[k]) + (1 - t) * widen<acc_t>(fake.v[k]));
  }
  Packed* out = static_cast<Packed*>(p.x) + pack;
  if (p.stack) {
    out[0] = real;
    out[packs] = fake;
    out[2 * packs] = x;
  } else {
    out[0] = x;
  }
}

template <typename scalar_t, typename acc_t, int N>
__global__ void __launch_bounds__(kThreads) gradient_penalty_squares_kernel(const GradientPenaltyParams p, Cut s) {
  const Range r = range(p, s, blockIdx.x, N);
  const scalar_t* g = static_cast<const scalar_t*>(p.g) + r.sample * p.inner;
  double total = 0;
  for (int64_t i = r.begin; i < r.end; i += kUnroll * r.step) {
    acc_t sum = 0;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u * r.step >= r.end) continue;
      const auto values = *reinterpret_cast<const Pack<scalar_t, N>*>(g + i + u * r.step);
#pragma unroll
      for (int k = 0; k < N; ++k) sum += widen<acc_t>(values.v[k]) * widen<acc_t>(values.v[k]);
    }
    total += sum;
  }
  total = merged(total, s.lanes);
  if (threadIdx.x % s.lanes == 0 && r.sample < p.batch) p.workspace[r.sample * s.parts + r.part] = total;
}

// The penalty, by the threads of one block.
template <typename acc_t>
__device__ void add_up(const GradientPenaltyParams& p, const Cut& s, double share) {
  double total = 0;
  for (int64_t first = 0; first < p.batch; first += kThreads / s.merge) {
    const int64_t b = first + threadIdx.x / s.merge;
    const double over = sample(p, s, b).over;
    if (threadIdx.x % s.merge == 0 && b < p.batch) total += over * over;
  }
  total = merged(total, kThreads);
  if (threadIdx.x == 0) *static_cast<acc_t*>(p.penalty) = acc_t(share * total);
}

// The first block writes the penalty, all others v.
template <typename scalar_t, typename acc_t, int N>
__global__ void __launch_bounds__(kThreads) gradient_penalty_kernel(const GradientPenaltyParams p, Cut s) {
  using Packed = Pack<scalar_t, N>;
  const double share = p.batch > 0 ? p.weight / double(p.batch) : 0;
  if (blockIdx.x == 0) {
    add_up<acc_t>(p, s, share);
    return;
  }
  const Range r = range(p, s, int64_t(blockIdx.x) - 1, N);
  const acc_t c = acc_t(2 * share * sample(p, s, r.sample).c);
  const int64_t first = r.sample * p.inner;
  for (int64_t i = r.begin; i < r.end; i += r.step) {
    Packed values = *reinterpret_cast<const Packed*>(static_cast<const scalar_t*>(p.g) + first + i);
#pragma unroll
    for (int k = 0; k < N; ++k) values.v[k] = narrow<scalar_t>(c * widen<acc_t>(values.v[k]));
    *reinterpret_cast<Packed*>(static_cast<scalar_t*>(p.v) + first + i) = values;
  }
}

template <typename scalar_t, typename acc_t, int N>
cudaError_t run(const GradientPenaltyInterpolateParams& p, cudaStream_t stream) {
  const int64_t blocks = ceil_div(p.batch * p.inner / N, kThreads);
  return launch(gradient_penalty_interpolate_kernel<scalar_t, acc_t, N>, Blocks{blocks}, kThreads, stream, p);
}

template <typename scalar_t, typename acc_t, int N>
cudaError_t run(const GradientPenaltyParams& p, cudaStream_t stream) {
  const Cut s = cut(p.inner);
  const int64_t count = blocks(p, s);
  if (count > 0) {
    const cudaError_t error =
        launch(gradient_penalty_squares_kernel<scalar_t, acc_t, N>, Blocks{count}, kThreads, stream, p, s);
    if (error != cudaSuccess) return error;
  }
  return launch(gradient_penalty_kernel<scalar_t, acc_t, N>, Blocks{count + 1}, kThreads, stream, p, s);
}

template <typename Params>
cudaError_t with_vectors(const Params& p, uintptr_t pointers, cudaStream_t stream) {
  return with_types(p.type, [&](auto types) {
    using scalar_t = typename decltype(types)::scalar_t;
    using acc_t = typename decltype(types)::acc_t;
    constexpr int N = 16 / int(sizeof(scalar_t));
    return pointers % 16 == 0 && p.inner % N == 0 ? run<scalar_t, acc_t, N>(p, stream)
                                                  : run<scalar_t, acc_t, 1>(p, stream);
  });
}

}  // namespace

cudaError_t launch_gradient_penalty_interpolate(const GradientPenaltyInterpolateParams& p, cudaStream_t stream) {
  if (p.batch * p.inner == 0) return cudaSuccess;
  return with_vectors(p, uintptr_t(p.real) | uintptr_t(p.fake) | uintptr_t(p.x), stream);
}

cudaError_t launch_gradient_penalty(const GradientPenaltyParams& p, cudaStream_t stream) {
  return with_vectors(p, uintptr_t(p.g) | uintptr_t(p.v), stream);
}

int64_t gradient_penalty_workspace(const GradientPenaltyParams& p) { return p.batch * cut(p.inner).parts; }

}  // namespace fastgan
