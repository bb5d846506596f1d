// Included once per instruction set by isa_<name>.cpp, which defines FASTGAN_ISA as the namespace, includes half.h in
// it, and gives the width of a register in FASTGAN_VECTOR_BYTES.
#include "cpu/product_loops.h"
#include "cpu/transpose_loops.h"

namespace fastgan {
namespace FASTGAN_ISA {

struct float16 {
  uint16_t bits;
};
inline float value(float16 v) { return from_float16(v.bits); }
inline void assign(float16& to, float v) { to.bits = to_float16(v); }

template <typename T, typename S>
struct Movement {
  using Square = Transpose<T>;
  using Vec = typename Square::Vec;
  // whether the processor rounds to S by itself, for which it makes subnormals 0
#ifdef FASTGAN_NARROWS
  static constexpr bool kNarrows = std::is_same_v<T, float> && std::is_same_v<S, bfloat16>;
#else
  static constexpr bool kNarrows = false;
#endif

  static void load(const void* from, Pixels p, T* __restrict to, int64_t stride) {
    const S* __restrict s = static_cast<const S*>(from);
    if (p.channel_stride == 1) {
      const auto [rows, n] = rows_of(p, stride);
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
      const auto [rows, n] = rows_of(p, stride);
      for (int64_t w = 0; w < rows; ++w) {
        const T* __restrict in = from + w * stride;
        S* __restrict out = s + w * p.pixel_stride;
        int64_t c = 0;
        if constexpr (kNarrows) {
          for (; c + Square::kLanes <= n; c += Square::kLanes) put(*reinterpret_cast<const Vec*>(in + c), out + c);
          if (c < n) put_some(n - c, in + c, out + c);
          c = n;
        }
        for (; c < n; ++c) assign(out[c], in[c]);
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
  typedef uint32_t Bits __attribute__((vector_size(FASTGAN_VECTOR_BYTES)));
  typedef uint16_t Halves __attribute__((vector_size(FASTGAN_VECTOR_BYTES / 2)));

  // Rows of what lies side by side, and the elements of one.
  static std::pair<int64_t, int64_t> rows_of(const Pixels& p, int64_t stride) {
    const bool dense = p.pixel_stride == p.channels && stride == p.channels;
    return dense ? std::pair<int64_t, int64_t>{1, p.width * p.channels} : std::pair{p.width, p.channels};
  }

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
    } else if constexpr (std::is_same_v<S, bfloat16>) {
      Halves halves;
      __builtin_memcpy(&halves, from, sizeof(halves));
      return (Vec)(__builtin_convertvector(halves, Bits) << 16);
    } else {
      Vec v;
      for (int i = 0; i < Square::kLanes; ++i) v[i] = T(value(from[i]));
      return v;
    }
  }

#ifdef FASTGAN_NARROWS
  // Fewer than fill a register.
  static inline __attribute__((always_inline)) void put_some(int64_t n, const T* from, S* to) {
    const __mmask16 some = __mmask16((1u << n) - 1);
    const auto halves = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, reinterpret_cast<const float*>(from)));
    _mm256_mask_storeu_epi16(to, some, (__m256i)halves);
  }
#endif

  static inline __attribute__((always_inline)) void put(Vec v, S* to) {
    if constexpr (std::is_same_v<T, S>) {
      *reinterpret_cast<Vec*>(to) = v;
    } else if constexpr (std::is_same_v<S, bfloat16>) {
#ifdef FASTGAN_NARROWS
      const auto halves = _mm512_cvtneps_pbh((__m512)v);
      __builtin_memcpy(to, &halves, sizeof(halves));
#else
      // to_bfloat16 for all lanes
      const Bits u = (Bits)v, rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16, nan = (Bits)(v != v);
      const Halves halves = __builtin_convertvector((rounded & ~nan) | (nan & 0x7FC0u), Halves);
      __builtin_memcpy(to, &halves, sizeof(halves));
#endif
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
      products<T, T>(),
      [](Storage storage, const void* from, Pixels pixels, T* to, int64_t stride) {
        by_storage<T>(storage, [&](auto move) { move.load(from, pixels, to, stride); });
      },
      [](Storage storage, const T* from, int64_t stride, void* to, Pixels pixels) {
        by_storage<T>(storage, [&](auto move) { move.store(from, stride, to, pixels); });
      },
      [](Storage storage, T* values, int64_t n) {
        if (storage != Storage::exact) by_storage<T>(storage, [&](auto move) { move.round(values, n); });
      },
  };
}

template Gemm<float> gemm<float>();
template Gemm<double> gemm<double>();

}  // namespace FASTGAN_ISA
}  // namespace fastgan
