// norm_act on the CPU. Where channels are outermost a task is one channel: statistics or sums first, and the second
// pass finds its data in the cache. Where channels are innermost the two passes are two parallel loops over rows.
#include "cpu/chunks.h"
#include "cpu/stems.h"
#include "cpu/vectors.h"

namespace fastgan {
namespace {

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
    means_.resize(weight_.size());
    rstd.resize(weight_.size());
    scales.resize(weight_.size());
  }

  Loop<T> get(Pass pass) const {
    return loop<T>({pass, attributes_.activation, chunks.storage(), chunks.channels_inner(), attributes_.act_first});
  }

  // Takes the statistics all later spans normalise by: of all channels, or of those of one task.
  void set_statistics(const T* mean, const T* var) {
    for (int64_t c = 0; c < chunks.channels(); ++c) set_channel(c, mean[c], var[c]);
    spread_statistics();
  }

  void set_channel(int64_t c, T mean, T var) {
    means_[c] = mean;
    rstd[c] = T(1 / std::sqrt(double(var) + attributes_.eps));
    scales[c] = weight_[c] * rstd[c];
  }

  // Channels outermost: the loops read the vectors as they are. Else they are repeated over the lanes.
  void spread_statistics() {
    if (!chunks.channels_inner()) return;
    mean_lanes_ = chunks.spread(means_);
    scale_lanes_ = chunks.spread(scales);
  }

  Span<T> span() const {
    Span<T> s{};
    s.negative_slope = T(attributes_.negative_slope);
    s.mean = chunks.channels_inner() ? mean_lanes_.data() : means_.data();
    s.scale = chunks.channels_inner() ? scale_lanes_.data() : scales.data();
    s.shift = shift_.data();
    return s;
  }

  // Moments of the channels of one task, of u.
  void moments(int64_t task, const Operands& operands, Moments* result) const {
    const Loop<T> add = get(Pass::sum), add_squares = get(Pass::squares);
    const int64_t lanes = chunks.lanes(), channels = chunks.channels_inner() ? chunks.channels() : 1;
    std::vector<T> acc(lanes, T(0)), mean(lanes, T(0));
    std::vector<double> total(channels), squares(channels);
    Span<T> s = span();
    s.acc[0] = acc.data();
    s.mean = nullptr;
    chunks.walk(task, operands, s, [&](auto run, int64_t elements) {
      const double n = double(elements) / double(channels);
      std::fill(total.begin(), total.end(), 0.0);
      std::fill(squares.begin(), squares.end(), 0.0);
      run(add);
      chunks.fold(acc.data(), total.data());
      for (int64_t c = 0; c < channels; ++c) {
        total[c] /= n;
        mean[c] = T(total[c]);
      }
      for (int64_t i = channels; i < lanes && chunks.channels_inner(); ++i) mean[i] = mean[i - channels];
      run(add_squares, mean.data());
      chunks.fold(acc.data(), squares.data());
      for (int64_t c = 0; c < channels; ++c) {
        // the squares are about the mean rounded to T
        const double off = total[c] - double(mean[c]);
        result[c].merge(n, total[c], squares[c] - n * off * off);
      }
    });
  }

  // Per-channel totals of a pass that fills `sums` accumulators: totals[k * channels + c].
  void totals(int64_t task, const Operands& operands, Span<T> s, Pass pass, int64_t sums, double* totals) const {
    const Loop<T> f = get(pass);
    const int64_t lanes = chunks.lanes(), channels = chunks.channels_inner() ? chunks.channels() : 1;
    std::vector<T> acc(size_t(sums * lanes), T(0));
    for (int64_t k = 0; k < sums; ++k) s.acc[k] = acc.data() + k * lanes;
    int64_t pending = 0;
    auto fold = [&] {
      for (int64_t k = 0; k < sums; ++k) chunks.fold(acc.data() + k * lanes, totals + k * channels);
      pending = 0;
    };
    chunks.walk(task, operands, s, [&](auto run, int64_t elements) {
      run(f);
      pending += elements / lanes + 1;
      if (pending >= kFoldRows) fold();
    });
    fold();
  }

  // Totals over all tasks, [sums][C], in double.
  std::vector<double> all_totals(const Operands& operands, const Span<T>& s, Pass pass, int64_t sums) const {
    const int64_t channels = chunks.channels(), tasks = chunks.tasks(), wide = chunks.channels_inner() ? channels : 1;
    std::vector<double> partial(size_t(tasks * sums * wide), 0.0), result(size_t(sums * channels), 0.0);
    chunks.parallel([&](int64_t task) { totals(task, operands, s, pass, sums, partial.data() + task * sums * wide); });
    for (int64_t task = 0; task < tasks; ++task) {
      for (int64_t k = 0; k < sums; ++k) {
        for (int64_t c = 0; c < wide; ++c) {
          result[k * channels + chunks.first_channel(task) + c] += partial[(task * sums + k) * wide + c];
        }
      }
    }
    return result;
  }

  void elementwise(int64_t task, const Operands& operands, const Span<T>& s, Pass pass) const {
    const Loop<T> f = get(pass);
    chunks.walk(task, operands, s, [&](auto run, int64_t) { run(f); });
  }

  const Chunks<T> chunks;
  std::vector<T> rstd, scales;

 private:
  Attributes attributes_;
  std::vector<T> weight_, shift_, means_, mean_lanes_, scale_lanes_;
};

template <typename T>
void write(const Moments& m, T* mean, T* var) {
  *mean = T(m.mean);
  *var = T(m.count > 0 ? std::max(m.squares, 0.0) / m.count : 0.0);
}

template <typename T>
void forward_channels_outer(NormAct<T>& op, const Operands& operands, T* mean, T* var) {
  const Operands only_x{operands.x, nullptr, nullptr, {nullptr, nullptr}};
  op.chunks.parallel([&](int64_t channel) {
    Moments moments;
    op.moments(channel, only_x, &moments);
    write(moments, mean + channel, var + channel);
    op.set_channel(channel, mean[channel], var[channel]);
    op.elementwise(channel, operands, op.span(), Pass::forward);
  });
}

template <typename T>
void forward_channels_inner(NormAct<T>& op, const Operands& operands, T* mean, T* var) {
  const Operands only_x{operands.x, nullptr, nullptr, {nullptr, nullptr}};
  const int64_t channels = op.chunks.channels(), tasks = op.chunks.tasks();
  std::vector<Moments> partial(size_t(tasks * channels)), all(channels);
  op.chunks.parallel([&](int64_t task) { op.moments(task, only_x, partial.data() + task * channels); });
  for (int64_t task = 0; task < tasks; ++task) {
    for (int64_t c = 0; c < channels; ++c) {
      const Moments& m = partial[task * channels + c];
      all[c].merge(m.count, m.mean, m.squares);
    }
  }
  for (int64_t c = 0; c < channels; ++c) write(all[c], mean + c, var + c);
  op.set_statistics(mean, var);
  const Span<T> span = op.span();
  op.chunks.parallel([&](int64_t task) { op.elementwise(task, operands, span, Pass::forward); });
}

template <typename T>
void forward(NormAct<T>& op, const Operands& operands, Tensor& mean, Tensor& var) {
  T *mean_ = mean.mutable_data_ptr<T>(), *var_ = var.mutable_data_ptr<T>();
  if (op.chunks.count() == 0) {
    mean.zero_();
    var.zero_();
  } else if (op.chunks.channels_inner()) {
    forward_channels_inner(op, operands, mean_, var_);
  } else {
    forward_channels_outer(op, operands, mean_, var_);
  }
}

// du = w r P(g) as coefficients of g, d and 1, each (C,).
template <typename T>
struct FirstOrder {
  std::vector<T> g, d, c;
  explicit FirstOrder(const NormAct<T>& op) : g(op.scales), d(g.size(), T(0)), c(g.size(), T(0)) {}

  void set_channel(const NormAct<T>& op, int64_t i, double sum_g, double sum_gd) {
    const double r = op.rstd[i], wr = op.scales[i], count = double(op.chunks.count());
    d[i] = T(-wr * r * r * sum_gd / count);
    c[i] = T(-wr * sum_g / count);
  }
};

template <typename T>
void backward_channels_outer(NormAct<T>& op, const Operands& operands, T* dw, T* db, bool training) {
  const Operands only_in{operands.x, operands.dy, nullptr, {nullptr, nullptr}};
  FirstOrder<T> first(op);
  op.chunks.parallel([&](int64_t channel) {
    double totals[2] = {0, 0};
    Span<T> span = op.span();
    op.totals(channel, only_in, span, Pass::bwd_sums, 2, totals);
    db[channel] = T(totals[0]);
    dw[channel] = T(totals[1] * double(op.rstd[channel]));
    if (training) first.set_channel(op, channel, totals[0], totals[1]);
    span.first_g = first.g.data(), span.first_d = first.d.data(), span.first_c = first.c.data();
    op.elementwise(channel, operands, span, Pass::bwd);
  });
}

template <typename T>
void backward_channels_inner(NormAct<T>& op, const Operands& operands, T* dw, T* db, bool training) {
  const Operands only_in{operands.x, operands.dy, nullptr, {nullptr, nullptr}};
  const int64_t channels = op.chunks.channels();
  FirstOrder<T> first(op);
  Span<T> span = op.span();
  const auto totals = op.all_totals(only_in, span, Pass::bwd_sums, 2);
  for (int64_t i = 0; i < channels; ++i) {
    db[i] = T(totals[i]);
    dw[i] = T(totals[channels + i] * double(op.rstd[i]));
    if (training) first.set_channel(op, i, totals[i], totals[channels + i]);
  }
  const auto g = op.chunks.spread(first.g), d = op.chunks.spread(first.d), c = op.chunks.spread(first.c);
  span.first_g = g.data(), span.first_d = d.data(), span.first_c = c.data();
  op.chunks.parallel([&](int64_t task) { op.elementwise(task, operands, span, Pass::bwd); });
}

template <typename T>
void backward(NormAct<T>& op, const Operands& operands, Tensor& dw, Tensor& db, bool training) {
  T *dw_ = dw.mutable_data_ptr<T>(), *db_ = db.mutable_data_ptr<T>();
  if (op.chunks.count() == 0) {
    dw.zero_();
    db.zero_();
  } else if (op.chunks.channels_inner()) {
    backward_channels_inner(op, operands, dw_, db_, training);
  } else {
    backward_channels_outer(op, operands, dw_, db_, training);
  }
}

// Row k of a (K, C) tensor of coefficients; those of xh become those of d.
template <typename T>
std::vector<T> coefficient(const NormAct<T>& op, const Tensor& rows, int64_t k, bool of_xh = false) {
  std::vector<T> v = to_vector<T>(rows.select(0, k));
  for (size_t c = 0; of_xh && c < v.size(); ++c) v[c] *= op.rstd[c];
  return op.chunks.spread(v);
}

template <typename T>
void write_sums(const NormAct<T>& op, const std::vector<double>& totals, Tensor& sums,
                std::initializer_list<int64_t> of_xh) {
  T* out = sums.mutable_data_ptr<T>();
  for (size_t i = 0; i < totals.size(); ++i) out[i] = T(totals[i]);
  const int64_t channels = op.chunks.channels();
  for (int64_t k : of_xh) {
    for (int64_t c = 0; c < channels; ++c) out[k * channels + c] = T(totals[k * channels + c] * double(op.rstd[c]));
  }
}

}  // namespace

void norm_act_fwd_cpu(const Tensor& x, const Vector& weight, const Vector& bias, Tensor y, Tensor mean, Tensor var,
                      double eps, int64_t activation, double negative_slope, bool act_first) {
  with_accumulation_type(x, [&](auto zero) {
    NormAct<decltype(zero)> op(x, weight, bias, {eps, Activation(activation), negative_slope, act_first});
    forward(op, {data(x), nullptr, nullptr, {mutable_data(y), nullptr}}, mean, var);
  });
}

void norm_act_eval_cpu(const Tensor& x, const Vector& weight, const Vector& bias, const Tensor& mean, const Tensor& var,
                       Tensor y, double eps, int64_t activation, double negative_slope, bool act_first) {
  with_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    NormAct<T> op(x, weight, bias, {eps, Activation(activation), negative_slope, act_first});
    op.set_statistics(to_vector<T>(mean).data(), to_vector<T>(var).data());
    const Operands operands{data(x), nullptr, nullptr, {mutable_data(y), nullptr}};
    const Span<T> span = op.span();
    op.chunks.parallel([&](int64_t task) { op.elementwise(task, operands, span, Pass::forward); });
  });
}

void norm_act_bwd_cpu(const Tensor& dy, const Tensor& x, const Vector& weight, const Vector& bias, const Tensor& mean,
                      const Tensor& var, Tensor dx, Tensor dw, Tensor db, bool training, double eps, int64_t activation,
                      double negative_slope, bool act_first) {
  with_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    NormAct<T> op(x, weight, bias, {eps, Activation(activation), negative_slope, act_first});
    op.set_statistics(to_vector<T>(mean).data(), to_vector<T>(var).data());
    backward(op, {data(x), data(dy), nullptr, {mutable_data(dx), nullptr}}, dw, db, training);
  });
}

void norm_act_bwd_bwd_sums_cpu(const Tensor& ddx, const Tensor& dy, const Tensor& x, const Vector& weight,
                               const Vector& bias, const Tensor& mean, const Tensor& var, Tensor sums, double eps,
                               int64_t activation, double negative_slope, bool act_first) {
  with_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    NormAct<T> op(x, weight, bias, {eps, Activation(activation), negative_slope, act_first});
    op.set_statistics(to_vector<T>(mean).data(), to_vector<T>(var).data());
    const Operands operands{data(x), data(dy), data(ddx), {nullptr, nullptr}};
    write_sums(op, op.all_totals(operands, op.span(), Pass::bwd_bwd_sums, 5), sums, {1, 3});
  });
}

void norm_act_bwd_bwd_curve_cpu(const Tensor& ddx, const Tensor& dy, const Tensor& x, const Vector& weight,
                                const Vector& bias, const Tensor& mean, const Tensor& var, const Tensor& t, Tensor sums,
                                double eps, int64_t activation, double negative_slope) {
  with_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    NormAct<T> op(x, weight, bias, {eps, Activation(activation), negative_slope, false});
    op.set_statistics(to_vector<T>(mean).data(), to_vector<T>(var).data());
    const auto t_v = coefficient(op, t, 0), t_d = coefficient(op, t, 1, true), t_c = coefficient(op, t, 2);
    Span<T> span = op.span();
    span.t_v = t_v.data();
    span.t_d = t_d.data();
    span.t_c = t_c.data();
    const Operands operands{data(x), data(dy), data(ddx), {nullptr, nullptr}};
    write_sums(op, op.all_totals(operands, span, Pass::bwd_bwd_curve, 2), sums, {1});
  });
}

void norm_act_bwd_bwd_cpu(const Tensor& ddx, const Tensor& dy, const Tensor& x, const Vector& weight,
                          const Vector& bias, const Tensor& mean, const Tensor& var, const Tensor& t,
                          const Tensor& first, const Tensor& second, Tensor ddy, Tensor dx, double eps,
                          int64_t activation, double negative_slope, bool act_first) {
  with_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    NormAct<T> op(x, weight, bias, {eps, Activation(activation), negative_slope, act_first});
    op.set_statistics(to_vector<T>(mean).data(), to_vector<T>(var).data());
    std::vector<std::vector<T>> t_, first_, second_;
    for (int64_t k = 0; k < 3; ++k) t_.push_back(coefficient(op, t, k, k == 1));
    for (int64_t k = 0; k < 3; ++k) first_.push_back(coefficient(op, first, k, k == 1));
    for (int64_t k = 0; k < 5; ++k) second_.push_back(coefficient(op, second, k, k == 3));
    Span<T> s = op.span();
    s.t_v = t_[0].data(), s.t_d = t_[1].data(), s.t_c = t_[2].data();
    s.first_g = first_[0].data(), s.first_d = first_[1].data(), s.first_c = first_[2].data();
    s.second_v = second_[0].data(), s.second_g = second_[1].data(), s.second_q = second_[2].data();
    s.second_d = second_[3].data(), s.second_c = second_[4].data();
    const Operands operands{data(x), data(dy), data(ddx), {mutable_data(ddy), mutable_data(dx)}};
    op.chunks.parallel([&](int64_t task) { op.elementwise(task, operands, s, Pass::bwd_bwd); });
  });
}

}  // namespace fastgan
