// A whole decoder's step in one call: RMSNorm, grouped-query attention with rotary positions, SwiGLU; activations in
// float32, products in the type of the weights. A barrier after each stage; the work of a stage is handed out in pieces.
#pragma once
#include "attention.h"

namespace sage {

struct Layer {
    Matrix qkv, output, gate_up, down;
    const float* attention_norm;  // (hidden,)
    const float* mlp_norm;
    const float* query_norm;  // (dim,) or null: RMSNorm of every head before the rotation
    const float* key_norm;
    int64_t window;
};

struct Shape {
    int64_t layers, hidden, inner, heads, kv_heads, dim;
    float eps, scale;
    int32_t cache_type, threads;
    const float* cos;  // (positions, dim): x * cos + roll(x, dim / 2) * sin
    const float* sin;
    const float* norm;  // (hidden,), null: hidden states leave as they are (a stage before the last)
    Matrix embed;       // data null: the step brings hidden states
    Matrix head;        // data null: no `decode`
};

// Rows of a step, each at most once, that become logits, and what comes of them; see Decoder::decode.
struct Wanted {
    int64_t count;
    const int64_t* rows;
    float* logits;
    int64_t* likeliest;
    const uint32_t* const* allowed;
};

static inline void read_row(const void* from, int type, long index, long count, float* to) {
    for (long i = 0; i < count; i += LANES) {
        V value = type == F32 ? load(static_cast<const float*>(from) + index + i, count - i)
                              : widen(static_cast<const uint16_t*>(from) + index + i, count - i);
        store(to + i, value, count - i);
    }
}

static inline void write_row(void* to, int type, long index, const float* from, long count) {
    for (long i = 0; i < count; i += LANES) {
        if (type == F32) store(static_cast<float*>(to) + index + i, load(from + i, count - i), count - i);
        else store(static_cast<uint16_t*>(to) + index + i, load(from + i, count - i), count - i);
    }
}

static inline void rms_norm(const float* from, const float* weight, long count, float eps, float* to) {
    V squares = {};
    for (long i = 0; i < count; i += LANES) {
        const V value = load(from + i, count - i);
        squares += value * value;
    }
    const float factor = 1.0f / std::sqrt(sum(squares) / count + eps);
    for (long i = 0; i < count; i += LANES)
        store(to + i, load(from + i, count - i) * factor * load(weight + i, count - i), count - i);
}

static inline void rotate(float* x, const float* cos, const float* sin, long dim) {
    const long half = dim / 2;
    for (long i = 0; i < half; i++) {
        const float low = x[i], high = x[i + half];
        x[i] = low * cos[i] + high * sin[i];
        x[i + half] = high * cos[i + half] + low * sin[i + half];
    }
}

// Sixteen lanes from a row's bits: all ones where the token is allowed.
static inline VI allowed_lanes(const uint32_t* bits, long at) {
    const VI lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const VI word = VI{} + int32_t(bits[at / 32] >> (at % 32));
    return ((word >> lane) & 1) != 0;
}

// The first place of the largest number; -1 where there is a NaN, or no finite number. With `bits` (one a place, from
// the lowest of 32 on) only places whose bit is set are looked at for it.
static inline int64_t largest_at(const float* values, long count, const uint32_t* bits) {
    const V none = spread(-__builtin_inff());
    V top = none;
    VI nan = {};
    for (long i = 0; i < count; i += LANES) {
        V value = none;
        if (count - i >= LANES) value = load(values + i);
        else memcpy(&value, values + i, (count - i) * 4);
        nan |= value != value;
        if (bits) value = allowed_lanes(bits, i) ? value : none;
        top = larger(top, value);
    }
    for (int lane = 0; lane < LANES; lane++)
        if (nan[lane]) return -1;
    const float most = largest(top);
    if (!std::isfinite(most)) return -1;
    for (long i = 0; i < count; i++)
        if (values[i] == most && (!bits || bits[i / 32] >> (i % 32) & 1)) return i;
    return -1;
}

// Memory of a step, kept from step to step and grown when more tokens come.
class Arena {
  public:
    ~Arena() { free(memory_); }
    void reset(size_t bytes) {
        taken_ = 0;
        if (bytes <= size_) return;
        free(memory_);
        size_ = (bytes + (2 << 20) - 1) / (2 << 20) * (2 << 20);
        memory_ = static_cast<char*>(aligned_alloc(2 << 20, size_));
        if (!memory_) size_ = 0, throw std::bad_alloc();
        memset(memory_, 0, size_);
    }
    char* take(size_t bytes) {
        char* at = memory_ + taken_;
        taken_ += (bytes + 127) / 128 * 128;
        return at;
    }

  private:
    char* memory_ = nullptr;
    size_t size_ = 0, taken_ = 0;
};

static inline size_t rows_bytes(const Matrix& m, long rows) {
    return (Rows::stride_for(m.row_bytes()) + (m.whole_numbers() ? 8 * m.groups() : 0)) * rows + 512;
}

static inline Rows rows_in(Arena& arena, const Matrix& m, long rows) {
    Rows out;
    out.stride = Rows::stride_for(m.row_bytes());
    out.data = arena.take(out.stride * rows);
    if (m.whole_numbers()) {
        out.groups = m.groups();
        out.scales = reinterpret_cast<float*>(arena.take(rows * out.groups * 4));
        out.totals = reinterpret_cast<int32_t*>(arena.take(rows * out.groups * 4));
    }
    return out;
}

// Finished tiles into rows of `stride` floats.
static inline auto copier(float* target, long stride) {
    return [=](long row, long height, long column, long width, const float* tile) {
        for (long r = 0; r < height; r++)
            memcpy(target + (row + r) * stride + column, tile + r * PANEL, width * 4);
    };
}

class Decoder {
    static constexpr long STAGES = 10;  // of a layer

  public:
    Decoder(const Shape& shape, const Layer* layers) : shape_(shape), layers_(layers, layers + shape.layers) {}

    // `inputs`: token ids (tokens,), or hidden states (tokens, hidden) of `cache_type` where there is no embedding.
    // `out` (tokens, hidden) of `cache_type`.
    void forward(const Step& step, const void* inputs, void* out, void* const* caches) {
        Buffers b = buffers(step);
        Pool::the().run(shape_.threads, STAGES * shape_.layers + 2,
                        [&](Team& team) { pass(team, step, inputs, out, caches, b); });
    }

    // The same, and of the rows that are `wanted`: their logits (wanted, vocabulary) float32, and the token of each's
    // largest; -1 where there is no finite one, or a NaN. `allowed`: null, or for each wanted row null or a bit a token:
    // the largest of these.
    void decode(const Step& step, const void* inputs, void* out, void* const* caches, const Wanted& wanted) {
        if (wanted.count == 0) return forward(step, inputs, out, caches);
        const Matrix& head = shape_.head;
        Buffers b = buffers(step);
        const Rows rows = rows_in(arena_, head, wanted.count);
        Pool::the().run(shape_.threads, STAGES * shape_.layers + 5, [&](Team& team) {
            pass(team, step, inputs, out, caches, b);
            each_row(team, wanted.count, [&](long i) {
                const long row = wanted.rows[i];
                float* from = b.hidden + row * shape_.hidden;  // rounded as a caller who asks for logits alone gets it
                read_row(out, shape_.cache_type, row * shape_.hidden, shape_.hidden, from);
                put_row(head, rows, i, from);
            });
            multiply(team, head, rows, wanted.count, copier(wanted.logits, head.outputs));
            each_row(team, wanted.count, [&](long i) {
                const uint32_t* bits = wanted.allowed ? wanted.allowed[i] : nullptr;
                wanted.likeliest[i] = largest_at(wanted.logits + i * head.outputs, head.outputs, bits);
            });
        });
    }

  private:
    struct Buffers {
        float *hidden, *qkv, *attended, *inner;
        Rows normed_rows, attended_rows, inner_rows;
        std::vector<Item> items;
    };

    Buffers buffers(const Step& step) {
        const Layer& first = layers_[0];
        const long tokens = step.tokens, queries = shape_.heads * shape_.dim;
        const long floats = shape_.hidden + first.qkv.outputs + queries + shape_.inner;
        arena_.reset(tokens * floats * 4 + rows_bytes(first.qkv, tokens) + rows_bytes(first.output, tokens) +
                     rows_bytes(first.down, tokens) + (shape_.head.data ? rows_bytes(shape_.head, tokens) : 0) + 8192);
        const auto take = [&](long width) { return reinterpret_cast<float*>(arena_.take(tokens * width * 4)); };
        Buffers b;
        b.hidden = take(shape_.hidden), b.qkv = take(first.qkv.outputs);
        b.attended = take(queries), b.inner = take(shape_.inner);
        b.normed_rows = rows_in(arena_, first.qkv, tokens);
        b.attended_rows = rows_in(arena_, first.output, tokens);
        b.inner_rows = rows_in(arena_, first.down, tokens);
        b.items = items_of(step, heads_of(first), shape_.threads);
        return b;
    }

    void pass(Team& team, const Step& step, const void* inputs, void* out, void* const* caches, Buffers& b) {
        each_row(team, step.tokens, [&](long row) {
            float* to = b.hidden + row * shape_.hidden;
            if (shape_.embed.data) unpack_row(shape_.embed, static_cast<const int64_t*>(inputs)[row], to);
            else read_row(inputs, shape_.cache_type, row * shape_.hidden, shape_.hidden, to);
        });
        for (size_t i = 0; i < layers_.size(); i++) layer(team, layers_[i], step, b, caches[i]);
        each_row(team, step.tokens, [&](long row) {
            float* from = b.hidden + row * shape_.hidden;
            if (shape_.norm) rms_norm(from, shape_.norm, shape_.hidden, shape_.eps, from);
            write_row(out, shape_.cache_type, row * shape_.hidden, from, shape_.hidden);
        });
    }

    Heads heads_of(const Layer& layer) const {
        return {shape_.heads, shape_.kv_heads, shape_.dim, layer.window, shape_.scale, shape_.cache_type};
    }

    template <class Work> static void each_row(Team& team, long rows, Work&& work) {
        team.share(rows, std::max(1L, rows / (team.size * 4)), [&](long from, long to) {
            for (long row = from; row < to; row++) work(row);
        });
    }

    void layer(Team& team, const Layer& l, const Step& step, Buffers& b, void* cache_data) {
        const Heads heads = heads_of(l);
        const Cache cache(cache_data, step, heads);
        const long tokens = step.tokens, hidden = shape_.hidden, queries = shape_.heads * shape_.dim;
        const auto add = [&](long row, long height, long column, long width, const float* tile) {
            for (long r = 0; r < height; r++)
                for (long c = 0; c < width; c++) b.hidden[(row + r) * hidden + column + c] += tile[r * PANEL + c];
        };
        normed(team, l.qkv, l.attention_norm, tokens, b);
        multiply(team, l.qkv, b.normed_rows, tokens, copier(b.qkv, l.qkv.outputs));
        each_row(team, tokens, [&](long row) { turn_and_store(l, step, cache, row, b.qkv + row * l.qkv.outputs); });
        attend(
            team, step, heads, cache, b.items,
            [&](long row, long head, float* out) {
                const float* from = b.qkv + row * l.qkv.outputs + head * shape_.dim;
                for (long i = 0; i < shape_.dim; i += LANES) store(out + i, load(from + i, shape_.dim - i));
            },
            [&](long row, long head, const float* out) {
                if (l.output.whole_numbers()) memcpy(b.attended + row * queries + head * shape_.dim, out, shape_.dim * 4);
                else put_part(l.output, b.attended_rows, row, head * shape_.dim, out, shape_.dim);
            });
        if (l.output.whole_numbers())
            each_row(team, tokens, [&](long row) { put_row(l.output, b.attended_rows, row, b.attended + row * queries); });
        multiply(team, l.output, b.attended_rows, tokens, add);
        normed(team, l.gate_up, l.mlp_norm, tokens, b);
        if (l.down.whole_numbers()) {
            multiply_gated(team, l.gate_up, b.normed_rows, tokens, copier(b.inner, shape_.inner));
            each_row(team, tokens, [&](long row) { put_row(l.down, b.inner_rows, row, b.inner + row * shape_.inner); });
        } else {
            multiply_gated(team, l.gate_up, b.normed_rows, tokens,
                           [&](long row, long height, long column, long width, const float* tile) {
                               for (long r = 0; r < height; r++)
                                   put_part(l.down, b.inner_rows, row + r, column, tile + r * PANEL, width);
                           });
        }
        multiply(team, l.down, b.inner_rows, tokens, add);
    }

    void normed(Team& team, const Matrix& target, const float* weight, long tokens, Buffers& b) const {
        each_row(team, tokens, [&](long row) {
            float scratch[shape_.hidden];
            rms_norm(b.hidden + row * shape_.hidden, weight, shape_.hidden, shape_.eps, scratch);
            put_row(target, b.normed_rows, row, scratch);
        });
    }

    // Head norms and rotation in place, queries scaled; keys and values into the cache.
    void turn_and_store(const Layer& l, const Step& step, const Cache& cache, long row, float* qkv) const {
        const long dim = shape_.dim, heads = shape_.heads, turned = heads + shape_.kv_heads;
        const float* cos = shape_.cos + step.positions[row] * dim;
        const float* sin = shape_.sin + step.positions[row] * dim;
        for (long head = 0; head < turned; head++) {
            float* x = qkv + head * dim;
            const float* norm = head < heads ? l.query_norm : l.key_norm;
            if (norm) rms_norm(x, norm, dim, shape_.eps, x);
            rotate(x, cos, sin, dim);
            if (head < heads)
                for (long i = 0; i < dim; i++) x[i] *= shape_.scale;
        }
        cache.put(false, step.slots[row], qkv + heads * dim);
        cache.put(true, step.slots[row], qkv + turned * dim);
    }

    Shape shape_;
    std::vector<Layer> layers_;
    Arena arena_;
};

}  // namespace sage
