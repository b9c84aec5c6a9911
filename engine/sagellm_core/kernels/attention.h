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

    long wide() const { return (dim + LANES - 1) / LANES * LANES; }  // of a head in a thread's own memory
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
    V get(bool value, long slot, long at, long count) const {
        const char* from = (value ? values : keys) + (slot * row + at) * width;
        if (type == F32) return load(reinterpret_cast<const float*>(from), count);
        return widen(reinterpret_cast<const uint16_t*>(from), count);
    }

    long width, row;
    int type;
    char *keys, *values;
};

// A part of a sequence's new tokens with one key-value head: what one thread works on at a time.
struct Item {
    long sequence, row, first, tokens;  // row: of the step; first: position of its first token
};

static inline std::vector<Item> items_of(const Step& step, const Heads& h) {
    const long most = std::max(1L, QUERY_ROWS / long(h.heads / h.kv_heads));
    std::vector<Item> items;
    long row = 0;
    for (long s = 0; s < step.sequences; s++) {
        const long count = step.query_lens[s], before = step.context_lens[s] - count;
        for (long last = count; last > 0; last -= std::min(most, last)) {  // the longest contexts first
            const long first = std::max(0L, last - most);
            items.push_back({s, row + first, before + first, last - first});
        }
        row += count;
    }
    return items;
}

// c (R, 16 N) = c * scale (or 0) + a (R, depth) @ b (depth, 16 N)
template <int R, int N>
static inline void product(
    const float* a, long a_stride, const float* b, long b_stride, long depth, float* c, long c_stride, const float* scale) {
    V sums[R][N];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) sums[r][n] = scale ? load(c + r * c_stride + n * LANES) * scale[r] : V{};
    for (long k = 0; k < depth; k++) {
        V right[N];
        for (int n = 0; n < N; n++) right[n] = load(b + k * b_stride + n * LANES);
        for (int r = 0; r < R; r++) {
            const V left = spread(a[r * a_stride + k]);
            for (int n = 0; n < N; n++) sums[r][n] = left * right[n] + sums[r][n];
        }
    }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) store(c + r * c_stride + n * LANES, sums[r][n]);
}

template <int R, int N = 4>
static void product_wide(const float* a, long as, const float* b, long bs, long depth, float* c, long cs, long width,
                         const float* scale) {
    for (; width >= N * LANES; width -= N * LANES, b += N * LANES, c += N * LANES)
        product<R, N>(a, as, b, bs, depth, c, cs, scale);
    if constexpr (N > 1) {
        if (width > 0) product_wide<R, N - 1>(a, as, b, bs, depth, c, cs, width, scale);
    }
}

static inline void product_rows(long rows, const float* a, long as, const float* b, long bs, long depth, float* c, long cs,
                                long width, const float* scale) {
    const long blocks = (rows + BLOCK - 1) / BLOCK;
    for (long block = 0, row = 0; block < blocks; block++) {
        const long height = rows / blocks + (block < rows % blocks);
        const float* x = a + row * as;
        float* y = c + row * cs;
        const float* s = scale ? scale + row : nullptr;
        switch (height) {
            case 1: product_wide<1>(x, as, b, bs, depth, y, cs, width, s); break;
            case 2: product_wide<2>(x, as, b, bs, depth, y, cs, width, s); break;
            case 3: product_wide<3>(x, as, b, bs, depth, y, cs, width, s); break;
            case 4: product_wide<4>(x, as, b, bs, depth, y, cs, width, s); break;
            case 5: product_wide<5>(x, as, b, bs, depth, y, cs, width, s); break;
            default: product_wide<6>(x, as, b, bs, depth, y, cs, width, s);
        }
        row += height;
    }
}

// 16 vectors of 16: rows become columns.
static inline void transpose(V (&v)[LANES]) {
    V w[LANES];
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
}

// A thread's own memory for one item.
struct Scratch {
    std::vector<float> memory;
    float *keys, *values, *query, *out, *scores, *most, *sum, *scale;

    // This thread's, for heads of `wide` lanes.
    static Scratch& mine(long wide) {
        static thread_local std::unique_ptr<Scratch> scratch;
        if (!scratch || scratch->wide != wide) scratch.reset(new Scratch(wide));
        return *scratch;
    }

  private:
    long wide;

    explicit Scratch(long wide) : wide(wide) {
        const long rows = MOST_GROUPED;
        memory.resize(2 * TILE * wide + 2 * rows * wide + rows * (TILE + 3) + 64);
        float* at = memory.data();
        auto take = [&](long count) { return at += count, at - count; };
        keys = take(TILE * wide), values = take(TILE * wide), query = take(rows * wide), out = take(rows * wide);
        scores = take(rows * TILE), most = take(rows), sum = take(rows), scale = take(rows);
    }
};

// Keys (wide, TILE) transposed and values (TILE, wide) of one tile; what lies past the context is zero.
static inline void read_tile(const Step& step, const Heads& h, const Cache& cache, const Item& item, long head, long begin,
                             long count, long padded, Scratch& s) {
    const int64_t* table = step.blocks + step.starts[item.sequence];
    long slots[TILE];
    for (long i = 0; i < count; i++)
        slots[i] = table[(begin + i) / step.block_size] * step.block_size + (begin + i) % step.block_size;
    for (long at = 0; at < h.dim; at += LANES) {
        const long from = head * h.dim + at, lanes = std::min(long(LANES), long(h.dim) - at);
        for (long key = 0; key < padded; key += LANES) {
            V rows[LANES];
            for (long i = 0; i < LANES; i++)
                rows[i] = key + i < count ? cache.get(false, slots[key + i], from, lanes) : V{};
            transpose(rows);
            for (long i = 0; i < LANES; i++) store(s.keys + (at + i) * TILE + key, rows[i]);
        }
        for (long key = 0; key < padded; key++)
            store(s.values + key * h.wide() + at, key < count ? cache.get(true, slots[key], from, lanes) : V{});
    }
}

// Scores of one row to weights; the running maximum, sum, and what older weights are worth now.
static inline void soften(float* scores, long from, long to, long padded, float* most, float* sum_, float* scale) {
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
        store(scores + key, weight);
        total += weight;
    }
    *scale = exponential(spread(*most - now))[0];
    *sum_ = *sum_ * *scale + sum(total);
    *most = now;
}

// `query(row, head, to)` gives a scaled, rotated query (wide,), zero past the head's end; `done(row, head, out)` takes
// what it attended to.
template <class Query, class Done>
static void attend_item(const Step& step, const Heads& h, const Cache& cache, const Item& item, long kv_head, Scratch& s,
                        Query&& query, Done&& done) {
    const long group = h.heads / h.kv_heads, rows = item.tokens * group, last = item.first + item.tokens;
    const long wide = h.wide();
    for (long row = 0; row < rows; row++)
        query(item.row + row / group, kv_head * group + row % group, s.query + row * wide);
    std::fill(s.out, s.out + rows * wide, 0.0f);
    std::fill(s.most, s.most + rows, -1e30f);
    std::fill(s.sum, s.sum + rows, 0.0f);
    const long oldest = h.window ? std::max(0L, item.first - long(h.window) + 1) : 0;
    for (long begin = oldest / TILE * TILE; begin < last; begin += TILE) {
        const long count = std::min(TILE, last - begin), padded = (count + LANES - 1) / LANES * LANES;
        read_tile(step, h, cache, item, kv_head, begin, count, padded, s);
        product_rows(rows, s.query, wide, s.keys, TILE, wide, s.scores, TILE, padded, nullptr);
        for (long row = 0; row < rows; row++) {
            const long position = item.first + row / group;
            const long from = h.window ? std::max(0L, position - long(h.window) + 1 - begin) : 0;
            const long to = std::min(padded, std::max(0L, position + 1 - begin));
            soften(s.scores + row * TILE, from, to, padded, s.most + row, s.sum + row, s.scale + row);
        }
        product_rows(rows, s.scores, TILE, s.values, wide, padded, s.out, wide, wide, s.scale);
    }
    for (long row = 0; row < rows; row++) {
        float* out = s.out + row * wide;
        for (long i = 0; i < wide; i += LANES) store(out + i, load(out + i) / s.sum[row]);
        done(item.row + row / group, kv_head * group + row % group, out);
    }
}

template <class Query, class Done>
static void attend(Team& team, const Step& step, const Heads& h, const Cache& cache, const std::vector<Item>& items,
                   Query&& query, Done&& done) {
    const long count = long(items.size()) * h.kv_heads;
    team.share(count, 1, [&](long from, long to) {
        Scratch& scratch = Scratch::mine(h.wide());
        for (long i = from; i < to; i++)
            attend_item(step, h, cache, items[i / h.kv_heads], i % h.kv_heads, scratch, query, done);
    });
}

}  // namespace sage
