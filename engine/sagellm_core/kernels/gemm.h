// Rows times packed panels. An output is one sum over its inputs in one order, whatever else is computed beside it: a
// row's numbers do not depend on how many rows there are.
#pragma once
#include <array>

#include "compact.h"
#include "pool.h"

namespace sage {

#if defined(__AVX512F__)
constexpr int MOST_ROWS = 12;  // 24 accumulators, two vectors of weights, of 32 registers
#else
constexpr int MOST_ROWS = 3;
#endif
constexpr long ROWS_PACKED = 4;  // at most; these take weights from a compact panel's own bytes
constexpr long CHUNK = 64;       // steps of a compact panel that all rows are multiplied with before the next
constexpr long MOST_BLOCKS_IN_CHUNKS = 3;

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

// Where the weights of a part of a compact panel are. PACKED: in the panel, at `packed`, all of them regular. UNPACKED:
// at `plain`. UNPACKING: there too, and as many steps at `packed` are unpacked to `later` meanwhile.
enum Way { PACKED, UNPACKED, UNPACKING };

struct Part {
    const char *packed, *plain;
    char* later;
    VW base;
    long steps;
};

template <int R>
static inline __attribute__((always_inline)) void add_step(V (&sums)[R][2], VI left, VI right,
                                                           const char* const (&base)[(R + 2) / 3], long stride, long step) {
#pragma GCC unroll 12
    for (int row = 0; row < R; row++) {
        const VI unit = spread_unit(base[row / 3] + (row % 3) * stride + step * 4);
        sums[row][0] = DotBF16::step(sums[row][0], left, unit);
        sums[row][1] = DotBF16::step(sums[row][1], right, unit);
    }
}

// Adds a part of a panel to `out` (R, 32). The sums are those of bfloat16, in the same order.
template <int R, int WAY> static void add_part(const Part& part, const char* x, long stride, float* out) {
    constexpr int BASES = (R + 2) / 3;
    const char *base[BASES], *packed = part.packed, *plain = part.plain;
    char* later = part.later;
    const VW exponent = part.base;
    for (int i = 0; i < BASES; i++) base[i] = x + 3 * i * stride;
    V sums[R][2];
#pragma GCC unroll 12
    for (int row = 0; row < R; row++) {
        sums[row][0] = load(out + row * PANEL);
        sums[row][1] = load(out + row * PANEL + LANES);
    }
    for (long step = 0; step < part.steps; step += 2) {
        VW weights[4];
        if (WAY == PACKED) {
            for (int line = 0; line < 3; line++) touch(packed + AHEAD + line * 64);
            unpack_steps(packed, exponent, weights);
        } else {
            for (int i = 0; i < 4; i++) weights[i] = fetch<VW>(plain + i * 64);
            if (WAY == UNPACKING) unpack_steps(packed, exponent, later);
        }
        add_step<R>(sums, VI(weights[0]), VI(weights[1]), base, stride, step);
        add_step<R>(sums, VI(weights[2]), VI(weights[3]), base, stride, step + 1);
        packed += COMPACT_STEPS, plain += 256, later += 256;
    }
#pragma GCC unroll 12
    for (int row = 0; row < R; row++) {
        store(out + row * PANEL, sums[row][0]);
        store(out + row * PANEL + LANES, sums[row][1]);
    }
}

typedef void (*Tile)(const Matrix&, long, const Rows&, long, float*);
typedef void (*Add)(const Part&, const char*, long, float*);

template <int WAY, int R = WAY == PACKED ? ROWS_PACKED : MOST_ROWS> static Add add_for(long rows) {
    if constexpr (R > 1) {
        if (rows != R) return add_for<WAY, R - 1>(rows);
    }
    return add_part<R, WAY>;
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
            const long height = low + more;
            if (type == COMPACT) adds[more] = {add_for<PACKED>(height), add_for<UNPACKED>(height), add_for<UNPACKING>(height)};
            else tiles[more] = tile_for(type, height);
        }
    }
    long first(long block) const { return block * low + std::min(block, taller); }
    long height(long block) const { return low + (block < taller); }

    long rows, count, low = 0, taller = 0;
    Tile tiles[2] = {};
    std::array<Add, 3> adds[2] = {};  // by `Way`
};

// One panel at a time with all rows; a thread's own.
class Product {
  public:
    Product(const Matrix& m, const Rows& x, const Blocks& blocks)
        : m_(m), x_(x), blocks_(blocks), chunk_(blocks.count > MOST_BLOCKS_IN_CHUNKS ? m.steps() : CHUNK) {
        if (m.type != COMPACT || blocks.rows <= ROWS_PACKED) return;
        many_.resize(blocks.rows * 2 + chunk_ * 4);
        out_ = reinterpret_cast<float*>(many_.data());
    }

    void begin(long panel) {
        panel_ = panel;
        if (m_.type != COMPACT) return;
        memset(out_, 0, blocks_.rows * PANEL * 4);
        if (blocks_.rows <= ROWS_PACKED) add_packed();
        else add_unpacked();
    }

    // Rows of the block (height, 32), each of them asked for once.
    float* tile(long block) {
        if (m_.type == COMPACT) return out_ + blocks_.first(block) * PANEL;
        blocks_.tiles[block < blocks_.taller](m_, panel_, x_, blocks_.first(block), out_);
        return out_;
    }

  private:
    void add(Way way, const Part& part, long block, long step) {
        if (!part.steps) return;
        const long first = blocks_.first(block);
        const char* x = x_.data + first * x_.stride + step * 4;
        blocks_.adds[block < blocks_.taller][way](part, x, x_.stride, out_ + first * PANEL);
    }

    void add_packed() {
        alignas(64) char plain[CHUNK * 128];
        Unpacker unpacker(m_, panel_);
        for (long step = 0; step < m_.steps(); step += CHUNK) {
            const long steps = std::min(CHUNK, m_.steps() - step);
            const Part part{unpacker.at, plain, plain, unpacker.base, steps};
            const Way way = unpacker.regular(steps) ? PACKED : UNPACKED;
            way == PACKED ? unpacker.pass(steps, nullptr) : unpacker.unpack(steps, plain);
            add(way, part, 0, step);
        }
    }

    // Chunk by chunk, what comes next being unpacked beside the first block's products, which leave time for it; all at
    // once where many rows share it.
    void add_unpacked() {
        char* now = reinterpret_cast<char*>(many_.data() + blocks_.rows * 2);
        char* later = now + chunk_ * 128;
        Unpacker unpacker(m_, panel_);
        unpacker.unpack(std::min(chunk_, m_.steps()), now);
        for (long step = 0; step < m_.steps(); step += chunk_, std::swap(now, later)) {
            const long steps = std::min(chunk_, m_.steps() - step), coming = std::min(chunk_, m_.steps() - step - steps);
            add(UNPACKING, {unpacker.at, now, later, unpacker.base, coming}, 0, step);
            add(UNPACKED, {nullptr, now + coming * 128, nullptr, unpacker.base, steps - coming}, 0, step + coming);
            unpacker.pass(coming, later);
            for (long block = 1; block < blocks_.count; block++)
                add(UNPACKED, {nullptr, now, nullptr, unpacker.base, steps}, block, step);
        }
    }

    const Matrix& m_;
    const Rows& x_;
    const Blocks& blocks_;
    long chunk_, panel_ = 0;
    V few_[MOST_ROWS * 2];
    std::vector<V> many_;  // sums of all rows, and two chunks
    float* out_ = reinterpret_cast<float*>(few_);
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
