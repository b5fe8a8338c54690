/* unwind_pages.c: reads the first level of the new file's unwind index. */
#include "unwind_pages.h"

#include "../common/bytes.h"

#define HEADER_SIZE 28u
#define INDEX_ENTRY_SIZE 12u /* function, page, LSDA entries */
#define MAX_PAGES 65536u     /* more than any real index has: it bounds memory */

typedef struct finder {
    bspi_unwind_pages *pages;
    bspi_heap *heap;
    bspi_read_new read;
    void *context;
} finder;

static bool push(finder *f, uint64_t begin, uint64_t end, uint64_t base) {
    bspi_unwind_pages *pages = f->pages;
    if (pages->count != 0 && pages->items[pages->count - 1].end > begin)
        return true; /* no order that a search could rely on */
    if (!BSPI_ENSURE(pages->items, pages->count, pages->capacity, f->heap))
        return false;
    pages->items[pages->count++] = (bspi_unwind_page){begin, end, base};
    return true;
}

/* Pages stand in ascending order, each up to the next. */
static bool read_index(finder *f, const bspi_layout_section *section, const uint8_t *index,
                       uint64_t count, uint64_t index_end, uint64_t image_base) {
    uint64_t begin = 0, base = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t page = bspi_load32(index + i * INDEX_ENTRY_SIZE + 4);
        /* A page within the index could not be told from what tells of it. */
        if (page < index_end || page >= section->file_size || page <= begin)
            continue;
        if (begin != 0 &&
            !push(f, section->file_off + begin, section->file_off + page, base))
            return false;
        begin = page;
        base = image_base + bspi_load32(index + i * INDEX_ENTRY_SIZE);
    }
    return begin == 0 || push(f, section->file_off + begin,
                              section->file_off + section->file_size, base);
}

static bool read_section(finder *f, const bspi_layout_section *section, uint64_t image_base) {
    uint8_t header[HEADER_SIZE] = {0};
    if (section->file_size < HEADER_SIZE)
        return true;
    if (!f->read(f->context, section->file_off, header, HEADER_SIZE))
        return false;
    uint64_t index_off = bspi_load32(header + 20), count = bspi_load32(header + 24);
    if (bspi_load32(header) != 1 /* version */ || index_off < HEADER_SIZE ||
        index_off > section->file_size ||
        count > BSPI_MIN((section->file_size - index_off) / INDEX_ENTRY_SIZE, MAX_PAGES))
        return true;
    size_t len = (size_t)count * INDEX_ENTRY_SIZE;
    uint8_t *index = bspi_alloc(f->heap, len + 1, 1, true);
    if (index == NULL)
        return false;
    bool good = f->read(f->context, section->file_off + index_off, index, len) &&
                read_index(f, section, index, count, index_off + len, image_base);
    bspi_free(f->heap, index);
    return good;
}

/* Whether section `index` of the image holds an unwind index. */
static bool holds_index(const bspi_file *old, const bspi_layout_image *image, size_t index,
                        uint64_t new_size) {
    static const char name[] = "__TEXT,__unwind_info";
    const bspi_image *from = &old->images[image->old_image];
    const bspi_layout_section *section = &image->sections[index];
    return from->format == BSPI_FORMAT_MACHO && section->pair != BSPI_NO_PAIR &&
           section->file_size != 0 &&
           from->sections[section->pair].name == bspi_name_hash(name, sizeof name - 1) &&
           bspi_within(section->file_off, section->file_size, new_size);
}

void bspi_unwind_pages_reach(const bspi_file *old, const bspi_layout *layout, uint64_t new_size,
                             uint64_t *begin, uint64_t *end) {
    *begin = UINT64_MAX;
    *end = 0;
    for (size_t i = 0; i < layout->image_count; i++) {
        const bspi_layout_image *image = &layout->images[i];
        for (size_t j = 0; j < image->section_count; j++) {
            if (!holds_index(old, image, j, new_size))
                continue;
            const bspi_layout_section *section = &image->sections[j];
            *begin = BSPI_MIN(*begin, section->file_off);
            *end = BSPI_MAX(*end, section->file_off + section->file_size);
        }
    }
}

bool bspi_unwind_pages_find(bspi_unwind_pages *pages, bspi_heap *heap, const bspi_file *old,
                            const bspi_layout *layout, const bspi_address_map *maps,
                            uint64_t new_size, bspi_read_new read, void *context) {
    finder f = {pages, heap, read, context};
    for (size_t i = 0; i < layout->image_count; i++) {
        const bspi_layout_image *image = &layout->images[i];
        uint64_t base = old->images[image->old_image].base_addr;
        for (size_t j = 0; j < image->section_count; j++)
            if (holds_index(old, image, j, new_size) &&
                !read_section(&f, &image->sections[j], bspi_map_address(&maps[i], base)))
                return false;
    }
    return true;
}

const bspi_unwind_page *bspi_unwind_page_at(const bspi_unwind_page *items, size_t count,
                                            uint64_t off) {
    size_t low = 0, high = count;
    while (low < high) { /* the first that ends behind off */
        size_t middle = low + (high - low) / 2;
        if (items[middle].end <= off)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && items[low].begin <= off ? &items[low] : NULL;
}
