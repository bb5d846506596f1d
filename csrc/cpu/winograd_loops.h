// Included once per instruction set by product_loops.h.
#include "cpu/operand.h"

namespace fastgan {
namespace FASTGAN_ISA {

template <typename T, typename E, int R>
struct MinimalLoops {
  using M = Minimal<R>;
  using Of = Operand<T, E>;
  static constexpr int kPoints = M::kPoints, kLanes = FASTGAN_VECTOR_BYTES / sizeof(T);
  typedef T Vec __attribute__((vector_size(FASTGAN_VECTOR_BYTES)));

  // memory need not be aligned
  template <typename V>
  static inline __attribute__((always_inline)) V read(const T* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof(V));
    return v;
  }
  template <typename V>
  static inline __attribute__((always_inline)) void write(T* to, const V& v) {
    __builtin_memcpy(to, &v, sizeof(V));
  }

  // sum_j row[j] d[j], where the factors are known when this is compiled
  template <typename V, typename F, int N>
  static inline __attribute__((always_inline)) V sum(const F (&row)[N], const V* d) {
    V v{};
    bool first = true;
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      if (row[j] == F(0)) continue;
      if (row[j] == F(1)) {
        v = first ? d[j] : v + d[j];
      } else if (row[j] == F(-1)) {
        v = first ? -d[j] : v - d[j];
      } else {
        v = first ? T(row[j]) * d[j] : v + T(row[j]) * d[j];
      }
      first = false;
    }
    return v;
  }

  // to = matrix d matrix^T
  template <typename V, typename F, int Rows, int N>
  static inline __attribute__((always_inline)) void both(const F (&matrix)[Rows][N], const V (&d)[N][N],
                                                         V (&to)[Rows][Rows]) {
    V half[N][Rows];
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Rows; ++j) half[i][j] = sum(matrix[j], d[i]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < Rows; ++j) {
      V column[N];
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) column[i] = half[i][j];
#pragma GCC unroll 4
      for (int i = 0; i < Rows; ++i) to[i][j] = sum(matrix[i], column);
    }
  }

  template <typename V>
  static inline __attribute__((always_inline)) void input_of(const T* from, int64_t row, int64_t column, E* to,
                                                             int64_t stride, int64_t c) {
    V d[kPoints][kPoints], v[kPoints][kPoints];
#pragma GCC unroll 4
    for (int i = 0; i < kPoints; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kPoints; ++j) d[i][j] = read<V>(from + i * row + j * column + c);
    }
    both(M::kInput, d, v);
#pragma GCC unroll 4
    for (int i = 0; i < kPoints; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kPoints; ++j) Of::put_terms(to + (i * kPoints + j) * stride, c, v[i][j]);
    }
  }

  static void input(int64_t n, const T* from, int64_t row, int64_t column, E* to, int64_t stride) {
    int64_t c = 0;
    for (; c + kLanes <= n; c += kLanes) input_of<Vec>(from, row, column, to, stride, c);
    for (; c < n; ++c) input_of<T>(from, row, column, to, stride, c);
  }

  // n is a multiple of the columns of a tile of the product
  static void output(int64_t n, const T* from, int64_t stride, T* to, int64_t row, int64_t column, int64_t rows,
                     int64_t columns) {
    for (int64_t c = 0; c < n; c += kLanes) {
      Vec m[kPoints][kPoints], y[2][2];
#pragma GCC unroll 4
      for (int i = 0; i < kPoints; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < kPoints; ++j) m[i][j] = read<Vec>(from + (i * kPoints + j) * stride + c);
      }
      both(M::kOutput, m, y);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) write(to + i * row + j * column + c, y[i][j]);
      }
    }
  }

  static void filter(const T* const* g, int64_t channel, E* to, int64_t stride) {
    for (int64_t n = 0; n < 2 * kLanes; n += kLanes) {
      typename Of::Vec points[kPoints][kPoints][kTermsOf<E>];
#pragma GCC unroll 2
      for (int term = 0; term < kTermsOf<E>; ++term) {
        Vec taps[R][R], w[kPoints][kPoints];
#pragma GCC unroll 3
        for (int i = 0; i < R; ++i) {
#pragma GCC unroll 3
          for (int j = 0; j < R; ++j) taps[i][j] = read<Vec>(g[i * R + j] + term * channel + n);
        }
        both(M::kFilter, taps, w);
#pragma GCC unroll 4
        for (int i = 0; i < kPoints; ++i) {
#pragma GCC unroll 4
          for (int j = 0; j < kPoints; ++j) points[i][j][term] = w[i][j];
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < kPoints; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < kPoints; ++j) Of::put(to + (i * kPoints + j) * stride + n, points[i][j]);
      }
    }
  }

  static Winograd<T, E> loops() { return {input, output, filter}; }
};

// Operands of values at `count` places `step` apart, each a sum of terms, `Width` of each place one after another;
// writes up to a register more, and reads that much.
template <typename T, typename E, int Width>
struct Combine {
  static_assert(FASTGAN_VECTOR_BYTES / sizeof(T) <= kSlack);
  static constexpr int kLanes = FASTGAN_VECTOR_BYTES / sizeof(T), kVectors = (Width + kLanes - 1) / kLanes;
  using Of = Operand<T, E>;
  using Vec = typename Of::Vec;

  template <int Count>
  static inline __attribute__((always_inline)) Vec sum(const T* from, const Terms<T>& terms) {
    Vec v = terms.factor[0] * *reinterpret_cast<const Vec*>(from + terms.offset[0]);
#pragma GCC unroll 4
    for (int t = 1; t < Count; ++t) v += terms.factor[t] * *reinterpret_cast<const Vec*>(from + terms.offset[t]);
    return v;
  }

  template <int Count>
  static void run(int64_t count, const T* from, int64_t step, const Terms<T>& terms, E* to) {
    for (int64_t i = 0; i < count; i += kTermsOf<E>, from += kTermsOf<E> * step, to += Width) {
#pragma GCC unroll 2
      for (int k = 0; k < kVectors; ++k) {
        Vec v[kTermsOf<E>];
#pragma GCC unroll 2
        for (int term = 0; term < kTermsOf<E>; ++term) {
          v[term] = i + term < count ? sum<Count>(from + term * step + k * kLanes, terms) : Vec{};
        }
        Of::put(to + k * kLanes, v);
      }
    }
  }

  static void any(int64_t count, const T* from, int64_t step, const Terms<T>& terms, E* to) {
    const auto f = terms.count == 4 ? run<4> : terms.count == 2 ? run<2> : run<1>;
    f(count, from, step, terms, to);
  }
};

template <typename T, typename E>
void unfold(int64_t count, const T* from, int64_t step, int64_t rows, int64_t row, int64_t length, E* to,
            int64_t stride) {
  using Vec = typename Operand<T, E>::Vec;
  for (int64_t i = 0; i < count; i += kTermsOf<E>, from += kTermsOf<E> * step, to += stride) {
    for (int64_t r = 0; r < rows; ++r) {
      // ascending: what is written too much is written again
      for (int64_t k = 0; k < length; k += FASTGAN_VECTOR_BYTES / sizeof(T)) {
        Vec v[kTermsOf<E>];
#pragma GCC unroll 2
        for (int term = 0; term < kTermsOf<E>; ++term) {
          const T* at = from + term * step + r * row + k;
          v[term] = i + term < count ? *reinterpret_cast<const Vec*>(at) : Vec{};
        }
        Operand<T, E>::put(to + r * length + k, v);
      }
    }
  }
}

}  // namespace FASTGAN_ISA
}  // namespace fastgan
