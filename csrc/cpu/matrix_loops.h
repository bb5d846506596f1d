// Included once per instruction set by isa_<name>.cpp, which defines FASTGAN_ISA as the namespace.
namespace fastgan {
namespace FASTGAN_ISA {

// the operands of a loop never overlap
#define FASTGAN_LANES _Pragma("GCC ivdep") for (int64_t i = 0; i < width; ++i)

template <typename T, int Rows>
struct MatrixRows {
  static void gather(int64_t n, int64_t stride, int64_t lanes, const T* w, const T* c_, T* acc_) {
    for (int64_t at = 0; at < n; at += lanes) {
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
    for (int64_t at = 0; at < n; at += lanes) {
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
    const T* __restrict x = x_;
    for (int64_t at = 0; at < n; at += lanes) {
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
