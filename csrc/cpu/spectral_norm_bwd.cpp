// The backward of spectral_norm on the CPU, all layers at once: <dy, W>, then dy / sigma less the outer product.
#include "cpu/spectral_norm.h"
#include "cpu/stems.h"

namespace fastgan {
namespace {

template <typename T>
struct Gradient {
  Matrix<T> w;
  const char* dy;
  char* out;
  T *x, *c, *wide_c;  // [rows, inner], [columns], [row_size]: c expanded
  double sigma;
  std::vector<double> products{};  // by task
  double product = 0;
};

template <typename T>
void dot(Gradient<T>& g, int64_t task) {
  const Matrix<T>& w = g.w;
  T* buffer = scratch<T, 0>(w.storage == Storage::exact ? 0 : 2 * kMatrixRows * w.row_size);
  T acc[kMatrixLanes<T>];
  double total = 0;
  for (int64_t row = task * w.task_rows, end = w.task_end(task); row < end; row += kMatrixRows) {
    const int64_t count = std::min(kMatrixRows, end - row), size = count * w.row_size;
    const T *weight = w.load(w.data, row, count, buffer), *dy = w.load(g.dy, row, count, buffer + size);
    for (int64_t at = 0; at < size; at += kTerms * kMatrixLanes<T>) {
      const int64_t n = std::min(kTerms * kMatrixLanes<T>, size - at);
      std::fill_n(acc, kMatrixLanes<T>, T(0));
      matrix_loops<T>().gather(1, n, n, kMatrixLanes<T>, weight + at, dy + at, acc);
      fold_lanes(acc, kMatrixLanes<T>, 1, &total);
    }
  }
  g.products[task] = total;
}

template <typename T>
void combine(Gradient<T>& g, int64_t task) {
  const Matrix<T>& w = g.w;
  const bool exact = w.storage == Storage::exact;
  T* buffer = scratch<T, 0>(exact ? 0 : 2 * kMatrixRows * w.row_size);
  T* tile = scratch<T, 2>(w.lanes);
  const T scale = T(1 / g.sigma), factor = T(g.product / (g.sigma * g.sigma));
  for (int64_t row = task * w.task_rows, end = w.task_end(task); row < end; row += kMatrixRows) {
    const int64_t count = std::min(kMatrixRows, end - row), size = count * w.row_size;
    const T* dy = w.load(g.dy, row, count, buffer);
    T* out = exact ? reinterpret_cast<T*>(g.out) + row * w.row_size : buffer + size;
    for (int64_t r = 0; r < count; ++r) {
      w.tile(g.x + (row + r) * w.inner, factor, tile);
      matrix_loops<T>().combine(w.row_size, w.lanes, dy + r * w.row_size, scale, tile, g.wide_c, out + r * w.row_size);
    }
    if (!exact) w.store(out, g.out, row, count);
  }
}

template <typename T>
void backward(Tensors dys, Tensors weights, Tensors us, Tensors vs, const Tensor& sigmas, at::IntArrayRef dims,
              Tensors gradients) {
  std::vector<Gradient<T>> all;
  int64_t memory = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    all.push_back({Matrix<T>(weights[i], dims[i]), static_cast<const char*>(dys[i].const_data_ptr()),
                   mutable_data(gradients[i]), nullptr, nullptr, nullptr, double(sigmas.const_data_ptr<T>()[i])});
    const Matrix<T>& w = all.back().w;
    memory += w.rows * w.inner + w.columns + w.row_size;
  }
  T* at = scratch<T, 4>(memory);
  for (size_t i = 0; i < all.size(); ++i) {
    Gradient<T>& g = all[i];
    g.x = at;
    g.c = g.x + g.w.rows * g.w.inner;
    g.wide_c = g.w.inner > 1 ? g.c + g.w.columns : g.c;
    at = g.c + g.w.columns + g.w.row_size;
    g.w.load_vectors(us[i], vs[i], g.x, g.c);
    if (g.w.inner > 1) g.w.expand(g.c, g.wide_c);
    g.products.assign(size_t(g.w.tasks), 0.0);
  }
  const auto tasks = [](const Gradient<T>& g) { return g.w.tasks; };
  each_task_of(all, tasks, dot<T>);
  for (Gradient<T>& g : all) {
    for (const double part : g.products) g.product += part;
  }
  each_task_of(all, tasks, combine<T>);
}

}  // namespace

void spectral_norm_bwd_cpu(const std::vector<Tensor>& dys, const std::vector<Tensor>& weights,
                           const std::vector<Tensor>& us, const std::vector<Tensor>& vs, const Tensor& sigmas,
                           const std::vector<int64_t>& dims, const std::vector<Tensor>& gradients) {
  with_accumulation_type(sigmas,
                         [&](auto zero) { backward<decltype(zero)>(dys, weights, us, vs, sigmas, dims, gradients); });
}

}  // namespace fastgan
