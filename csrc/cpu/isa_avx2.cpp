// The loops for x86-64 with AVX2 and FMA. The standard headers come first: nothing of theirs may be compiled for AVX2,
// or the linker could keep that copy for processors without it.
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/gemm.h"
#include "cpu/matrix.h"
#include "cpu/penalty.h"
#include "cpu/span.h"

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define FASTGAN_ISA avx2
#define FASTGAN_VECTOR_BYTES 32
namespace fastgan {
namespace avx2 {
#include "cpu/half.h"
}  // namespace avx2
}  // namespace fastgan

#include "cpu/gemm_loops.h"
#include "cpu/loops.h"
#include "cpu/matrix_loops.h"
#include "cpu/penalty_loops.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
