// Activations and their derivatives on the device; see the table in backends/reference/activation.py.
#pragma once

namespace fastgan {

enum Activation { kIdentity, kRelu, kLeakyRelu, kTanh, kSigmoid, kSilu };

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }
__device__ inline float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ inline double hyperbolic_tangent(double x) { return tanh(x); }

template <typename T>
__device__ T logistic(T z) {
  return T(1) / (T(1) + exponential(-z));
}

template <int A, typename T>
__device__ T act(T z, T slope) {
  if constexpr (A == kRelu) {
    // NaN stays NaN
    return z < T(0) ? T(0) : z;
  } else if constexpr (A == kLeakyRelu) {
    return z > T(0) ? z : z * slope;
  } else if constexpr (A == kTanh) {
    return hyperbolic_tangent(z);
  } else if constexpr (A == kSigmoid) {
    return logistic(z);
  } else if constexpr (A == kSilu) {
    return z * logistic(z);
  } else {
    return z;
  }
}

// a' of the saved tensor: the result, or the pre-activation for silu.
template <int A, typename T>
__device__ T dact_saved(T s, T slope) {
  if constexpr (A == kRelu) {
    return s > T(0) ? T(1) : T(0);
  } else if constexpr (A == kLeakyRelu) {
    return s > T(0) ? T(1) : slope;
  } else if constexpr (A == kTanh) {
    return T(1) - s * s;
  } else if constexpr (A == kSigmoid) {
    return s * (T(1) - s);
  } else if constexpr (A == kSilu) {
    const T p = logistic(s);
    return p * (T(1) + s * (T(1) - p));
  } else {
    return T(1);
  }
}

// da'/ds of the saved tensor.
template <int A, typename T>
__device__ T ddact_saved(T s) {
  if constexpr (A == kTanh) {
    return T(-2) * s;
  } else if constexpr (A == kSigmoid) {
    return T(1) - T(2) * s;
  } else if constexpr (A == kSilu) {
    const T p = logistic(s);
    return p * (T(1) - p) * (T(2) + s * (T(1) - T(2) * p));
  } else {
    return T(0);
  }
}

}  // namespace fastgan
