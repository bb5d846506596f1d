// The loops for any processor of the architecture, and the choice between the instruction sets.
#include <cmath>
#include <cstdint>

#include "cpu/span.h"

#define FASTGAN_ISA baseline
#include "cpu/loops.h"

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
#endif

// float64 is for tests: it is not worth the compile time of another instruction set
template <>
Loop<double> loop<double>(LoopKey key) {
  return baseline::loop<double>(key);
}
template <>
Conversions<double> conversions<double>() {
  return baseline::conversions<double>();
}

}  // namespace fastgan
