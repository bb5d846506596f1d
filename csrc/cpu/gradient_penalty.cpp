// gradient_penalty on the CPU. Sums are merged in double, in an order that depends on the shape alone.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/chunks.h"
#include "cpu/penalty.h"
#include "cpu/stems.h"
#include "cpu/tasks.h"
#include "cpu/vectors.h"

namespace fastgan {
namespace {

// Values of a part, the unit of sums and of tasks.
constexpr int64_t kPart = 32768;

// A batch as samples of `inner` values, each cut into `parts`.
struct Samples {
  int64_t batch, inner, parts;

  explicit Samples(const Tensor& x)
      : batch(x.size(0)), inner(batch > 0 ? x.numel() / batch : 0), parts((inner + kPart - 1) / kPart) {}

  // Calls f(sample, part, first value in the batch, number of values), in parallel.
  template <typename F>
  void each_part(F f) const {
    auto run = [&](int64_t task) {
      const int64_t sample = task / parts, part = task % parts;
      f(sample, part, sample * inner + part * kPart, std::min(kPart, inner - part * kPart));
    };
    share_tasks(batch * parts, std::min(inner, kPart), run, kPart);
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

template <typename T>
void penalise(const Tensor& g, Tensor& penalty, Tensor& v, double weight, double target, bool one_sided) {
  const Samples samples(g);
  const PenaltyLoops<T> loops = penalty_loops<T>(storage_of(g));
  const double share = weight / double(std::max<int64_t>(1, samples.batch));
  const int64_t item = g.element_size();
  const char* from = data(g);
  char* to = mutable_data(v);
  std::vector<double> sums(size_t(samples.batch * samples.parts));
  const auto sample = [&](int64_t b) {
    return Sample(sums.data() + b * samples.parts, samples.parts, share, target, one_sided);
  };
  const auto scale = [&](int64_t b, int64_t at, int64_t n) {
    loops.scale(from + at * item, to + at * item, n, T(sample(b).c));
  };
  samples.each_part([&](int64_t b, int64_t part, int64_t at, int64_t n) {
    sums[b * samples.parts + part] = loops.squares(from + at * item, n);
    // what is in the cache is scaled at once
    if (samples.parts == 1) scale(b, at, n);
  });
  if (samples.parts > 1) samples.each_part([&](int64_t b, int64_t, int64_t at, int64_t n) { scale(b, at, n); });
  double total = 0;
  for (int64_t b = 0; b < samples.batch; ++b) total += sample(b).penalty;
  *penalty.mutable_data_ptr<T>() = T(total);
}

template <typename T>
void interpolate(const Tensor& real, const Tensor& fake, const Tensor& t, Tensor& x, bool stack) {
  const PenaltyLoops<T> loops = penalty_loops<T>(storage_of(real));
  const int64_t item = real.element_size(), size = real.numel() * item;
  const char *a = data(real), *b = data(fake);
  char *first = mutable_data(x), *mixed = first + (stack ? 2 * size : 0);
  const T* share = t.const_data_ptr<T>();
  Samples(real).each_part([&](int64_t sample, int64_t, int64_t at, int64_t n) {
    const int64_t from = at * item, bytes = n * item;
    loops.mix(a + from, b + from, mixed + from, n, share[sample]);
    if (!stack) return;
    std::memcpy(first + from, a + from, size_t(bytes));
    std::memcpy(first + size + from, b + from, size_t(bytes));
  });
}

}  // namespace

void gradient_penalty_interpolate_cpu(const Tensor& real, const Tensor& fake, const Tensor& t, Tensor x, bool stack) {
  with_accumulation_type(real, [&](auto zero) { interpolate<decltype(zero)>(real, fake, t, x, stack); });
}

void gradient_penalty_cpu(const Tensor& g, Tensor penalty, Tensor v, double weight, double target, bool one_sided) {
  with_accumulation_type(g, [&](auto zero) { penalise<decltype(zero)>(g, penalty, v, weight, target, one_sided); });
}

}  // namespace fastgan
