// Included once per instruction set.
namespace fastgan {
namespace FASTGAN_ISA {

// Transposes a square of as many values as a register holds, in registers: by itself each value would be a load and a
// store, and takes several times as long.
template <typename T>
struct Transpose {
  static constexpr int kLanes = FASTGAN_VECTOR_BYTES / sizeof(T);
  typedef T Vec __attribute__((vector_size(FASTGAN_VECTOR_BYTES), aligned(sizeof(T)), may_alias));

  // read(r) is row r, write(r, v) takes column r.
  template <typename Read, typename Write>
  static inline __attribute__((always_inline)) void square(Read read, Write write) {
    Vec rows[kLanes];
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) rows[r] = read(r);
    stages<kLanes / 2>(rows);
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) write(r, rows[r]);
  }

 private:
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index;
  typedef Index Indices __attribute__((vector_size(FASTGAN_VECTOR_BYTES)));

  template <int... I>
  static inline __attribute__((always_inline)) Vec pick(Vec a, Vec b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, I...);
#else
    return __builtin_shuffle(a, b, Indices{I...});
#endif
  }

  // Where a block of Half lanes comes from: of the first operand, then of the second, from lane Upper * Half on.
  template <int Half, int Upper, int... I>
  static constexpr auto lanes(std::integer_sequence<int, I...>) {
    return std::integer_sequence<int, ((I & Half) ? kLanes + I - Half + Upper * Half : I + Upper * Half)...>{};
  }

  // Swaps the upper half of row r with the lower half of row r + Half, in blocks of Half, then halves the blocks.
  template <int Half>
  static inline __attribute__((always_inline)) void stages(Vec* rows) {
    if constexpr (Half > 0) {
      constexpr auto all = std::make_integer_sequence<int, kLanes>{};
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        if (r & Half) continue;
        const Vec a = rows[r], b = rows[r + Half];
        rows[r] = pick(a, b, lanes<Half, 0>(all));
        rows[r + Half] = pick(a, b, lanes<Half, 1>(all));
      }
      stages<Half / 2>(rows);
    }
  }
};

}  // namespace FASTGAN_ISA
}  // namespace fastgan
