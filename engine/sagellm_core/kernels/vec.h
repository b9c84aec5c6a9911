// Sixteen lanes at a time, in the compiler's own vector types: right on every CPU, fast where AVX-512 is.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sage {

constexpr int LANES = 16;
typedef float V __attribute__((vector_size(64)));
typedef int32_t VI __attribute__((vector_size(64)));
typedef uint32_t VU __attribute__((vector_size(64)));
typedef uint16_t VH __attribute__((vector_size(32)));
typedef int8_t VC __attribute__((vector_size(16)));

template <class T> static inline T fetch(const void* from) {
    T value;
    memcpy(&value, from, sizeof(T));
    return value;
}
template <class T> static inline void keep(void* to, const T& value) { memcpy(to, &value, sizeof(T)); }

static inline V load(const float* from) { return fetch<V>(from); }
static inline void store(float* to, V value) { keep(to, value); }
static inline V spread(float value) { return V{} + value; }

// The first `count` lanes, the others zero.
static inline V load(const float* from, long count) {
    if (count >= LANES) return load(from);
    V value = {};
    memcpy(&value, from, count * 4);
    return value;
}
static inline void store(float* to, V value, long count) {
    if (count >= LANES) return store(to, value);
    memcpy(to, &value, count * 4);
}

static inline void touch(const void* address) { __builtin_prefetch(address, 0, 3); }

// bfloat16 is the upper half of a float32.
static inline float widen(uint16_t half) {
    uint32_t bits = uint32_t(half) << 16;
    return fetch<float>(&bits);
}
static inline V widen(const uint16_t* from) { return V(__builtin_convertvector(fetch<VH>(from), VU) << 16); }

static inline V widen(const uint16_t* from, long count) {
    if (count >= LANES) return widen(from);
    VH value = {};
    memcpy(&value, from, count * 2);
    return V(__builtin_convertvector(value, VU) << 16);
}

// To the nearest, ties to even; NaN stays NaN.
static inline VH narrow(V value) {
#if defined(__AVX512BF16__)
    return VH(_mm512_cvtneps_pbh(__m512(value)));
#else
    VU bits = VU(value);
    VU rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    VU nan = (bits >> 16) | 0x40;
    VI is_nan = value != value;
    return __builtin_convertvector((VU(is_nan) & nan) | (~VU(is_nan) & rounded), VH);
#endif
}

static inline void store(uint16_t* to, V value, long count) {
    const VH half = narrow(value);
    if (count >= LANES) return keep(to, half);
    memcpy(to, &half, count * 2);
}

static inline V larger(V a, V b) { return a > b ? a : b; }

static inline float sum(V v) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) v[i] += v[i + width];
    return v[0];
}
static inline float largest(V v) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) v[i] = v[i] > v[i + width] ? v[i] : v[i + width];
    return v[0];
}

static inline V round_even(V v) {
    const V magic = spread(12582912.0f);  // 1.5 * 2^23: adding it leaves no bits for a fraction
    return (v + magic) - magic;
}

// e^x to about 1 unit in the last place (Cephes' polynomial); exactly 0 below -87, so that masked keys count nothing.
static inline V exponential(V x) {
    const V low = spread(-87.0f), high = spread(88.0f);
    VI gone = x < low;
    V at = x < low ? low : x > high ? high : x;
    VI n = __builtin_convertvector(at * 1.44269504088896341f + (at < V{} ? spread(-0.5f) : spread(0.5f)), VI);
    V whole = __builtin_convertvector(n, V);
    V r = (at - whole * 0.693359375f) + whole * 2.12194440e-4f;
    V p = spread(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    V result = p * V((n + 127) << 23);
    return gone ? V{} : result;
}

static inline V silu(V x) { return x / (1.0f + exponential(-x)); }

}  // namespace sage
