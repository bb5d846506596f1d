// The loops over a Span, written so that the compiler vectorises them. Included once per instruction set by
// isa_<name>.cpp, which defines FASTGAN_ISA as the namespace; all code here is a template or in that namespace.
namespace fastgan {
namespace FASTGAN_ISA {

#include "cpu/activation.h"

// A per-channel vector: the element of this lane, or the one value of the channel, read once.
template <typename T, bool Inner>
struct Channel {
  const T* __restrict lanes;
  const T value;
  explicit Channel(const T* v) : lanes(v), value(Inner || v == nullptr ? T(0) : v[0]) {}
  T operator[](int64_t i) const { return Inner ? lanes[i] : value; }
};

// the operands of a loop never overlap
#define FASTGAN_LANES _Pragma("GCC ivdep") for (int64_t i = 0; i < s.width; ++i)

template <typename T, typename Act, bool Inner, bool ActFirst>
struct Loops {
  using C = Channel<T, Inner>;

  static T centred(const Act& a, T x, T mean) { return (ActFirst ? a.f(x) : x) - mean; }
  static T gradient(const Act& a, T dy, T z) { return ActFirst ? dy : dy * a.d(z); }

  static void sum(const Span<T>& s) {
    const Act a{s.negative_slope};
    T* __restrict acc = s.acc[0];
    for (int64_t row = 0; row < s.rows; ++row) {
      const T* __restrict x = s.x + row * s.width;
      FASTGAN_LANES acc[i] += ActFirst ? a.f(x[i]) : x[i];
    }
  }

  static void squares(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean);
    T* __restrict acc = s.acc[0];
    for (int64_t row = 0; row < s.rows; ++row) {
      const T* __restrict x = s.x + row * s.width;
      FASTGAN_LANES {
        const T d = centred(a, x[i], mean[i]);
        acc[i] += d * d;
      }
    }
  }

  static void forward(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift);
    for (int64_t row = 0; row < s.rows; ++row) {
      const T* __restrict x = s.x + row * s.width;
      T* __restrict y = s.out[0] + row * s.width;
      FASTGAN_LANES {
        const T z = centred(a, x[i], mean[i]) * scale[i] + shift[i];
        y[i] = ActFirst ? z : a.f(z);
      }
    }
  }

  static void bwd_sums(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift);
    T *__restrict sum_g = s.acc[0], *__restrict sum_gd = s.acc[1];
    for (int64_t row = 0; row < s.rows; ++row) {
      const T *__restrict x = s.x + row * s.width, *__restrict dy = s.dy + row * s.width;
      FASTGAN_LANES {
        const T d = centred(a, x[i], mean[i]);
        const T g = gradient(a, dy[i], d * scale[i] + shift[i]);
        sum_g[i] += g;
        sum_gd[i] += g * d;
      }
    }
  }

  static void bwd(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift);
    const C cg(s.first_g), cd(s.first_d), cc(s.first_c);
    for (int64_t row = 0; row < s.rows; ++row) {
      const T *__restrict x = s.x + row * s.width, *__restrict dy = s.dy + row * s.width;
      T* __restrict dx = s.out[0] + row * s.width;
      FASTGAN_LANES {
        const T d = centred(a, x[i], mean[i]);
        const T g = gradient(a, dy[i], d * scale[i] + shift[i]);
        const T du = cg[i] * g + (cd[i] * d + cc[i]);
        dx[i] = ActFirst ? du * a.d(x[i]) : du;
      }
    }
  }

  static void bwd_bwd_sums(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift);
    T *__restrict g_ = s.acc[0], *__restrict gd_ = s.acc[1], *__restrict v_ = s.acc[2];
    T *__restrict vd_ = s.acc[3], *__restrict vg_ = s.acc[4];
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t o = row * s.width;
      const T *__restrict x = s.x + o, *__restrict dy = s.dy + o, *__restrict ddx = s.ddx + o;
      FASTGAN_LANES {
        const T d = centred(a, x[i], mean[i]);
        const T g = gradient(a, dy[i], d * scale[i] + shift[i]);
        const T v = ActFirst ? ddx[i] * a.d(x[i]) : ddx[i];
        g_[i] += g;
        gd_[i] += g * d;
        v_[i] += v;
        vd_[i] += v * d;
        vg_[i] += v * g;
      }
    }
  }

  static void bwd_bwd_curve(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift), t_v(s.t_v), t_d(s.t_d), t_c(s.t_c);
    T *__restrict q_ = s.acc[0], *__restrict qd_ = s.acc[1];
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t o = row * s.width;
      const T *__restrict x = s.x + o, *__restrict dy = s.dy + o, *__restrict ddx = s.ddx + o;
      FASTGAN_LANES {
        const T d = x[i] - mean[i];
        const T z = d * scale[i] + shift[i];
        const T t = t_v[i] * ddx[i] + (t_d[i] * d + t_c[i]);
        const T q = t * dy[i] * a.dd(z);
        q_[i] += q;
        qd_[i] += q * d;
      }
    }
  }

  static void bwd_bwd(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift), t_v(s.t_v), t_d(s.t_d), t_c(s.t_c);
    const C first_g(s.first_g), first_d(s.first_d), first_c(s.first_c);
    const C second_v(s.second_v), second_g(s.second_g), second_q(s.second_q), second_d(s.second_d), second_c(s.second_c);
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t o = row * s.width;
      const T *__restrict x = s.x + o, *__restrict dy = s.dy + o, *__restrict ddx = s.ddx + o;
      T *__restrict ddy = s.out[0] + o, *__restrict dx = s.out[1] + o;
      FASTGAN_LANES {
        const T d = centred(a, x[i], mean[i]);
        const T z = ActFirst ? x[i] : d * scale[i] + shift[i];
        const T slope = a.d(z), curve = a.dd(z);
        const T g = ActFirst ? dy[i] : dy[i] * slope;
        const T v = ActFirst ? ddx[i] * slope : ddx[i];
        const T t = t_v[i] * v + (t_d[i] * d + t_c[i]);
        T k = second_v[i] * v + second_g[i] * g;
        k += second_d[i] * d + second_c[i];
        if (ActFirst) {
          const T du = first_g[i] * g + (first_d[i] * d + first_c[i]);
          k = k * slope + ddx[i] * du * curve;
        } else {
          k += second_q[i] * (t * dy[i] * curve);
        }
        ddy[i] = ActFirst ? t : t * slope;
        dx[i] = k;
      }
    }
  }

  static void saved_bwd(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C shift(s.shift);
    for (int64_t row = 0; row < s.rows; ++row) {
      const T *__restrict x = s.x + row * s.width, *__restrict dy = s.dy + row * s.width;
      T* __restrict dx = s.out[0] + row * s.width;
      FASTGAN_LANES dx[i] = dy[i] * a.d_saved(x[i] + shift[i]);
    }
  }

  static void saved_bwd_bwd(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C shift(s.shift);
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t o = row * s.width;
      const T *__restrict x = s.x + o, *__restrict dy = s.dy + o, *__restrict ddx = s.ddx + o;
      T *__restrict ddy = s.out[0] + o, *__restrict ds = s.out[1] + o;
      FASTGAN_LANES {
        const T saved = x[i] + shift[i];
        ddy[i] = ddx[i] * a.d_saved(saved);
        ds[i] = ddx[i] * dy[i] * a.dd_saved(saved);
      }
    }
  }

  static Loop<T> get(Pass pass) {
    switch (pass) {
      case Pass::sum: return sum;
      case Pass::squares: return squares;
      case Pass::forward: return forward;
      case Pass::bwd_sums: return bwd_sums;
      case Pass::bwd: return bwd;
      case Pass::bwd_bwd_sums: return bwd_bwd_sums;
      case Pass::bwd_bwd_curve: return bwd_bwd_curve;
      case Pass::bwd_bwd: return bwd_bwd;
      case Pass::saved_bwd: return saved_bwd;
      case Pass::saved_bwd_bwd: return saved_bwd_bwd;
    }
    return nullptr;
  }
};

template <typename T, template <typename> class Act>
Loop<T> with_activation(LoopKey key) {
  if (key.channels_inner) {
    return key.act_first ? Loops<T, Act<T>, true, true>::get(key.pass) : Loops<T, Act<T>, true, false>::get(key.pass);
  }
  return key.act_first ? Loops<T, Act<T>, false, true>::get(key.pass) : Loops<T, Act<T>, false, false>::get(key.pass);
}

template <typename T>
Loop<T> loop(LoopKey key) {
  switch (key.activation) {
    case Activation::identity: return with_activation<T, Identity>(key);
    case Activation::relu: return with_activation<T, Relu>(key);
    case Activation::leaky_relu: return with_activation<T, LeakyRelu>(key);
    case Activation::tanh: return with_activation<T, Tanh>(key);
    case Activation::sigmoid: return with_activation<T, Sigmoid>(key);
    case Activation::silu: return with_activation<T, Silu>(key);
  }
  return nullptr;
}

inline float from_bfloat16(uint16_t h) { return __builtin_bit_cast(float, uint32_t(h) << 16); }

inline uint16_t to_bfloat16(float f) {
  const uint32_t u = __builtin_bit_cast(uint32_t, f);
  const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
  return uint16_t(f != f ? 0x7FC0u : rounded);
}

inline float from_float16(uint16_t h) {
  const uint32_t magnitude = uint32_t(h & 0x7FFFu) << 13;
  // 2^112 moves the exponent bias from 15 to 127, for subnormals too
  const uint32_t finite = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, magnitude) * 0x1p112f);
  const uint32_t bits = (h & 0x7C00u) == 0x7C00u ? (magnitude | 0x7F800000u) : finite;
  return __builtin_bit_cast(float, bits | (uint32_t(h & 0x8000u) << 16));
}

inline uint16_t to_float16(float f) {
  const uint32_t sign = (__builtin_bit_cast(uint32_t, f) >> 16) & 0x8000u;
  const float a = __builtin_fabsf(f);
  const uint32_t u = __builtin_bit_cast(uint32_t, a);
  const uint32_t normal = (u - (112u << 23) + 0xFFFu + ((u >> 13) & 1u)) >> 13;
  // one unit in the last place of 0.5 is the float16 subnormal spacing, so the addition rounds
  const uint32_t subnormal = __builtin_bit_cast(uint32_t, a + 0.5f) - 0x3F000000u;
  uint32_t bits = a < 0x1p-14f ? subnormal : normal;
  bits = a >= 65520.0f ? 0x7C00u : bits;
  bits = f != f ? 0x7E00u : bits;
  return uint16_t(bits | sign);
}

template <typename T>
void load(Storage storage, const void* from, T* to, int64_t n) {
  const auto* halves = static_cast<const uint16_t*>(from);
  if (storage == Storage::exact) {
    __builtin_memcpy(to, from, size_t(n) * sizeof(T));
  } else if (storage == Storage::bfloat16) {
    for (int64_t i = 0; i < n; ++i) to[i] = T(from_bfloat16(halves[i]));
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = T(from_float16(halves[i]));
  }
}

template <typename T>
void store(Storage storage, const T* from, void* to, int64_t n) {
  auto* halves = static_cast<uint16_t*>(to);
  if (storage == Storage::exact) {
    __builtin_memcpy(to, from, size_t(n) * sizeof(T));
  } else if (storage == Storage::bfloat16) {
    for (int64_t i = 0; i < n; ++i) halves[i] = to_bfloat16(float(from[i]));
  } else {
    for (int64_t i = 0; i < n; ++i) halves[i] = to_float16(float(from[i]));
  }
}

#undef FASTGAN_LANES

template <typename T>
Conversions<T> conversions() {
  return {load<T>, store<T>};
}

template Loop<float> loop<float>(LoopKey);
template Loop<double> loop<double>(LoopKey);
template Conversions<float> conversions<float>();
template Conversions<double> conversions<double>();

}  // namespace FASTGAN_ISA
}  // namespace fastgan
