/* ref.c: reads, writes and labels the address in a field of each reference
 * kind, and keeps the list that finders append to. */
#include "ref.h"

#include "../common/bytes.h"
#include "../common/memory.h"
#include "arm64_access.h"

#define PAGE_MASK UINT64_C(0xfff)
#define SYMBOL_LEN UINT64_C(24) /* a row that BSPI_REF_INDEX24 counts */

/* What a field's number counts from. */
enum { FROM_ZERO, FROM_SITE, FROM_BASE };

/* Where a kind keeps its number.  The field is one little-endian integer of
 * `size` bytes; number = bits [shift, shift + width), sign extended when
 * `is_signed`, times 1 << scale.  (field & mask) == match tells the field from
 * others of the same size. */
typedef struct layout {
    uint64_t mask;
    uint64_t match;
    uint8_t size;
    uint8_t shift;
    uint8_t width; /* 0 for a kind without an address */
    uint8_t scale;
    uint8_t is_signed;
    uint8_t origin;
} layout;

#define BIND_BIT (UINT64_C(1) << 62)
#define AUTH_BIT (UINT64_C(1) << 63)

/* ADR and ADRP split their number in two and B19, LIT19 and LDST12 have more
 * to check: see get_number, opcode_ok and scale_of. */
static const layout layouts[] = {
    [BSPI_REF_A64_B26] = {0x7C000000, 0x14000000, 4, 0, 26, 2, 1, FROM_SITE},
    [BSPI_REF_A64_B19] = {0, 0, 4, 5, 19, 2, 1, FROM_SITE},
    [BSPI_REF_A64_B14] = {0x7E000000, 0x36000000, 4, 5, 14, 2, 1, FROM_SITE},
    [BSPI_REF_A64_LIT19] = {0x3B000000, 0x18000000, 4, 5, 19, 2, 1, FROM_SITE},
    [BSPI_REF_A64_ADR] = {0x9F000000, 0x10000000, 4, 0, 21, 0, 1, FROM_SITE},
    [BSPI_REF_A64_ADRP] = {0x9F000000, 0x90000000, 4, 0, 21, 12, 1, FROM_SITE},
    [BSPI_REF_A64_ADD12] = {0xFFC00000, 0x91000000, 4, 10, 12, 0, 0, FROM_BASE},
    [BSPI_REF_A64_LDST12] = {0x3B000000, 0x39000000, 4, 10, 12, 0, 0, FROM_BASE},
    [BSPI_REF_X64_REL32] = {0, 0, 4, 0, 32, 0, 1, FROM_BASE},
    [BSPI_REF_X64_REL8] = {0, 0, 1, 0, 8, 0, 1, FROM_BASE},
    [BSPI_REF_X64_RIP32] = {0, 0, 4, 0, 32, 0, 1, FROM_BASE},
    [BSPI_REF_ABS64] = {0, 0, 8, 0, 64, 0, 0, FROM_ZERO},
    [BSPI_REF_ABS32] = {0, 0, 4, 0, 32, 0, 0, FROM_ZERO},
    [BSPI_REF_PC32] = {0, 0, 4, 0, 32, 0, 1, FROM_SITE},
    [BSPI_REF_BASE32] = {0, 0, 4, 0, 32, 0, 1, FROM_BASE},
    [BSPI_REF_BASE16X4] = {0, 0, 2, 0, 16, 2, 0, FROM_BASE},
    [BSPI_REF_BASE8X4] = {0, 0, 1, 0, 8, 2, 0, FROM_BASE},
    [BSPI_REF_BASE24] = {0, 0, 3, 0, 24, 0, 0, FROM_BASE},
    [BSPI_REF_BACK32] = {0, 0, 4, 0, 32, 0, 1, FROM_SITE}, /* and counts backwards */
    [BSPI_REF_INDEX16] = {0, 0, 4, 0, 32, 4, 0, FROM_BASE},
    [BSPI_REF_INDEX24] = {0, 0, 4, 0, 32, 0, 0, FROM_BASE}, /* in rows */
    [BSPI_REF_FILE32] = {0, 0, 4, 0, 32, 0, 0, FROM_BASE},
    [BSPI_REF_BASE64] = {0, 0, 8, 0, 64, 0, 0, FROM_BASE},
    [BSPI_REF_CHAIN64] = {AUTH_BIT, 0, 8, 0, 36, 0, 0, FROM_ZERO},
    [BSPI_REF_CHAIN64_OFFSET] = {AUTH_BIT, 0, 8, 0, 36, 0, 0, FROM_BASE},
    [BSPI_REF_CHAIN_ARM64E] = {AUTH_BIT | BIND_BIT, 0, 8, 0, 43, 0, 0, FROM_ZERO},
    [BSPI_REF_CHAIN_ARM64E_AUTH] = {AUTH_BIT | BIND_BIT, AUTH_BIT, 8, 0, 32, 0, 0, FROM_BASE},
    [BSPI_REF_CHAIN_BIND] = {0, 0, 8, 0, 0, 0, 0, FROM_ZERO},
    [BSPI_REF_CHAIN_ARM64E_OFFSET] = {AUTH_BIT | BIND_BIT, 0, 8, 0, 43, 0, 0, FROM_BASE},
    [BSPI_REF_CHAIN_BIND24] = {0, 0, 8, 0, 24, 2, 0, FROM_BASE},
    [BSPI_REF_CHAIN_BIND16] = {0, 0, 8, 0, 16, 2, 0, FROM_BASE},
    [BSPI_REF_IMPORT23] = {0, 0, 4, 9, 23, 0, 0, FROM_BASE},
    [BSPI_REF_ULEB1] = {0x80, 0, 1, 0, 7, 0, 0, FROM_BASE}, /* in groups of 7 bits */
    [BSPI_REF_ULEB2] = {0x8080, 0x80, 2, 0, 14, 0, 0, FROM_BASE},
    [BSPI_REF_ULEB3] = {0x808080, 0x8080, 3, 0, 21, 0, 0, FROM_BASE},
    [BSPI_REF_ULEB4] = {0x80808080, 0x808080, 4, 0, 28, 0, 0, FROM_BASE},
};

/* The layout of `kind`, NULL when there is no such kind. */
static const layout *layout_of(uint8_t kind) {
    if (kind >= sizeof layouts / sizeof *layouts || layouts[kind].size == 0)
        return NULL;
    return &layouts[kind];
}

static uint64_t load_field(const uint8_t *bytes, unsigned size) {
    switch (size) {
    case 1:
        return bytes[0];
    case 2:
        return bspi_load16(bytes);
    case 3:
        return (uint64_t)bspi_load16(bytes) | (uint64_t)bytes[2] << 16;
    case 4:
        return bspi_load32(bytes);
    default:
        return bspi_load64(bytes);
    }
}

static void store_field(uint8_t *bytes, unsigned size, uint64_t field) {
    switch (size) {
    case 1:
        bytes[0] = (uint8_t)field;
        break;
    case 2:
        bspi_store16(bytes, (uint16_t)field);
        break;
    case 3:
        bspi_store16(bytes, (uint16_t)field);
        bytes[2] = (uint8_t)(field >> 16);
        break;
    case 4:
        bspi_store32(bytes, (uint32_t)field);
        break;
    default:
        bspi_store64(bytes, field);
        break;
    }
}

static uint64_t low_bits(unsigned width) {
    return width >= 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
}

static bool is_split(uint8_t kind) {
    return kind == BSPI_REF_A64_ADR || kind == BSPI_REF_A64_ADRP;
}

static bool is_uleb(uint8_t kind) {
    return kind >= BSPI_REF_ULEB1 && kind <= BSPI_REF_ULEB4;
}

/* The raw number of a field: immhi:immlo for ADR and ADRP. */
static uint64_t get_number(uint8_t kind, const layout *l, uint64_t field) {
    if (is_split(kind))
        return (field >> 3 & 0x1FFFFC) | (field >> 29 & 3);
    if (is_uleb(kind))
        return (field & 0x7F) | (field >> 1 & 0x3F80) | (field >> 2 & 0x1FC000) |
               (field >> 3 & 0xFE00000);
    return field >> l->shift & low_bits(l->width);
}

static uint64_t put_number(uint8_t kind, const layout *l, uint64_t field, uint64_t number) {
    if (is_split(kind)) {
        uint64_t kept = field & ~UINT64_C(0x60FFFFE0);
        return kept | (number & 3) << 29 | (number & 0x1FFFFC) << 3;
    }
    if (is_uleb(kind))
        return (field & l->mask) | (number & 0x7F) | (number & 0x3F80) << 1 |
               (number & 0x1FC000) << 2 | (number & 0xFE00000) << 3;
    uint64_t mask = low_bits(l->width);
    return (field & ~(mask << l->shift)) | (number & mask) << l->shift;
}

/* Whether `field` is a field of `kind` at all. */
static bool opcode_ok(uint8_t kind, const layout *l, uint64_t field) {
    if ((field & l->mask) != l->match)
        return false;
    switch (kind) {
    case BSPI_REF_A64_B19:
        return (field & 0x7E000000) == 0x34000000 || (field & 0xFF000000) == 0x54000000;
    case BSPI_REF_A64_LIT19:
        return (field & 0xC4000000) != 0xC4000000; /* no such SIMD size */
    case BSPI_REF_A64_LDST12:
        return bspi_arm64_access_scale((uint32_t)field) >= 0;
    case BSPI_REF_CHAIN_BIND:
    case BSPI_REF_CHAIN_BIND24:
    case BSPI_REF_CHAIN_BIND16:
        return (field & (AUTH_BIT | BIND_BIT)) != 0;
    default:
        return true;
    }
}

static unsigned scale_of(uint8_t kind, const layout *l, uint64_t field) {
    if (kind == BSPI_REF_A64_LDST12)
        return (unsigned)bspi_arm64_access_scale((uint32_t)field);
    return l->scale;
}

static uint64_t origin_of(uint8_t kind, const layout *l, uint64_t site, uint64_t base) {
    if (l->origin == FROM_BASE)
        return base;
    if (l->origin == FROM_ZERO)
        return 0;
    return kind == BSPI_REF_A64_ADRP ? site & ~PAGE_MASK : site;
}

unsigned bspi_ref_size(uint8_t kind) {
    const layout *l = layout_of(kind);
    return l == NULL ? 0 : l->size;
}

bool bspi_ref_read(uint8_t kind, const uint8_t *bytes, uint64_t site, uint64_t base,
                   uint64_t *target) {
    const layout *l = layout_of(kind);
    if (l == NULL)
        return false;
    uint64_t field = load_field(bytes, l->size);
    if (!opcode_ok(kind, l, field))
        return false;
    if (l->width == 0) {
        *target = 0;
        return true;
    }
    uint64_t number = get_number(kind, l, field);
    if (l->is_signed)
        number = (uint64_t)bspi_sign_extend(number, l->width);
    number <<= scale_of(kind, l, field);
    if (kind == BSPI_REF_INDEX24)
        number *= SYMBOL_LEN;
    /* Past the page it is no address half: writing could not bring it back. */
    if (kind == BSPI_REF_A64_LDST12 && number > PAGE_MASK)
        return false;
    uint64_t origin = origin_of(kind, l, site, base);
    *target = kind == BSPI_REF_BACK32 ? origin - number : origin + number;
    return true;
}

bool bspi_ref_write(uint8_t kind, uint8_t *bytes, uint64_t site, uint64_t base, uint64_t target) {
    const layout *l = layout_of(kind);
    if (l == NULL)
        return false;
    uint64_t field = load_field(bytes, l->size);
    if (!opcode_ok(kind, l, field))
        return false;
    if (l->width == 0)
        return target == 0;
    uint64_t number;
    if (kind == BSPI_REF_A64_ADD12 || kind == BSPI_REF_A64_LDST12)
        number = target & PAGE_MASK;
    else if (kind == BSPI_REF_A64_ADRP)
        number = (target & ~PAGE_MASK) - origin_of(kind, l, site, base);
    else if (kind == BSPI_REF_BACK32)
        number = origin_of(kind, l, site, base) - target;
    else
        number = target - origin_of(kind, l, site, base);
    if (kind == BSPI_REF_INDEX24) {
        if (number % SYMBOL_LEN != 0)
            return false;
        number /= SYMBOL_LEN;
    }
    unsigned scale = scale_of(kind, l, field);
    if (number & low_bits(scale))
        return false;
    if (l->is_signed) {
        /* The bits above the number must all be copies of its sign. */
        uint64_t wide = (uint64_t)bspi_sign_extend(number, scale + l->width);
        if (wide != number)
            return false;
    } else if ((number >> scale) > low_bits(l->width)) {
        return false;
    }
    store_field(bytes, l->size, put_number(kind, l, field, number >> scale));
    return true;
}

void bspi_ref_label(uint8_t kind, uint8_t *bytes, uint64_t label) {
    const layout *l = layout_of(kind);
    if (l == NULL || l->width == 0)
        return;
    store_field(bytes, l->size, put_number(kind, l, load_field(bytes, l->size), label));
}

bool bspi_ref_reserve(bspi_ref_list *list, size_t extra) {
    while (!list->failed && list->capacity - list->count < extra)
        list->failed = !bspi_ensure(list->heap, (void **)&list->items, &list->capacity,
                                    sizeof *list->items);
    return !list->failed;
}

void bspi_ref_push(bspi_ref_list *list, bspi_ref ref) {
    if (list->failed)
        return;
    if (!BSPI_ENSURE(list->items, list->count, list->capacity, list->heap)) {
        list->failed = true;
        return;
    }
    list->items[list->count++] = ref;
}

void bspi_ref_list_free(bspi_ref_list *list) {
    if (list->heap != NULL)
        bspi_free(list->heap, list->items);
    list->items = NULL;
    list->count = 0;
    list->capacity = 0;
    list->failed = false;
}
