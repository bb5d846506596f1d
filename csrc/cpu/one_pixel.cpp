// The product of a matrix with a vector, both of 16 bits, for a convolution from as many pixels as its kernel has to
// one channel: torch's takes longer to begin than this to end.
#include <algorithm>

#include "cpu/gemm.h"
#include "cpu/matrix.h"
#include "cpu/memory.h"
#include "cpu/stems.h"
#include "cpu/tasks.h"
#include "cpu/vectors.h"

namespace fastgan {
namespace {

// Values that are summed up in float32.
constexpr int64_t kLanes = kMatrixLanes<float>, kAtATime = kTerms * kLanes;

// Adds to the sums of a few rows of n values, which lie one after another.
void add_products(const Gemm<float>& gemm, Storage storage, const char* rows, int64_t item, int64_t count,
                  const float* vector, int64_t n, double* sums) {
  float* values = scratch<float, 0>(kMatrixRows * kAtATime);
  for (int64_t at = 0; at < n; at += kAtATime) {
    const int64_t some = std::min(kAtATime, n - at);
    gemm.load(storage, rows + at * item, {count, some, n, 1}, values, some);
    float lanes[kMatrixRows * kLanes] = {};
    matrix_loops<float>().gather(count, some, some, kLanes, values, vector + at, lanes);
    for (int64_t r = 0; r < count; ++r) fold_lanes(lanes + r * kLanes, kLanes, 1, sums + r);
  }
}

}  // namespace

void one_pixel_product_cpu(const Tensor& rows, const Tensor& vector, const Vector& bias, Tensor y) {
  const int64_t n = rows.size(0), terms = rows.size(1), item = rows.element_size();
  TORCH_INTERNAL_ASSERT(vector.scalar_type() == rows.scalar_type() && y.scalar_type() == rows.scalar_type());
  TORCH_INTERNAL_ASSERT(vector.numel() == terms && y.numel() == n);
  const Gemm<float> loops = gemm<float>();
  const Storage storage = storage_of(rows);
  const double shift = double(to_vector<float>(bias, 1, 0.0f)[0]);
  float *wide = scratch<float, 1>(terms + n), *results = wide + terms;
  loops.load(storage, vector.const_data_ptr(), {1, terms, terms, 1}, wide, terms);
  const char* from = static_cast<const char*>(rows.const_data_ptr());
  at::parallel_for(0, n, grain(terms), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; r += kMatrixRows) {
      const int64_t count = std::min(kMatrixRows, last - r);
      double sums[kMatrixRows];
      std::fill_n(sums, count, shift);
      add_products(loops, storage, from + r * terms * item, item, count, wide, terms, sums);
      for (int64_t i = 0; i < count; ++i) results[r + i] = float(sums[i]);
    }
  });
  loops.store(storage, results, n, mutable_data(y), {1, n, n, 1});
}

}  // namespace fastgan
