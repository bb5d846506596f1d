// 16-bit floating point types, in plain arithmetic that vectorises. Included once per instruction set.
struct bfloat16 {
  uint16_t bits;
};

inline float from_bfloat16(uint16_t h) { return __builtin_bit_cast(float, uint32_t(h) << 16); }

inline uint16_t to_bfloat16(float f) {
  const uint32_t u = __builtin_bit_cast(uint32_t, f);
  const uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
  return uint16_t(f != f ? 0x7FC0u : rounded);
}

inline float from_float16(uint16_t h) {
  const uint32_t magnitude = uint32_t(h & 0x7FFFu) << 13;
  // 2^112 moves the exponent bias from 15 to 127, for subnormals too
  const uint32_t finite = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, magnitude) * 0x1p112f);
  const uint32_t bits = (h & 0x7C00u) == 0x7C00u ? (magnitude | 0x7F800000u) : finite;
  return __builtin_bit_cast(float, bits | (uint32_t(h & 0x8000u) << 16));
}

inline uint16_t to_float16(float f) {
  const uint32_t sign = (__builtin_bit_cast(uint32_t, f) >> 16) & 0x8000u;
  const float a = __builtin_fabsf(f);
  const uint32_t u = __builtin_bit_cast(uint32_t, a);
  const uint32_t normal = (u - (112u << 23) + 0xFFFu + ((u >> 13) & 1u)) >> 13;
  // one unit in the last place of 0.5 is the float16 subnormal spacing, so the addition rounds
  const uint32_t subnormal = __builtin_bit_cast(uint32_t, a + 0.5f) - 0x3F000000u;
  uint32_t bits = a < 0x1p-14f ? subnormal : normal;
  bits = a >= 65520.0f ? 0x7C00u : bits;
  bits = f != f ? 0x7E00u : bits;
  return uint16_t(bits | sign);
}

// The value of a stored element, and its assignment.
inline float value(float v) { return v; }
inline double value(double v) { return v; }
inline float value(bfloat16 v) { return from_bfloat16(v.bits); }
inline void assign(float& to, float v) { to = v; }
inline void assign(double& to, double v) { to = v; }
inline void assign(bfloat16& to, float v) { to.bits = to_bfloat16(v); }
