// Products of pairs of bfloat16, and rounding to it, for x86-64 with AVX512-BF16.
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/gemm.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512bf16"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512bf16")
#endif

#define FASTGAN_ISA avx512_bf16
#define FASTGAN_VECTOR_BYTES 64
#define FASTGAN_NARROWS
namespace fastgan {
namespace avx512_bf16 {
#include "cpu/half.h"
}  // namespace avx512_bf16
}  // namespace fastgan

#include "cpu/gemm_loops.h"
// after the loops, which leave open what an operand is
#include "cpu/operand_pair.h"

namespace fastgan {
namespace avx512_bf16 {
template Products<float, Pair> products<float, Pair>();
}  // namespace avx512_bf16
}  // namespace fastgan

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
