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
template <typename T>
Loop<T> loop(LoopKey key) {
  return has_avx2() ? avx2::loop<T>(key) : baseline::loop<T>(key);
}
template <typename T>
Conversions<T> conversions() {
  return has_avx2() ? avx2::conversions<T>() : baseline::conversions<T>();
}
#else
const char* instruction_set() { return "baseline"; }
template <typename T>
Loop<T> loop(LoopKey key) {
  return baseline::loop<T>(key);
}
template <typename T>
Conversions<T> conversions() {
  return baseline::conversions<T>();
}
#endif

template Loop<float> loop<float>(LoopKey);
template Loop<double> loop<double>(LoopKey);
template Conversions<float> conversions<float>();
template Conversions<double> conversions<double>();

}  // namespace fastgan
