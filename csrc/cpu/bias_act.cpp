// bias_act on the CPU: one pass over memory in each direction.
#include "cpu/norm_act.h"

namespace fastgan {
namespace {

template <typename T>
void elementwise(const Tensor& x, const Vector& bias, const Operands& operands, Pass pass, int64_t activation,
                 double negative_slope) {
  const Chunks<T> chunks(x);
  const bool lanes = chunks.order() != Order::planes;
  const Loop<T> f = loop<T>({pass, Activation(activation), chunks.storage(), lanes, false});
  const int64_t channels = chunks.channels();
  const auto zero = chunks.spread(std::vector<T>(channels, T(0))), one = chunks.spread(std::vector<T>(channels, T(1)));
  const auto shift = chunks.spread(to_vector<T>(bias, channels, T(0)));
  Span<T> span{};
  span.negative_slope = T(negative_slope);
  span.mean = zero.data();
  span.scale = one.data();
  span.shift = shift.data();
  chunks.parallel([&](int64_t task) { chunks.walk(task, operands, span, [&](auto run, int64_t) { run(f); }); });
}

}  // namespace

void bias_act_fwd_cpu(const Tensor& x, const Vector& bias, Tensor y, int64_t activation, double negative_slope) {
  const Operands operands{data(x), nullptr, nullptr, {mutable_data(y), nullptr}};
  with_accumulation_type(
      x, [&](auto zero) { elementwise<decltype(zero)>(x, bias, operands, Pass::forward, activation, negative_slope); });
}

void bias_act_bwd_cpu(const Tensor& dy, const Tensor& s, const Vector& bias, Tensor dx, int64_t activation,
                      double negative_slope) {
  const Operands operands{data(s), data(dy), nullptr, {mutable_data(dx), nullptr}};
  with_accumulation_type(s, [&](auto zero) {
    elementwise<decltype(zero)>(s, bias, operands, Pass::saved_bwd, activation, negative_slope);
  });
}

void bias_act_db_cpu(const Tensor& dy, const Tensor& y, Tensor db, int64_t activation, double negative_slope) {
  with_accumulation_type(y, [&](auto zero) {
    using T = decltype(zero);
    // the sums of a normalisation by mean 0 and variance 1
    NormAct<T> op(y, std::nullopt, std::nullopt, {0.0, Activation(activation), negative_slope, false});
    const int64_t channels = op.chunks.channels();
    const std::vector<T> zeros(channels, T(0)), ones(channels, T(1));
    op.set_statistics(zeros.data(), ones.data());
    const Operands operands{data(y), data(dy), nullptr, {nullptr, nullptr}};
    const auto totals = op.all_totals(operands, op.span(), Pass::bwd_sums, 2);
    std::copy_n(totals.begin(), channels, db.mutable_data_ptr<T>());
  });
}

void bias_act_bwd_bwd_cpu(const Tensor& ddx, const Tensor& dy, const Tensor& s, const Vector& bias, Tensor ddy,
                          Tensor ds, int64_t activation, double negative_slope) {
  const Operands operands{data(s), data(dy), data(ddx), {mutable_data(ddy), mutable_data(ds)}};
  with_accumulation_type(s, [&](auto zero) {
    elementwise<decltype(zero)>(s, bias, operands, Pass::saved_bwd_bwd, activation, negative_slope);
  });
}

}  // namespace fastgan
