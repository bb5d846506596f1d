// The unit of work on the CPU: a few thousand elements in the accumulation type, and the loops that run over them.
// No torch header: loops.h is compiled once per instruction set.
#pragma once
#include <cstdint>

namespace fastgan {

enum class Activation { identity, relu, leaky_relu, tanh, sigmoid, silu };

// What one loop does; the formulas are those of backends/reference/<stem>.py, with d = u - mean.
enum class Pass {
  sum,            // acc0 += u
  squares,        // acc0 += d^2
  forward,        // out0 = y
  bwd_sums,       // acc0 += g, acc1 += g d
  bwd,            // out0 = dx
  bwd_bwd_sums,   // acc0..4 += g, g d, v, v d, v g
  bwd_bwd_curve,  // acc0 += q, acc1 += q d
  bwd_bwd,        // out0 = ddy, out1 = cotangent of x
  saved_bwd,      // out0 = dy a'(s): bias_act
  saved_bwd_bwd,  // out0 = ddx a'(s), out1 = ddx dy da'/ds
};

// rows x width elements of LoopKey::storage, rows `stride` apart. Per-channel vectors have `width` entries where
// channels are innermost, else one. In the bias_act passes x is the saved tensor s.
template <typename T>
struct Span {
  int64_t rows, width, stride;
  const void *x, *dy, *ddx;
  void* out[2];
  T* acc[5];                                                      // [width] each
  const T *mean, *scale, *shift;                                  // z = scale d + shift
  const T *first_g, *first_d, *first_c;                           // du = g, d, 1
  const T *t_v, *t_d, *t_c;                                       // t = v, d, 1
  const T *second_v, *second_g, *second_q, *second_d, *second_c;  // k = v, g, q, d, 1
  T negative_slope;
};

template <typename T>
using Loop = void (*)(const Span<T>&);

// How elements lie in memory. The loops read and write `exact`, which is T itself, and bfloat16; float16 is converted
// to T first, in chunks.
enum class Storage { exact, bfloat16, float16 };

struct LoopKey {
  Pass pass;
  Activation activation;
  Storage storage;
  bool lanes, act_first;  // lanes: a per-channel vector has an entry for each lane, else one for all
};

template <typename T>
struct Conversions {
  void (*from_float16)(const void*, T*, int64_t);
  void (*to_float16)(const T*, void*, int64_t);
};

namespace baseline {
template <typename T>
Loop<T> loop(LoopKey);
template <typename T>
Conversions<T> conversions();
}  // namespace baseline
namespace avx2 {
template <typename T>
Loop<T> loop(LoopKey);
template <typename T>
Conversions<T> conversions();
}  // namespace avx2
namespace avx512 {
template <typename T>
Loop<T> loop(LoopKey);
}  // namespace avx512

// The widest instruction set this processor has and this build contains: "amx_bf16", "avx512_bf16", "avx512", "avx2" or
// "baseline".
const char* instruction_set();
template <typename T>
Loop<T> loop(LoopKey);
template <typename T>
Conversions<T> conversions();

}  // namespace fastgan
