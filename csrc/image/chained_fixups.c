/* chained_fixups.c: walks the chains of LC_DYLD_CHAINED_FIXUPS, which string
 * every pointer that dyld slides or binds together, page by page. */
#include "../common/bytes.h"
#include "macho.h"

/* dyld's numbers of the pointer formats that user space has had. */
enum {
    PTR_ARM64E = 1,
    PTR_64 = 2,
    PTR_64_OFFSET = 6,
    PTR_ARM64E_KERNEL = 7,
    PTR_ARM64E_USERLAND = 9,
    PTR_ARM64E_FIRMWARE = 10,
    PTR_ARM64E_USERLAND24 = 12
};

#define PAGE_START_NONE 0xFFFFu
#define PAGE_START_MULTI 0x8000u /* of 32-bit formats alone */
#define STARTS_HEADER 22u        /* dyld_chained_starts_in_segment before page_start[] */
#define POINTER_SIZE 8u
#define IMPORT 1u /* DYLD_CHAINED_IMPORT: the one form of imports without addends */
#define IMPORT_SIZE 4u
#define SYMBOLS_PLAIN 0u

/* How one pointer format lays out its links and rebases. */
typedef struct pointer_format {
    unsigned stride;   /* bytes a step of `next` */
    unsigned next_bit; /* lowest bit of `next` */
    unsigned next_bits;
    unsigned bind_bit;
    uint8_t rebase; /* reference kinds */
    uint8_t auth_rebase;
    uint8_t bind;
} pointer_format;

/* What the walk of every chain is told: bases to count from. */
typedef struct bases {
    uint32_t image;
    uint32_t imports;
    uint64_t import_count; /* a bind past the last names nothing */
} bases;

static bool find_format(uint32_t number, pointer_format *format) {
    switch (number) {
    case PTR_64:
        *format = (pointer_format){4, 51, 12, 63, BSPI_REF_CHAIN64, BSPI_REF_NONE,
                                   BSPI_REF_CHAIN_BIND24};
        return true;
    case PTR_64_OFFSET:
        *format = (pointer_format){4, 51, 12, 63, BSPI_REF_CHAIN64_OFFSET, BSPI_REF_NONE,
                                   BSPI_REF_CHAIN_BIND24};
        return true;
    case PTR_ARM64E:
    case PTR_ARM64E_FIRMWARE:
        *format = (pointer_format){number == PTR_ARM64E ? 8 : 4, 51, 11, 62,
                                   BSPI_REF_CHAIN_ARM64E, BSPI_REF_CHAIN_ARM64E_AUTH,
                                   BSPI_REF_CHAIN_BIND16};
        return true;
    case PTR_ARM64E_KERNEL:
    case PTR_ARM64E_USERLAND:
    case PTR_ARM64E_USERLAND24:
        *format = (pointer_format){number == PTR_ARM64E_KERNEL ? 4 : 8, 51, 11, 62,
                                   BSPI_REF_CHAIN_ARM64E_OFFSET, BSPI_REF_CHAIN_ARM64E_AUTH,
                                   number == PTR_ARM64E_USERLAND24 ? BSPI_REF_CHAIN_BIND24
                                                                   : BSPI_REF_CHAIN_BIND16};
        return true;
    default:
        return false;
    }
}

static uint8_t kind_of(const pointer_format *format, uint64_t pointer, uint64_t import_count) {
    if (pointer >> format->bind_bit & 1) {
        uint64_t ordinal = pointer & (format->bind == BSPI_REF_CHAIN_BIND24 ? 0xFFFFFF : 0xFFFF);
        return ordinal < import_count ? format->bind : BSPI_REF_CHAIN_BIND;
    }
    return format->auth_rebase != BSPI_REF_NONE && pointer >> 63 ? format->auth_rebase
                                                                 : format->rebase;
}

static uint32_t base_of(uint8_t kind, const bases *from) {
    switch (kind) {
    case BSPI_REF_CHAIN64_OFFSET:
    case BSPI_REF_CHAIN_ARM64E_AUTH:
    case BSPI_REF_CHAIN_ARM64E_OFFSET:
        return from->image;
    case BSPI_REF_CHAIN_BIND24:
    case BSPI_REF_CHAIN_BIND16:
        return from->imports;
    default:
        return 0;
    }
}

/* Walks the chain that starts at `pos` in [0, end) of `page`.  Every link leads
 * forward, so the walk ends within the page. */
static bool walk_page(const bspi_macho *macho, const pointer_format *format, uint64_t page,
                      uint64_t pos, uint64_t end, const bases *from) {
    while (bspi_within(pos, POINTER_SIZE, end)) {
        uint64_t pointer = bspi_load64(macho->file->data + page + pos);
        uint8_t kind = kind_of(format, pointer, from->import_count);
        uint32_t base = base_of(kind, from);
        if (!bspi_image_add_ref(macho->file, macho->image, page + pos, kind, base))
            return false;
        uint64_t next = pointer >> format->next_bit & ((1u << format->next_bits) - 1);
        if (next == 0)
            break;
        pos += next * format->stride;
    }
    return true;
}

/* `starts` and `left`: a dyld_chained_starts_in_segment and the bytes of the
 * table from it on. */
static bool walk_segment(const bspi_macho *macho, const bspi_segment *segment,
                         const uint8_t *starts, uint64_t left, const bases *from) {
    if (left < STARTS_HEADER)
        return true;
    uint64_t page_size = bspi_load16(starts + 4);
    uint64_t segment_off = bspi_load64(starts + 8);
    uint64_t count = BSPI_MIN(bspi_load16(starts + 20), (left - STARTS_HEADER) / 2);
    pointer_format format;
    /* Pages must tile the segment, or some bytes would be walked many times. */
    if ((page_size != 0x1000 && page_size != 0x4000) ||
        !find_format(bspi_load16(starts + 6), &format) ||
        segment_off != segment->addr - macho->image->base_addr)
        return true;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t first = bspi_load16(starts + STARTS_HEADER + i * 2);
        uint64_t at = i * page_size;
        if (at >= segment->file_size)
            break;
        /* The multi bit cannot be set in a start within a page. */
        if (first == PAGE_START_NONE || (first & PAGE_START_MULTI) != 0)
            continue;
        uint64_t end = BSPI_MIN(page_size, segment->file_size - at);
        if (!walk_page(macho, &format, segment->file_off + at, first, end, from))
            return false;
    }
    return true;
}

/* Names the strings of the imports; binds are rows of their table. */
static bool read_imports(const bspi_macho *macho, uint64_t off, uint64_t size, bases *from) {
    const uint8_t *table = macho->file->data + off;
    uint64_t imports = bspi_load32(table + 8), symbols = bspi_load32(table + 12);
    uint64_t count = bspi_load32(table + 16);
    uint32_t strings;
    bool found, has_rows;
    if (bspi_load32(table + 20) != IMPORT || bspi_load32(table + 24) != SYMBOLS_PLAIN ||
        imports > size || symbols > size)
        return true;
    if (!bspi_macho_add_base_at(macho, off + imports, &from->imports, &has_rows) ||
        !bspi_macho_add_base_at(macho, off + symbols, &strings, &found))
        return false;
    count = BSPI_MIN(count, (size - imports) / IMPORT_SIZE);
    from->import_count = has_rows ? count : 0;
    for (uint64_t i = 0; found && i < count; i++)
        if (!bspi_image_add_ref(macho->file, macho->image, off + imports + i * IMPORT_SIZE,
                                BSPI_REF_IMPORT23, strings))
            return false;
    return true;
}

bool bspi_chained_fixups_refs(const bspi_macho *macho, uint64_t off, uint64_t size) {
    const uint8_t *table = macho->file->data + off;
    if (size < 28 || bspi_load32(table) != 0) /* fixups_version */
        return true;
    uint64_t starts = bspi_load32(table + 4);
    if (!bspi_within(starts, 4, size))
        return true;
    uint64_t count = bspi_load32(table + starts);
    count = BSPI_MIN(count, (size - starts - 4) / 4);
    count = BSPI_MIN(count, macho->segment_count);
    bases from = {0};
    if (!bspi_image_add_base(macho->file, macho->image, macho->image->base_addr, &from.image) ||
        !read_imports(macho, off, size, &from))
        return false;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = bspi_load32(table + starts + 4 + i * 4);
        const bspi_segment *segment = &macho->segments[i];
        if (at == 0 || at > size - starts || !segment->sound || segment->file_size == 0)
            continue;
        if (!walk_segment(macho, segment, table + starts + at, size - starts - at, &from))
            return false;
    }
    return true;
}
