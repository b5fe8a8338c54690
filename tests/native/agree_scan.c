/* agree_scan.c: the scan of arm64 code by groups of instructions. */
#include "agree.h"

#include "../../csrc/image/arm64_scan.h"

#define NOP UINT32_C(0xD503201F)
#define ADRP UINT32_C(0x90000000)
#define WORDS_MOST 4096u
#define FILE_OFF UINT64_C(0x4000)

static bspi_heap heap;
static bspi_ref_list plain_refs = {.heap = &heap}, quick_refs = {.heap = &heap};
static bspi_arm64_kernel quick;
static uint64_t scans, found;

/* What is scanned.  The code is a block of exactly its length, for those that watch. */
typedef struct piece {
    const uint32_t *words;
    size_t count;
    uint64_t begin, end; /* in bytes */
    uint64_t addr;
    const bspi_ref_filter *filter;
} piece;

static void compare(const piece *p) {
    size_t len = 4 * p->count;
    uint8_t *code = malloc(len + 1) /* of no byte there may be no block */, *at = code + 1;
    NEEDED(code != NULL);
    for (size_t i = 0; i < p->count; i++)
        bspi_store32(at + 4 * i, p->words[i]);
    plain_refs.count = quick_refs.count = 0;
    bspi_arm64_refs_by(bspi_arm64_plainly, at, len, p->begin, p->end, p->addr, FILE_OFF,
                       p->filter, &plain_refs);
    bspi_arm64_refs_by(quick, at, len, p->begin, p->end, p->addr, FILE_OFF, p->filter,
                       &quick_refs);
    free(code);
    NEEDED(!plain_refs.failed && !quick_refs.failed);
    size_t count = BSPI_MIN(plain_refs.count, quick_refs.count);
    for (size_t i = 0; i < count; i++) {
        const bspi_ref *a = &plain_refs.items[i], *b = &quick_refs.items[i];
        if (a->off != b->off || a->target != b->target || a->base != b->base ||
            a->kind != b->kind || a->size != b->size)
            DIFFER("scan %llu, reference %zu: at %#llx, kind %d, target %#llx; at %#llx, kind %d, "
                   "target %#llx", (unsigned long long)scans, i, (unsigned long long)a->off,
                   a->kind, (unsigned long long)a->target, (unsigned long long)b->off, b->kind,
                   (unsigned long long)b->target);
    }
    if (plain_refs.count != quick_refs.count)
        DIFFER("scan %llu: %zu references, %zu", (unsigned long long)scans, plain_refs.count,
               quick_refs.count);
    scans++;
    found += count;
}

static void compare_whole(const uint32_t *words, size_t count) {
    piece p = {words, count, 0, 4 * (uint64_t)count, UINT64_C(0x100004000), NULL};
    compare(&p);
}

/* An ADRP anywhere in a group, its consumer anywhere behind it, and between them what
 * may write the register or call. */
static void pages(void) {
    static const uint32_t consumers[] = {0x91000000, 0xF9400000, 0xB9000000, 0x39400000};
    static const uint32_t between[] = {NOP, 0xAA0003E0 /* MOV */, 0xA9400000 /* LDP */,
                                       0x94000000 /* BL */, 0xD63F0000 /* BLR */,
                                       0x88007C00 /* STXR */, ADRP};
    uint32_t words[64];
    for (unsigned first = 0; first < 17; first++) {
        for (unsigned then = first + 1; then < first + 36; then++) {
            for (unsigned what = 0; what < sizeof between / sizeof *between; what++) {
                unsigned reg = (first * 5 + then * 3 + what) % 31;
                for (unsigned i = 0; i < 64; i++)
                    words[i] = NOP;
                words[first] = ADRP | reg;
                words[(first + then) / 2] = between[what] | (reg * 7 + then) % 31 | reg << 10;
                words[then] = consumers[then & 3] | 64u << 10 | reg << 5 | (reg + then) % 31;
                words[then + 1] = consumers[first & 3] | 8u << 10 | reg << 5 | 3;
                compare_whole(words, 64 - (first & 15));
            }
        }
    }
}

/* A page's last use: BSPI_A64_WINDOW instructions behind it, and one more. */
static void windows(void) {
    static uint32_t words[WORDS_MOST];
    for (unsigned first = 0; first < 20; first++) {
        for (unsigned by = BSPI_A64_WINDOW - 2; by < BSPI_A64_WINDOW + 3; by++) {
            for (unsigned i = 0; i < first + by + 20; i++)
                words[i] = NOP;
            words[first] = ADRP | 8;
            words[first + by] = 0x91000000 | 8u << 5 | 8;
            compare_whole(words, first + by + 20 - first / 2);
        }
    }
}

/* Branches of every kind to the borders of a run and as far as they lead. */
static void borders(void) {
    static const struct { uint32_t word; unsigned bits, shift; } kinds[] = {
        {0x14000000, 26, 0}, {0x94000000, 26, 0}, {0x54000000, 19, 5}, {0x34000000, 19, 5},
        {0xB5000000, 19, 5}, {0x36000000, 14, 5}, {0xB7000000, 14, 5}, {0x58000000, 19, 5},
        {0x98000000, 19, 5}, {0xD8000000, 19, 5},
    };
    uint32_t words[64];
    for (unsigned k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        int64_t farthest = INT64_C(1) << (kinds[k].bits - 1);
        for (unsigned lane = 0; lane < 33; lane++) {
            int64_t to[] = {-4, -1, 0, 1, 31, 32, 33, 36, (int64_t)lane, (int64_t)lane - farthest,
                            (int64_t)lane + farthest - 1};
            for (unsigned t = 0; t < sizeof to / sizeof *to; t++) {
                uint64_t by = (uint64_t)(to[t] - (int64_t)lane);
                uint64_t mask = (UINT64_C(1) << kinds[k].bits) - 1;
                for (unsigned i = 0; i < 64; i++)
                    words[i] = NOP;
                words[8 + lane] = kinds[k].word | (uint32_t)((by & mask) << kinds[k].shift);
                words[8 + lane] |= kinds[k].shift != 0 ? lane & 31 : 0; /* register or condition */
                /* With and without a place to keep; borders between instructions too. */
                for (unsigned skew = 0; skew < 5; skew += 2) {
                    bspi_ref_filter filter = {.run_off = FILE_OFF + 32 + skew,
                                              .run_len = 4 * 33 - skew};
                    filter.kept_count = t & 1;
                    filter.kept[0] = FILE_OFF + 32 + 4 * lane;
                    piece p = {words, 64, 36, 32 + 4 * 33, UINT64_C(0x4000), &filter};
                    compare(&p);
                }
            }
        }
    }
}

/* Instructions of every class, with registers that meet often. */
static uint32_t some_word(dice *d) {
    static const uint32_t busy[] = {0, 8, 9, 19, 20, 30};
    static const uint32_t branches[] = {0x14000000, 0x94000000, 0x54000000, 0x34000000,
                                        0xB5000000, 0x36000000, 0xB7000000, 0x58000000};
    static const uint32_t others[] = {0xA9400000, 0xA8C00000, 0x6CC00000, 0x28C00000, 0x08000000,
                                      0xC8400000, 0x88E00000, 0x8B000000, 0xD63F0100, 0xD65F03C0,
                                      0x1E260000, 0xF8400400, 0x0E003C00, 0x4C9F7000, 0xD53BD040};
    uint64_t choice = pick(d, 8), random = roll(d);
    uint32_t any = (uint32_t)pick(d, 32), base = busy[pick(d, 6)], often = busy[pick(d, 6)];
    uint32_t reg = random >> 60 & 1 ? any : often, low = (uint32_t)random & 0xFFF;
    if (choice == 0)
        return (uint32_t)random;
    if (choice < 3)
        return ADRP | (low & 3) << 29 | (low & 0x38) << 2 | reg;
    if (choice == 3)
        return 0x91000000 | low << 10 | base << 5 | reg;
    if (choice == 4)
        return (random >> 61 & 1 ? 0xF9400000 : 0xB9000000) | (low & 511) << 10 | base << 5 | reg;
    if (choice < 7) {
        unsigned which = (unsigned)(random >> 40) & 7;
        uint32_t by = low % 1800 - 900;
        return branches[which] | (which < 2 ? by & 0x3FFFFFF : (by << 5 & 0xFFFFE0) | reg);
    }
    return others[pick(d, sizeof others / sizeof *others)] | ((uint32_t)random & 0x3FFFE0) | reg;
}

static void random_code(void) {
    static uint32_t words[WORDS_MOST];
    static const uint64_t addresses[] = {0, 4, 0x100004000, 0x7FFFFFFFFFFFFFF0,
                                         0xFFFFFFFFFFFFFFFC, 0xFFFFFFFFFFFFF800};
    dice d = {UINT64_C(0x5EED)};
    for (unsigned round = 0; round < 1500; round++) {
        size_t count = 1 + (size_t)pick(&d, round % 16 == 0 ? WORDS_MOST : 200), idle = 0;
        for (size_t i = 0; i < count; i++) {
            words[i] = idle != 0 ? NOP : some_word(&d);
            if (idle != 0)
                idle--;
            else if (pick(&d, 60) == 0)
                idle = (size_t)pick(&d, 530);
        }
        uint64_t len = 4 * count, begin = pick(&d, len), end = begin + pick(&d, len - begin + 1);
        uint64_t addr = addresses[round % 6] + pick(&d, 4);
        piece p = {words, count, begin, end, addr, NULL};
        compare(&p);
        bspi_ref_filter filter = {0};
        uint64_t before = round & 1 ? 0 : pick(&d, begin + 1);
        uint64_t behind = pick(&d, len - end + 1);
        size_t kept = round & 2 ? (size_t)pick(&d, BSPI_FILTER_KEPT + 1) : 0;
        filter.run_off = FILE_OFF + begin - before;
        filter.run_len = before + (end - begin) + behind;
        uint64_t at = begin;
        while (filter.kept_count < kept && at < end) {
            filter.kept[filter.kept_count++] = FILE_OFF + at;
            at += 1 + pick(&d, 40);
        }
        p.filter = &filter;
        compare(&p);
    }
}

/* Each top byte in each lane, between pages that are in use. */
static void every_top_byte(void) {
    static uint32_t words[WORDS_MOST];
    dice d = {UINT64_C(0xBEEF)};
    for (unsigned top = 0; top < 256; top++) {
        for (unsigned i = 0; i < 640; i++) {
            uint32_t random = (uint32_t)roll(&d);
            words[i] = i % 5 < 2    ? ADRP | (random & 31)
                       : i % 5 == 2 ? top << 24 | random >> 8
                                    : 0xF9400000 | (random & 0x3FF);
        }
        compare_whole(words, 640);
    }
}

void agree_scan(void) {
    quick = bspi_arm64_avx2() != NULL ? bspi_arm64_avx2() : bspi_arm64_neon();
    if (quick == NULL) {
        printf("scan: only the portable kernel here\n");
        return;
    }
    bspi_heap_init(&heap, 0);
    pages();
    windows();
    borders();
    every_top_byte();
    random_code();
    bspi_ref_list_free(&plain_refs);
    bspi_ref_list_free(&quick_refs);
    NEEDED(heap.in_use == 0 && found > 100000);
    printf("scan: %llu pieces of code, %llu references\n", (unsigned long long)scans,
           (unsigned long long)found);
}
