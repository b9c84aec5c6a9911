// bfloat16 in twelve bits, without loss: weights of one matrix have few different exponents, so four bits say which of 16
// neighbouring ones it is (the observation of Zhang et al. 2025, "70% Size, 100% Accuracy: Lossless LLM Compression",
// with a code of fixed length that vectors unpack). Weights outside the panel's 16 exponents stand in a list.
//
// A panel: a header of 64 bytes, then 192 bytes for every two steps (4 inputs, 32 outputs). Unpacked these are four
// vectors of 32 weights; their signs and mantissas lie in two vectors, their exponents in one. The list lies behind the
// last panel.
#pragma once
#include <atomic>

#include "matrix.h"

namespace sage {

typedef uint16_t VW __attribute__((vector_size(64)));

struct Odd {
    uint32_t at;  // the weight's place in the panel as it is unpacked
    uint16_t value, unused;
};

struct CompactHeader {
    uint32_t base, count;  // the lowest of the 16 exponents; weights in the list
    uint64_t first;        // where the panel's part of the list begins, from the header on
    char unused[48];
};
static_assert(sizeof(CompactHeader) == COMPACT_HEADER, "a panel's header is one cache line");

constexpr uint16_t SIGN_AND_MANTISSA = 0x807f, CODE = 0x0780;

static inline VW swap_bytes(VW v) {
#if defined(__AVX512VBMI2__)
    return VW(_mm512_shldi_epi16(__m512i(v), __m512i(v), 8));
#else
    return v << 8 | v >> 8;
#endif
}

// The first of 16 exponents that hold the most weights, and how many lie outside.
struct Exponents {
    uint32_t base = 0;
    long outside = 0;

    Exponents(const uint16_t* weights, long rows, long row_stride, long inputs) {
        uint32_t counts[2][256] = {};  // two, so that equal neighbours do not wait for each other
        for (long row = 0; row < rows; row++)
            for (long i = 0; i < inputs; i++) counts[i & 1][weights[row * row_stride + i] >> 7 & 255]++;
        long inside = 0, most = -1;
        for (int e = 0; e < 256; e++) {
            inside += counts[0][e] + counts[1][e];
            if (e >= 16) inside -= counts[0][e - 16] + counts[1][e - 16];
            if (inside > most) most = inside, base = std::max(0, e - 15);
        }
        outside = rows * inputs - most;
    }
};

// From rows (outputs, inputs) of bfloat16. `taken` counts the list's entries over all panels.
static inline void pack_panel_compact(const Matrix& m, long panel, const void* source, std::atomic<long>& taken) {
    const long rows = std::min(PANEL, long(m.outputs) - panel * PANEL), steps = m.steps();
    const uint16_t* from = static_cast<const uint16_t*>(source) + panel * PANEL * m.inputs;
    const Exponents exponents(from, rows, m.inputs, m.inputs);
    std::vector<uint32_t> plain(PANEL * steps), copy(PANEL * steps);
    memcpy(copy.data(), from, rows * m.inputs * 2);
    turn(copy.data(), rows, steps, steps, plain.data());
    const long first = taken.fetch_add(exponents.outside);
    char* at = m.panel(panel);
    const uint64_t list = m.data + m.panels() * m.panel_bytes() + first * sizeof(Odd) - at;
    keep(at, CompactHeader{exponents.base, uint32_t(exponents.outside), list, {}});
    Odd* odd = reinterpret_cast<Odd*>(at + list);
    const uint16_t* weights = reinterpret_cast<const uint16_t*>(plain.data());
    at += COMPACT_HEADER;
    for (long step = 0; step < steps; step += 2, weights += 128, at += COMPACT_STEPS) {
        uint16_t to[96] = {};
        for (long i = 0; i < 128; i++) {
            const long vector = i / 32, lane = i % 32;
            uint32_t code = (weights[i] >> 7 & 255) - exponents.base, rest = weights[i] & SIGN_AND_MANTISSA;
            if (code > 15) {  // also what stands beside the last output: that is nothing
                if (i / 2 % PANEL < rows) *odd++ = {uint32_t(step * 64 + i), weights[i], 0};
                code = 0;
            }
            constexpr int places[] = {7, 11, 3, 15};
            to[vector / 2 * 32 + lane] |= vector % 2 ? rest << 8 | rest >> 8 : rest;
            to[64 + lane] |= code << places[vector] | code << places[vector] >> 16;
        }
        memcpy(at, to, sizeof to);
    }
}

// Two steps of a panel: four vectors of 32 weights, as bfloat16 panels have them.
static inline void unpack_steps(const char* at, VW base, VW (&to)[4]) {
    const VW low = VW{} + CODE, rest = VW{} + SIGN_AND_MANTISSA;
    const VW first = fetch<VW>(at), second = fetch<VW>(at + 64), codes = fetch<VW>(at + 128);
    to[0] = (first & rest) | ((codes & low) + base);
    to[1] = (swap_bytes(first) & rest) | ((codes >> 4 & low) + base);
    to[2] = (second & rest) | ((codes << 4 & low) + base);
    to[3] = (swap_bytes(second) & rest) | ((swap_bytes(codes) & low) + base);
}

static inline void unpack_steps(const char* at, VW base, char* to) {
    VW weights[4];
    for (int line = 0; line < 3; line++) touch(at + AHEAD + line * 64);
    unpack_steps(at, base, weights);
    for (int i = 0; i < 4; i++) keep(to + i * 64, weights[i]);
}

// A panel from its beginning on, some steps (an even number) at a time.
class Unpacker {
  public:
    Unpacker(const Matrix& m, long panel) {
        const char* start = m.panel(panel);
        const CompactHeader header = fetch<CompactHeader>(start);
        base = VW{} + uint16_t(header.base << 7);
        odd_ = reinterpret_cast<const Odd*>(start + header.first);
        end_ = odd_ + header.count;
        at = start + COMPACT_HEADER;
    }

    VW base;
    const char* at;  // where the next step is

    // Whether none of the next steps' weights is in the list.
    bool regular(long steps) const { return odd_ == end_ || odd_->at >= done_ + steps * 64; }

    // Into `to`, 128 bytes a step.
    void unpack(long steps, char* to) {
        const char* from = at;
        for (long step = 0; step < steps; step += 2, from += COMPACT_STEPS) unpack_steps(from, base, to + step * 128);
        pass(steps, to);
    }

    // The next steps have been unpacked to `to` but for those in the list, of which there is none where `to` is null.
    void pass(long steps, char* to) {
        for (; to && !regular(steps); odd_++) keep(to + 2 * (odd_->at - done_), odd_->value);
        at += steps / 2 * COMPACT_STEPS;
        done_ += steps * 64;
    }

  private:
    const Odd *odd_, *end_;
    long done_ = 0;
};

static inline uint16_t compact_element(const Matrix& m, long output, long input) {
    const long column = output % PANEL, vector = input / 2 % 2 * 2 + column / 16, lane = column % 16 * 2 + input % 2;
    const char* panel = m.panel(output / PANEL);
    const CompactHeader header = fetch<CompactHeader>(panel);
    const char* at = panel + COMPACT_HEADER + input / 4 * COMPACT_STEPS + lane * 2;
    const uint32_t pair = fetch<uint16_t>(at + vector / 2 * 64), codes = fetch<uint16_t>(at + 128);
    constexpr int places[] = {7, 11, 3, 15};
    const uint32_t rest = vector % 2 ? (pair << 8 | pair >> 8) : pair;
    const uint32_t code = (codes | codes << 16) >> places[vector] & 15;
    return uint16_t((rest & SIGN_AND_MANTISSA) | (code + header.base) << 7);
}

// One row of the matrix as it was before packing.
static inline void unpack_row_compact(const Matrix& m, long row, float* out) {
    for (long i = 0; i < m.inputs; i++) out[i] = widen(compact_element(m, row, i));
    const CompactHeader header = fetch<CompactHeader>(m.panel(row / PANEL));
    const Odd* odd = reinterpret_cast<const Odd*>(m.panel(row / PANEL) + header.first);
    for (const Odd* end = odd + header.count; odd < end; odd++)
        if (odd->at / 2 % PANEL == row % PANEL) out[odd->at / 64 * 2 + odd->at % 2] = widen(odd->value);
}

// The same of any matrix: an embedding.
static inline void unpack_row(const Matrix& m, long row, float* out) {
    m.type == COMPACT ? unpack_row_compact(m, row, out) : unpack_row_plain(m, row, out);
}

}  // namespace sage
