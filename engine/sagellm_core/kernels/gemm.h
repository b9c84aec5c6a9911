// Rows times packed panels. An output is one sum over its inputs in one order, whatever else is computed beside it: a
// row's numbers do not depend on how many rows there are.
#pragma once
#include "matrix.h"
#include "pool.h"

namespace sage {

#if defined(__AVX512F__)
constexpr int MOST_ROWS = 12;  // 24 accumulators, two vectors of weights, of 32 registers
#else
constexpr int MOST_ROWS = 3;
#endif
constexpr long AHEAD = 6144;  // bytes between what is read and what is asked of the memory

static inline VI spread_unit(const char* from) { return VI{} + fetch<int32_t>(from); }

struct DotF32 {
    typedef V Sum;
    static constexpr long WIDTH = 1;  // inputs in a unit of 32 bits
    static constexpr long STEP = 128;
    static V step(V sum, VI weights, VI x) { return V(weights) * V(x) + sum; }
    static VI second(const char* weights, VI) { return fetch<VI>(weights + 64); }
    static VI first(VI weights) { return weights; }
};

struct DotBF16 : DotF32 {
    static constexpr long WIDTH = 2;
    static V step(V sum, VI weights, VI x) {
#if defined(__AVX512BF16__)
        return V(_mm512_dpbf16_ps(__m512(sum), (__m512bh)(weights), (__m512bh)(x)));
#else
        const VU high = VU{} + 0xffff0000u;
        sum = V(VU(weights) << 16) * V(VU(x) << 16) + sum;
        return V(VU(weights) & high) * V(VU(x) & high) + sum;
#endif
    }
};

struct DotI8 : DotF32 {
    typedef VI Sum;
    static constexpr int32_t OFFSET = 128;
    static VI step(VI sum, VI weights, VI x) {
#if defined(__AVX512VNNI__)
        return VI(_mm512_dpbusd_epi32(__m512i(sum), __m512i(weights), __m512i(x)));
#else
        for (int byte = 0; byte < 4; byte++)
            sum += ((weights >> (8 * byte)) & 255) * ((x << (24 - 8 * byte)) >> 24);
        return sum;
#endif
    }
};

struct DotI4 : DotI8 {
    static constexpr long STEP = 64;
    static constexpr int32_t OFFSET = 8;
    static VI first(VI weights) { return weights & 0x0f0f0f0f; }
    static VI second(const char*, VI weights) { return (weights >> 4) & 0x0f0f0f0f; }
};

// R rows against one panel for `steps` steps.
template <class Dot, int R>
static inline __attribute__((always_inline)) void accumulate(
    typename Dot::Sum (&sums)[R][2], const char* weights, const char* x, long stride, long steps) {
    constexpr int BASES = (R + 2) / 3;
    const char* base[BASES];
    for (int i = 0; i < BASES; i++) base[i] = x + 3 * i * stride;
#pragma GCC unroll 4
    for (long step = 0; step < steps; step++) {
        const VI both = fetch<VI>(weights), left = Dot::first(both), right = Dot::second(weights, both);
        touch(weights + AHEAD);
        if (Dot::STEP > 64) touch(weights + AHEAD + 64);
#pragma GCC unroll 12
        for (int row = 0; row < R; row++) {
            const VI unit = spread_unit(base[row / 3] + (row % 3) * stride + step * 4);
            sums[row][0] = Dot::step(sums[row][0], left, unit);
            sums[row][1] = Dot::step(sums[row][1], right, unit);
        }
        weights += Dot::STEP;
    }
}

// out (R, 32) = R rows times one panel.
template <class Dot, int R>
static void tile_float(const Matrix& m, long panel, const Rows& rows, long first, float* out) {
    V sums[R][2] = {};
    accumulate<Dot, R>(sums, m.panel(panel), rows.data + first * rows.stride, rows.stride, m.steps());
    for (int row = 0; row < R; row++)
        for (int half = 0; half < 2; half++) store(out + row * PANEL + half * LANES, sums[row][half]);
}

// The same for whole-number weights: exact sums within a group, then the scales.
template <class Dot, int R>
static void tile_whole(const Matrix& m, long panel, const Rows& rows, long first, float* out) {
    const char* at = m.panel(panel);
    const long size = m.group(), group_bytes = m.group_bytes();
    V totals[R][2] = {};
    for (long group = 0; group < m.groups(); group++, at += group_bytes) {
        VI sums[R][2];
        for (int row = 0; row < R; row++)
            sums[row][0] = sums[row][1] = VI{} - Dot::OFFSET * rows.totals[(first + row) * rows.groups + group];
        const char* x = rows.data + first * rows.stride + group * size;
        accumulate<Dot, R>(sums, at + SCALES_BYTES, x, rows.stride, size / 4);
        const V scale[2] = {fetch<V>(at), fetch<V>(at + 64)};
        for (int row = 0; row < R; row++) {
            const V factor = spread(rows.scales[(first + row) * rows.groups + group]);
            for (int half = 0; half < 2; half++)
                totals[row][half] += __builtin_convertvector(sums[row][half], V) * (scale[half] * factor);
        }
    }
    for (int row = 0; row < R; row++)
        for (int half = 0; half < 2; half++) store(out + row * PANEL + half * LANES, totals[row][half]);
}

typedef void (*Tile)(const Matrix&, long, const Rows&, long, float*);

template <int R = MOST_ROWS> static Tile tile_for(int type, long rows) {
    if constexpr (R > 1) {
        if (rows != R) return tile_for<R - 1>(type, rows);
    }
    if (type == F32) return tile_float<DotF32, R>;
    if (type == BF16) return tile_float<DotBF16, R>;
    return type == I8 ? tile_whole<DotI8, R> : tile_whole<DotI4, R>;
}

// How rows are cut into blocks of nearly equal height, and the functions for the two heights.
struct Blocks {
    Blocks(int type, long rows) : rows(rows), count((rows + MOST_ROWS - 1) / MOST_ROWS) {
        if (!rows) return;
        low = rows / count;
        taller = rows % count;
        tiles[0] = tile_for(type, low);
        if (taller) tiles[1] = tile_for(type, low + 1);
    }
    long first(long block) const { return block * low + std::min(block, taller); }
    long height(long block) const { return low + (block < taller); }

    void run(const Matrix& m, long panel, const Rows& x, long block, float* out) const {
        tiles[block < taller](m, panel, x, first(block), out);
    }

    long rows, count, low = 0, taller = 0;
    Tile tiles[2] = {};
};

static inline long piece_of(long count, int threads) { return std::max(1L, count / (threads * 8)); }

static inline void add_bias(const Matrix& m, long panel, float* tile, long rows) {
    if (!m.bias) return;
    long columns = std::min(PANEL, long(m.outputs) - panel * PANEL);
    for (long row = 0; row < rows; row++)
        for (long column = 0; column < columns; column++) tile[row * PANEL + column] += m.bias[panel * PANEL + column];
}

// x @ m: `done(row, height, column, width, tile)` is called for every finished tile (height, 32).
template <class Done> static void multiply(Team& team, const Matrix& m, const Rows& x, long rows, Done&& done) {
    Blocks blocks(m.type, rows);
    team.share(m.panels(), piece_of(m.panels(), team.size), [&](long from, long to) {
        alignas(64) float tile[MOST_ROWS * PANEL];
        for (long panel = from; panel < to; panel++)
            for (long block = 0; block < blocks.count; block++) {
                blocks.run(m, panel, x, block, tile);
                add_bias(m, panel, tile, blocks.height(block));
                long column = panel * PANEL;
                done(blocks.first(block), blocks.height(block), column, std::min(PANEL, long(m.outputs) - column), tile);
            }
    });
}

// The gate's half and the up half of one matrix side by side: `done` gets silu(gate) * up, in `tile`.
template <class Done> static void multiply_gated(Team& team, const Matrix& m, const Rows& x, long rows, Done&& done) {
    Blocks blocks(m.type, rows);
    long half = m.panels() / 2;
    team.share(half, piece_of(half, team.size), [&](long from, long to) {
        alignas(64) float gate[MOST_ROWS * PANEL], up[MOST_ROWS * PANEL];
        for (long panel = from; panel < to; panel++)
            for (long block = 0; block < blocks.count; block++) {
                blocks.run(m, panel, x, block, gate);
                blocks.run(m, panel + half, x, block, up);
                long height = blocks.height(block);
                add_bias(m, panel, gate, height);
                add_bias(m, panel + half, up, height);
                for (long i = 0; i < height * PANEL; i += LANES) store(gate + i, silu(load(gate + i)) * load(up + i));
                done(blocks.first(block), height, panel * PANEL, PANEL, gate);
            }
    });
}

}  // namespace sage
