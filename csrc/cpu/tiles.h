// Products of pairs of bfloat16 in registers that hold whole tiles. No torch header: isa_amx.cpp is compiled for the
// instruction set that has them.
#pragma once
#include <cstdint>

#include "cpu/gemm.h"

namespace fastgan {

// Rows of a tile, operands of one of its rows, and columns of its results; a panel has two tiles of columns.
constexpr int64_t kTile = 16, kPanel = 2 * kTile;

inline int64_t tiles_for(int64_t n) { return (n + kTile - 1) / kTile; }

struct Tiles {
  // Operands [from, from + 16 steps) of the sums that the rows at `a` take part in: [tile][step][row][operand], zeros
  // past the last stretch. Rows are whole tiles.
  void (*gather)(const Stretch* stretches, int64_t count, const uint16_t* const* a, int64_t rows, int64_t from,
                 int64_t steps, Pair* to);
  // Pairs of neighbouring ones of `count` places `step` apart, the last with a zero: [operand][column] of a panel; 32
  // terms are read at each place.
  void (*pair)(int64_t count, const uint16_t* from, int64_t step, Pair* to);
  // Pairs of neighbouring ones of `count` terms, whole rows of a tile, at each of 32 places an even `step` apart, which
  // become columns: [operand][column] of a panel.
  void (*pair_rows)(int64_t count, const uint16_t* from, int64_t step, Pair* to);
  // The panel [operand][column] with its columns as rows: two tiles [step][row][operand].
  void (*turn)(const Pair* panel, int64_t steps, Pair* to);
  // c[r][n] = (first ? 0 : c[r][n]) + sum_k a[r][k] b[k][n] for all rows of the tiles and `columns`, whole
  // tiles in memory. Rows of b are `apart`, its panels `panel`, and rows of c `stride` apart; a is as gather and turn
  // leave it.
  void (*multiply)(int64_t tiles, int64_t steps, const Pair* a, const Pair* b, int64_t apart, int64_t panel,
                   int64_t columns, float* c, int64_t stride, bool first);
  // The same for operands [from, from + 16 steps) of rows where they lie, those of a tile `apart` terms from one
  // another; what lies together there is whole steps.
  void (*multiply_rows)(const Stretch* stretches, int64_t count, const uint16_t* const* a, int64_t rows, int64_t apart,
                        int64_t from, int64_t steps, const Pair* b, int64_t panel, int64_t columns, float* c,
                        int64_t stride, bool first);
};

// Of this processor; nullptr where it has none.
const Tiles* tiles();

}  // namespace fastgan
