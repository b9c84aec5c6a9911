// Rows times packed panels. An output is one sum over its inputs in one order, whatever else is computed beside it: a
// row's numbers do not depend on how many rows there are.
#pragma once
#include "compact.h"
#include "pool.h"

namespace sage {

#if defined(__AVX512F__)
constexpr int MOST_ROWS = 12;  // 24 accumulators, two vectors of weights, of 32 registers
#else
constexpr int MOST_ROWS = 3;
#endif
constexpr long ROWS_PACKED = 4;  // at most; these take weights from a compact panel's own bytes
constexpr long CHUNK = 64, UNPACKED_CHUNK = 128, MOST_BLOCKS_IN_CHUNKS = 3;

// Steps of a compact panel that all rows are multiplied with before the next: what they are unpacked to stays in the
// nearest cache; a panel that many rows share is unpacked as a whole.
static inline long chunk_of(long blocks, long rows, long steps) {
    if (rows <= ROWS_PACKED) return CHUNK;
    return blocks <= MOST_BLOCKS_IN_CHUNKS ? UNPACKED_CHUNK : steps;
}

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

// R rows against one panel for `steps` steps; `ahead` is what will be read after it, as many bytes a step.
template <class Dot, int R, long AHEAD_STEP = Dot::STEP>
static inline __attribute__((always_inline)) void accumulate(
    typename Dot::Sum (&sums)[R][2], const char* weights, const char* x, long stride, long steps, const char* ahead) {
    constexpr int BASES = (R + 2) / 3;
    const char* base[BASES];
    for (int i = 0; i < BASES; i++) base[i] = x + 3 * i * stride;
#pragma GCC unroll 4
    for (long step = 0; step < steps; step++) {
        const VI both = fetch<VI>(weights), left = Dot::first(both), right = Dot::second(weights, both);
        for (long line = 0; line < AHEAD_STEP; line += 64) touch(ahead + line);
        ahead += AHEAD_STEP;
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
    const char* weights = m.panel(panel);
    accumulate<Dot, R>(sums, weights, rows.data + first * rows.stride, rows.stride, m.steps(), weights + AHEAD);
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
        accumulate<Dot, R>(sums, at + SCALES_BYTES, x, rows.stride, size / 4, at + SCALES_BYTES + AHEAD);
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

// Adds some steps of a compact panel to `out` (R, 32). PACKED: from the panel itself, where all its weights are
// regular; else from memory that it was unpacked to. The sums are those of bfloat16, in the same order.
template <int R, bool PACKED>
static void add_compact(const char* weights, VW base, const char* x, long stride, long steps, const char* ahead,
                        float* out) {
    V sums[R][2];
    for (int row = 0; row < R; row++)
        for (int half = 0; half < 2; half++) sums[row][half] = load(out + row * PANEL + half * LANES);
    if constexpr (PACKED) {
        for (long step = 0; step < steps; step += 2, weights += COMPACT_STEPS, ahead += COMPACT_STEPS) {
            for (int line = 0; line < 3; line++) touch(ahead + line * 64);
            VW pair[4];
            unpack_steps(weights, base, pair);
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; odd++)
#pragma GCC unroll 12
                for (int row = 0; row < R; row++) {
                    const VI unit = spread_unit(x + row * stride + (step + odd) * 4);
                    sums[row][0] = DotBF16::step(sums[row][0], VI(pair[2 * odd]), unit);
                    sums[row][1] = DotBF16::step(sums[row][1], VI(pair[2 * odd + 1]), unit);
                }
        }
    } else {
        accumulate<DotBF16, R, COMPACT_STEPS / 2>(sums, weights, x, stride, steps, ahead);
    }
    for (int row = 0; row < R; row++)
        for (int half = 0; half < 2; half++) store(out + row * PANEL + half * LANES, sums[row][half]);
}

typedef void (*Tile)(const Matrix&, long, const Rows&, long, float*);
typedef void (*Part)(const char*, VW, const char*, long, long, const char*, float*);

template <bool PACKED, int R = PACKED ? ROWS_PACKED : MOST_ROWS> static Part part_for(long rows) {
    if constexpr (R > 1) {
        if (rows != R) return part_for<PACKED, R - 1>(rows);
    }
    return add_compact<R, PACKED>;
}

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
        for (int more = 0; more < 1 + (taller != 0); more++) {
            if (type == COMPACT) parts[0][more] = part_for<false>(low + more), parts[1][more] = part_for<true>(low + more);
            else tiles[more] = tile_for(type, low + more);
        }
    }
    long first(long block) const { return block * low + std::min(block, taller); }
    long height(long block) const { return low + (block < taller); }

    long rows, count, low = 0, taller = 0;
    Tile tiles[2] = {};
    Part parts[2][2] = {};  // [packed][taller]
};

// One panel at a time with all rows; a thread's own.
class Product {
  public:
    Product(const Matrix& m, const Rows& x, const Blocks& blocks)
        : m_(m), x_(x), blocks_(blocks), chunk_(chunk_of(blocks.count, blocks.rows, m.steps())) {
        if (m.type != COMPACT || blocks.rows <= ROWS_PACKED) return;
        many_.resize(blocks.rows * 2 + chunk_ * 2);
        out_ = reinterpret_cast<float*>(many_.data());
        plain_ = reinterpret_cast<char*>(many_.data() + blocks.rows * 2);
    }

    void begin(long panel) {
        panel_ = panel;
        if (m_.type == COMPACT) add_chunks();
    }

    // Rows of the block (height, 32), each of them asked for once.
    float* tile(long block) {
        if (m_.type == COMPACT) return out_ + blocks_.first(block) * PANEL;
        blocks_.tiles[block < blocks_.taller](m_, panel_, x_, blocks_.first(block), out_);
        return out_;
    }

  private:
    void add_chunks() {
        memset(out_, 0, blocks_.rows * PANEL * 4);
        Unpacker unpacker(m_, panel_);
        for (long step = 0; step < m_.steps(); step += chunk_) {
            const long steps = std::min(chunk_, m_.steps() - step);
            const bool packed = blocks_.rows <= ROWS_PACKED && unpacker.regular(steps);
            const char *weights = packed ? unpacker.at : plain_, *ahead = unpacker.at + AHEAD;
            if (packed) unpacker.skip(steps);
            else unpacker.unpack(steps, plain_);
            for (long block = 0; block < blocks_.count; block++) {
                const long first = blocks_.first(block);
                const char* x = x_.data + first * x_.stride + step * 4;
                blocks_.parts[packed][block < blocks_.taller](weights, unpacker.base, x, x_.stride, steps, ahead,
                                                              out_ + first * PANEL);
            }
        }
    }

    const Matrix& m_;
    const Rows& x_;
    const Blocks& blocks_;
    long chunk_, panel_ = 0;
    V few_[MOST_ROWS * 2];
    alignas(64) char unpacked_[CHUNK * 128];
    std::vector<V> many_;
    float* out_ = reinterpret_cast<float*>(few_);
    char* plain_ = unpacked_;
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
        Product product(m, x, blocks);
        for (long panel = from; panel < to; panel++) {
            product.begin(panel);
            for (long block = 0; block < blocks.count; block++) {
                float* tile = product.tile(block);
                add_bias(m, panel, tile, blocks.height(block));
                long column = panel * PANEL;
                done(blocks.first(block), blocks.height(block), column, std::min(PANEL, long(m.outputs) - column), tile);
            }
        }
    });
}

// The gate's half and the up half of one matrix side by side: `done` gets silu(gate) * up, in `tile`.
template <class Done> static void multiply_gated(Team& team, const Matrix& m, const Rows& x, long rows, Done&& done) {
    Blocks blocks(m.type, rows);
    long half = m.panels() / 2;
    team.share(half, piece_of(half, team.size), [&](long from, long to) {
        Product gates(m, x, blocks), ups(m, x, blocks);
        for (long panel = from; panel < to; panel++) {
            gates.begin(panel), ups.begin(panel + half);
            for (long block = 0; block < blocks.count; block++) {
                float *gate = gates.tile(block), *up = ups.tile(block);
                long height = blocks.height(block);
                add_bias(m, panel, gate, height);
                add_bias(m, panel + half, up, height);
                for (long i = 0; i < height * PANEL; i += LANES) store(gate + i, silu(load(gate + i)) * load(up + i));
                done(blocks.first(block), height, panel * PANEL, PANEL, gate);
            }
        }
    });
}

}  // namespace sage
