// norm_act on the CPU. Where tasks have channels of their own, statistics or sums come first and the second pass finds
// its data in the cache. Where channels are innermost the two passes are two parallel loops over rows.
#include "cpu/norm_act.h"

namespace fastgan {
namespace {

template <typename T>
void write(const Moments& m, T* mean, T* var) {
  *mean = T(m.mean);
  *var = T(m.count > 0 ? std::max(m.squares, 0.0) / m.count : 0.0);
}

template <typename T>
void forward_own_channels(NormAct<T>& op, const Operands& operands, T* mean, T* var) {
  op.chunks.parallel([&](int64_t task) {
    const int64_t first = op.chunks.first_channel(task), channels = op.chunks.task_channels(task);
    std::vector<Moments> moments(channels);
    op.moments(task, operands.x, moments.data());
    for (int64_t c = 0; c < channels; ++c) write(moments[c], mean + first + c, var + first + c);
    op.set_statistics(task, mean, var);
    op.elementwise(task, operands, op.span(), Pass::forward);
  });
}

template <typename T>
void forward_rows(NormAct<T>& op, const Operands& operands, T* mean, T* var) {
  const int64_t channels = op.chunks.channels(), tasks = op.chunks.tasks();
  std::vector<Moments> partial(size_t(tasks * channels)), all(channels);
  op.chunks.parallel([&](int64_t task) { op.moments(task, operands.x, partial.data() + task * channels); });
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
  } else if (op.chunks.order() == Order::rows) {
    forward_rows(op, operands, mean_, var_);
  } else {
    forward_own_channels(op, operands, mean_, var_);
  }
}

// du = w r P(g) as coefficients of g, d and 1, each (C,), from the sums of g and g d of a channel; also dw and db.
template <typename T>
struct FirstOrder {
  std::vector<T> g, d, c;
  explicit FirstOrder(const NormAct<T>& op) : g(op.scales), d(g.size(), T(0)), c(g.size(), T(0)) {}

  void set(const NormAct<T>& op, int64_t i, double sum_g, double sum_gd, bool training, T* dw, T* db) {
    const double r = op.rstd[i], wr = op.scales[i], count = double(op.chunks.count());
    db[i] = T(sum_g);
    dw[i] = T(sum_gd * r);
    if (!training) return;
    d[i] = T(-wr * r * r * sum_gd / count);
    c[i] = T(-wr * sum_g / count);
  }
};

template <typename T>
void backward_own_channels(NormAct<T>& op, const Operands& operands, T* dw, T* db, bool training) {
  const auto& chunks = op.chunks;
  const Operands only_in{operands.x, operands.dy, nullptr, {nullptr, nullptr}};
  FirstOrder<T> first(op);
  auto g = chunks.spread(first.g), d = chunks.spread(first.d), c = chunks.spread(first.c);
  chunks.parallel([&](int64_t task) {
    const int64_t begin = chunks.first_channel(task), wide = chunks.most_channels(), lane = chunks.lane_offset(task);
    std::vector<double> totals(2 * wide, 0.0);
    Span<T> span = op.span();
    op.totals(task, only_in, span, Pass::bwd_sums, 2, totals.data());
    for (int64_t i = 0; i < chunks.task_channels(task); ++i) {
      first.set(op, begin + i, totals[i], totals[wide + i], training, dw, db);
    }
    chunks.spread(task, first.d.data() + begin, d.data() + lane);
    chunks.spread(task, first.c.data() + begin, c.data() + lane);
    span.first_g = g.data(), span.first_d = d.data(), span.first_c = c.data();
    op.elementwise(task, operands, span, Pass::bwd);
  });
}

template <typename T>
void backward_rows(NormAct<T>& op, const Operands& operands, T* dw, T* db, bool training) {
  const auto& chunks = op.chunks;
  const Operands only_in{operands.x, operands.dy, nullptr, {nullptr, nullptr}};
  FirstOrder<T> first(op);
  Span<T> span = op.span();
  const auto totals = op.all_totals(only_in, span, Pass::bwd_sums, 2);
  const int64_t channels = chunks.channels();
  for (int64_t i = 0; i < channels; ++i) first.set(op, i, totals[i], totals[channels + i], training, dw, db);
  const auto g = chunks.spread(first.g), d = chunks.spread(first.d), c = chunks.spread(first.c);
  span.first_g = g.data(), span.first_d = d.data(), span.first_c = c.data();
  chunks.parallel([&](int64_t task) { op.elementwise(task, operands, span, Pass::bwd); });
}

template <typename T>
void backward(NormAct<T>& op, const Operands& operands, Tensor& dw, Tensor& db, bool training) {
  T *dw_ = dw.mutable_data_ptr<T>(), *db_ = db.mutable_data_ptr<T>();
  if (op.chunks.count() == 0) {
    dw.zero_();
    db.zero_();
  } else if (op.chunks.order() == Order::rows) {
    backward_rows(op, operands, dw_, db_, training);
  } else {
    backward_own_channels(op, operands, dw_, db_, training);
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

void norm_act_stats_cpu(const Tensor& x, Tensor mean, Tensor var) {
  with_accumulation_type(x, [&](auto zero) {
    using T = decltype(zero);
    const NormAct<T> op(x, std::nullopt, std::nullopt, {1.0, Activation::identity, 0.0, false});
    const int64_t channels = op.chunks.channels();
    const bool rows = op.chunks.order() == Order::rows;
    std::vector<Moments> all(channels), partial(size_t(rows ? op.chunks.tasks() * channels : 0));
    op.chunks.parallel([&](int64_t task) {
      op.moments(task, data(x), rows ? partial.data() + task * channels : all.data() + op.chunks.first_channel(task));
    });
    for (size_t i = 0; i < partial.size(); ++i) {
      all[i % channels].merge(partial[i].count, partial[i].mean, partial[i].squares);
    }
    for (int64_t c = 0; c < channels; ++c) write(all[c], mean.mutable_data_ptr<T>() + c, var.mutable_data_ptr<T>() + c);
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
