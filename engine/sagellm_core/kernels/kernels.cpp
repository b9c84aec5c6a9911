// The plain C face of the kernels: raw pointers in, nothing thrown out. Compiled on first use; see layers/cpu/library.py.
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "decoder.h"

using namespace sage;

namespace {

V read(const void* from, int type, long index, long count) {
    if (type == F32) return load(static_cast<const float*>(from) + index, count);
    return widen(static_cast<const uint16_t*>(from) + index, count);
}

constexpr long RELEASED = 4 << 20;  // bytes that are given back at once

// The whole pages of some memory, whose content is lost.
void give_back(const char* from, long bytes) {
#if defined(__linux__)
    const uintptr_t page = sysconf(_SC_PAGESIZE), at = reinterpret_cast<uintptr_t>(from);
    const uintptr_t first = (at + page - 1) / page * page, last = (at + bytes) / page * page;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#else
    (void)from, (void)bytes;
#endif
}

template <class Body> int guarded(Body&& body) {
    try {
        body();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    } catch (...) {
        return 2;
    }
}

}  // namespace

extern "C" {

// What the compiled code was made for: 1 AVX-512, 2 bfloat16 products, 4 int8 products.
int sage_features() {
    int features = 0;
#if defined(__AVX512F__)
    features |= 1;
#endif
#if defined(__AVX512BF16__)
    features |= 2;
#endif
#if defined(__AVX512VNNI__)
    features |= 4;
#endif
    return features;
}

// Without what a compact matrix has in its list.
int64_t sage_matrix_bytes(const Matrix* m) { return m->panels() * m->panel_bytes(); }

// Bytes of a compact matrix from rows (outputs, inputs) of bfloat16; 0 where it cannot be one, or saves too little.
int64_t sage_compact_bytes(const Matrix* m, const void* source, int threads) {
    if (m->inputs % 4) return 0;
    std::atomic<long> outside{0};
    Pool::the().run(threads, 1, [&](Team& team) {
        team.share(m->panels(), 1, [&](long from, long to) {
            for (long panel = from; panel < to; panel++) {
                const uint16_t* rows = static_cast<const uint16_t*>(source) + panel * PANEL * m->inputs;
                outside += Exponents(rows, std::min(PANEL, long(m->outputs) - panel * PANEL), m->inputs, m->inputs).outside;
            }
        });
    });
    if (outside > m->outputs * m->inputs / 64) return 0;
    return m->panels() * m->panel_bytes() + outside * long(sizeof(Odd));
}

// From rows (outputs, inputs) of float32 or bfloat16. `release`: the source of a compact matrix, which nobody will read
// again, is given back to the system while it is packed.
int sage_pack(const Matrix* m, const void* source, int source_type, int release, int threads) {
    return guarded([&] {
        std::atomic<long> listed{0};
        const long bytes = PANEL * m->inputs * 2, piece = m->type == COMPACT ? std::max(1L, RELEASED / bytes) : 1;
        Pool::the().run(threads, 2, [&](Team& team) {
            team.share(m->panels(), piece, [&](long from, long to) {
                for (long panel = from; panel < to; panel++) {
                    if (m->type == COMPACT) pack_panel_compact(*m, panel, source, listed);
                    else pack_panel(*m, panel, source, source_type);
                }
                const long last = std::min(to * bytes, long(m->outputs * m->inputs * 2));
                if (release && m->type == COMPACT) give_back(static_cast<const char*>(source) + from * bytes, last - from * bytes);
            });
        });
    });
}

// out (count, inputs) float32 = the rows `ids` of the matrix as it was before packing.
int sage_embed(const Matrix* m, const int64_t* ids, int64_t count, float* out, int threads) {
    return guarded([&] {
        Pool::the().run(count < 8 ? 1 : threads, 1, [&](Team& team) {
            team.share(count, 1, [&](long from, long to) {
                for (long i = from; i < to; i++) unpack_row(*m, ids[i], out + i * m->inputs);
            });
        });
    });
}

// out (rows, outputs) = x (rows, inputs) @ matrix + bias; x and out float32 or bfloat16.
int sage_linear(const Matrix* m, const void* x, int x_type, int64_t x_stride, int64_t rows, void* out, int out_type,
                int threads) {
    return guarded([&] {
        static thread_local Arena arena;
        arena.reset(rows_bytes(*m, rows) + 1024);
        const Rows taken = rows_in(arena, *m, rows);
        Pool::the().run(threads, 2, [&](Team& team) {
            team.share(rows, std::max(1L, long(rows) / (team.size * 4)), [&](long from, long to) {
                std::vector<float> row(m->inputs);
                for (long i = from; i < to; i++) {
                    read_row(x, x_type, i * x_stride, m->inputs, row.data());
                    put_row(*m, taken, i, row.data());
                }
            });
            multiply(team, *m, taken, rows, [&](long row, long height, long column, long width, const float* tile) {
                for (long r = 0; r < height; r++)
                    write_row(out, out_type, (row + r) * m->outputs + column, tile + r * PANEL, width);
            });
        });
    });
}

// Store keys and values (tokens, kv_heads, dim), then attend with queries (tokens, heads, dim); one type for all.
int sage_attend(const Step* step, const Heads* heads, const void* query, const void* key, const void* value, void* out,
                int type, void* cache_data, int threads) {
    return guarded([&] {
        const Cache cache(cache_data, *step, *heads);
        const std::vector<Item> items = items_of(*step, *heads, threads);
        const long dim = heads->dim, width = heads->kv_heads * dim;
        Pool::the().run(threads, 2, [&](Team& team) {
            team.share(step->tokens, std::max(1L, long(step->tokens) / (team.size * 4)), [&](long from, long to) {
                std::vector<float> row(width);
                for (long i = from; i < to; i++) {
                    read_row(key, type, i * width, width, row.data());
                    cache.put(false, step->slots[i], row.data());
                    read_row(value, type, i * width, width, row.data());
                    cache.put(true, step->slots[i], row.data());
                }
            });
            attend(
                team, *step, *heads, cache, items,
                [&](long row, long head, float* to) {
                    for (long i = 0; i < dim; i += LANES)
                        store(to + i, read(query, type, (row * heads->heads + head) * dim + i, dim - i) * heads->scale);
                },
                [&](long row, long head, const float* from) {
                    write_row(out, type, (row * heads->heads + head) * dim, from, dim);
                });
        });
    });
}

void* sage_decoder_new(const Shape* shape, const Layer* layers) { return new (std::nothrow) Decoder(*shape, layers); }

void sage_decoder_free(void* decoder) { delete static_cast<Decoder*>(decoder); }

int sage_decoder_forward(void* decoder, const Step* step, const void* inputs, void* out, void* const* caches) {
    return guarded([&] { static_cast<Decoder*>(decoder)->forward(*step, inputs, out, caches); });
}

int sage_decoder_decode(void* decoder, const Step* step, const void* inputs, void* out, void* const* caches,
                        const Wanted* wanted) {
    return guarded([&] { static_cast<Decoder*>(decoder)->decode(*step, inputs, out, caches, *wanted); });
}

}  // extern "C"
