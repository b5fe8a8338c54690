/* range_coder.c: arithmetic coding of single bits, with learnt probabilities and prices. */
#include "range_coder.h"

/* --- encoder --- */

void bspi_encoder_init(bspi_encoder *encoder, bspi_buffer *out) {
    encoder->out = out;
    encoder->start = out->len;
    encoder->low = 0;
    encoder->range = UINT32_MAX;
    encoder->failed = false;
}

/* The interval moved past the end of what 32 bits of low can say: adds one to
 * the bytes already written.  It stays below 1.0, so the code's first byte
 * never overflows. */
static void carry(bspi_encoder *encoder) {
    bspi_buffer *out = encoder->out;
    size_t at = out->len;
    while (at > encoder->start && ++out->data[--at] == 0) {
    }
}

static void put_byte(bspi_encoder *encoder, uint8_t byte) {
    bspi_buffer *out = encoder->out;
    if (out->len == out->capacity && !bspi_buffer_reserve(out, 1)) {
        encoder->failed = true;
        return;
    }
    out->data[out->len++] = byte;
}

void bspi_encoder_bit(bspi_encoder *encoder, uint16_t p, unsigned bit) {
    if (encoder->failed)
        return;
    uint32_t zero = (uint32_t)((uint64_t)encoder->range * (65536u - p) >> 16);
    if (bit) {
        uint32_t low = encoder->low + zero;
        if (low < encoder->low)
            carry(encoder);
        encoder->low = low;
        encoder->range -= zero;
    } else {
        encoder->range = zero;
    }
    while (encoder->range < BSPI_RANGE_MIN) {
        put_byte(encoder, (uint8_t)(encoder->low >> 24));
        encoder->low <<= 8;
        encoder->range <<= 8;
    }
}

void bspi_encoder_raw(bspi_encoder *encoder, uint64_t value, unsigned bits) {
    while (bits-- > 0)
        bspi_encoder_bit(encoder, 32768, value >> bits & 1);
}

bool bspi_encoder_flush(bspi_encoder *encoder) {
    if (encoder->failed)
        return false;
    /* The shortest number within the interval: no byte more when the bytes
     * written so far, or the number after them, lie in it; else one suffices,
     * as the interval is at least one value of the highest byte wide. */
    if (encoder->low != 0) {
        if (encoder->low > UINT32_MAX - (encoder->range - 1)) {
            carry(encoder);
        } else {
            put_byte(encoder, (uint8_t)((encoder->low + (BSPI_RANGE_MIN - 1)) >> 24));
            if (encoder->failed)
                return false;
        }
    }
    bspi_buffer *out = encoder->out;
    while (out->len > encoder->start && out->data[out->len - 1] == 0)
        out->len--;
    return true;
}

/* --- decoder --- */

static uint32_t next_byte(bspi_decoder *decoder) {
    if (decoder->pos < decoder->len)
        return decoder->data[decoder->pos++];
    decoder->overrun++;
    return 0;
}

void bspi_decoder_init(bspi_decoder *decoder, const uint8_t *data, size_t len) {
    decoder->data = data;
    decoder->len = len;
    decoder->pos = 0;
    decoder->overrun = 0;
    decoder->range = UINT32_MAX;
    decoder->code = 0;
    for (int i = 0; i < 4; i++)
        decoder->code = decoder->code << 8 | next_byte(decoder);
}

void bspi_decoder_widen(bspi_decoder *decoder) {
    while (decoder->range < BSPI_RANGE_MIN) {
        decoder->code = decoder->code << 8 | next_byte(decoder);
        decoder->range <<= 8;
    }
}

unsigned bspi_decoder_bit(bspi_decoder *decoder, uint16_t p) {
    return bspi_decoder_bit_inline(decoder, p);
}

uint64_t bspi_decoder_raw(bspi_decoder *decoder, unsigned bits) {
    uint64_t value = 0;
    while (bits-- > 0)
        value = value << 1 | bspi_decoder_bit(decoder, 32768);
    return value;
}

bool bspi_decoder_done(const bspi_decoder *decoder) {
    if (decoder->pos != decoder->len ||
        (decoder->len != 0 && decoder->data[decoder->len - 1] == 0))
        return false;
    /* The encoder had written `settled` bytes and then ended the code as flush
     * does; the four bytes from there on must be what it would have written. */
    uint64_t settled = decoder->pos + decoder->overrun - 4;
    uint32_t window = 0;
    for (uint64_t at = settled; at < settled + 4; at++)
        window = window << 8 | (at < decoder->len ? decoder->data[at] : 0u);
    uint32_t low = window - decoder->code, shortest = 0;
    if (low != 0 && low <= UINT32_MAX - (decoder->range - 1))
        shortest = (low + (BSPI_RANGE_MIN - 1)) & UINT32_C(0xff000000);
    return window == shortest;
}

/* --- prices --- */

/* 65536 * log2(1 + i / 64), rounded. */
static const uint32_t log2_points[65] = {
    0, 1466, 2909, 4331, 5732, 7112, 8473, 9814, 11136, 12440, 13727, 14996,
    16248, 17484, 18704, 19909, 21098, 22272, 23433, 24579, 25711, 26830, 27936, 29029,
    30109, 31178, 32234, 33279, 34312, 35334, 36346, 37346, 38336, 39316, 40286, 41246,
    42196, 43137, 44068, 44990, 45904, 46809, 47705, 48593, 49472, 50344, 51207, 52063,
    52911, 53751, 54584, 55410, 56229, 57040, 57845, 58643, 59434, 60219, 60997, 61769,
    62534, 63294, 64047, 64794, 65536,
};

uint32_t bspi_bit_cost(uint16_t p, unsigned bit) {
    uint32_t chance = bit ? p : 65536u - p;
    if (chance == 0)
        chance = 1;
    uint32_t doublings = 0; /* that bring chance to 2^15 or more */
    while (chance < 32768) {
        chance <<= 1;
        doublings++;
    }
    uint32_t at = (chance - 32768) >> 9, part = (chance - 32768) & 511;
    uint32_t log2 = log2_points[at];
    if (part != 0)
        log2 += (log2_points[at + 1] - log2) * part >> 9;
    return ((doublings + 1) * 65536 - log2 + 128) >> 8;
}

uint64_t bspi_encoder_spent(const bspi_encoder *encoder) {
    uint32_t range = encoder->range; /* 2^24 or more */
    unsigned shift = (unsigned)__builtin_clz(range);
    range <<= shift;
    uint32_t at = range >> 25 & 63, part = range & (UINT32_MAX >> 7);
    uint64_t log2 = ((uint64_t)(31 - shift) << 16) + log2_points[at] +
                    ((uint64_t)(log2_points[at + 1] - log2_points[at]) * part >> 25);
    uint64_t bytes = encoder->out->len - encoder->start;
    return (bytes << 19) + (UINT64_C(32) << 16) - log2;
}

/* --- the adaptive bit --- */

const uint16_t bspi_rates[256] = {
    43691, 26214, 18725, 14564, 11916, 10082, 8738, 7710, 6899, 6242, 5699, 5243,
    4855, 4520, 4228, 3972, 3745, 3542, 3361, 3197, 3048, 2913, 2789, 2675,
    2570, 2473, 2383, 2300, 2222, 2149, 2081, 2016, 1956, 1900, 1846, 1796,
    1748, 1702, 1659, 1618, 1579, 1542, 1507, 1473, 1440, 1409, 1380, 1351,
    1324, 1298, 1273, 1248, 1225, 1202, 1181, 1160, 1140, 1120, 1101, 1083,
    1066, 1049, 1032, 1016, 1001, 986, 971, 957, 943, 930, 917, 904,
    892, 880, 868, 857, 846, 835, 824, 814, 804, 794, 785, 776,
    767, 758, 749, 741, 732, 724, 716, 708, 701, 694, 686, 679,
    672, 665, 659, 652, 646, 639, 633, 627, 621, 615, 610, 604,
    599, 593, 588, 583, 577, 572, 567, 563, 558, 553, 548, 544,
    539, 535, 531, 526, 522, 518, 514, 510, 506, 502, 498, 495,
    491, 487, 484, 480, 477, 473, 470, 466, 463, 460, 457, 454,
    450, 447, 444, 441, 438, 435, 433, 430, 427, 424, 421, 419,
    416, 413, 411, 408, 406, 403, 401, 398, 396, 394, 391, 389,
    387, 384, 382, 380, 378, 376, 373, 371, 369, 367, 365, 363,
    361, 359, 357, 355, 353, 351, 350, 348, 346, 344, 342, 340,
    339, 337, 335, 334, 332, 330, 329, 327, 325, 324, 322, 320,
    319, 317, 316, 314, 313, 311, 310, 308, 307, 306, 304, 303,
    301, 300, 299, 297, 296, 295, 293, 292, 291, 289, 288, 287,
    286, 284, 283, 282, 281, 279, 278, 277, 276, 275, 274, 272,
    271, 270, 269, 268, 267, 266, 265, 264, 263, 262, 261, 260,
    259, 258, 257, 256,
};

void bspi_bit_init(bspi_bit *model, uint16_t p, uint8_t limit) {
    model->word = bspi_adaptive_of(p, 0);
    model->limit = limit;
}

uint16_t bspi_bit_p(const bspi_bit *model) {
    return bspi_adaptive_p(model->word);
}

void bspi_bit_encode(bspi_bit *model, bspi_encoder *encoder, unsigned bit) {
    bspi_encoder_bit(encoder, bspi_bit_p(model), bit);
    bspi_adapt(&model->word, bit, model->limit);
}

unsigned bspi_bit_decode(bspi_bit *model, bspi_decoder *decoder) {
    unsigned bit = bspi_decoder_bit(decoder, bspi_bit_p(model));
    bspi_adapt(&model->word, bit, model->limit);
    return bit;
}
