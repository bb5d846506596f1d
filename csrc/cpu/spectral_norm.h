// How spectral_norm looks at a weight: W [rows, columns, inner] in the order of memory, a vector x [rows, inner] and a
// vector c [columns]. W c gives x, W x gives c; which of them is u depends on the dimension and on the memory format.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/matrix.h"
#include "cpu/memory.h"
#include "cpu/tasks.h"
#include "cpu/vectors.h"

namespace fastgan {

using at::Tensor;
using Tensors = at::TensorList;

// Elements and rows of a task.
constexpr int64_t kMatrixTask = 1 << 17, kMostRows = 256;

template <typename T>
class Matrix {
 public:
  // The weight is contiguous, or channels last with dim 0 or 1.
  Matrix(const Tensor& weight, int64_t dim) : data(static_cast<const char*>(weight.const_data_ptr())) {
    item = weight.element_size();
    storage = storage_of(weight);
    const bool last = !weight.is_contiguous();
    TORCH_INTERNAL_ASSERT(!last || dim < 2);
    const auto sizes = weight.sizes();
    const int64_t size = sizes[dim], before = c10::multiply_integers(sizes.slice(0, dim)),
                  after = c10::multiply_integers(sizes.slice(dim + 1));
    x_is_u = last ? dim == 0 : before == 1;
    rows = x_is_u ? size : last ? before * after : before;
    columns = x_is_u ? after : size;
    inner = x_is_u || last ? 1 : after;
    pixels = last && x_is_u ? after / std::max<int64_t>(sizes[1], 1) : 1;
    row_size = columns * inner;
    lanes = std::max<int64_t>(inner, 1);
    while (lanes < kMatrixLanes<T> && lanes < row_size) lanes *= 2;
    const int64_t groups = kMatrixTask / (kMatrixRows * std::max<int64_t>(row_size, 1));
    task_rows = std::clamp(groups * kMatrixRows, kMatrixRows, kMostRows);
    tasks = row_size == 0 ? 0 : (rows + task_rows - 1) / task_rows;
  }

  int64_t task_end(int64_t task) const { return std::min((task + 1) * task_rows, rows); }

  // Rows in T, converted if need be.
  const T* load(const char* from, int64_t row, int64_t count, T* buffer) const {
    from += row * row_size * item;
    if (storage == Storage::exact) return reinterpret_cast<const T*>(from);
    const int64_t n = count * row_size;
    gemm<T>().load(storage, from, {1, n, n, 1}, buffer, n);
    return buffer;
  }
  void store(const T* from, char* to, int64_t row, int64_t count) const {
    const int64_t n = count * row_size;
    gemm<T>().store(storage, from, n, to + row * row_size * item, {1, n, n, 1});
  }

  // u and v as x [rows, inner] and c [columns], and back; v may have its channels first where memory has them last.
  void load_vectors(const Tensor& u, const Tensor& v, T* x, T* c) const {
    const std::vector<T> wide_u = to_vector<T>(u), wide_v = to_vector<T>(v);
    std::copy(wide_u.begin(), wide_u.end(), x_is_u ? x : c);
    if (!x_is_u) {
      std::copy(wide_v.begin(), wide_v.end(), x);
    } else {
      permute([&](int64_t logical, int64_t at) { c[at] = wide_v[logical]; });
    }
  }
  void store_vectors(const T* x, const T* c, const Tensor& u, const Tensor& v) const {
    copy(x_is_u ? x : c, u);
    if (!x_is_u) return copy(x, v);
    std::vector<T> logical_c(static_cast<size_t>(columns));
    permute([&](int64_t logical, int64_t at) { logical_c[logical] = c[at]; });
    copy(logical_c.data(), v);
  }

  // to[i] of a row of W belongs to c[i / inner].
  void expand(const T* c, T* to) const {
    for (int64_t q = 0; q < columns; ++q) std::fill_n(to + q * inner, inner, c[q]);
  }
  // Repeats x[inner], times a factor, over the lanes.
  void tile(const T* x, T factor, T* to) const {
    for (int64_t i = 0; i < lanes; i += inner) {
      for (int64_t k = 0; k < inner; ++k) to[i + k] = factor * x[k];
    }
  }

  const char* data;
  int64_t item, rows, columns, inner, pixels, row_size, lanes, task_rows, tasks;
  bool x_is_u;
  Storage storage;

 private:
  template <typename F>
  void permute(F f) const {
    const int64_t channels = columns / pixels;
    for (int64_t s = 0; s < pixels; ++s) {
      for (int64_t k = 0; k < channels; ++k) f(k * pixels + s, s * channels + k);
    }
  }

  static void copy(const T* from, const Tensor& to) {
    if (to.scalar_type() == c10::CppTypeToScalarType<T>::value) {
      std::copy(from, from + to.numel(), to.mutable_data_ptr<T>());
    } else {
      to.copy_(at::from_blob(const_cast<T*>(from), to.sizes(), to.options().dtype(c10::CppTypeToScalarType<T>::value)));
    }
  }
};

// Calls f(layer, task) for all tasks of all layers, in parallel.
template <typename Layers, typename Count, typename F>
void each_task_of(Layers& layers, Count count, F f) {
  std::vector<std::pair<int64_t, int64_t>> all;
  for (size_t i = 0; i < layers.size(); ++i) {
    for (int64_t task = 0, n = count(layers[i]); task < n; ++task) all.emplace_back(i, task);
  }
  each_task(int64_t(all.size()), [&](int64_t i) { f(layers[all[i].first], all[i].second); });
}

}  // namespace fastgan
