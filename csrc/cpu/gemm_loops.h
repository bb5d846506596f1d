// Included once per instruction set by isa_<name>.cpp, which defines FASTGAN_ISA as the namespace, includes half.h in
// it, and gives the width of a register in FASTGAN_VECTOR_BYTES.
#include "cpu/transpose_loops.h"
#include "cpu/winograd_loops.h"

namespace fastgan {
namespace FASTGAN_ISA {

template <typename T>
struct Tile {
  static constexpr int kLanesOfVector = FASTGAN_VECTOR_BYTES / sizeof(T), kColumns = 2 * kLanesOfVector;
  // memory operands need not be aligned
  typedef T Vec __attribute__((vector_size(FASTGAN_VECTOR_BYTES), aligned(sizeof(T)), may_alias));

  typedef Vec Sums[kTileRows][2];

  static inline __attribute__((always_inline)) void clear(Sums& acc, T* c, int64_t stride) {
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      acc[r][0] = acc[r][1] = Vec{};
      // needed at the end, and by then in the first-level cache
      __builtin_prefetch(c + r * stride, 1);
      __builtin_prefetch(c + r * stride + kColumns - 1, 1);
    }
  }

  // a(r, i): term i of row r.
  template <typename A>
  static inline __attribute__((always_inline)) void add(Sums& acc, int64_t k, A a, const T* b) {
    for (int64_t i = 0; i < k; ++i) {
      const Vec b0 = *reinterpret_cast<const Vec*>(b + i * kColumns);
      const Vec b1 = *reinterpret_cast<const Vec*>(b + i * kColumns + kLanesOfVector);
#pragma GCC unroll 6
      for (int r = 0; r < kTileRows; ++r) {
        const T v = a(r, i);
        acc[r][0] += v * b0;
        acc[r][1] += v * b1;
      }
    }
  }

  static inline __attribute__((always_inline)) void put(const Sums& acc, T* c, int64_t stride, bool first) {
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      Vec* to = reinterpret_cast<Vec*>(c + r * stride);
      Vec* next = reinterpret_cast<Vec*>(c + r * stride + kLanesOfVector);
      *to = first ? acc[r][0] : *to + acc[r][0];
      *next = first ? acc[r][1] : *next + acc[r][1];
    }
  }

  static void rows(const Stretch* stretches, int64_t count, const T* const* a, const T* b, T* c, int64_t stride,
                   bool first) {
    Sums acc;
    clear(acc, c, stride);
    for (int64_t s = 0; s < count; ++s) {
      const int64_t k = stretches[s].length, offset = stretches[s].offset;
      const T *a0 = a[0] + offset, *a1 = a[1] + offset, *a2 = a[2] + offset;
      const T *a3 = a[3] + offset, *a4 = a[4] + offset, *a5 = a[5] + offset;
      auto at = [=](int r, int64_t i) __attribute__((always_inline)) {
        return r == 0 ? a0[i] : r == 1 ? a1[i] : r == 2 ? a2[i] : r == 3 ? a3[i] : r == 4 ? a4[i] : a5[i];
      };
      add(acc, k, at, b);
      b += k * kColumns;
    }
    put(acc, c, stride, first);
  }

  static void packed(int64_t k, const T* a, const T* b, T* c, int64_t stride, bool first) {
    Sums acc;
    clear(acc, c, stride);
    add(acc, k, [=](int r, int64_t i) __attribute__((always_inline)) { return a[i * kTileRows + r]; }, b);
    put(acc, c, stride, first);
  }
};

struct float16 {
  uint16_t bits;
};
inline float value(float16 v) { return from_float16(v.bits); }
inline void assign(float16& to, float v) { to.bits = to_float16(v); }

template <typename T, typename S>
struct Movement {
  static void load(const void* from, Pixels p, T* __restrict to, int64_t stride) {
    const S* __restrict s = static_cast<const S*>(from);
    if (p.channel_stride == 1) {
      const bool dense = p.pixel_stride == p.channels && stride == p.channels;
      const int64_t rows = dense ? 1 : p.width, n = dense ? p.width * p.channels : p.channels;
      for (int64_t w = 0; w < rows; ++w) {
        const S* __restrict in = s + w * p.pixel_stride;
        T* __restrict out = to + w * stride;
        for (int64_t i = 0; i < n; ++i) out[i] = T(value(in[i]));
      }
      return;
    }
    if (in_squares(p)) {
      each_square(p, [&](int64_t c, int64_t w) {
        Square::square([&](int r) { return vector(s + (c + r) * p.channel_stride + w); },
                       [&](int r, Vec v) { *reinterpret_cast<Vec*>(to + (w + r) * stride + c) = v; });
      });
      return;
    }
    for (int64_t c = 0; c < p.channels; ++c) {
      const S* in = s + c * p.channel_stride;
      for (int64_t w = 0; w < p.width; ++w) to[w * stride + c] = T(value(in[w * p.pixel_stride]));
    }
  }

  static void store(const T* __restrict from, int64_t stride, void* to, Pixels p) {
    S* __restrict s = static_cast<S*>(to);
    if (p.channel_stride == 1) {
      for (int64_t w = 0; w < p.width; ++w) {
        const T* __restrict in = from + w * stride;
        S* __restrict out = s + w * p.pixel_stride;
        for (int64_t c = 0; c < p.channels; ++c) assign(out[c], in[c]);
      }
      return;
    }
    if (in_squares(p)) {
      each_square(p, [&](int64_t c, int64_t w) {
        Square::square([&](int r) { return *reinterpret_cast<const Vec*>(from + (w + r) * stride + c); },
                       [&](int r, Vec v) { put(v, s + (c + r) * p.channel_stride + w); });
      });
      return;
    }
    for (int64_t c = 0; c < p.channels; ++c) {
      S* out = s + c * p.channel_stride;
      for (int64_t w = 0; w < p.width; ++w) assign(out[w * p.pixel_stride], from[w * stride + c]);
    }
  }

  static void round(T* values, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      S s;
      assign(s, values[i]);
      values[i] = T(value(s));
    }
  }

 private:
  using Square = Transpose<T>;
  using Vec = typename Square::Vec;

  static bool in_squares(const Pixels& p) {
    return p.pixel_stride == 1 && p.channels >= Square::kLanes && p.width >= Square::kLanes;
  }

  // Calls f with the first channel and pixel of squares that cover all; the last ones overlap those before.
  template <typename F>
  static void each_square(const Pixels& p, F f) {
    for (int64_t c = 0; c < p.channels; c += Square::kLanes) {
      for (int64_t w = 0; w < p.width; w += Square::kLanes) {
        const int64_t left_c = p.channels - Square::kLanes, left_w = p.width - Square::kLanes;
        f(c < left_c ? c : left_c, w < left_w ? w : left_w);
      }
    }
  }

  static inline __attribute__((always_inline)) Vec vector(const S* from) {
    if constexpr (std::is_same_v<T, S>) {
      return *reinterpret_cast<const Vec*>(from);
    } else {
      Vec v;
      for (int i = 0; i < Square::kLanes; ++i) v[i] = T(value(from[i]));
      return v;
    }
  }

  static inline __attribute__((always_inline)) void put(Vec v, S* to) {
    if constexpr (std::is_same_v<T, S>) {
      *reinterpret_cast<Vec*>(to) = v;
    } else {
      for (int i = 0; i < Square::kLanes; ++i) assign(to[i], v[i]);
    }
  }
};

template <typename T, typename F>
void by_storage(Storage storage, F f) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (storage == Storage::bfloat16) return f(Movement<T, bfloat16>{});
    if (storage == Storage::float16) return f(Movement<T, float16>{});
  }
  f(Movement<T, T>{});
}

template <typename T>
Gemm<T> gemm() {
  return {
      Tile<T>::kColumns,
      Tile<T>::rows,
      Tile<T>::packed,
      [](Storage storage, const void* from, Pixels pixels, T* to, int64_t stride) {
        by_storage<T>(storage, [&](auto move) { move.load(from, pixels, to, stride); });
      },
      [](Storage storage, const T* from, int64_t stride, void* to, Pixels pixels) {
        by_storage<T>(storage, [&](auto move) { move.store(from, stride, to, pixels); });
      },
      [](Storage storage, T* values, int64_t n) {
        if (storage != Storage::exact) by_storage<T>(storage, [&](auto move) { move.round(values, n); });
      },
      Combine<T, Tile<T>::kColumns>::any,
      Combine<T, kTileRows>::any,
      {MinimalLoops<T, 2>::loops(), MinimalLoops<T, 3>::loops()},
  };
}

template Gemm<float> gemm<float>();
template Gemm<double> gemm<double>();

}  // namespace FASTGAN_ISA
}  // namespace fastgan
