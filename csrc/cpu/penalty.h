// The loops of gradient_penalty over one sample or a part of it, and the choice between them. No torch header:
// penalty_loops.h is compiled once per instruction set. T accumulates; formulas:
// backends/reference/gradient_penalty.py.
#pragma once
#include <cstdint>

#include "cpu/span.h"

namespace fastgan {

template <typename T>
struct PenaltyLoops {
  double (*squares)(const void* g, int64_t n);                               // sum of g^2
  void (*scale)(const void* g, void* v, int64_t n, T c);                     // v = c g
  void (*mix)(const void* real, const void* fake, void* x, int64_t n, T t);  // x = t real + (1 - t) fake
};

namespace baseline {
template <typename T>
PenaltyLoops<T> penalty_loops(Storage);
}  // namespace baseline
namespace avx2 {
template <typename T>
PenaltyLoops<T> penalty_loops(Storage);
}  // namespace avx2

template <typename T>
PenaltyLoops<T> penalty_loops(Storage);

}  // namespace fastgan
