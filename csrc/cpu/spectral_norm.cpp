// The power iteration of spectral_norm on the CPU, all layers at once. W x after x = W c needs no second read of W:
// while some rows are in the cache, they give their part of x, and with it, not yet normalised, their part of W x.
#include "cpu/spectral_norm.h"

#include <cmath>

#include "cpu/stems.h"

namespace fastgan {
namespace {

// Columns of a task that merges.
constexpr int64_t kMergeColumns = 1024;
// The norms of x between which W x, x not normalised, can neither overflow nor vanish.
constexpr double kLeastNorm = 0x1p-40, kMostNorm = 0x1p40;

// What a pass over W does for a layer: x = W c, c = W x, or both.
enum Step { kNone = 0, kGather = 1, kScatter = 2, kBoth = 3 };

template <typename T>
struct Layer {
  Matrix<T> w;
  Step step = kNone;
  T *x = nullptr, *c = nullptr;                  // [rows, inner], [columns]
  T* wide_c = nullptr;                           // [row_size]: c expanded
  T* partial = nullptr;                          // [tasks, columns]
  std::vector<double> squares_x{}, squares_c{};  // by task
  double sigma = 0;

  int64_t merges() const { return (w.columns + kMergeColumns - 1) / kMergeColumns; }
  int64_t memory() const { return w.rows * w.inner + w.columns + (w.inner > 1 ? w.row_size : 0) + w.tasks * w.columns; }
  T* place(T* at) {
    x = at;
    c = x + w.rows * w.inner;
    partial = c + w.columns;
    T* end = partial + w.tasks * w.columns;
    wide_c = w.inner > 1 ? end : c;
    squares_x.assign(size_t(w.tasks), 0.0);
    squares_c.assign(size_t(merges()), 0.0);
    return w.inner > 1 ? end + w.row_size : end;
  }
};

double sum(const std::vector<double>& v) {
  double total = 0;
  for (const double p : v) total += p;
  return total;
}

template <typename T>
double inner_product(const T* a, const T* b, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += double(a[i]) * double(b[i]);
  return total;
}

// F.normalize's denominator; NaN stays NaN.
double denominator(double norm, double eps) { return norm < eps ? eps : norm; }

template <typename T>
void scale(T* v, int64_t n, double factor) {
  for (int64_t i = 0; i < n; ++i) v[i] = T(v[i] * factor);
}

// x of a few rows; returns the sum of its squares.
template <typename T>
double gather(const Layer<T>& layer, const T* rows, int64_t row, int64_t count) {
  const Matrix<T>& w = layer.w;
  const int64_t most = kTerms * w.lanes;
  T* acc = scratch<T, 1>(kMatrixRows * w.lanes);
  double* totals = scratch<double, 5>(kMatrixRows * w.inner);
  std::fill_n(totals, count * w.inner, 0.0);
  for (int64_t at = 0; at < w.row_size; at += most) {
    std::fill_n(acc, count * w.lanes, T(0));
    const int64_t n = std::min(most, w.row_size - at);
    matrix_loops<T>().gather(count, n, w.row_size, w.lanes, rows + at, layer.wide_c + at, acc);
    for (int64_t r = 0; r < count; ++r) fold_lanes(acc + r * w.lanes, w.lanes, w.inner, totals + r * w.inner);
  }
  T* x = layer.x + row * w.inner;
  for (int64_t i = 0; i < count * w.inner; ++i) x[i] = T(totals[i]);
  return inner_product(x, x, count * w.inner);
}

template <typename T>
void pass(Layer<T>& layer, int64_t task) {
  const Matrix<T>& w = layer.w;
  const bool scatters = layer.step & kScatter, sums_inner = scatters && w.inner > 1;
  T* rows_buffer = scratch<T, 0>(w.storage == Storage::exact ? 0 : kMatrixRows * w.row_size);
  T* tiles = scratch<T, 2>(kMatrixRows * w.lanes);
  T* partial = layer.partial + task * w.columns;
  T* acc = sums_inner ? scratch<T, 3>(w.row_size) : partial;
  if (scatters) std::fill_n(acc, w.row_size, T(0));
  double squares = 0;
  for (int64_t row = task * w.task_rows, end = w.task_end(task); row < end; row += kMatrixRows) {
    const int64_t count = std::min(kMatrixRows, end - row);
    const T* rows = w.load(w.data, row, count, rows_buffer);
    if (layer.step & kGather) squares += gather(layer, rows, row, count);
    if (!scatters) continue;
    for (int64_t r = 0; r < count; ++r) w.tile(layer.x + (row + r) * w.inner, T(1), tiles + r * w.lanes);
    matrix_loops<T>().scatter(count, w.row_size, w.row_size, w.lanes, rows, tiles, acc);
  }
  layer.squares_x[task] = squares;
  for (int64_t q = 0; sums_inner && q < w.columns; ++q) {
    double total = 0;
    for (int64_t k = 0; k < w.inner; ++k) total += double(acc[q * w.inner + k]);
    partial[q] = T(total);
  }
}

template <typename T>
void merge(Layer<T>& layer, int64_t block) {
  const int64_t begin = block * kMergeColumns, n = std::min(kMergeColumns, layer.w.columns - begin);
  double total[kMergeColumns] = {}, squares = 0;
  for (int64_t task = 0; task < layer.w.tasks; ++task) {
    const T* partial = layer.partial + task * layer.w.columns + begin;
    for (int64_t q = 0; q < n; ++q) total[q] += double(partial[q]);
  }
  for (int64_t q = 0; q < n; ++q) {
    const T rounded = layer.c[begin + q] = T(total[q]);
    squares += double(rounded) * double(rounded);
  }
  layer.squares_c[block] = squares;
}

template <typename T>
void run(std::vector<Layer<T>>& layers) {
  for (Layer<T>& layer : layers) {
    if ((layer.step & kGather) && layer.w.inner > 1) layer.w.expand(layer.c, layer.wide_c);
  }
  each_task_of(layers, [](const Layer<T>& l) { return l.step == kNone ? 0 : l.w.tasks; }, pass<T>);
  each_task_of(layers, [](const Layer<T>& l) { return l.step & kScatter ? l.merges() : 0; }, merge<T>);
}

// Normalises what a pass has written; leaves in `step` what has to be done once more, with x normalised first.
template <typename T>
void normalize(Layer<T>& layer, double eps) {
  const Step done = layer.step;
  layer.step = kNone;
  double factor = 1;
  if (done & kGather) {
    const double norm = std::sqrt(sum(layer.squares_x)), below = denominator(norm, eps);
    layer.sigma = norm * norm / below;
    factor = 1 / below;
    scale(layer.x, layer.w.rows * layer.w.inner, factor);
    const bool fits = (norm >= kLeastNorm && norm <= kMostNorm) || norm == 0 || !std::isfinite(norm);
    if (done == kBoth && !fits) layer.step = kScatter;
  }
  if ((done & kScatter) && layer.step == kNone) {
    const double norm = std::sqrt(sum(layer.squares_c)) * factor, below = denominator(norm, eps);
    layer.sigma = norm * norm / below;
    scale(layer.c, layer.w.columns, factor / below);
  }
}

// u comes last: its sum over W is a pass of its own, shifted by half an iteration against the layers where it is first.
template <typename T>
Step step_at(const Layer<T>& layer, int64_t i, int64_t iterations, bool v_first) {
  const bool x_first = layer.w.x_is_u != v_first;
  if (x_first) return i < iterations ? kBoth : kNone;
  return i == 0 ? kScatter : i < iterations ? kBoth : kGather;
}

template <typename T>
void iterate(std::vector<Layer<T>>& layers, int64_t iterations, double eps, bool v_first) {
  for (int64_t i = 0; i <= iterations; ++i) {
    bool any = false;
    for (Layer<T>& layer : layers) any |= (layer.step = step_at(layer, i, iterations, v_first)) != kNone;
    while (any) {
      run(layers);
      any = false;
      for (Layer<T>& layer : layers) {
        if (layer.step != kNone) normalize(layer, eps);
        any |= layer.step != kNone;
      }
    }
  }
}

// sigma of the vectors as they are.
template <typename T>
void measure(std::vector<Layer<T>>& layers) {
  std::vector<std::vector<T>> given;
  for (Layer<T>& layer : layers) {
    given.emplace_back(layer.x, layer.x + layer.w.rows * layer.w.inner);
    layer.step = kGather;
  }
  run(layers);
  for (size_t i = 0; i < layers.size(); ++i) {
    layers[i].sigma = inner_product(given[i].data(), layers[i].x, int64_t(given[i].size()));
    std::copy(given[i].begin(), given[i].end(), layers[i].x);
  }
}

template <typename T>
void power_iteration(Tensors weights, Tensors us, Tensors vs, at::IntArrayRef dims, int64_t iterations, double eps,
                     bool v_first, Tensors new_us, Tensors new_vs, Tensor& sigmas) {
  std::vector<Layer<T>> layers;
  int64_t memory = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    layers.push_back({Matrix<T>(weights[i], dims[i])});
    memory += layers.back().memory();
  }
  T* at = scratch<T, 4>(memory);
  for (size_t i = 0; i < layers.size(); ++i) {
    at = layers[i].place(at);
    layers[i].w.load_vectors(us[i], vs[i], layers[i].x, layers[i].c);
  }
  if (iterations == 0) {
    measure(layers);
  } else {
    iterate(layers, iterations, eps, v_first);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    layers[i].w.store_vectors(layers[i].x, layers[i].c, new_us[i], new_vs[i]);
    sigmas.mutable_data_ptr<T>()[i] = T(layers[i].sigma);
  }
}

}  // namespace

void spectral_norm_power_iteration_cpu(const std::vector<Tensor>& weights, const std::vector<Tensor>& us,
                                       const std::vector<Tensor>& vs, const std::vector<int64_t>& dims,
                                       int64_t iterations, double eps, bool v_first, const std::vector<Tensor>& new_us,
                                       const std::vector<Tensor>& new_vs, Tensor sigmas) {
  with_accumulation_type(sigmas, [&](auto zero) {
    power_iteration<decltype(zero)>(weights, us, vs, dims, iterations, eps, v_first, new_us, new_vs, sigmas);
  });
}

}  // namespace fastgan
