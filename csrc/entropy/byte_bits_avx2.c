/* byte_bits_avx2.c: the bits of a byte with the vectors of x86-64.
 *
 * What eight contexts say, weigh and learn is done at once; the ninth context and the
 * match go their own way.  Looking up histories stays with the general registers, for
 * gathering is slower than single loads where each lane leads elsewhere. */
#include "byte_bits.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define WIDE 8u

/* The inputs of the mixer in its order: eight and four. */
typedef struct mixed_inputs {
    __m256i eight;
    __m128i four;
} mixed_inputs;

/* What is known of the first eight contexts for one bit. */
typedef struct eight_contexts {
    __m256i words;   /* adaptive words of their histories, all ones for none */
    __m256i nothing; /* a lane of ones where nothing was seen */
    __m256i says;    /* stretched, 0 where nothing was seen */
} eight_contexts;

AVX2 static ALWAYS_INLINE __m256i eight_of(const int32_t v[WIDE]) {
    return _mm256_set_epi32(v[7], v[6], v[5], v[4], v[3], v[2], v[1], v[0]);
}

AVX2 static ALWAYS_INLINE eight_contexts look(const bspi_byte_model *model, uint32_t slots,
                                              const uint32_t *histories) {
    int32_t words[WIDE], says[WIDE];
    for (uint32_t i = 0; i < WIDE; i++) {
        uint32_t word = i < slots ? model->maps[i][histories[i]] : NOTHING;
        words[i] = (int32_t)word;
        says[i] = i < slots ? bspi_stretch(&model->logistic, word >> 16) : 0;
    }
    eight_contexts c = {.words = eight_of(words)};
    c.nothing = _mm256_cmpeq_epi32(c.words, _mm256_set1_epi32(-1));
    c.says = _mm256_andnot_si256(c.nothing, eight_of(says));
    return c;
}

AVX2 static ALWAYS_INLINE int32_t weigh(const mixed_inputs *inputs, const int32_t *weights) {
    __m256i eight = _mm256_mullo_epi32(
        inputs->eight, _mm256_loadu_si256((const __m256i *)(const void *)weights));
    __m128i four = _mm_mullo_epi32(
        inputs->four, _mm_loadu_si128((const __m128i *)(const void *)(weights + WIDE)));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    sum = _mm_add_epi32(sum, four);
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return _mm_cvtsi128_si32(sum);
}

AVX2 static ALWAYS_INLINE void learn_weights(const mixed_inputs *inputs, int32_t *weights,
                                             int32_t error, unsigned shift) {
    __m128i down = _mm_cvtsi32_si128((int32_t)shift);
    int32_t half = 1 << (shift - 1);
    __m256i step = _mm256_mullo_epi32(inputs->eight, _mm256_set1_epi32(error));
    step = _mm256_sra_epi32(_mm256_add_epi32(step, _mm256_set1_epi32(half)), down);
    __m256i eight = _mm256_loadu_si256((const __m256i *)(const void *)weights);
    eight = _mm256_min_epi32(_mm256_add_epi32(eight, step), _mm256_set1_epi32(WEIGHT_MAX));
    eight = _mm256_max_epi32(eight, _mm256_set1_epi32(-WEIGHT_MAX));
    _mm256_storeu_si256((__m256i *)(void *)weights, eight);
    __m128i less = _mm_mullo_epi32(inputs->four, _mm_set1_epi32(error));
    less = _mm_sra_epi32(_mm_add_epi32(less, _mm_set1_epi32(half)), down);
    __m128i four = _mm_loadu_si128((const __m128i *)(const void *)(weights + WIDE));
    four = _mm_min_epi32(_mm_add_epi32(four, less), _mm_set1_epi32(WEIGHT_MAX));
    four = _mm_max_epi32(four, _mm_set1_epi32(-WEIGHT_MAX));
    _mm_storeu_si128((__m128i *)(void *)(weights + WIDE), four);
}

/* bspi_adapt for eight words under MAP_LIMIT, which is all that a count can hold.  The
 * product of 24 and 16 bits is made of two that fit: (h * 2^16 + l) * rate >> 16 is
 * h * rate + (l * rate >> 16). */
AVX2 static ALWAYS_INLINE __m256i learn_words(__m256i words, __m256i rates, unsigned bit) {
    _Static_assert(MAP_LIMIT == 255, "counts stop where their byte is full");
    __m256i flip = _mm256_set1_epi32((int32_t)((0u - bit) & 0xFFFFFF));
    __m256i other = _mm256_xor_si256(_mm256_srli_epi32(words, 8), flip);
    __m256i low = _mm256_and_si256(other, _mm256_set1_epi32(0xFFFF));
    low = _mm256_srli_epi32(_mm256_mullo_epi32(low, rates), 16);
    __m256i high = _mm256_mullo_epi32(_mm256_srli_epi32(other, 16), rates);
    other = _mm256_sub_epi32(other, _mm256_add_epi32(low, high));
    __m256i count = _mm256_and_si256(words, _mm256_set1_epi32(255));
    words = _mm256_or_si256(_mm256_slli_epi32(_mm256_xor_si256(other, flip), 8), count);
    return _mm256_adds_epu8(words, _mm256_set1_epi32(1));
}

/* `slots`, 7 or 9, and `mode` are constants wherever this is compiled into. */
AVX2 static ALWAYS_INLINE unsigned code_bit(bspi_byte_model *model, byte_pass *pass,
                                            uint32_t slots, pass_mode mode, uint32_t partial,
                                            uint32_t node, unsigned place, unsigned bit) {
    const bspi_logistic *logistic = &model->logistic;
    bspi_adaptive *context_curve = context_curve_at(model, pass, partial);
    bspi_adaptive *selector_curve = selector_curve_at(model, pass, partial);
    uint8_t *states[BSPI_BYTE_CONTEXTS + 1];
    uint32_t histories[BSPI_BYTE_CONTEXTS + 1];
    for (uint32_t i = 0; i < slots; i++) {
        states[i] = &pass->lines[i]->states[node];
        histories[i] = *states[i];
    }
    eight_contexts contexts = look(model, slots, histories);
    int seen_nothing = _mm256_movemask_ps(_mm256_castsi256_ps(contexts.nothing));
    uint32_t known = WIDE - (uint32_t)_mm_popcnt_u32((uint32_t)seen_nothing);
    unsigned match_kind = 0, expected_bit = 0;
    int32_t match_says = 0;
    if (pass->expected >> (8 - place) == partial) {
        expected_bit = pass->expected >> (7 - place) & 1;
        int32_t x = bspi_stretch(logistic, model->match_map[pass->match_class] >> 16);
        match_says = expected_bit ? x : -x;
        match_kind = model->match_len < MATCH_LONG ? 1 : 2;
    } else {
        pass->expected = 0;
    }
    mixed_inputs inputs = {contexts.says, _mm_setzero_si128()};
    if (slots == WIDE + 1) {
        int32_t says = bspi_stretch(logistic, model->maps[WIDE][histories[WIDE]] >> 16);
        known += histories[WIDE] != 0;
        inputs.four = _mm_set_epi32(0, BIAS, match_says, histories[WIDE] != 0 ? says : 0);
    } else {
        inputs.eight = _mm256_insert_epi32(inputs.eight, match_says, 7);
        inputs.four = _mm_set_epi32(0, 0, 0, BIAS);
    }
    int32_t *weights = model->weights + INPUTS * ((pass->selector * (slots + 1) + known) * 3 +
                                                  match_kind);
    int32_t x = bspi_shift_down(weigh(&inputs, weights), 16);
    x = BSPI_MAX(BSPI_MIN(x, BSPI_STRETCH_MAX), -BSPI_STRETCH_MAX);
    uint32_t mixed = bspi_squash(logistic, x);

    bspi_adaptive *cells[2];
    selector_curve += (match_kind == 2 ? 256 : 0) * REFINE_CELLS;
    uint32_t p = 2 * mixed + refine(selector_curve, x, &cells[0]);
    p += refine(context_curve, x, &cells[1]);
    p = BSPI_MAX(BSPI_MIN(p >> 2, 65535), 1);

    __m256i counts = _mm256_and_si256(contexts.words, _mm256_set1_epi32(255));
    __m256i rates = _mm256_i32gather_epi32((const int *)(const void *)model->rates, counts, 4);
    if (mode == ENCODE)
        bspi_encoder_bit(pass->encoder, (uint16_t)p, bit);
    else if (mode == DECODE)
        bit = bspi_decoder_bit_inline(pass->decoder, (uint16_t)p);

    learn_weights(&inputs, weights, (int32_t)(bit << 16) - (int32_t)mixed, pass->shift);
    __m256i learnt = _mm256_or_si256(learn_words(contexts.words, rates, bit), contexts.nothing);
    uint32_t words[WIDE];
    _mm256_storeu_si256((__m256i *)(void *)words, learnt);
    for (uint32_t i = 0; i < slots; i++) {
        if (i < WIDE)
            model->maps[i][histories[i]] = words[i];
        else
            bspi_adapt(&model->maps[i][histories[i]], bit, MAP_LIMIT);
        *states[i] = model->histories.next[histories[i]][bit];
    }
    if (match_kind != 0)
        bspi_adapt(&model->match_map[pass->match_class], bit == expected_bit, MAP_LIMIT);
    bspi_adapt(cells[0], bit, REFINE_LIMIT);
    bspi_adapt(cells[1], bit, REFINE_LIMIT);
    return bit;
}

#define BYTE_CODING AVX2 static ALWAYS_INLINE
#include "byte_loops.h"

AVX2 static uint32_t code_avx2(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                               uint8_t byte) {
    if (model->slots == 9)
        return code_mode(model, pass, 9, mode, byte);
    if (model->slots == 7)
        return code_mode(model, pass, 7, mode, byte);
    return bspi_byte_bits_plainly(model, pass, mode, byte);
}

bspi_byte_bits *bspi_byte_bits_avx2(void) {
    bool there = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
                 __builtin_cpu_supports("popcnt");
    return there ? code_avx2 : NULL;
}

#else

bspi_byte_bits *bspi_byte_bits_avx2(void) {
    return NULL;
}

#endif
