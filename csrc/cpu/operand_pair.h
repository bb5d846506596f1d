// Included by the instruction sets that multiply pairs of bfloat16.
namespace fastgan {
namespace FASTGAN_ISA {

template <>
struct Operand<float, Pair> {
  typedef float Vec __attribute__((vector_size(FASTGAN_VECTOR_BYTES), aligned(sizeof(float)), may_alias));

  static inline __attribute__((always_inline)) __m512bh read(const Pair* from) {
    return (__m512bh)_mm512_loadu_si512(from);
  }
  static inline __attribute__((always_inline)) Vec add(Vec acc, Pair a, __m512bh b) {
    const __m512i both = _mm512_set1_epi32(__builtin_bit_cast(int32_t, a));
    return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)both, b);
  }
  static inline __attribute__((always_inline)) Pair at(const uint16_t* row, int64_t i) {
    Pair pair;
    __builtin_memcpy(&pair, row + 2 * i, sizeof(pair));
    return pair;
  }
  template <typename V>
  static inline __attribute__((always_inline)) void put_terms(Pair* row, int64_t i, const V& v) {
    char* to = reinterpret_cast<char*>(row) + i * int64_t(sizeof(uint16_t));
    if constexpr (std::is_same_v<V, float>) {
      const uint16_t rounded = to_bfloat16(v);
      __builtin_memcpy(to, &rounded, sizeof(rounded));
    } else {
      const auto rounded = narrow(v);
      __builtin_memcpy(to, &rounded, sizeof(rounded));
    }
  }
  static inline __attribute__((always_inline)) void put(Pair* to, const Vec (&v)[2]) {
    const Halves first = __builtin_convertvector(narrow(v[0]), Halves);
    const Halves both = first | __builtin_convertvector(narrow(v[1]), Halves) << 16;
    __builtin_memcpy(to, &both, sizeof(both));
  }

 private:
  typedef uint16_t Narrow __attribute__((vector_size(FASTGAN_VECTOR_BYTES / 2)));
  typedef uint32_t Halves __attribute__((vector_size(FASTGAN_VECTOR_BYTES)));

  template <typename V>
  static inline __attribute__((always_inline)) Narrow narrow(const V& v) {
    return (Narrow)_mm512_cvtneps_pbh((__m512)v);
  }
};

}  // namespace FASTGAN_ISA
}  // namespace fastgan
