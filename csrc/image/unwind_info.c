/* unwind_info.c: Apple's compact unwind index: which function uses which
 * unwind encoding, in two levels of tables of image offsets. */
#include "../common/bytes.h"
#include "tables.h"

#define HEADER_SIZE 28u
#define INDEX_ENTRY_SIZE 12u /* function, second-level page, first LSDA entry */
#define LSDA_ENTRY_SIZE 8u   /* function, LSDA */
#define PAGE_REGULAR 2u
#define PAGE_COMPRESSED 3u

typedef struct table {
    bspi_file *file;
    bspi_image *image;
    const uint8_t *data;
    uint64_t off; /* of the table in the file */
    uint64_t size;
    uint64_t budget; /* references it may still name */
    uint32_t image_base;
} table;

static bool add(table *t, uint64_t at, uint8_t kind, uint32_t aux) {
    if (t->budget == 0)
        return true;
    t->budget--;
    return bspi_image_add_ref(t->file, t->image, t->off + at, kind, aux);
}

/* Names the first word of `count` entries of `entry` bytes, as far as they lie
 * within the table. */
static bool add_column(table *t, uint64_t at, uint64_t count, uint64_t entry, uint8_t kind,
                       uint32_t aux) {
    if (at > t->size)
        return true;
    count = BSPI_MIN(BSPI_MIN(count, (t->size - at) / entry), t->budget);
    for (uint64_t i = 0; i < count; i++)
        if (!add(t, at + i * entry, kind, aux))
            return false;
    return true;
}

/* One second-level page; `first` is the offset of its first function. */
static bool read_page(table *t, uint64_t page, uint32_t first) {
    if (!bspi_within(page, 8, t->size))
        return true;
    uint32_t kind = bspi_load32(t->data + page);
    uint64_t entries = page + bspi_load16(t->data + page + 4);
    uint64_t count = bspi_load16(t->data + page + 6);
    if (kind == PAGE_REGULAR)
        return add_column(t, entries, count, 8, BSPI_REF_BASE32, t->image_base);
    if (kind != PAGE_COMPRESSED || count == 0)
        return true;
    uint32_t base;
    if (!bspi_image_add_base(t->file, t->image, t->image->base_addr + first, &base))
        return false;
    return add_column(t, entries, count, 4, BSPI_REF_BASE24, base);
}

bool bspi_unwind_info_refs(bspi_file *file, bspi_image *image, const bspi_section *section) {
    table t = {.file = file,
               .image = image,
               .data = file->data + section->file_off,
               .off = section->file_off,
               .size = section->file_size,
               .budget = section->file_size / 4};
    if (t.size < HEADER_SIZE || bspi_load32(t.data) != 1 /* version */)
        return true;
    uint64_t personalities = bspi_load32(t.data + 12), index = bspi_load32(t.data + 20);
    uint64_t personality_count = bspi_load32(t.data + 16), count = bspi_load32(t.data + 24);
    if (!bspi_image_add_base(file, image, image->base_addr, &t.image_base))
        return false;
    if (index > t.size)
        return true;
    count = BSPI_MIN(count, (t.size - index) / INDEX_ENTRY_SIZE);
    if (!add_column(&t, personalities, personality_count, 4, BSPI_REF_BASE32, t.image_base) ||
        !add_column(&t, index, count, INDEX_ENTRY_SIZE, BSPI_REF_BASE32, t.image_base))
        return false;
    if (count == 0)
        return true;
    /* The LSDA entries of all pages lie in one array; the last index entry
     * marks its end. */
    const uint8_t *entries = t.data + index;
    uint64_t lsdas = bspi_load32(entries + 8);
    uint64_t lsdas_end = bspi_load32(entries + (count - 1) * INDEX_ENTRY_SIZE + 8);
    if (lsdas < lsdas_end) {
        uint64_t lsda_count = (lsdas_end - lsdas) / LSDA_ENTRY_SIZE;
        if (!add_column(&t, lsdas, lsda_count * 2, 4, BSPI_REF_BASE32, t.image_base))
            return false;
    }
    for (uint64_t i = 0; i < count && t.budget != 0; i++) {
        const uint8_t *entry = entries + i * INDEX_ENTRY_SIZE;
        uint64_t page = bspi_load32(entry + 4);
        if (page != 0 && !read_page(&t, page, bspi_load32(entry)))
            return false;
    }
    return true;
}
