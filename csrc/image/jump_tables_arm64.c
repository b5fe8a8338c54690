/* jump_tables_arm64.c: recognises how compilers jump through tables on arm64:
 *
 *     adrp t, table; add t, t, #table        adr b, base
 *     ldrb/ldrh i, [t, index]                add b, b, i, lsl #2;  br b
 *
 * or, with 32-bit entries that count from the table itself,
 *
 *     ldrsw i, [t, index, lsl #2]            add b, i, t;          br b
 */
#include "../common/bytes.h"
#include "jump_tables.h"

/* How many instructions back each part is looked for. */
#define REACH_ADD 6u
#define REACH_LOAD 12u
#define REACH_BASE 16u
#define REACH_TABLE 512u /* may be hoisted out of a loop */
#define REACH_PAGE 16u
#define REACH_CHECK 32u
#define NARROW_MAX 64u
#define GROUP 32u /* instructions looked over together for a BR */

typedef struct scan {
    const uint8_t *code;
    uint64_t addr;
} scan;

static uint32_t word(const scan *s, uint64_t index) {
    return bspi_load32(s->code + index * 4);
}

static unsigned rn(uint32_t w) {
    return w >> 5 & 31;
}

static unsigned rm(uint32_t w) {
    return w >> 16 & 31;
}

/* Looks back from `from` (not included), at most `reach` instructions, for one
 * with (w & mask) == match; *at is its index. */
static bool look_back(const scan *s, uint64_t from, uint64_t reach, uint32_t mask, uint32_t match,
                      uint64_t *at) {
    uint64_t stop = from > reach ? from - reach : 0;
    for (uint64_t i = from; i-- > stop;) {
        if ((word(s, i) & mask) == match) {
            *at = i;
            return true;
        }
    }
    return false;
}

/* What an ADR or ADRP at `index` makes. */
static uint64_t adr_value(const scan *s, uint64_t index) {
    uint32_t w = word(s, index);
    uint64_t number = (uint64_t)(w >> 3 & 0x1FFFFC) | (w >> 29 & 3);
    uint64_t value = (uint64_t)bspi_sign_extend(number, 21);
    uint64_t pc = s->addr + index * 4;
    return w >> 31 ? (pc & ~UINT64_C(0xFFF)) + (value << 12) : pc + value;
}

/* The address in register `reg` at `from`: from ADR, or from ADRP and ADD. */
static bool find_address(const scan *s, uint64_t from, uint64_t reach, unsigned reg,
                         uint64_t *value) {
    uint64_t add = 0, adr = 0, page;
    bool has_adr = look_back(s, from, reach, 0x9F00001F, 0x10000000 | reg, &adr);
    bool has_add = look_back(s, from, reach, 0xFFC0001F, 0x91000000 | reg, &add);
    if (has_adr && (!has_add || adr > add)) {
        *value = adr_value(s, adr);
        return true;
    }
    if (!has_add ||
        !look_back(s, add, REACH_PAGE, 0x9F00001F, 0x90000000 | rn(word(s, add)), &page))
        return false;
    *value = adr_value(s, page) + (word(s, add) >> 10 & 0xFFF);
    return true;
}

/* The bounds check before the load at `from`: CMP of the index register with an
 * immediate and B.HI or B.LS somewhere after it; or else, as the index is often
 * a copy, the nearest such pair of any register. */
static void find_count(const scan *s, uint64_t from, unsigned index_reg, bspi_jump_table *table) {
    uint64_t cmp, branch, stop = from > REACH_CHECK ? from - REACH_CHECK : 0;
    bool found = look_back(s, from, REACH_CHECK, 0x7FC003FF, 0x7100001F | index_reg << 5, &cmp) &&
                 look_back(s, from, from - cmp, 0xFF00001E, 0x54000008, &branch);
    for (uint64_t i = from; !found && i-- > stop;) {
        found = (word(s, i) & 0x7FC0001F) == 0x7100001F &&
                (word(s, i + 1) & 0xFF00001E) == 0x54000008;
        cmp = i;
    }
    if (!found)
        return;
    uint32_t count = (word(s, cmp) >> 10 & 0xFFF) + 1;
    table->count = BSPI_MIN(count, BSPI_JUMP_TABLE_MAX);
    table->counted = true;
}

/* ADD b, b, i, lsl #2, or with an extension of i; *is_signed for the signed ones. */
static bool is_scaled_add(uint32_t w, bool *is_signed) {
    if ((w & 0xFFE0FC00) == 0x8B000800) {
        *is_signed = false;
        return true;
    }
    if ((w & 0xFFE01C00) != 0x8B200800)
        return false;
    *is_signed = (w >> 13 & 7) >= 4;
    return true;
}

/* The jump at `br`: fills *table when it goes through one. */
static bool recognise(const scan *s, uint64_t br, bspi_jump_table *table) {
    uint64_t add, load;
    uint32_t target_reg = rn(word(s, br));
    if (!look_back(s, br, REACH_ADD, 0xFF00001F, 0x8B000000 | target_reg, &add))
        return false;
    uint32_t sum = word(s, add);
    *table = (bspi_jump_table){.site = s->addr + br * 4, .count = BSPI_JUMP_TABLE_MAX};
    if (is_scaled_add(sum, &table->is_signed)) {
        if (look_back(s, add, REACH_LOAD, 0xFFE00C1F, 0x38600800 | rm(sum), &load))
            table->kind = BSPI_REF_BASE8X4;
        else if (look_back(s, add, REACH_LOAD, 0xFFE00C1F, 0x78600800 | rm(sum), &load))
            table->kind = BSPI_REF_BASE16X4;
        else
            return false;
        if (!find_address(s, add, REACH_BASE, rn(sum), &table->base) ||
            !find_address(s, load, REACH_TABLE, rn(word(s, load)), &table->addr))
            return false;
    } else if ((sum & 0xFFE0FC00) == 0x8B000000) {
        if (look_back(s, add, REACH_LOAD, 0xFFE0FC1F, 0xB8A07800 | rm(sum), &load)) {
            if (rn(word(s, load)) != rn(sum))
                return false;
        } else if (look_back(s, add, REACH_LOAD, 0xFFE0FC1F, 0xB8A07800 | rn(sum), &load)) {
            if (rn(word(s, load)) != rm(sum))
                return false;
        } else {
            return false;
        }
        if (!find_address(s, load, REACH_TABLE, rn(word(s, load)), &table->addr))
            return false;
        table->kind = BSPI_REF_BASE32;
        table->base = table->addr;
    } else {
        return false;
    }
    find_count(s, load, rm(word(s, load)), table);
    /* Any byte is a plausible narrow entry, so do not run on for long. */
    if (!table->counted && table->kind != BSPI_REF_BASE32)
        table->count = NARROW_MAX;
    return true;
}

static bool is_br(uint32_t w) {
    return (w & 0xFFFFFC1F) == 0xD61F0000;
}

/* Goes on from `i` over groups without a BR. */
static uint64_t skip_others(const scan *s, uint64_t i, uint64_t end) {
    for (; end - i >= GROUP; i += GROUP) {
        unsigned found = 0; /* without a branch, so that compilers use vectors */
        for (unsigned j = 0; j < GROUP; j++)
            found |= is_br(word(s, i + j));
        if (found)
            break;
    }
    return i;
}

bool bspi_arm64_jump_tables(const uint8_t *code, uint64_t len, uint64_t addr,
                            bspi_jump_tables *tables) {
    scan s = {.code = code, .addr = addr};
    uint64_t count = len / 4;
    for (uint64_t i = 0; i < count; i++) {
        if (i % GROUP == 0)
            i = skip_others(&s, i, count);
        bspi_jump_table table;
        if (i == count || !is_br(word(&s, i)) || !recognise(&s, i, &table))
            continue;
        if (!BSPI_ENSURE(tables->items, tables->count, tables->capacity, tables->heap))
            return false;
        tables->items[tables->count++] = table;
    }
    return true;
}
