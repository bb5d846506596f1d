// The loops of penalty.h, written so that the compiler vectorises them. Included once per instruction set by
// isa_<name>.cpp, after half.h and gemm_loops.h, which has float16; all code here is a template or in the namespace
// FASTGAN_ISA.
namespace fastgan {
namespace FASTGAN_ISA {

template <typename T, typename S>
struct PenaltyLoopsOf {
  // lanes, and values that they add up in T before they are merged in double
  static constexpr int64_t kLanes = 16, kRun = 512;

  static double squares(const void* from, int64_t n) {
    const S* __restrict g = static_cast<const S*>(from);
    double total = 0;
    int64_t i = 0;
    while (n - i >= kLanes) {
      const int64_t end = i + (n - i < kRun ? n - i : kRun) / kLanes * kLanes;
      T lanes[kLanes] = {};
      for (; i < end; i += kLanes) {
        for (int64_t k = 0; k < kLanes; ++k) lanes[k] += value(g[i + k]) * value(g[i + k]);
      }
      for (int64_t k = 0; k < kLanes; ++k) total += lanes[k];
    }
    for (; i < n; ++i) total += value(g[i]) * value(g[i]);
    return total;
  }

  static void scale(const void* from, void* to, int64_t n, T c) {
    const S* __restrict g = static_cast<const S*>(from);
    S* __restrict v = static_cast<S*>(to);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) assign(v[i], c * value(g[i]));
  }

  static void mix(const void* first, const void* second, void* to, int64_t n, T t) {
    const S* __restrict real = static_cast<const S*>(first), * __restrict fake = static_cast<const S*>(second);
    S* __restrict x = static_cast<S*>(to);
    const T rest = 1 - t;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) assign(x[i], t * value(real[i]) + rest * value(fake[i]));
  }

  static PenaltyLoops<T> get() { return {squares, scale, mix}; }
};

template <typename T>
PenaltyLoops<T> penalty_loops(Storage storage) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (storage == Storage::bfloat16) return PenaltyLoopsOf<T, bfloat16>::get();
    if (storage == Storage::float16) return PenaltyLoopsOf<T, float16>::get();
  }
  return PenaltyLoopsOf<T, T>::get();
}

template PenaltyLoops<float> penalty_loops<float>(Storage);

}  // namespace FASTGAN_ISA
}  // namespace fastgan
