// The loops for any processor of the architecture, and the choice between the instruction sets.
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/gemm.h"
#include "cpu/matrix.h"
#include "cpu/penalty.h"
#include "cpu/span.h"

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
const char* instruction_set() { return has_avx2() ? "avx2" : "baseline"; }
template <>
Loop<float> loop<float>(LoopKey key) {
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
  static const bool has_avx512 = has_avx2() && __builtin_cpu_supports("avx512f");
  return has_avx512 ? avx512::gemm<T>() : has_avx2() ? avx2::gemm<T>() : baseline::gemm<T>();
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
template <typename T>
MatrixLoops<T> matrix_loops() {
  return baseline::matrix_loops<T>();
}
#endif
template Gemm<float> gemm<float>();
template Gemm<double> gemm<double>();
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
