// gradient_penalty on the CPU. Squares are added in T in short lanes, lanes and parts of a sample in double, in an order
// that depends on the shape alone.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/stems.h"

namespace fastgan {
namespace {

#include "cpu/half.h"

struct float16 {
  uint16_t bits;
};
inline float value(float16 v) { return from_float16(v.bits); }
inline void assign(float16& to, float v) { to.bits = to_float16(v); }

// Values of a part, the unit of sums and of tasks, and of what its lanes add up before they are merged.
constexpr int64_t kPart = 32768, kRun = 512, kLanes = 16;

template <typename S>
using Accumulated = decltype(value(S()));

// Runs f with a value of the type that x is stored in.
template <typename F>
void with_storage(const Tensor& x, F f) {
  switch (x.scalar_type()) {
    case at::kDouble:
      return f(double());
    case at::kFloat:
      return f(float());
    case at::kBFloat16:
      return f(bfloat16());
    default:
      return f(float16());
  }
}

template <typename S>
double squares(const S* __restrict g, int64_t n) {
  using T = Accumulated<S>;
  double total = 0;
  int64_t i = 0;
  while (n - i >= kLanes) {
    const int64_t end = i + std::min(n - i, kRun) / kLanes * kLanes;
    T lanes[kLanes] = {};
    for (; i < end; i += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) lanes[k] += value(g[i + k]) * value(g[i + k]);
    }
    for (const T lane : lanes) total += lane;
  }
  for (; i < n; ++i) total += value(g[i]) * value(g[i]);
  return total;
}

template <typename S>
void scale(const S* __restrict g, S* __restrict v, int64_t n, Accumulated<S> c) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) assign(v[i], c * value(g[i]));
}

template <typename S>
void mix(const S* __restrict real, const S* __restrict fake, S* __restrict x, int64_t n, Accumulated<S> t) {
  const Accumulated<S> rest = 1 - t;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) assign(x[i], t * value(real[i]) + rest * value(fake[i]));
}

// A batch as samples of `inner` values, each cut into `parts`.
struct Samples {
  int64_t batch, inner, parts;

  explicit Samples(const Tensor& x)
      : batch(x.size(0)), inner(batch > 0 ? x.numel() / batch : 0), parts((inner + kPart - 1) / kPart) {}

  // Calls f(sample, part, first value in the batch, number of values), in parallel.
  template <typename F>
  void each_part(F f) const {
    const int64_t grain = std::max<int64_t>(1, kPart / std::max<int64_t>(1, std::min(inner, kPart)));
    at::parallel_for(0, batch * parts, grain, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t sample = task / parts, part = task % parts;
        f(sample, part, sample * inner + part * kPart, std::min(kPart, inner - part * kPart));
      }
    });
  }
};

// What one sample adds to P, and its c.
struct Sample {
  double penalty, c;

  Sample(const double* parts, int64_t count, double share, double target, bool one_sided) {
    double squared = 0;
    for (int64_t i = 0; i < count; ++i) squared += parts[i];
    const double norm = std::sqrt(squared);
    double over = norm - target;
    // written so that NaN stays
    if (one_sided && over < 0) over = 0;
    penalty = share * over * over;
    c = norm == 0 ? (target == 0 ? 2 * share : 0) : 2 * share * over / norm;
  }
};

template <typename S>
void penalise(const Tensor& g, Tensor& penalty, Tensor& v, double weight, double target, bool one_sided) {
  using T = Accumulated<S>;
  const Samples samples(g);
  const double share = weight / double(std::max<int64_t>(1, samples.batch));
  const S* from = static_cast<const S*>(g.const_data_ptr());
  S* to = static_cast<S*>(v.mutable_data_ptr());
  std::vector<double> sums(size_t(samples.batch * samples.parts));
  const auto sample = [&](int64_t b) {
    return Sample(sums.data() + b * samples.parts, samples.parts, share, target, one_sided);
  };
  samples.each_part([&](int64_t b, int64_t part, int64_t at, int64_t n) {
    sums[b * samples.parts + part] = squares(from + at, n);
    // what is in the cache is scaled at once
    if (samples.parts == 1) scale(from + at, to + at, n, T(sample(b).c));
  });
  if (samples.parts > 1) {
    samples.each_part([&](int64_t b, int64_t, int64_t at, int64_t n) { scale(from + at, to + at, n, T(sample(b).c)); });
  }
  double total = 0;
  for (int64_t b = 0; b < samples.batch; ++b) total += sample(b).penalty;
  *penalty.mutable_data_ptr<T>() = T(total);
}

}  // namespace

void gradient_penalty_interpolate_cpu(const Tensor& real, const Tensor& fake, const Tensor& t, Tensor x, bool stack) {
  with_storage(real, [&](auto zero) {
    using S = decltype(zero);
    const S *a = static_cast<const S*>(real.const_data_ptr()), *b = static_cast<const S*>(fake.const_data_ptr());
    const auto* share = t.const_data_ptr<Accumulated<S>>();
    S *first = static_cast<S*>(x.mutable_data_ptr()), *mixed = first + (stack ? 2 * real.numel() : 0);
    Samples(real).each_part([&](int64_t sample, int64_t, int64_t at, int64_t n) {
      mix(a + at, b + at, mixed + at, n, share[sample]);
      if (!stack) return;
      std::copy_n(a + at, n, first + at);
      std::copy_n(b + at, n, first + real.numel() + at);
    });
  });
}

void gradient_penalty_cpu(const Tensor& g, Tensor penalty, Tensor v, double weight, double target, bool one_sided) {
  with_storage(g, [&](auto zero) { penalise<decltype(zero)>(g, penalty, v, weight, target, one_sided); });
}

}  // namespace fastgan
