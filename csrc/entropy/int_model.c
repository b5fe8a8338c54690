/* int_model.c: adaptive coding of whole numbers as a walk over mixed predictions. */
#include "int_model.h"

#include "logistic.h"

#define TOP_BITS 3u /* bits below the highest that are modelled by their values */
#define CLASSES 12u /* of sizes of the number before */
#define GUESSES 2u  /* the number before, and the one before that */
#define RUNS 8u     /* lengths of a run of right guesses that are told apart */
#define INPUTS (3u + GUESSES)

/* How fast each kind of prediction may go on changing.  Mixed, the quick and the
 * slow ones make a model for columns of either nature. */
#define OWN_LIMIT 24u
#define SHARED_LIMIT 255u
#define CLASS_LIMIT 30u
#define GUESS_LIMIT 127u

#define WEIGHT_FIRST 20000 /* 65536 is 1.0 */
#define WEIGHT_MAX 262143  /* so that the mixer's sum stays within 32 bits */
/* The mixer learns four times as fast for the first numbers. */
#define FAST_UNTIL 512u

/* Where in a number a bit stands; each has mixer weights of its own. */
enum {
    STAGE_ZERO,
    STAGE_SIGN,
    STAGE_BUCKET, /* and five more */
    STAGE_TOP = STAGE_BUCKET + 6, /* and two more */
    STAGE_REST = STAGE_TOP + TOP_BITS,
    STAGES
};

/* The learnt bits of one context, or of all together. */
typedef struct nodes {
    bspi_adaptive nonzero;
    bspi_adaptive negative;
    bspi_adaptive bucket[64]; /* a tree over (significant bits - 1), node 1 is its root */
    bspi_adaptive top[64][1u << TOP_BITS]; /* by bits below the highest, a tree over the first */
    bspi_adaptive rest[64];                /* by position from the lowest bit */
} nodes;

/* An earlier number, and how far to trust that it comes again. */
typedef struct guess {
    uint64_t magnitude;
    bool negative;
    uint32_t run;                                /* right guesses in a row, up to RUNS - 1 */
    bspi_adaptive trust[RUNS + 1][STAGES];       /* by run; the last row: only the sign differs */
} guess;

struct bspi_int_context {
    nodes own;
    bspi_adaptive class_nonzero[CLASSES]; /* by the class of the number before */
    bspi_adaptive class_negative[CLASSES];
    bspi_adaptive class_bucket[CLASSES][64];
    guess guesses[GUESSES];
    uint32_t class;
};

struct bspi_int_shared {
    bspi_logistic logistic;
    nodes all;
    int32_t weights[STAGES][1u << GUESSES][INPUTS]; /* by which guesses still hold */
    uint32_t coded;                                 /* numbers, up to FAST_UNTIL */
};

/* One walk over a number's bits, in one of three modes.  The same code encodes,
 * decodes and prices, so that the three cannot drift apart. */
typedef struct pass {
    bspi_encoder *encoder; /* encoding */
    bspi_decoder *decoder; /* decoding */
    uint32_t cost;         /* neither: pricing, which learns nothing */
    bspi_int_shared *shared;
    bspi_int_context *context;
    bool holds[GUESSES];   /* every bit so far was as guessed, but for the sign */
    bool flipped[GUESSES]; /* the sign was not */
} pass;

/* The three places that know something about a bit; by_class may be NULL. */
typedef struct sources {
    bspi_adaptive *own;
    bspi_adaptive *all;
    bspi_adaptive *by_class;
} sources;

static bspi_adaptive *trust_in(const pass *pass, unsigned g, unsigned stage) {
    guess *guess = &pass->context->guesses[g];
    return &guess->trust[pass->flipped[g] ? RUNS : guess->run][stage];
}

static void learn(pass *pass, unsigned stage, sources from, const int32_t *inputs,
                  int32_t *weights, uint32_t p, unsigned guessed, unsigned bit) {
    int32_t error = (int32_t)(bit << 16) - (int32_t)p;
    unsigned shift = pass->shared->coded < FAST_UNTIL ? 13 : 15;
    for (unsigned i = 0; i < INPUTS; i++) {
        int32_t step = bspi_shift_down(inputs[i] * error + (1 << (shift - 1)), shift);
        weights[i] = BSPI_MAX(BSPI_MIN(weights[i] + step, WEIGHT_MAX), -WEIGHT_MAX);
    }
    bspi_adapt(from.own, bit, OWN_LIMIT);
    bspi_adapt(from.all, bit, SHARED_LIMIT);
    if (from.by_class != NULL)
        bspi_adapt(from.by_class, bit, CLASS_LIMIT);
    for (unsigned g = 0; g < GUESSES; g++) {
        if (pass->holds[g])
            bspi_adapt(trust_in(pass, g, stage), bit == (guessed >> g & 1), GUESS_LIMIT);
    }
}

/* Codes one bit.  guessed: what each guess says, guess g in bit g. */
static unsigned step(pass *pass, unsigned stage, sources from, unsigned guessed, unsigned bit) {
    const bspi_logistic *logistic = &pass->shared->logistic;
    int32_t inputs[INPUTS] = {0};
    inputs[0] = bspi_stretch(logistic, bspi_adaptive_p(*from.own));
    inputs[1] = bspi_stretch(logistic, bspi_adaptive_p(*from.all));
    if (from.by_class != NULL)
        inputs[2] = bspi_stretch(logistic, bspi_adaptive_p(*from.by_class));
    unsigned set = 0;
    for (unsigned g = 0; g < GUESSES; g++) {
        if (!pass->holds[g])
            continue;
        int32_t x = bspi_stretch(logistic, bspi_adaptive_p(*trust_in(pass, g, stage)));
        inputs[3 + g] = guessed >> g & 1 ? x : -x;
        set |= 1u << g;
    }
    int32_t *weights = pass->shared->weights[stage][set];
    int32_t sum = 0;
    for (unsigned i = 0; i < INPUTS; i++)
        sum += inputs[i] * weights[i];
    uint32_t p = bspi_squash(logistic, bspi_shift_down(sum, 16));

    if (pass->encoder != NULL)
        bspi_encoder_bit(pass->encoder, (uint16_t)p, bit);
    else if (pass->decoder != NULL)
        bit = bspi_decoder_bit(pass->decoder, (uint16_t)p);
    else
        pass->cost += bspi_bit_cost((uint16_t)p, bit);
    if (pass->encoder != NULL || pass->decoder != NULL)
        learn(pass, stage, from, inputs, weights, p, guessed, bit);
    for (unsigned g = 0; g < GUESSES; g++)
        pass->holds[g] = pass->holds[g] && bit == (guessed >> g & 1);
    return bit;
}

/* 0 for 0. */
static unsigned significant_bits(uint64_t value) {
    unsigned bits = 0;
    while (value != 0) {
        value >>= 1;
        bits++;
    }
    return bits;
}

/* A number of 1 or more; `value` is ignored while decoding. */
static uint64_t walk_positive(pass *pass, uint64_t value) {
    bspi_int_context *context = pass->context;
    nodes *own = &context->own, *all = &pass->shared->all;
    unsigned wanted = significant_bits(value) - 1;
    uint64_t g0 = context->guesses[0].magnitude, g1 = context->guesses[1].magnitude;
    unsigned wanted0 = significant_bits(g0) - 1, wanted1 = significant_bits(g1) - 1;
    unsigned node = 1;
    for (unsigned i = 6; i-- > 0;) {
        unsigned guessed = (wanted0 >> i & 1) | (wanted1 >> i & 1) << 1;
        sources from = {&own->bucket[node], &all->bucket[node],
                        &context->class_bucket[context->class][node]};
        node = node << 1 | step(pass, STAGE_BUCKET + 5 - i, from, guessed, wanted >> i & 1);
    }
    unsigned below = node & 63; /* bits below the highest */

    uint64_t known = 1;
    for (unsigned i = below; i-- > 0;) {
        unsigned bit = (unsigned)(value >> i & 1);
        unsigned guessed = (unsigned)((g0 >> i & 1) | (g1 >> i & 1) << 1);
        if (below - i <= TOP_BITS) {
            sources from = {&own->top[below][known], &all->top[below][known], NULL};
            bit = step(pass, STAGE_TOP + below - i - 1, from, guessed, bit);
        } else {
            sources from = {&own->rest[i], &all->rest[i], NULL};
            bit = step(pass, STAGE_REST, from, guessed, bit);
        }
        known = known << 1 | bit;
    }
    return known;
}

static void remember(pass *pass, uint64_t value, bool negative) {
    bspi_int_context *context = pass->context;
    for (unsigned g = 0; g < GUESSES; g++) {
        guess *guess = &context->guesses[g];
        bool right = pass->holds[g] && !pass->flipped[g];
        guess->run = right ? BSPI_MIN(guess->run + 1, RUNS - 1) : 0;
    }
    context->guesses[1].magnitude = context->guesses[0].magnitude;
    context->guesses[1].negative = context->guesses[0].negative;
    context->guesses[0].magnitude = value;
    context->guesses[0].negative = negative;
    unsigned bits = significant_bits(value);
    context->class = bits < 6 ? bits : BSPI_MIN(6 + (bits - 6) / 4, CLASSES - 1);
    if (pass->shared->coded < FAST_UNTIL)
        pass->shared->coded++;
}

/* One number; magnitude and sign are ignored while decoding. */
static uint64_t walk(pass *pass, bool is_signed, bool *negative, uint64_t value) {
    bspi_int_context *context = pass->context;
    nodes *all = &pass->shared->all;
    const guess *g = context->guesses;
    for (unsigned i = 0; i < GUESSES; i++)
        pass->holds[i] = true;
    unsigned guessed = (g[0].magnitude != 0 ? 1u : 0u) | (g[1].magnitude != 0 ? 2u : 0u);
    sources nonzero = {&context->own.nonzero, &all->nonzero,
                       &context->class_nonzero[context->class]};
    if (step(pass, STAGE_ZERO, nonzero, guessed, value != 0) == 0) {
        value = 0;
        *negative = false;
    } else {
        if (is_signed) {
            bool held[GUESSES] = {pass->holds[0], pass->holds[1]};
            sources sign = {&context->own.negative, &all->negative,
                            &context->class_negative[context->class]};
            guessed = (unsigned)g[0].negative | (unsigned)g[1].negative << 1;
            *negative = step(pass, STAGE_SIGN, sign, guessed, *negative);
            for (unsigned i = 0; i < GUESSES; i++) {
                pass->flipped[i] = held[i] && !pass->holds[i];
                pass->holds[i] = held[i];
            }
        }
        value = walk_positive(pass, value);
    }
    if (pass->encoder != NULL || pass->decoder != NULL)
        remember(pass, value, *negative);
    return value;
}

static void fill(bspi_adaptive *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        words[i] = BSPI_ADAPTIVE_HALF;
}

static void init_bucket(bspi_adaptive *words) {
    fill(words, 64);
    /* Small numbers are the likelier ones: 33 bits or more, 17, 9. */
    words[1] = bspi_adaptive_of(2000, 0);
    words[2] = bspi_adaptive_of(10000, 0);
    words[4] = bspi_adaptive_of(20000, 0);
}

static void init_nodes(nodes *nodes) {
    nodes->nonzero = nodes->negative = BSPI_ADAPTIVE_HALF;
    init_bucket(nodes->bucket);
    for (unsigned b = 0; b < 64; b++)
        fill(nodes->top[b], 1u << TOP_BITS);
    fill(nodes->rest, 64);
}

static void init_context(bspi_int_context *context) {
    init_nodes(&context->own);
    fill(context->class_nonzero, CLASSES);
    fill(context->class_negative, CLASSES);
    for (unsigned c = 0; c < CLASSES; c++)
        init_bucket(context->class_bucket[c]);
    for (unsigned g = 0; g < GUESSES; g++)
        for (unsigned r = 0; r <= RUNS; r++)
            fill(context->guesses[g].trust[r], STAGES);
}

bool bspi_int_model_init(bspi_int_model *model, bspi_heap *heap, uint32_t contexts) {
    model->heap = heap;
    model->context_count = contexts;
    model->contexts = bspi_alloc(heap, contexts, sizeof *model->contexts, true);
    model->shared = bspi_alloc(heap, 1, sizeof *model->shared, true);
    if (model->contexts == NULL || model->shared == NULL) {
        bspi_int_model_free(model);
        return false;
    }
    bspi_int_shared *shared = model->shared;
    bspi_logistic_init(&shared->logistic);
    init_nodes(&shared->all);
    for (unsigned s = 0; s < STAGES; s++)
        for (unsigned set = 0; set < 1u << GUESSES; set++)
            for (unsigned i = 0; i < INPUTS; i++)
                shared->weights[s][set][i] = WEIGHT_FIRST;
    for (uint32_t i = 0; i < contexts; i++)
        init_context(&model->contexts[i]);
    return true;
}

void bspi_int_model_free(bspi_int_model *model) {
    bspi_free(model->heap, model->contexts);
    bspi_free(model->heap, model->shared);
    model->contexts = NULL;
    model->shared = NULL;
}

static pass begin(const bspi_int_model *model, uint32_t context) {
    return (pass){
        .shared = model->shared,
        .context = &model->contexts[BSPI_MIN(context, model->context_count - 1)],
    };
}

void bspi_int_encode(bspi_int_model *model, bspi_encoder *encoder, uint32_t context,
                     uint64_t value) {
    pass pass = begin(model, context);
    bool negative = false;
    pass.encoder = encoder;
    walk(&pass, false, &negative, value);
}

uint64_t bspi_int_decode(bspi_int_model *model, bspi_decoder *decoder, uint32_t context) {
    pass pass = begin(model, context);
    bool negative = false;
    pass.decoder = decoder;
    return walk(&pass, false, &negative, 0);
}

uint32_t bspi_int_cost(const bspi_int_model *model, uint32_t context, uint64_t value) {
    pass pass = begin(model, context);
    bool negative = false;
    walk(&pass, false, &negative, value);
    return pass.cost;
}

/* Absolute value; 2^63 for INT64_MIN. */
static uint64_t magnitude(int64_t value) {
    return value < 0 ? ~(uint64_t)value + 1 : (uint64_t)value;
}

void bspi_int_encode_signed(bspi_int_model *model, bspi_encoder *encoder, uint32_t context,
                            int64_t value) {
    pass pass = begin(model, context);
    bool negative = value < 0;
    pass.encoder = encoder;
    walk(&pass, true, &negative, magnitude(value));
}

int64_t bspi_int_decode_signed(bspi_int_model *model, bspi_decoder *decoder, uint32_t context) {
    pass pass = begin(model, context);
    bool negative = false;
    pass.decoder = decoder;
    uint64_t value = walk(&pass, true, &negative, 0);
    return (int64_t)(negative ? ~value + 1 : value);
}

uint32_t bspi_int_cost_signed(const bspi_int_model *model, uint32_t context, int64_t value) {
    pass pass = begin(model, context);
    bool negative = value < 0;
    walk(&pass, true, &negative, magnitude(value));
    return pass.cost;
}
