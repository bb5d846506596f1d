// Tiles of pairs of bfloat16 for x86-64 with AMX.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/tiles.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __has_include(<amxbf16intrin.h>))
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,amx-tile,amx-bf16"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,amx-tile,amx-bf16")
#endif

#define FASTGAN_ISA amx
#define FASTGAN_VECTOR_BYTES 64
#include "cpu/transpose_loops.h"

namespace fastgan {
namespace amx {
namespace {

// Bytes of a tile, of a row of it, and of an operand.
constexpr int64_t kBytes = 1024, kRow = 64, kOperand = sizeof(Pair);

// Palette 1: eight tiles of 16 rows of 64 bytes.
struct alignas(64) Config {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Up to a row of a tile: where it begins in the rows of terms and in a tile of all steps.
struct Piece {
  int64_t from, to;
  __mmask16 mask;
};

std::vector<Piece> pieces_of(const Stretch* stretches, int64_t count, int64_t from, int64_t steps) {
  std::vector<Piece> pieces;
  for (int64_t s = 0; s < count; ++s) {
    const int64_t begin = stretches[s].begin, last = std::min(from + steps * kTile, begin + stretches[s].length);
    for (int64_t i = std::max(from, begin), n; i < last; i += n) {
      const int64_t step = (i - from) / kTile, column = (i - from) % kTile;
      n = std::min(last - i, kTile - column);
      pieces.push_back({stretches[s].offset + (i - begin) * kTermsOf<Pair>, step * kBytes + column * kOperand,
                        __mmask16((1u << n) - 1)});
    }
  }
  return pieces;
}

void gather(const Stretch* stretches, int64_t count, const uint16_t* const* a, int64_t rows, int64_t from,
            int64_t steps, Pair* to) {
  const std::vector<Piece> pieces = pieces_of(stretches, count, from, steps);
  const bool over = steps > 0 && stretches[count - 1].begin + stretches[count - 1].length < from + steps * kTile;
  char* tile = reinterpret_cast<char*>(to);
  for (int64_t first = 0; first < rows; first += kTile, tile += steps * kBytes) {
    const uint16_t* row[kTile];
    for (int64_t r = 0; r < kTile; ++r) row[r] = a[first + r];
    if (over) std::memset(tile + (steps - 1) * kBytes, 0, size_t(kBytes));
    for (const Piece& piece : pieces) {
      for (int64_t r = 0; r < kTile; ++r) {
        const __m512i values = _mm512_maskz_loadu_epi32(piece.mask, row[r] + piece.from);
        _mm512_mask_storeu_epi32(tile + piece.to + r * kRow, piece.mask, values);
      }
    }
  }
}

void pair(int64_t count, const uint16_t* from, int64_t step, Pair* to) {
  alignas(64) static constexpr auto lanes = [] {
    std::array<uint16_t, 2 * kPanel> result{};
    for (int i = 0; i < 2 * kPanel; ++i) result[size_t(i)] = uint16_t(i / 2 + i % 2 * kPanel);
    return result;
  }();
  const __m512i left = _mm512_load_si512(lanes.data()), right = _mm512_load_si512(lanes.data() + kPanel);
  for (int64_t i = 0; i < count; i += 2, from += 2 * step, to += kPanel) {
    const __m512i one = _mm512_loadu_si512(from);
    const __m512i two = i + 1 < count ? _mm512_loadu_si512(from + step) : _mm512_setzero_si512();
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(one, left, two));
    _mm512_storeu_si512(to + kTile, _mm512_permutex2var_epi16(one, right, two));
  }
}

// Turns a tile of operands: its rows lie `step` operands apart, and are to lie `to_step` apart. Bits are moved,
// whatever they say.
inline __attribute__((always_inline)) void turn_tile(const void* from, int64_t step, Pair* to, int64_t to_step) {
  using Square = Transpose<float>;
  static_assert(Square::kLanes == kTile);
  const char* rows = static_cast<const char*>(from);
  Square::square([&](int r) { return (Square::Vec)_mm512_loadu_si512(rows + r * step * kOperand); },
                 [&](int r, Square::Vec v) { _mm512_storeu_si512(to + r * to_step, (__m512i)v); });
}

void pair_rows(int64_t count, const uint16_t* from, int64_t step, Pair* to) {
  const int64_t row = step / kTermsOf<Pair>;
  for (int64_t i = 0; i < count; i += kTermsOf<Pair> * kTile, to += kTile * kPanel) {
    turn_tile(from + i, row, to, kPanel);
    turn_tile(from + i + kTile * step, row, to + kTile, kPanel);
  }
}

void turn(const Pair* panel, int64_t steps, Pair* to) {
  for (int64_t half = 0; half < kPanel; half += kTile) {
    for (int64_t s = 0; s < steps; ++s, to += kTile * kTile)
      turn_tile(panel + s * kTile * kPanel + half, kPanel, to, kTile);
  }
}

// Two tiles of rows, or one, by a panel, or its first tile of columns. Rows of a are `apart` bytes from one another,
// and a step's operands `place(step)` from where a row begins; operands of b are rows of a panel `wide` bytes from one
// another.
template <bool Two, bool Wide, typename Place>
inline __attribute__((always_inline)) void product(int64_t steps, const char* a, const char* next, int64_t apart,
                                                   Place place, const char* b, int64_t wide, float* c, int64_t stride,
                                                   bool first) {
  const int64_t row = stride * int64_t(sizeof(float));
  float* below = c + kTile * stride;
  if (first) {
    _tile_zero(0);
    if (Wide) _tile_zero(1);
    if (Two) _tile_zero(2);
    if (Two && Wide) _tile_zero(3);
  } else {
    _tile_loadd(0, c, row);
    if (Wide) _tile_loadd(1, c + kTile, row);
    if (Two) _tile_loadd(2, below, row);
    if (Two && Wide) _tile_loadd(3, below + kTile, row);
  }
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(6, b, wide);
    if (Wide) _tile_loadd(7, b + kRow, wide);
    _tile_loadd(4, a + place(s), apart);
    _tile_dpbf16ps(0, 4, 6);
    if (Wide) _tile_dpbf16ps(1, 4, 7);
    if (Two) {
      _tile_loadd(5, next + place(s), apart);
      _tile_dpbf16ps(2, 5, 6);
      if (Wide) _tile_dpbf16ps(3, 5, 7);
    }
    b += kTile * wide;
  }
  _tile_stored(0, c, row);
  if (Wide) _tile_stored(1, c + kTile, row);
  if (Two) _tile_stored(2, below, row);
  if (Two && Wide) _tile_stored(3, below + kTile, row);
}

// All tiles by all columns; tile(t) is where its first row begins.
template <typename Tile, typename Place>
void multiply_all(int64_t tiles, int64_t steps, Tile tile, int64_t apart, Place place, const Pair* b, int64_t wide,
                  int64_t panel, int64_t columns, float* c, int64_t stride, bool first) {
  static constexpr Config config;
  _tile_loadconfig(&config);
  for (int64_t j = 0; j < columns; j += kPanel, b += panel) {
    const char* from = reinterpret_cast<const char*>(b);
    auto each_row = [&](auto width) {
      for (int64_t t = 0; t < tiles; t += 2) {
        float* to = c + t * kTile * stride + j;
        if (t + 1 < tiles) {
          product<true, width>(steps, tile(t), tile(t + 1), apart, place, from, wide * kOperand, to, stride, first);
        } else {
          product<false, width>(steps, tile(t), tile(t), apart, place, from, wide * kOperand, to, stride, first);
        }
      }
    };
    columns - j > kTile ? each_row(std::true_type()) : each_row(std::false_type());
  }
  _tile_release();
}

void multiply(int64_t tiles, int64_t steps, const Pair* a, const Pair* b, int64_t apart, int64_t panel, int64_t columns,
              float* c, int64_t stride, bool first) {
  const char* rows = reinterpret_cast<const char*>(a);
  auto tile = [=](int64_t t) { return rows + t * steps * kBytes; };
  auto place = [](int64_t s) { return s * kBytes; };
  multiply_all(tiles, steps, tile, kRow, place, b, apart, panel, columns, c, stride, first);
}

void multiply_rows(const Stretch* stretches, int64_t count, const uint16_t* const* a, int64_t rows, int64_t apart,
                   int64_t from, int64_t steps, const Pair* b, int64_t panel, int64_t columns, float* c, int64_t stride,
                   bool first) {
  constexpr int64_t kTerm = sizeof(uint16_t);
  // a type of its own: no other file shares what the compiler makes of its vector here
  struct Place {
    int64_t at;
  };
  std::vector<Place> places;
  for (int64_t i = from; i < from + steps * kTile; i += kTile) {
    while (i >= stretches->begin + stretches->length && count > 1) ++stretches, --count;
    places.push_back({kTerm * (stretches->offset + (i - stretches->begin) * kTermsOf<Pair>)});
  }
  auto tile = [=](int64_t t) { return reinterpret_cast<const char*>(a[t * kTile]); };
  auto place = [at = places.data()](int64_t s) { return at[s].at; };
  multiply_all(rows / kTile, steps, tile, apart * kTerm, place, b, kPanel, panel, columns, c, stride, first);
}

// Older compilers do not know how to ask the processor for these.
bool named() {
  constexpr unsigned kTile = 1u << 24, kBfloat16 = 1u << 22;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kTile) != 0 && (d & kBfloat16) != 0;
}

// The system gives the registers to who asks for them.
bool allowed() {
  constexpr int kAskForFeature = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kAskForFeature, kTileData) == 0;
}

}  // namespace
}  // namespace amx
}  // namespace fastgan

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace fastgan {
const Tiles* tiles() {
  static const Tiles all{amx::gather, amx::pair, amx::pair_rows, amx::turn, amx::multiply, amx::multiply_rows};
  static const bool has = multiplies<Pair>() && amx::named() && amx::allowed();
  return has ? &all : nullptr;
}
}  // namespace fastgan
#else
namespace fastgan {
const Tiles* tiles() { return nullptr; }
}  // namespace fastgan
#endif
