/* byte_code.h: the bits of a byte, with inputs that are looked up one by one.
 *
 * Compiled into whoever defined these two before including it:
 *   int32_t weigh(const int32_t inputs[INPUTS], const int32_t *weights);
 *   void learn_weights(const int32_t inputs[INPUTS], int32_t *weights, int32_t error,
 *                      unsigned shift);
 */
#ifndef BSPI_BYTE_CODE_H
#define BSPI_BYTE_CODE_H

#include "byte_bits.h"

/* `slots` and `mode` are constants wherever this is compiled into. */
static ALWAYS_INLINE unsigned code_bit(bspi_byte_model *model, byte_pass *pass, uint32_t slots,
                                       pass_mode mode, uint32_t partial, uint32_t node,
                                       unsigned place, unsigned bit) {
    const bspi_logistic *logistic = &model->logistic;
    bspi_adaptive *context_curve = context_curve_at(model, pass, partial);
    bspi_adaptive *selector_curve = selector_curve_at(model, pass, partial);
    int32_t inputs[INPUTS] = {0};
    uint8_t *states[BSPI_BYTE_CONTEXTS + 1], histories[BSPI_BYTE_CONTEXTS + 1];
    uint32_t known = 0;
    for (uint32_t i = 0; i < slots; i++) {
        states[i] = &pass->lines[i]->states[node];
        uint32_t history = histories[i] = *states[i];
        int32_t says = bspi_stretch(logistic, model->maps[i][history] >> 16);
        inputs[i] = says & -(int32_t)(history != 0);
        known += history != 0;
    }
    unsigned match_kind = 0, expected_bit = 0;
    if (pass->expected >> (8 - place) == partial) {
        expected_bit = pass->expected >> (7 - place) & 1;
        int32_t says = bspi_stretch(logistic, model->match_map[pass->match_class] >> 16);
        inputs[slots] = expected_bit ? says : -says;
        match_kind = model->match_len < MATCH_LONG ? 1 : 2;
    } else {
        pass->expected = 0;
    }
    inputs[slots + 1] = BIAS;

    uint32_t set = (pass->selector * (slots + 1) + known) * 3 + match_kind;
    int32_t *weights = model->weights + INPUTS * set;
    int32_t x = bspi_shift_down(weigh(inputs, weights), 16);
    x = BSPI_MAX(BSPI_MIN(x, BSPI_STRETCH_MAX), -BSPI_STRETCH_MAX);
    uint32_t mixed = bspi_squash(logistic, x);

    bspi_adaptive *cells[2];
    selector_curve += (match_kind == 2 ? 256 : 0) * REFINE_CELLS;
    uint32_t p = 2 * mixed + refine(selector_curve, x, &cells[0]);
    p += refine(context_curve, x, &cells[1]);
    p = BSPI_MAX(BSPI_MIN(p >> 2, 65535), 1);

    if (mode == ENCODE)
        bspi_encoder_bit(pass->encoder, (uint16_t)p, bit);
    else if (mode == DECODE)
        bit = bspi_decoder_bit_inline(pass->decoder, (uint16_t)p);

    learn_weights(inputs, weights, (int32_t)(bit << 16) - (int32_t)mixed, pass->shift);
    for (uint32_t i = 0; i < slots; i++) {
        bspi_adapt(&model->maps[i][histories[i]], bit, MAP_LIMIT);
        *states[i] = model->histories.next[histories[i]][bit];
    }
    if (match_kind != 0)
        bspi_adapt(&model->match_map[pass->match_class], bit == expected_bit, MAP_LIMIT);
    bspi_adapt(cells[0], bit, REFINE_LIMIT);
    bspi_adapt(cells[1], bit, REFINE_LIMIT);
    return bit;
}

#include "byte_loops.h"

/* For the numbers of contexts that matter most, and for all others. */
static ALWAYS_INLINE uint32_t code_any(bspi_byte_model *model, byte_pass *pass, pass_mode mode,
                                       uint8_t byte) {
    if (model->slots == 9)
        return code_mode(model, pass, 9, mode, byte);
    if (model->slots == 7)
        return code_mode(model, pass, 7, mode, byte);
    return code_mode(model, pass, model->slots, mode, byte);
}

#endif
