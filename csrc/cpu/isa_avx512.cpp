// The loops for x86-64 with AVX-512; those of spectral norm, penalties and float16 are AVX2's.
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/gemm.h"
#include "cpu/span.h"

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f")
#endif

#define FASTGAN_ISA avx512
#define FASTGAN_VECTOR_BYTES 64
namespace fastgan {
namespace avx512 {
#include "cpu/half.h"
}  // namespace avx512
}  // namespace fastgan

#include "cpu/gemm_loops.h"
#include "cpu/loops.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
