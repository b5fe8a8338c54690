/* Finds the addresses in call frame records (.eh_frame) and in their index
 * (.eh_frame_hdr). */
#include "../common/bytes.h"
#include "dwarf_pointer.h"
#include "tables.h"

#define MAX_COMMON_LEN 256u
#define MAX_LSDA_SHARE 16u

/* What a frame record (FDE) takes from its common record (CIE). */
typedef struct common_record {
    uint64_t pos; /* in the section; records repeat their CIE, so the last is kept */
    uint8_t code_encoding;
    uint8_t lsda_encoding;
    bool augmented; /* the record has augmentation data */
    bool known;     /* its augmentation is understood */
} common_record;

/* The one section that the records' exception tables lie in. */
typedef struct lsda_starts {
    const bspi_section *section; /* NULL as long as none is known */
    uint8_t *bits;               /* one a byte of the section */
} lsda_starts;

typedef struct walk {
    bspi_file *file;
    bspi_image *image;
    const bspi_section *section;
    common_record common;
    lsda_starts lsda;
} walk;

/* A record: its bytes behind the length, and where the CIE pointer stands. */
typedef struct record {
    uint64_t start;   /* of the length field */
    uint64_t pointer; /* of the CIE pointer */
    uint64_t end;
} record;

/* Reads a record's extent at `pos`; false at a terminator or when unsound. */
static bool read_record(const walk *w, uint64_t pos, record *found) {
    uint64_t size = w->section->file_size;
    const uint8_t *data = w->file->data + w->section->file_off;
    if (!bspi_within(pos, 8, size))
        return false;
    uint64_t len = bspi_load32(data + pos), head = 4;
    if (len == 0xffffffff) { /* 64-bit records, which nobody writes: passed over */
        if (!bspi_within(pos, 12, size))
            return false;
        len = bspi_load64(data + pos + 4);
        head = 12;
    }
    if (len < 4 || !bspi_within(pos + head, len, size))
        return false;
    *found = (record){pos, pos + head, pos + head + len};
    return true;
}

/* Parses the CIE; adds its personality pointer when `add`.  Looks at a bounded
 * number of bytes, because hostile records may ask for the same two CIEs by
 * turns. */
static bool read_common(walk *w, const record *r, bool add) {
    const uint8_t *data = w->file->data + w->section->file_off;
    common_record common = {.pos = r->start, .lsda_encoding = BSPI_DW_OMIT};
    bspi_cursor cursor;
    bspi_cursor_init(&cursor, data, (size_t)BSPI_MIN(r->end, r->start + MAX_COMMON_LEN));
    cursor.pos = (size_t)r->pointer + 4;
    w->common = common;
    uint8_t version = bspi_cursor_u8(&cursor);
    const uint8_t *augmentation = data + cursor.pos;
    while (bspi_cursor_u8(&cursor) != 0)
        ;
    (void)bspi_dwarf_uleb(&cursor); /* code alignment */
    (void)bspi_dwarf_sleb(&cursor); /* data alignment */
    if (version == 1)
        (void)bspi_cursor_u8(&cursor); /* return address register */
    else
        (void)bspi_dwarf_uleb(&cursor);
    if (cursor.failed || (version != 1 && version != 3))
        return true;
    if (*augmentation == 'z') {
        common.augmented = true;
        (void)bspi_dwarf_uleb(&cursor); /* length of what follows */
        augmentation++;
    }
    for (; *augmentation != 0 && !cursor.failed; augmentation++) {
        if (*augmentation == 'R') {
            common.code_encoding = bspi_cursor_u8(&cursor);
        } else if (*augmentation == 'L') {
            common.lsda_encoding = bspi_cursor_u8(&cursor);
        } else if (*augmentation == 'P') {
            uint8_t encoding = bspi_cursor_u8(&cursor);
            uint64_t pos = cursor.pos;
            bspi_dwarf_skip(&cursor, encoding);
            if (add && !cursor.failed &&
                !bspi_dwarf_ref(w->file, w->image, w->section, pos, encoding))
                return false;
        } else if (*augmentation != 'S' && *augmentation != 'B' && *augmentation != 'G') {
            return true; /* unknown: the records that use it are left alone */
        }
    }
    common.known = !cursor.failed;
    w->common = common;
    return true;
}

/* Makes the CIE at `pos` the common one. */
static bool find_common(walk *w, uint64_t pos) {
    record r;
    const uint8_t *data = w->file->data + w->section->file_off;
    if (w->common.pos == pos)
        return true;
    if (read_record(w, pos, &r) && bspi_load32(data + r.pointer) == 0)
        return read_common(w, &r, false);
    w->common = (common_record){.pos = pos};
    return true;
}

/* Remembers that an exception table starts at `addr`.  The section it is in
 * costs time by its size, so it may not be out of all proportion to the
 * records: hostile headers can name many tiny sections of records. */
static bool note_lsda(walk *w, uint64_t addr) {
    lsda_starts *lsda = &w->lsda;
    if (!lsda->section) {
        const bspi_section *section = bspi_section_with_addr(w->image, addr);
        if (!section || section->role != BSPI_ROLE_OTHER || section->file_size == 0 ||
            section->file_size / MAX_LSDA_SHARE > w->section->file_size)
            return true;
        lsda->bits = bspi_alloc(w->file->heap, (size_t)(section->file_size / 8 + 1), 1, true);
        if (!lsda->bits)
            return false;
        lsda->section = section;
    }
    uint64_t pos = addr - lsda->section->addr;
    if (addr >= lsda->section->addr && pos < lsda->section->file_size)
        lsda->bits[pos / 8] |= (uint8_t)(1 << pos % 8);
    return true;
}

static bool read_frame(walk *w, const record *r) {
    const uint8_t *data = w->file->data + w->section->file_off;
    uint64_t back = bspi_load32(data + r->pointer);
    if (back > r->pointer)
        return true;
    if (!find_common(w, r->pointer - back) ||
        !bspi_image_add_ref(w->file, w->image, w->section->file_off + r->pointer, BSPI_REF_BACK32,
                            0))
        return false;
    const common_record *common = &w->common;
    unsigned width = bspi_dwarf_width(common->code_encoding);
    uint64_t pos = r->pointer + 4;
    if (!common->known || width == 0 || !bspi_within(pos, 2 * width, r->end))
        return true;
    if (!bspi_dwarf_ref(w->file, w->image, w->section, pos, common->code_encoding))
        return false;
    if (!common->augmented || common->lsda_encoding == BSPI_DW_OMIT)
        return true;
    bspi_cursor cursor;
    bspi_cursor_init(&cursor, data, (size_t)r->end);
    cursor.pos = (size_t)pos + 2 * width;
    uint64_t len = bspi_dwarf_uleb(&cursor), lsda;
    if (cursor.failed || len > bspi_cursor_left(&cursor) ||
        len < bspi_dwarf_width(common->lsda_encoding) ||
        !bspi_dwarf_target(w->file, w->section, cursor.pos, common->lsda_encoding, &lsda))
        return true;
    return bspi_dwarf_ref(w->file, w->image, w->section, cursor.pos, common->lsda_encoding) &&
           note_lsda(w, lsda);
}

bool bspi_eh_frame_refs(bspi_file *file, bspi_image *image, const bspi_section *section) {
    walk w = {.file = file, .image = image, .section = section, .common = {.pos = UINT64_MAX}};
    const uint8_t *data = file->data + section->file_off;
    bool ok = true;
    record r = {0, 0, 0};
    while (ok && read_record(&w, r.end, &r)) {
        if (r.pointer - r.start != 4)
            continue; /* a 64-bit record */
        ok = bspi_load32(data + r.pointer) == 0 ? read_common(&w, &r, true) : read_frame(&w, &r);
    }
    if (ok && w.lsda.section)
        ok = bspi_lsda_refs(file, image, w.lsda.section, w.lsda.bits);
    bspi_free(file->heap, w.lsda.bits);
    return ok;
}

/* version, encodings of the three things that follow: address of .eh_frame,
 * count of entries, entries of (code address, record address). Only the form
 * that all linkers write is understood. */
bool bspi_eh_frame_header_refs(bspi_file *file, bspi_image *image, const bspi_section *section) {
    const uint8_t *data = file->data + section->file_off;
    const uint8_t sdata4_pcrel = BSPI_DW_PCREL | BSPI_DW_SDATA4;
    const uint8_t sdata4_datarel = BSPI_DW_DATAREL | BSPI_DW_SDATA4;
    if (section->file_size < 12 || data[0] != 1 || data[1] != sdata4_pcrel)
        return true;
    if (!bspi_dwarf_ref(file, image, section, 4, sdata4_pcrel))
        return false;
    if (data[2] != BSPI_DW_UDATA4 || data[3] != sdata4_datarel)
        return true;
    uint64_t count = BSPI_MIN(bspi_load32(data + 8), (section->file_size - 12) / 8);
    uint32_t base;
    if (!bspi_image_add_base(file, image, section->addr, &base))
        return false;
    for (uint64_t i = 0; i < 2 * count; i++)
        if (!bspi_image_add_ref(file, image, section->file_off + 12 + i * 4, BSPI_REF_BASE32,
                                base))
            return false;
    return true;
}
