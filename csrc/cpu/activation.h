// Activations and their derivatives; see the table in backends/reference/activation.py. Included once per instruction
// set.
template <typename T>
inline T exponential(T x) {
  return std::exp(x);
}

// Range reduction by log 2 and a polynomial of degree 6, 1 ulp, inf and 0 outside the range; std::exp does not
// vectorise.
template <>
inline float exponential(float x) {
  x = x < -110.0f ? -110.0f : x;
  x = x > 100.0f ? 100.0f : x;
  const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504089f + shifter;
  const float n = shifted - shifter;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  // in two factors, since 2^n may lie outside the range where the product does not
  const int32_t exponent = __builtin_bit_cast(int32_t, shifted) - 0x4B400000, half = exponent >> 1;
  p *= __builtin_bit_cast(float, (half + 127) << 23);
  return p * __builtin_bit_cast(float, (exponent - half + 127) << 23);
}

template <typename T>
inline T hyperbolic_tangent(T x) {
  return std::tanh(x);
}

template <>
inline float hyperbolic_tangent(float x) {
  const float a = __builtin_fabsf(x);
  const float large = 1.0f - 2.0f / (exponential(2.0f * a) + 1.0f);
  // the odd series to x^13: near 0 the formula above cancels
  const float s = x * x;
  float p = 3.5921280e-3f;
  p = p * s - 8.8632355e-3f;
  p = p * s + 2.1869489e-2f;
  p = p * s - 5.3968254e-2f;
  p = p * s + 1.3333333e-1f;
  p = p * s - 3.3333333e-1f;
  const float small = a + a * s * p;
  const float magnitude = a < 0.35f ? small : large;
  return __builtin_copysignf(magnitude, x);
}

template <typename T>
inline T logistic(T x) {
  return T(1) / (T(1) + exponential(-x));
}

// f = a(z), d = a'(z), dd = a''(z); d_saved and dd_saved are a' and da'/ds of the saved tensor.
template <typename T>
struct Identity {
  static constexpr bool curved = false;
  T slope;
  T f(T z) const { return z; }
  T d(T) const { return T(1); }
  T dd(T) const { return T(0); }
  T d_saved(T s) const { return d(s); }
  T dd_saved(T) const { return T(0); }
};

template <typename T>
struct Relu : Identity<T> {
  // NaN stays NaN and -inf gives 0, as in torch
  T f(T z) const { return z < T(0) ? T(0) : z; }
  T d(T z) const { return z > T(0) ? T(1) : T(0); }
  T d_saved(T s) const { return d(s); }
};

template <typename T>
struct LeakyRelu : Identity<T> {
  T f(T z) const { return z > T(0) ? z : z * this->slope; }
  T d(T z) const { return z > T(0) ? T(1) : this->slope; }
  T d_saved(T s) const { return d(s); }
};

template <typename T>
struct Tanh {
  static constexpr bool curved = true;
  T slope;
  T f(T z) const { return hyperbolic_tangent(z); }
  T d(T z) const { return d_saved(f(z)); }
  T dd(T z) const {
    const T s = f(z);
    return T(-2) * s * (T(1) - s * s);
  }
  T d_saved(T s) const { return T(1) - s * s; }
  T dd_saved(T s) const { return T(-2) * s; }
};

template <typename T>
struct Sigmoid {
  static constexpr bool curved = true;
  T slope;
  T f(T z) const { return logistic(z); }
  T d(T z) const { return d_saved(f(z)); }
  T dd(T z) const {
    const T s = f(z);
    return (T(1) - T(2) * s) * s * (T(1) - s);
  }
  T d_saved(T s) const { return s * (T(1) - s); }
  T dd_saved(T s) const { return T(1) - T(2) * s; }
};

template <typename T>
struct Silu {
  static constexpr bool curved = true;
  T slope;
  T f(T z) const { return z * logistic(z); }
  T d(T z) const {
    const T p = logistic(z);
    return p * (T(1) + z * (T(1) - p));
  }
  T dd(T z) const {
    const T p = logistic(z);
    return p * (T(1) - p) * (T(2) + z * (T(1) - T(2) * p));
  }
  T d_saved(T z) const { return d(z); }
  T dd_saved(T z) const { return dd(z); }
};
