// A weight matrix in the one layout that serves one row and many: panels of 32 outputs, inputs running down the panel.
//
// float32   a step is 1 input:  32 outputs x 4 bytes
// bfloat16  a step is 2 inputs: 32 outputs x 2 x 2 bytes
// int8      a step is 4 inputs: 32 outputs x 4 bytes (weight + 128); 32 float32 scales before every 128 inputs
// int4      a step is 4 inputs: 16 outputs x 4 bytes, outputs 0-15 in the low nibbles (weight + 8), 16-31 in the high
//           ones; 32 float32 scales before every 64 inputs
//
// compact   bfloat16 in 12 bits; see compact.h
//
// A panel is read from its first byte to its last, so one row streams at the memory's speed, and many rows find it in
// the cache.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "vec.h"

namespace sage {

enum Type : int32_t { F32 = 0, BF16 = 1, I8 = 2, I4 = 3, COMPACT = 4 };

constexpr long PANEL = 32;
constexpr long SCALES_BYTES = PANEL * 4;
constexpr long MOST_GROUP = 128;
constexpr long COMPACT_HEADER = 64, COMPACT_STEPS = 192;  // bytes of a panel's header, and of two steps
constexpr long AHEAD = 6144;  // bytes between what is read and what is asked of the memory

struct Matrix {
    int32_t type;
    int32_t reserved;
    int64_t outputs, inputs;
    char* data;
    const float* bias;  // (outputs,) or null

    bool whole_numbers() const { return type == I8 || type == I4; }
    long group() const { return type == I8 ? 128 : 64; }  // inputs that share a scale
    long step_bytes() const { return type == I4 ? 64 : 128; }
    long group_bytes() const { return SCALES_BYTES + group() / 4 * step_bytes(); }
    long panels() const { return (outputs + PANEL - 1) / PANEL; }
    long groups() const { return (inputs + group() - 1) / group(); }
    long steps() const { return type == F32 ? inputs : (inputs + 1) / 2; }
    long panel_bytes() const {
        if (type == COMPACT) return COMPACT_HEADER + steps() / 2 * COMPACT_STEPS;
        return whole_numbers() ? groups() * group_bytes() : steps() * step_bytes();
    }
    char* panel(long index) const { return data + index * panel_bytes(); }

    // Bytes of one row of activations for this matrix.
    long row_bytes() const { return whole_numbers() ? groups() * group() : steps() * 4; }
};

// Rows of activations as a matrix takes them. For whole-number weights: signed bytes, and for each group its scale and
// the sum of its bytes (which takes out what the weights are offset by).
struct Rows {
    char* data = nullptr;
    float* scales = nullptr;
    int32_t* totals = nullptr;
    long stride = 0;  // bytes from row to row: an odd number of cache lines, so that rows do not evict each other
    long groups = 0;

    static long stride_for(long row_bytes) { return ((row_bytes + 63) / 64 | 1) * 64; }
};

// 32 rows of 32-bit units (source, `units` each) to `units` steps of 32.
static inline void turn(const uint32_t* source, long rows, long source_stride, long units, uint32_t* target) {
    constexpr long BLOCK = 16;
    for (long at = 0; at < units; at += BLOCK) {
        long end = at + BLOCK < units ? at + BLOCK : units;
        for (long row = 0; row < PANEL; row++)
            for (long unit = at; unit < end; unit++)
                target[unit * PANEL + row] = row < rows ? source[row * source_stride + unit] : 0;
    }
}

static inline float element(const void* source, int type, long index) {
    if (type == F32) return static_cast<const float*>(source)[index];
    return widen(static_cast<const uint16_t*>(source)[index]);
}

// Symmetric; returns the scale. int4 gives the largest value the code -8, which has no positive twin.
static inline float quantise_group(const float* values, long count, int type, uint8_t* out) {
    float most = 0;
    for (long i = 0; i < count; i++)
        if (std::fabs(values[i]) > std::fabs(most)) most = values[i];
    float scale = type == I8 ? std::fabs(most) / 127.0f : most / -8.0f;
    float inverse = scale != 0 ? 1.0f / scale : 0.0f;
    int low = type == I8 ? -127 : -8, high = type == I8 ? 127 : 7, offset = type == I8 ? 128 : 8;
    for (long i = 0; i < count; i++)
        out[i] = uint8_t(std::min(high, std::max(low, int(std::nearbyint(values[i] * inverse)))) + offset);
    return scale;
}

static inline void pack_panel_whole(const Matrix& m, long panel, const void* source, int source_type) {
    const long size = m.group();
    float values[MOST_GROUP];
    char* at = m.panel(panel);
    for (long group = 0; group < m.groups(); group++, at += m.group_bytes()) {
        uint8_t* body = reinterpret_cast<uint8_t*>(at + SCALES_BYTES);
        memset(body, 0, m.group_bytes() - SCALES_BYTES);
        for (long column = 0; column < PANEL; column++) {
            uint8_t codes[MOST_GROUP];
            memset(codes, m.type == I8 ? 128 : 8, sizeof codes);
            long output = panel * PANEL + column, first = group * size;
            long count = output < m.outputs ? std::min(size, long(m.inputs) - first) : 0;
            for (long i = 0; i < count; i++) values[i] = element(source, source_type, output * m.inputs + first + i);
            float scale = quantise_group(values, count, m.type, codes);
            keep(at + column * 4, scale);
            for (long i = 0; i < size; i++) {
                uint8_t* step = body + (i / 4) * m.step_bytes() + i % 4;
                if (m.type == I8) step[column * 4] = codes[i];
                else step[column % 16 * 4] |= uint8_t(codes[i] << (column / 16 * 4));
            }
        }
    }
}

// From rows (outputs, inputs) of `source_type`. float32 and bfloat16 may be packed in place where panels are whole.
static inline void pack_panel(const Matrix& m, long panel, const void* source, int source_type) {
    if (m.whole_numbers()) return pack_panel_whole(m, panel, source, source_type);
    const long width = m.type == F32 ? 4 : 2, rows = std::min(PANEL, long(m.outputs) - panel * PANEL);
    std::vector<uint32_t> copy(PANEL * m.steps(), 0);
    const char* from = static_cast<const char*>(source) + panel * PANEL * m.inputs * width;
    for (long row = 0; row < rows; row++)
        memcpy(copy.data() + row * m.steps(), from + row * m.inputs * width, m.inputs * width);
    turn(copy.data(), rows, m.steps(), m.steps(), reinterpret_cast<uint32_t*>(m.panel(panel)));
}

// One row of the matrix, which is not a compact one, as it was before packing.
static inline void unpack_row_plain(const Matrix& m, long row, float* out) {
    const char* at = m.panel(row / PANEL);
    const long column = row % PANEL, size = m.group();
    for (long i = 0; i < m.inputs; i++) {
        if (m.type == F32) {
            out[i] = fetch<float>(at + i * 128 + column * 4);
        } else if (m.type == BF16) {
            out[i] = widen(fetch<uint16_t>(at + (i / 2) * 128 + column * 4 + (i % 2) * 2));
        } else {
            const char* group = at + (i / size) * m.group_bytes();
            const char* step = group + SCALES_BYTES + (i % size / 4) * m.step_bytes() + i % 4;
            float scale = fetch<float>(group + column * 4);
            if (m.type == I8) out[i] = scale * (int(uint8_t(step[column * 4])) - 128);
            else out[i] = scale * (((uint8_t(step[column % 16 * 4]) >> (column / 16 * 4)) & 15) - 8);
        }
    }
}

static inline void put_row_whole(const Matrix& m, const Rows& rows, long row, const float* from) {
    const long size = m.group();
    int8_t* to = reinterpret_cast<int8_t*>(rows.data + row * rows.stride);
    for (long group = 0; group < m.groups(); group++, from += size, to += size) {
        alignas(64) float values[MOST_GROUP] = {};
        memcpy(values, from, std::min(size, long(m.inputs) - group * size) * 4);
        V most = {};
        for (long i = 0; i < size; i += LANES) {
            V value = load(values + i);
            most = larger(most, larger(value, -value));
        }
        float top = largest(most);
        V inverse = spread(top > 0 ? 127.0f / top : 0.0f);
        VI total = {};
        for (long i = 0; i < size; i += LANES) {
            VI code = __builtin_convertvector(round_even(load(values + i) * inverse), VI);
            total += code;
            keep(to + i, __builtin_convertvector(code, VC));
        }
        rows.scales[row * rows.groups + group] = top / 127.0f;
        int32_t sum_of_codes = 0;
        for (int lane = 0; lane < LANES; lane++) sum_of_codes += total[lane];
        rows.totals[row * rows.groups + group] = sum_of_codes;
    }
}

// A row of float32 activations into the form that `m` takes; `inputs` are padded with zeros to whole steps.
static inline void put_row(const Matrix& m, const Rows& rows, long row, const float* from) {
    char* to = rows.data + row * rows.stride;
    const long count = m.inputs, whole = count / LANES * LANES;
    if (m.whole_numbers()) return put_row_whole(m, rows, row, from);
    if (m.type == F32) {
        memcpy(to, from, count * 4);
        return;
    }
    uint16_t* half = reinterpret_cast<uint16_t*>(to);
    for (long i = 0; i < whole; i += LANES) store(half + i, load(from + i), LANES);
    if (whole < count) store(half + whole, load(from + whole, count - whole), m.steps() * 2 - whole);
}

// A part of a row, from `column` on; not for whole-number weights, whose groups have to be complete.
static inline void put_part(const Matrix& m, const Rows& rows, long row, long column, const float* from, long count) {
    char* to = rows.data + row * rows.stride + column * (m.type == F32 ? 4 : 2);
    if (m.type == F32) {
        memcpy(to, from, count * 4);
        return;
    }
    uint16_t* half = reinterpret_cast<uint16_t*>(to);
    for (long i = 0; i < count; i += LANES) store(half + i, load(from + i, count - i), count - i);
}

}  // namespace sage
