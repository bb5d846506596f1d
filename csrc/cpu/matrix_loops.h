// Included once per instruction set by isa_<name>.cpp, which defines FASTGAN_ISA as the namespace and gives the width
// of a register in FASTGAN_VECTOR_BYTES.
namespace fastgan {
namespace FASTGAN_ISA {

// the operands of a loop never overlap
#define FASTGAN_LANES _Pragma("GCC ivdep") for (int64_t i = 0; i < width; ++i)

template <typename T, int Rows>
struct MatrixRows {
  // lanes that fit into registers, for all rows
  static constexpr int kVectors = kLineBytes / FASTGAN_VECTOR_BYTES, kWide = FASTGAN_VECTOR_BYTES / int(sizeof(T));
  static constexpr int64_t kLanes = kLineBytes / int64_t(sizeof(T));
  typedef T Vec __attribute__((vector_size(FASTGAN_VECTOR_BYTES), aligned(sizeof(T)), may_alias));

  static Vec read(const T* from, int k) { return *reinterpret_cast<const Vec*>(from + k * kWide); }
  static void write(T* to, int k, Vec v) { *reinterpret_cast<Vec*>(to + k * kWide) = v; }

  // The same as gather, scatter and combine for kLanes lanes; return how many of the n values are done.
  static int64_t gather_lines(int64_t n, int64_t stride, const T* w, const T* c, T* acc) {
    Vec sums[Rows][kVectors];
    for (int r = 0; r < Rows; ++r) {
      for (int k = 0; k < kVectors; ++k) sums[r][k] = read(acc + r * kLanes, k);
    }
    int64_t at = 0;
    for (; at + kLanes <= n; at += kLanes) {
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) {
        const Vec v = read(c + at, k);
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) sums[r][k] += read(w + r * stride + at, k) * v;
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int k = 0; k < kVectors; ++k) write(acc + r * kLanes, k, sums[r][k]);
    }
    return at;
  }

  static int64_t scatter_lines(int64_t n, int64_t stride, const T* w, const T* x, T* acc) {
    Vec factors[Rows][kVectors];
    for (int r = 0; r < Rows; ++r) {
      for (int k = 0; k < kVectors; ++k) factors[r][k] = read(x + r * kLanes, k);
    }
    int64_t at = 0;
    for (; at + kLanes <= n; at += kLanes) {
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) {
        Vec sum = read(acc + at, k);
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) sum += read(w + r * stride + at, k) * factors[r][k];
        write(acc + at, k, sum);
      }
    }
    return at;
  }

  static int64_t combine_lines(int64_t n, const T* dy, T scale, const T* x, const T* c, T* out) {
    Vec factors[kVectors];
    for (int k = 0; k < kVectors; ++k) factors[k] = read(x, k);
    int64_t at = 0;
    for (; at + kLanes <= n; at += kLanes) {
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) write(out + at, k, scale * read(dy + at, k) - factors[k] * read(c + at, k));
    }
    return at;
  }

  static void gather(int64_t n, int64_t stride, int64_t lanes, const T* w, const T* c_, T* acc_) {
    const int64_t done = lanes == kLanes ? gather_lines(n, stride, w, c_, acc_) : 0;
    for (int64_t at = done; at < n; at += lanes) {
      const int64_t width = n - at < lanes ? n - at : lanes;
      const T* __restrict c = c_ + at;
      const T* __restrict rows[Rows];
      T* __restrict acc[Rows];
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        rows[r] = w + r * stride + at;
        acc[r] = acc_ + r * lanes;
      }
      FASTGAN_LANES {
        const T v = c[i];
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) acc[r][i] += rows[r][i] * v;
      }
    }
  }

  static void scatter(int64_t n, int64_t stride, int64_t lanes, const T* w, const T* x_, T* acc_) {
    const int64_t done = lanes == kLanes ? scatter_lines(n, stride, w, x_, acc_) : 0;
    for (int64_t at = done; at < n; at += lanes) {
      const int64_t width = n - at < lanes ? n - at : lanes;
      const T* __restrict rows[Rows], * __restrict x[Rows];
      T* __restrict acc = acc_ + at;
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        rows[r] = w + r * stride + at;
        x[r] = x_ + r * lanes;
      }
      FASTGAN_LANES {
        T sum = acc[i];
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) sum += rows[r][i] * x[r][i];
        acc[i] = sum;
      }
    }
  }
};

template <typename T>
struct AnyRows {
  static void gather(int64_t rows, int64_t n, int64_t stride, int64_t lanes, const T* w, const T* c, T* acc) {
    const auto f = rows == 4   ? MatrixRows<T, 4>::gather
                   : rows == 3 ? MatrixRows<T, 3>::gather
                   : rows == 2 ? MatrixRows<T, 2>::gather
                               : MatrixRows<T, 1>::gather;
    f(n, stride, lanes, w, c, acc);
  }

  static void scatter(int64_t rows, int64_t n, int64_t stride, int64_t lanes, const T* w, const T* x, T* acc) {
    const auto f = rows == 4   ? MatrixRows<T, 4>::scatter
                   : rows == 3 ? MatrixRows<T, 3>::scatter
                   : rows == 2 ? MatrixRows<T, 2>::scatter
                               : MatrixRows<T, 1>::scatter;
    f(n, stride, lanes, w, x, acc);
  }

  static void combine(int64_t n, int64_t lanes, const T* dy_, T scale, const T* x_, const T* c_, T* out_) {
    using Row = MatrixRows<T, 1>;
    const T* __restrict x = x_;
    const int64_t done = lanes == Row::kLanes ? Row::combine_lines(n, dy_, scale, x_, c_, out_) : 0;
    for (int64_t at = done; at < n; at += lanes) {
      const int64_t width = n - at < lanes ? n - at : lanes;
      const T* __restrict dy = dy_ + at, * __restrict c = c_ + at;
      T* __restrict out = out_ + at;
      FASTGAN_LANES out[i] = scale * dy[i] - x[i] * c[i];
    }
  }
};

#undef FASTGAN_LANES

template <typename T>
MatrixLoops<T> matrix_loops() {
  return {AnyRows<T>::gather, AnyRows<T>::scatter, AnyRows<T>::combine};
}

template MatrixLoops<float> matrix_loops<float>();
template MatrixLoops<double> matrix_loops<double>();

}  // namespace FASTGAN_ISA
}  // namespace fastgan
