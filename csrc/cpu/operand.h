// Included once per instruction set: the operands of a product, read, multiplied, and made of values that are
// calculated.
namespace fastgan {
namespace FASTGAN_ISA {

template <typename T, typename E>
struct Operand;

template <typename T>
struct Operand<T, T> {
  // memory operands need not be aligned
  typedef T Vec __attribute__((vector_size(FASTGAN_VECTOR_BYTES), aligned(sizeof(T)), may_alias));

  static inline __attribute__((always_inline)) Vec read(const T* from) { return *reinterpret_cast<const Vec*>(from); }
  static inline __attribute__((always_inline)) Vec add(Vec acc, T a, Vec b) { return acc + a * b; }
  // Operand i of a row of terms.
  static inline __attribute__((always_inline)) T at(const T* row, int64_t i) { return row[i]; }
  // Term i of a row and those after it, as many as v has.
  template <typename V>
  static inline __attribute__((always_inline)) void put_terms(T* row, int64_t i, const V& v) {
    __builtin_memcpy(row + i, &v, sizeof(V));
  }
  // Operands beside each other; v has the values of each of their terms.
  static inline __attribute__((always_inline)) void put(T* to, const Vec (&v)[1]) {
    *reinterpret_cast<Vec*>(to) = v[0];
  }
};

}  // namespace FASTGAN_ISA
}  // namespace fastgan
