// Attention over the paged cache: one algorithm for prompts, chunks of prompts and single tokens.
//
// Keys are taken in tiles of 64 from the sequence's first token on, with a running maximum and sum (Milakov and
// Gimelshein 2018; Dao et al. 2022, "FlashAttention"). A key that a row must not see adds an exact zero, so that a
// row's result depends on its own context alone: not on the batch, and not on how the prompt was cut into chunks.
#pragma once
#include "gemm.h"

namespace sage {

constexpr long TILE = 64;        // keys
constexpr long QUERY_ROWS = 96;  // rows (tokens x heads of a group) that share a tile of keys, where a group is no larger
constexpr long MOST_GROUPED = 256;
constexpr int BLOCK = 6;         // rows x 4 vectors of 16: 24 accumulators

// What every layer of a step needs to know. A slot is block * block_size + offset.
struct Step {
    int64_t tokens, sequences;
    const int64_t* positions;     // (tokens,)
    const int64_t* slots;         // (tokens,)
    const int64_t* query_lens;    // (sequences,)
    const int64_t* context_lens;  // (sequences,)
    const int64_t* starts;        // (sequences,): where a sequence's blocks begin in `blocks`
    const int64_t* blocks;
    int64_t block_size, num_blocks;
};

struct Heads {
    int64_t heads, kv_heads, dim;
    int64_t window;  // tokens that a token sees with itself; 0: all
    float scale;
    int32_t cache_type;  // F32 or BF16

    // A head in a thread's own memory: floats of an output, and 32-bit units of a query (one float, two bfloat16).
    long wide() const { return (dim + 2 * LANES - 1) / (2 * LANES) * (2 * LANES); }
    long units() const { return cache_type == F32 ? wide() : wide() / 2; }
};

// One layer's keys and values, (blocks, block_size, kv_heads, dim) each.
struct Cache {
    Cache(void* data, const Step& step, const Heads& h)
        : width(h.cache_type == F32 ? 4 : 2), row(h.kv_heads * h.dim), type(h.cache_type), keys(static_cast<char*>(data)),
          values(keys + step.num_blocks * step.block_size * row * width) {}

    void put(bool value, long slot, const float* from) const {
        char* to = (value ? values : keys) + slot * row * width;
        if (type == F32) {
            memcpy(to, from, row * 4);
            return;
        }
        uint16_t* half = reinterpret_cast<uint16_t*>(to);
        for (long i = 0; i < row; i += LANES) store(half + i, load(from + i, row - i), row - i);
    }
    // `count` elements from `at` on, at most 16 (float32) or 32 (bfloat16); the rest is zero.
    VI units(bool value, long slot, long at, long count) const {
        const char* from = (value ? values : keys) + (slot * row + at) * width;
        if (count * width >= 64) return fetch<VI>(from);
        VI found = {};
        memcpy(&found, from, count * width);
        return found;
    }
    VU halves(bool value, long slot, long at, long count) const {
        const uint16_t* from = reinterpret_cast<const uint16_t*>(value ? values : keys) + slot * row + at;
        VH found = {};
        if (count >= LANES) found = fetch<VH>(from);
        else memcpy(&found, from, count * 2);
        return __builtin_convertvector(found, VU);
    }

    long width, row;
    int type;
    char *keys, *values;
};

// What one thread works on at a time: some new tokens of a sequence with some key-value heads. Single tokens take many
// heads at once, so that the cache is read in long runs.
struct Item {
    long sequence, row, first, tokens;  // row: of the step; first: position of its first token
    long head, heads;                   // key-value heads
};

static inline std::vector<Item> items_of(const Step& step, const Heads& h, int threads) {
    const long group = h.heads / h.kv_heads, most = std::max(1L, QUERY_ROWS / group);
    const long parts = step.sequences >= 2 * threads ? 1 : 2 * threads;
    const long together = std::max(1L, std::min(MOST_GROUPED / group, (long(h.kv_heads) + parts - 1) / parts));
    std::vector<Item> items;
    long row = 0;
    for (long s = 0; s < step.sequences; s++) {
        const long count = step.query_lens[s], before = step.context_lens[s] - count, run = count == 1 ? together : 1;
        for (long last = count; last > 0; last -= std::min(most, last)) {  // the longest contexts first
            const long first = std::max(0L, last - most);
            for (long head = 0; head < h.kv_heads; head += run)
                items.push_back({s, row + first, before + first, last - first, head, std::min(run, long(h.kv_heads) - head)});
        }
        row += count;
    }
    return items;
}

// c (R, 16 N) = c * scale (or 0) + a (R, depth) @ b (depth, 16 N); a and b in units of `Dot`.
template <class Dot, int R, int N>
static inline void product(const int32_t* a, long a_stride, const int32_t* b, long b_stride, long depth, float* c,
                           long c_stride, const float* scale) {
    V sums[R][N];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) sums[r][n] = scale ? load(c + r * c_stride + n * LANES) * scale[r] : V{};
    for (long k = 0; k < depth; k++) {
        VI right[N];
        for (int n = 0; n < N; n++) right[n] = fetch<VI>(b + k * b_stride + n * LANES);
        for (int r = 0; r < R; r++) {
            const VI left = VI{} + a[r * a_stride + k];
            for (int n = 0; n < N; n++) sums[r][n] = Dot::step(sums[r][n], right[n], left);
        }
    }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) store(c + r * c_stride + n * LANES, sums[r][n]);
}

template <class Dot, int R, int N = 4>
static void product_wide(const int32_t* a, long as, const int32_t* b, long bs, long depth, float* c, long cs, long width,
                         const float* scale) {
    for (; width >= N * LANES; width -= N * LANES, b += N * LANES, c += N * LANES)
        product<Dot, R, N>(a, as, b, bs, depth, c, cs, scale);
    if constexpr (N > 1) {
        if (width > 0) product_wide<Dot, R, N - 1>(a, as, b, bs, depth, c, cs, width, scale);
    }
}

template <class Dot, int R = BLOCK>
static void product_block(long height, const int32_t* a, long as, const int32_t* b, long bs, long depth, float* c, long cs,
                          long width, const float* scale) {
    if constexpr (R > 1) {
        if (height < R) return product_block<Dot, R - 1>(height, a, as, b, bs, depth, c, cs, width, scale);
    }
    product_wide<Dot, R>(a, as, b, bs, depth, c, cs, width, scale);
}

template <class Dot>
static void product_rows(long rows, const int32_t* a, long as, const int32_t* b, long bs, long depth, float* c, long cs,
                         long width, const float* scale) {
    const long blocks = (rows + BLOCK - 1) / BLOCK;
    for (long block = 0, row = 0; block < blocks; block++) {
        const long height = rows / blocks + (block < rows % blocks);
        product_block<Dot>(height, a + row * as, as, b, bs, depth, c + row * cs, cs, width, scale ? scale + row : nullptr);
        row += height;
    }
}

// 16 vectors of 16: rows become columns.
static inline void transpose(VI (&v)[LANES]) {
    VI w[LANES];
#if defined(__clang__)
    for (int i = 0; i < LANES; i++)
        for (int lane = 0; lane < LANES; lane++) w[lane][i] = v[i][lane];
    for (int i = 0; i < LANES; i++) v[i] = w[i];
#else
#pragma GCC unroll 4
    for (int width = 1; width < LANES; width *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            const int partner = i ^ width;
            VI pick;
#pragma GCC unroll 16
            for (int lane = 0; lane < LANES; lane++) {
                const bool mine = ((lane & width) != 0) == ((i & width) != 0);
                pick[lane] = mine ? lane : LANES + (lane ^ width);
            }
            w[i] = __builtin_shuffle(v[i], v[partner], pick);
        }
        for (int i = 0; i < LANES; i++) v[i] = w[i];
    }
#endif
}

// A thread's own memory for one item; `keys`, `values`, `query` and `weights` in units.
struct Scratch {
    std::vector<float> memory;
    float *out, *scores, *most, *sum, *scale;
    int32_t *keys, *values, *query, *weights;

    // This thread's, for heads of `wide` floats.
    static Scratch& mine(long wide) {
        static thread_local std::unique_ptr<Scratch> scratch;
        if (!scratch || scratch->wide != wide) scratch.reset(new Scratch(wide));
        return *scratch;
    }

  private:
    long wide;

    explicit Scratch(long wide) : wide(wide) {
        const long rows = MOST_GROUPED;
        memory.resize(2 * TILE * wide + 2 * rows * wide + rows * (2 * TILE + 3) + LANES);
        float* at = memory.data();
        at += (64 - reinterpret_cast<uintptr_t>(at) % 64) % 64 / 4;
        auto take = [&](long count) { return at += count, at - count; };
        auto take_units = [&](long count) { return reinterpret_cast<int32_t*>(take(count)); };
        keys = take_units(TILE * wide), values = take_units(TILE * wide), query = take_units(rows * wide);
        out = take(rows * wide), scores = take(rows * TILE), weights = take_units(rows * TILE);
        most = take(rows), sum = take(rows), scale = take(rows);
    }
};

template <class Dot> static inline void put_units(int32_t* to, long at, V value) {
    if constexpr (Dot::WIDTH == 1) keep(to + at, value);
    else keep(reinterpret_cast<uint16_t*>(to) + at, narrow(value));
}

// Brings an item's keys and values of the tile at `begin` into the cache, before they are read a head at a time: loads
// that do nothing else wait together (prefetch instructions had no effect on the processors this was measured on).
static inline void bring(const Step& step, const Heads& h, const Cache& cache, const Item& item, long begin) {
    const long end = std::min(begin + TILE, item.first + item.tokens), size = step.block_size;
    const long bytes = item.heads * h.dim * cache.width;
    const int64_t* table = step.blocks + step.starts[item.sequence] + begin / size;
    for (long at = begin, offset = begin % size; at < end; at++) {
        const long first = ((*table * size + offset) * cache.row + item.head * h.dim) * cache.width;
        for (long line = first; line < first + bytes; line += 64) {
            (void)*static_cast<volatile char*>(cache.keys + line);
            (void)*static_cast<volatile char*>(cache.values + line);
        }
        if (++offset == size) offset = 0, table++;
    }
}

// One tile of a sequence: keys (units, TILE) transposed, values (keys or pairs of keys, wide); zero past the context.
template <class Dot>
static void read_tile(const Step& step, const Heads& h, const Cache& cache, const Item& item, long head, long begin,
                      long count, long padded, Scratch& s) {
    constexpr long PAIR = Dot::WIDTH;
    const int64_t* table = step.blocks + step.starts[item.sequence] + begin / step.block_size;
    long slots[TILE];
    for (long i = 0, offset = begin % step.block_size; i < count; i++) {
        slots[i] = *table * step.block_size + offset;
        if (++offset == step.block_size) offset = 0, table++;
    }
    const long dim = h.dim, wide = h.wide(), first = head * dim;
    for (long at = 0; at < dim; at += LANES * PAIR)
        for (long key = 0; key < padded; key += LANES) {
            VI rows[LANES];
            for (long i = 0; i < LANES; i++)
                rows[i] = key + i < count ? cache.units(false, slots[key + i], first + at, dim - at) : VI{};
            transpose(rows);
            for (long i = 0; i < LANES; i++) keep(s.keys + (at / PAIR + i) * TILE + key, rows[i]);
        }
    for (long key = 0; key < padded; key += PAIR)
        for (long at = 0; at < dim; at += LANES) {
            int32_t* to = s.values + key / PAIR * wide + at;
            if constexpr (PAIR == 1) {
                keep(to, key < count ? cache.units(true, slots[key], first + at, dim - at) : VI{});
            } else {
                VU low = key < count ? cache.halves(true, slots[key], first + at, dim - at) : VU{};
                VU high = key + 1 < count ? cache.halves(true, slots[key + 1], first + at, dim - at) : VU{};
                keep(to, low | high << 16);
            }
        }
}

// Scores of one row to weights; the running maximum, sum, and what older weights are worth now.
template <class Dot>
static inline void soften(float* scores, int32_t* weights, long from, long to, long padded, float* most, float* sum_,
                          float* scale) {
    const float nothing = -__builtin_inff();
    if (from > 0 || to < padded)
        for (long key = 0; key < padded; key++)
            if (key < from || key >= to) scores[key] = nothing;
    V top = load(scores);
    for (long key = LANES; key < padded; key += LANES) top = larger(top, load(scores + key));
    const float now = std::max(*most, largest(top));
    V total = {};
    for (long key = 0; key < padded; key += LANES) {
        const V weight = exponential(load(scores + key) - now);
        put_units<Dot>(weights, key, weight);
        total += weight;
    }
    *scale = exponential(spread(*most - now))[0];
    *sum_ = *sum_ * *scale + sum(total);
    *most = now;
}

// Rows of an item with one head against one tile.
template <class Dot>
static void attend_tile(const Step& step, const Heads& h, const Cache& cache, const Item& item, long index, long begin,
                        Scratch& s) {
    const long group = h.heads / h.kv_heads, rows = item.tokens * group, wide = h.wide(), units = h.units();
    const long first = index * rows;  // of this head's rows among the item's
    const long count = std::min(TILE, item.first + item.tokens - begin), padded = (count + LANES - 1) / LANES * LANES;
    read_tile<Dot>(step, h, cache, item, item.head + index, begin, count, padded, s);
    product_rows<Dot>(rows, s.query + first * units, units, s.keys, TILE, units, s.scores, TILE, padded, nullptr);
    for (long row = 0; row < rows; row++) {
        const long position = item.first + row / group;
        const long from = h.window ? std::max(0L, position - long(h.window) + 1 - begin) : 0;
        const long to = std::min(padded, std::max(0L, position + 1 - begin));
        soften<Dot>(s.scores + row * TILE, s.weights + row * TILE, from, to, padded, s.most + first + row,
                    s.sum + first + row, s.scale + row);
    }
    float* out = s.out + first * wide;
    product_rows<Dot>(rows, s.weights, TILE, s.values, wide, padded / Dot::WIDTH, out, wide, wide, s.scale);
}

// `query(row, head, to)` gives a scaled, rotated query (wide,), zero past the head's end; `done(row, head, out)` takes
// what it attended to.
template <class Dot, class Query, class Done>
static void attend_item(const Step& step, const Heads& h, const Cache& cache, const Item& item, Scratch& s, Query&& query,
                        Done&& done) {
    const long group = h.heads / h.kv_heads, each = item.tokens * group, rows = each * item.heads;
    const long wide = h.wide(), units = h.units();
    const long oldest = h.window ? std::max(0L, item.first - long(h.window) + 1) : 0;
    const auto token = [&](long row) { return item.row + row % each / group; };
    const auto head = [&](long row) { return (item.head + row / each) * group + row % group; };
    for (long row = 0; row < rows; row++) {
        float* own = s.out + row * wide;
        memset(own, 0, wide * 4);
        query(token(row), head(row), own);
        for (long i = 0; i < wide; i += LANES) put_units<Dot>(s.query + row * units, i, load(own + i));
        memset(own, 0, wide * 4);
    }
    std::fill(s.most, s.most + rows, -1e30f);
    std::fill(s.sum, s.sum + rows, 0.0f);
    for (long begin = oldest / TILE * TILE; begin < item.first + item.tokens; begin += TILE) {
        if (item.tokens == 1) bring(step, h, cache, item, begin);
        for (long index = 0; index < item.heads; index++) attend_tile<Dot>(step, h, cache, item, index, begin, s);
    }
    for (long row = 0; row < rows; row++) {
        float* out = s.out + row * wide;
        for (long i = 0; i < wide; i += LANES) store(out + i, load(out + i) / s.sum[row]);
        done(token(row), head(row), out);
    }
}

template <class Query, class Done>
static void attend(Team& team, const Step& step, const Heads& h, const Cache& cache, const std::vector<Item>& items,
                   Query&& query, Done&& done) {
    team.share(long(items.size()), 1, [&](long from, long to) {
        Scratch& scratch = Scratch::mine(h.wide());
        for (long i = from; i < to; i++) {
            if (h.cache_type == F32) attend_item<DotF32>(step, h, cache, items[i], scratch, query, done);
            else attend_item<DotBF16>(step, h, cache, items[i], scratch, query, done);
        }
    });
}

}  // namespace sage
