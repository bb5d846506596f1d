// norm_act on the CPU: statistics, per-channel sums and elementwise passes over the tasks of a tensor.
#pragma once
#include "cpu/chunks.h"
#include "cpu/stems.h"
#include "cpu/vectors.h"

namespace fastgan {

// Count, mean and sum of squared deviations of one channel, merged pairwise (Chan, Golub and LeVeque 1983).
struct Moments {
  double count = 0, mean = 0, squares = 0;
  void merge(double n, double other_mean, double other_squares) {
    if (n == 0) return;
    const double delta = other_mean - mean, total = count + n;
    mean += delta * (n / total);
    squares += other_squares + delta * delta * (count * n / total);
    count = total;
  }
};

struct Attributes {
  double eps;
  Activation activation;
  double negative_slope;
  bool act_first;
};

template <typename T>
class NormAct {
 public:
  NormAct(const Tensor& x, const Vector& weight, const Vector& bias, Attributes attributes)
      : chunks(x), attributes_(attributes) {
    weight_ = to_vector<T>(weight, chunks.channels(), T(1));
    shift_ = chunks.spread(to_vector<T>(bias, chunks.channels(), T(0)));
    rstd.resize(weight_.size());
    scales.resize(weight_.size());
    mean_ = scale_ = std::vector<T>(shift_.size());
  }

  // Takes the statistics that all later passes over a task normalise by; mean and var are those of all channels.
  void set_statistics(int64_t task, const T* mean, const T* var) {
    const int64_t first = chunks.first_channel(task), offset = chunks.lane_offset(task);
    for (int64_t c = first; c < first + chunks.task_channels(task); ++c) {
      rstd[c] = T(1 / std::sqrt(double(var[c]) + attributes_.eps));
      scales[c] = weight_[c] * rstd[c];
    }
    chunks.spread(task, mean + first, mean_.data() + offset);
    chunks.spread(task, scales.data() + first, scale_.data() + offset);
  }

  // The same for all tasks.
  void set_statistics(const T* mean, const T* var) {
    const int64_t parts = chunks.order() == Order::rows ? 1 : chunks.tasks();
    for (int64_t task = 0; task < parts; ++task) set_statistics(task, mean, var);
  }

  Span<T> span() const {
    Span<T> s{};
    s.negative_slope = T(attributes_.negative_slope);
    s.mean = mean_.data();
    s.scale = scale_.data();
    s.shift = shift_.data();
    return s;
  }

  // Moments of u in each channel of the task; result has an entry for each.
  void moments(int64_t task, const char* x, Moments* result) const {
    const Loop<T> add = get(Pass::sum), add_squares = get(Pass::squares);
    const int64_t channels = chunks.task_channels(task);
    std::vector<T> acc(chunks.lanes(), T(0)), mean(channels), mean_lanes(chunks.lanes());
    std::vector<double> total(channels), squares(channels);
    Span<T> s = span();
    s.acc[0] = acc.data();
    chunks.walk(task, {x, nullptr, nullptr, {nullptr, nullptr}}, s, [&](auto run, int64_t count) {
      const double n = double(count);
      std::fill(total.begin(), total.end(), 0.0);
      std::fill(squares.begin(), squares.end(), 0.0);
      run(add);
      chunks.fold(task, acc.data(), total.data());
      for (int64_t c = 0; c < channels; ++c) {
        total[c] /= n;
        mean[c] = T(total[c]);
      }
      chunks.spread(task, mean.data(), mean_lanes.data());
      run(add_squares, mean_lanes.data());
      chunks.fold(task, acc.data(), squares.data());
      for (int64_t c = 0; c < channels; ++c) {
        // the squares are about the mean rounded to T
        const double off = total[c] - double(mean[c]);
        result[c].merge(n, total[c], squares[c] - n * off * off);
      }
    });
  }

  // Sums of one task by a pass that fills `sums` accumulators: totals[k * most_channels + channel of the task].
  void totals(int64_t task, const Operands& operands, Span<T> s, Pass pass, int64_t sums, double* totals) const {
    // rows after which float sums go to double
    constexpr int64_t kFoldRows = 64;
    const Loop<T> f = get(pass);
    const int64_t lanes = chunks.lanes();
    std::vector<T> acc(size_t(sums * lanes), T(0));
    for (int64_t k = 0; k < sums; ++k) s.acc[k] = acc.data() + k * lanes;
    int64_t pending = 0;
    auto fold = [&] {
      for (int64_t k = 0; k < sums; ++k) chunks.fold(task, acc.data() + k * lanes, totals + k * chunks.most_channels());
      pending = 0;
    };
    chunks.walk(task, operands, s, [&](auto run, int64_t count) {
      run(f);
      pending += count * chunks.task_channels(task) / lanes + 1;
      if (pending >= kFoldRows) fold();
    });
    fold();
  }

  // Sums over all tasks, [sums][C].
  std::vector<double> all_totals(const Operands& operands, const Span<T>& s, Pass pass, int64_t sums) const {
    const int64_t channels = chunks.channels(), tasks = chunks.tasks(), wide = chunks.most_channels();
    std::vector<double> partial(size_t(tasks * sums * wide), 0.0), result(size_t(sums * channels), 0.0);
    chunks.parallel([&](int64_t task) { totals(task, operands, s, pass, sums, partial.data() + task * sums * wide); });
    for (int64_t task = 0; task < tasks; ++task) {
      for (int64_t k = 0; k < sums; ++k) {
        double* out = result.data() + k * channels + chunks.first_channel(task);
        for (int64_t c = 0; c < chunks.task_channels(task); ++c) out[c] += partial[(task * sums + k) * wide + c];
      }
    }
    return result;
  }

  void elementwise(int64_t task, const Operands& operands, const Span<T>& s, Pass pass) const {
    const Loop<T> f = get(pass);
    chunks.walk(task, operands, s, [&](auto run, int64_t) { run(f); });
  }

  const Chunks<T> chunks;
  std::vector<T> rstd, scales;  // (C,): r and w r

 private:
  Loop<T> get(Pass pass) const {
    const bool lanes = chunks.order() != Order::planes;
    return loop<T>({pass, attributes_.activation, chunks.storage(), lanes, attributes_.act_first});
  }

  Attributes attributes_;
  std::vector<T> weight_, shift_, mean_, scale_;
};

}  // namespace fastgan
