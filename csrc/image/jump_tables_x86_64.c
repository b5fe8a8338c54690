/* jump_tables_x86_64.c: recognises how compilers jump through tables on x86-64:
 *
 *     cmp i, count - 1;  ja default
 *     lea t, [rip + table]
 *     movsxd j, [t + i * 4];  add j, t;  jmp j
 *
 * Instructions have no fixed length, so the parts are looked for backwards by
 * their bytes; what is matched by accident fails where entries are checked.
 */
#include "../common/bytes.h"
#include "jump_tables.h"

/* How many bytes back each part is looked for. */
#define REACH_ADD 24u
#define REACH_LOAD 48u
#define REACH_TABLE 512u /* may be hoisted out of a loop */
#define REACH_CHECK 80u

#define REX_W 0x48u
#define REX_R 0x4u
#define REX_B 0x1u

/* Whether `p` begins REX.W and `opcode`. */
static bool is_wide(const uint8_t *p, uint8_t opcode) {
    return (p[0] & 0xF8) == REX_W && p[1] == opcode;
}

static unsigned reg_field(const uint8_t *p) {
    return (p[2] >> 3 & 7u) | (p[0] & REX_R ? 8u : 0u);
}

static unsigned rm_field(const uint8_t *p) {
    return (p[2] & 7u) | (p[0] & REX_B ? 8u : 0u);
}

/* Register of the jump that ends in the 0xFF at `at`, and where it begins. */
static unsigned jump_reg(const uint8_t *code, uint64_t at, uint64_t *begin) {
    unsigned reg = code[at + 1] & 7u;
    *begin = at;
    if (at > 0 && code[at - 1] == 0x41) {
        reg |= 8u;
        *begin = at - 1;
    }
    return reg;
}

/* ADD between two registers that leaves its sum in `reg`; *other is the second. */
static bool find_add(const uint8_t *code, uint64_t from, unsigned reg, unsigned *other,
                     uint64_t *at) {
    uint64_t stop = from > REACH_ADD ? from - REACH_ADD : 0;
    for (uint64_t i = from < 3 ? 0 : from - 2; i-- > stop;) {
        const uint8_t *p = code + i;
        if ((p[2] & 0xC0) != 0xC0)
            continue;
        if (is_wide(p, 0x01) && rm_field(p) == reg)
            *other = reg_field(p);
        else if (is_wide(p, 0x03) && reg_field(p) == reg)
            *other = rm_field(p);
        else
            continue;
        *at = i;
        return true;
    }
    return false;
}

/* MOVSXD of [table + index * 4], where one of a and b is the table's register
 * and the other receives the entry. */
static bool find_load(const uint8_t *code, uint64_t from, unsigned a, unsigned b, unsigned *table,
                      uint64_t *at) {
    uint64_t stop = from > REACH_LOAD ? from - REACH_LOAD : 0;
    for (uint64_t i = from < 5 ? 0 : from - 3; i-- > stop;) {
        const uint8_t *p = code + i;
        /* Scaled by 4; [rbp] and [r13] need a displacement, of zero. */
        if (!is_wide(p, 0x63) || (p[2] & 7) != 4 || p[3] >> 6 != 2)
            continue;
        bool disp8 = p[2] >> 6 == 1;
        if (disp8 ? i + 5 > from || p[4] != 0 : p[2] >> 6 != 0 || (p[3] & 7) == 5)
            continue;
        unsigned base = (p[3] & 7u) | (p[0] & REX_B ? 8u : 0u);
        unsigned entry = reg_field(p);
        if (!(base == a && entry == b) && !(base == b && entry == a))
            continue;
        *table = base;
        *at = i;
        return true;
    }
    return false;
}

/* LEA reg, [rip + disp32] before `from`. */
static bool find_lea(const uint8_t *code, uint64_t from, uint64_t addr, unsigned reg,
                     uint64_t *value) {
    uint64_t stop = from > REACH_TABLE ? from - REACH_TABLE : 0;
    for (uint64_t i = from < 7 ? 0 : from - 6; i-- > stop;) {
        const uint8_t *p = code + i;
        if (!is_wide(p, 0x8D) || (p[2] & 0xC7) != 0x05 || reg_field(p) != reg)
            continue;
        *value = addr + i + 7 + (uint64_t)bspi_sign_extend(bspi_load32(p + 3), 32);
        return true;
    }
    return false;
}

/* JA, short or near. */
static bool is_ja(const uint8_t *p) {
    return p[0] == 0x77 || (p[0] == 0x0F && p[1] == 0x87);
}

/* The bounds check before the load at `from`: CMP with an immediate, JA next. */
static void find_count(const uint8_t *code, uint64_t from, bspi_jump_table *table) {
    uint64_t stop = from > REACH_CHECK ? from - REACH_CHECK : 0;
    for (uint64_t i = from < 8 ? 0 : from - 7; i-- > stop;) {
        const uint8_t *p = code + i;
        bool small = (p[0] == 0x83 || p[0] == 0x80) && (p[1] & 0xF8) == 0xF8;
        uint64_t last, room = from - i;
        if (small && p[2] < 0x80 && is_ja(p + 3))
            last = p[2];
        else if (p[0] == 0x3C && is_ja(p + 2))
            last = p[1];
        else if (p[0] == 0x3D && is_ja(p + 5))
            last = bspi_load32(p + 1);
        else if (p[0] == 0x81 && (p[1] & 0xF8) == 0xF8 && room >= 8 && is_ja(p + 6))
            last = bspi_load32(p + 2);
        else
            continue;
        if (last >= BSPI_JUMP_TABLE_MAX)
            continue;
        table->count = (uint32_t)last + 1;
        table->counted = true;
        return;
    }
}

bool bspi_x86_64_jump_tables(const uint8_t *code, uint64_t len, uint64_t addr,
                             bspi_jump_tables *tables) {
    uint64_t pos = 0;
    while (pos + 1 < len) {
        const uint8_t *hit = memchr(code + pos, 0xFF, (size_t)(len - 1 - pos));
        if (hit == NULL)
            break;
        uint64_t at = (uint64_t)(hit - code), begin, add, load;
        pos = at + 1;
        if ((code[at + 1] & 0xF8) != 0xE0) /* JMP reg */
            continue;
        bspi_jump_table table = {.site = addr + at,
                                 .count = BSPI_JUMP_TABLE_MAX,
                                 .kind = BSPI_REF_BASE32};
        unsigned reg = jump_reg(code, at, &begin), other, table_reg;
        if (!find_add(code, begin, reg, &other, &add) ||
            !find_load(code, add, reg, other, &table_reg, &load) ||
            !find_lea(code, load, addr, table_reg, &table.addr))
            continue;
        table.base = table.addr;
        find_count(code, load, &table);
        if (!BSPI_ENSURE(tables->items, tables->count, tables->capacity, tables->heap))
            return false;
        tables->items[tables->count++] = table;
    }
    return true;
}
