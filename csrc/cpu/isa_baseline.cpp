// The loops for any processor of the architecture, and the choice between the instruction sets.
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/gemm.h"
#include "cpu/matrix.h"
#include "cpu/penalty.h"
#include "cpu/span.h"
#include "cpu/tiles.h"

#define FASTGAN_ISA baseline
#define FASTGAN_VECTOR_BYTES 16
namespace fastgan {
namespace baseline {
#include "cpu/half.h"
}  // namespace baseline
}  // namespace fastgan

#include "cpu/gemm_loops.h"
#include "cpu/loops.h"
#include "cpu/matrix_loops.h"
#include "cpu/penalty_loops.h"

namespace fastgan {

#if defined(__x86_64__) && defined(__GNUC__)
static bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
}
static bool has_avx512() {
  static const bool has = has_avx2() && __builtin_cpu_supports("avx512f");
  return has;
}
template <>
bool multiplies<Pair>() {
  static const bool has = has_avx512() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bf16");
  return has;
}
const char* instruction_set() {
  if (tiles() != nullptr) return "amx_bf16";
  return multiplies<Pair>() ? "avx512_bf16" : has_avx512() ? "avx512" : has_avx2() ? "avx2" : "baseline";
}
template <>
Loop<float> loop<float>(LoopKey key) {
  if (has_avx512()) return avx512::loop<float>(key);
  return has_avx2() ? avx2::loop<float>(key) : baseline::loop<float>(key);
}
template <>
Conversions<float> conversions<float>() {
  return has_avx2() ? avx2::conversions<float>() : baseline::conversions<float>();
}
template <>
PenaltyLoops<float> penalty_loops<float>(Storage storage) {
  return has_avx2() ? avx2::penalty_loops<float>(storage) : baseline::penalty_loops<float>(storage);
}
template <typename T>
Gemm<T> gemm() {
  if (multiplies<Pair>()) return avx512_bf16::gemm<T>();
  return has_avx512() ? avx512::gemm<T>() : has_avx2() ? avx2::gemm<T>() : baseline::gemm<T>();
}
template <>
Products<float, Pair> products<float, Pair>() {
  return avx512_bf16::products<float, Pair>();
}
template <typename T>
MatrixLoops<T> matrix_loops() {
  return has_avx2() ? avx2::matrix_loops<T>() : baseline::matrix_loops<T>();
}
#else
const char* instruction_set() { return "baseline"; }
template <>
Loop<float> loop<float>(LoopKey key) {
  return baseline::loop<float>(key);
}
template <>
Conversions<float> conversions<float>() {
  return baseline::conversions<float>();
}
template <>
PenaltyLoops<float> penalty_loops<float>(Storage storage) {
  return baseline::penalty_loops<float>(storage);
}
template <typename T>
Gemm<T> gemm() {
  return baseline::gemm<T>();
}
template <>
bool multiplies<Pair>() {
  return false;
}
template <>
Products<float, Pair> products<float, Pair>() {
  return {};
}
template <typename T>
MatrixLoops<T> matrix_loops() {
  return baseline::matrix_loops<T>();
}
#endif
template Gemm<float> gemm<float>();
template Gemm<double> gemm<double>();
template <>
Products<float> products<float, float>() {
  return gemm<float>();
}
template <>
Products<double> products<double, double>() {
  return gemm<double>();
}
template MatrixLoops<float> matrix_loops<float>();
template MatrixLoops<double> matrix_loops<double>();

// float64 is for tests: it is not worth the compile time of another instruction set
template <>
Loop<double> loop<double>(LoopKey key) {
  return baseline::loop<double>(key);
}
template <>
Conversions<double> conversions<double>() {
  return baseline::conversions<double>();
}
template <>
PenaltyLoops<double> penalty_loops<double>(Storage storage) {
  return baseline::penalty_loops<double>(storage);
}

}  // namespace fastgan
