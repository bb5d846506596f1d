// The loops over a Span, written so that the compiler vectorises them. Included once per instruction set by
// isa_<name>.cpp, which defines FASTGAN_ISA as the namespace and includes half.h in it; all code here is a template or
// in that namespace.
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

// T accumulates, S is stored.
template <typename T, typename S, typename Act, bool Inner, bool ActFirst>
struct Loops {
  using C = Channel<T, Inner>;

  static const S* in(const void* p) { return static_cast<const S*>(p); }
  static S* out(void* p) { return static_cast<S*>(p); }

  static T centred(const Act& a, T x, T mean) { return (ActFirst ? a.f(x) : x) - mean; }
  static T gradient(const Act& a, T dy, T z) { return ActFirst ? dy : dy * a.d(z); }

  static void sum(const Span<T>& s) {
    const Act a{s.negative_slope};
    T* __restrict acc = s.acc[0];
    for (int64_t row = 0; row < s.rows; ++row) {
      const S* __restrict x = in(s.x) + row * s.stride;
      FASTGAN_LANES acc[i] += ActFirst ? a.f(value(x[i])) : value(x[i]);
    }
  }

  static void squares(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean);
    T* __restrict acc = s.acc[0];
    for (int64_t row = 0; row < s.rows; ++row) {
      const S* __restrict x = in(s.x) + row * s.stride;
      FASTGAN_LANES {
        const T d = centred(a, value(x[i]), mean[i]);
        acc[i] += d * d;
      }
    }
  }

  static void forward(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift);
    for (int64_t row = 0; row < s.rows; ++row) {
      const S* __restrict x = in(s.x) + row * s.stride;
      S* __restrict y = out(s.out[0]) + row * s.stride;
      FASTGAN_LANES {
        const T z = centred(a, value(x[i]), mean[i]) * scale[i] + shift[i];
        assign(y[i], ActFirst ? z : a.f(z));
      }
    }
  }

  static void bwd_sums(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift);
    T* __restrict sum_g = s.acc[0], * __restrict sum_gd = s.acc[1];
    for (int64_t row = 0; row < s.rows; ++row) {
      const S* __restrict x = in(s.x) + row * s.stride, * __restrict dy = in(s.dy) + row * s.stride;
      FASTGAN_LANES {
        const T d = centred(a, value(x[i]), mean[i]);
        const T g = gradient(a, value(dy[i]), d * scale[i] + shift[i]);
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
      const S* __restrict x = in(s.x) + row * s.stride, * __restrict dy = in(s.dy) + row * s.stride;
      S* __restrict dx = out(s.out[0]) + row * s.stride;
      FASTGAN_LANES {
        const T d = centred(a, value(x[i]), mean[i]);
        const T g = gradient(a, value(dy[i]), d * scale[i] + shift[i]);
        const T du = cg[i] * g + (cd[i] * d + cc[i]);
        assign(dx[i], ActFirst ? du * a.d(value(x[i])) : du);
      }
    }
  }

  static void bwd_bwd_sums(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift);
    T* __restrict g_ = s.acc[0], * __restrict gd_ = s.acc[1], * __restrict v_ = s.acc[2];
    T* __restrict vd_ = s.acc[3], * __restrict vg_ = s.acc[4];
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t o = row * s.stride;
      const S* __restrict x = in(s.x) + o, * __restrict dy = in(s.dy) + o, * __restrict ddx = in(s.ddx) + o;
      FASTGAN_LANES {
        const T d = centred(a, value(x[i]), mean[i]);
        const T g = gradient(a, value(dy[i]), d * scale[i] + shift[i]);
        const T v = ActFirst ? value(ddx[i]) * a.d(value(x[i])) : value(ddx[i]);
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
    T* __restrict q_ = s.acc[0], * __restrict qd_ = s.acc[1];
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t o = row * s.stride;
      const S* __restrict x = in(s.x) + o, * __restrict dy = in(s.dy) + o, * __restrict ddx = in(s.ddx) + o;
      FASTGAN_LANES {
        const T d = value(x[i]) - mean[i];
        const T z = d * scale[i] + shift[i];
        const T t = t_v[i] * value(ddx[i]) + (t_d[i] * d + t_c[i]);
        const T q = t * value(dy[i]) * a.dd(z);
        q_[i] += q;
        qd_[i] += q * d;
      }
    }
  }

  static void bwd_bwd(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C mean(s.mean), scale(s.scale), shift(s.shift), t_v(s.t_v), t_d(s.t_d), t_c(s.t_c);
    const C first_g(s.first_g), first_d(s.first_d), first_c(s.first_c);
    const C second_v(s.second_v), second_g(s.second_g), second_q(s.second_q), second_d(s.second_d),
        second_c(s.second_c);
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t o = row * s.stride;
      const S* __restrict x = in(s.x) + o, * __restrict dy = in(s.dy) + o, * __restrict ddx = in(s.ddx) + o;
      S* __restrict ddy = out(s.out[0]) + o, * __restrict dx = out(s.out[1]) + o;
      FASTGAN_LANES {
        const T d = centred(a, value(x[i]), mean[i]);
        const T z = ActFirst ? value(x[i]) : d * scale[i] + shift[i];
        const T slope = a.d(z), curve = a.dd(z);
        const T g = ActFirst ? value(dy[i]) : value(dy[i]) * slope;
        const T v = ActFirst ? value(ddx[i]) * slope : value(ddx[i]);
        const T t = t_v[i] * v + (t_d[i] * d + t_c[i]);
        T k = second_v[i] * v + second_g[i] * g;
        k += second_d[i] * d + second_c[i];
        if (ActFirst) {
          const T du = first_g[i] * g + (first_d[i] * d + first_c[i]);
          k = k * slope + value(ddx[i]) * du * curve;
        } else {
          k += second_q[i] * (t * value(dy[i]) * curve);
        }
        assign(ddy[i], ActFirst ? t : t * slope);
        assign(dx[i], k);
      }
    }
  }

  static void saved_bwd(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C shift(s.shift);
    for (int64_t row = 0; row < s.rows; ++row) {
      const S* __restrict x = in(s.x) + row * s.stride, * __restrict dy = in(s.dy) + row * s.stride;
      S* __restrict dx = out(s.out[0]) + row * s.stride;
      FASTGAN_LANES assign(dx[i], value(dy[i]) * a.d_saved(value(x[i]) + shift[i]));
    }
  }

  static void saved_bwd_bwd(const Span<T>& s) {
    const Act a{s.negative_slope};
    const C shift(s.shift);
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t o = row * s.stride;
      const S* __restrict x = in(s.x) + o, * __restrict dy = in(s.dy) + o, * __restrict ddx = in(s.ddx) + o;
      S* __restrict ddy = out(s.out[0]) + o, * __restrict ds = out(s.out[1]) + o;
      FASTGAN_LANES {
        const T saved = value(x[i]) + shift[i];
        assign(ddy[i], value(ddx[i]) * a.d_saved(saved));
        assign(ds[i], value(ddx[i]) * value(dy[i]) * a.dd_saved(saved));
      }
    }
  }

  static Loop<T> get(Pass pass) {
    switch (pass) {
      case Pass::sum:
        return sum;
      case Pass::squares:
        return squares;
      case Pass::forward:
        return forward;
      case Pass::bwd_sums:
        return bwd_sums;
      case Pass::bwd:
        return bwd;
      case Pass::bwd_bwd_sums:
        return bwd_bwd_sums;
      case Pass::bwd_bwd:
        return bwd_bwd;
      default:
        break;
    }
    // the others exist in one order only
    if constexpr (!ActFirst) {
      if (pass == Pass::bwd_bwd_curve) return bwd_bwd_curve;
      if (pass == Pass::saved_bwd) return saved_bwd;
      if (pass == Pass::saved_bwd_bwd) return saved_bwd_bwd;
    }
    return nullptr;
  }
};

template <typename T, typename S, typename Act>
Loop<T> with_activation(LoopKey key) {
  if (key.lanes) {
    return key.act_first ? Loops<T, S, Act, true, true>::get(key.pass) : Loops<T, S, Act, true, false>::get(key.pass);
  }
  return key.act_first ? Loops<T, S, Act, false, true>::get(key.pass) : Loops<T, S, Act, false, false>::get(key.pass);
}

template <typename T, typename S>
Loop<T> with_storage(LoopKey key) {
  switch (key.activation) {
    case Activation::identity:
      return with_activation<T, S, Identity<T>>(key);
    case Activation::relu:
      return with_activation<T, S, Relu<T>>(key);
    case Activation::leaky_relu:
      return with_activation<T, S, LeakyRelu<T>>(key);
    case Activation::tanh:
      return with_activation<T, S, Tanh<T>>(key);
    case Activation::sigmoid:
      return with_activation<T, S, Sigmoid<T>>(key);
    case Activation::silu:
      return with_activation<T, S, Silu<T>>(key);
  }
  return nullptr;
}

template <typename T>
Loop<T> loop(LoopKey key) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (key.storage == Storage::bfloat16) return with_storage<T, bfloat16>(key);
  }
  return with_storage<T, T>(key);
}

template <typename T>
void load_float16(const void* from, T* to, int64_t n) {
  const auto* halves = static_cast<const uint16_t*>(from);
  for (int64_t i = 0; i < n; ++i) to[i] = T(from_float16(halves[i]));
}

template <typename T>
void store_float16(const T* from, void* to, int64_t n) {
  auto* halves = static_cast<uint16_t*>(to);
  for (int64_t i = 0; i < n; ++i) halves[i] = to_float16(float(from[i]));
}

#undef FASTGAN_LANES

template <typename T>
Conversions<T> conversions() {
  return {load_float16<T>, store_float16<T>};
}

template Loop<float> loop<float>(LoopKey);
template Conversions<float> conversions<float>();

}  // namespace FASTGAN_ISA
}  // namespace fastgan
